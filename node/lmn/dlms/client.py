"""
The DLMS client as conversations: generators that yield a request and are sent its answer.

No I/O, no clock, no entropy: the driver carries the bytes, the challenge and the counter come in from outside.  One
service is one generator (`get`, `set`, `action` ...), and general block transfer and ciphering are handled one layer
below, in `_ask`; yielding b"" means "nothing to say, give me the next".  Silence is thrown in as `dlms_timeout`.

What an answer may be is decided before it is looked at: under ciphering a plain answer is refused, whatever it says,
and the meter's invocation counter has to rise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntFlag
from typing import Final, TypeVar

from node.lmn.dlms import acse, apdu
from node.lmn.dlms.axdr import Data, Type, decode_data, octets
from node.lmn.dlms.block_transfer import Conversation, check_block, receive_blocks, send_block
from node.lmn.dlms.fields import Access, Attribute
from node.lmn.dlms.security import Control, InvocationCounter, Keys, ReplayGuard, check_gmac, gmac, protect, unprotect
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis

T = TypeVar("T")
A = TypeVar("A", bound=apdu.Apdu)

ASSOCIATION: Final = Obis(0, 0, 40, 0, 0, 255)
_CONFIRMED_HIGH: Final = 0xC0
_DLMS_VERSION: Final = 6
_BLOCK_OVERHEAD: Final = 32
_PDU_SIZE_MIN: Final = 2 * _BLOCK_OVERHEAD
_FirstBlock = apdu.SetRequestFirstBlock | apdu.SetRequestListFirstBlock | apdu.ActionRequestFirstBlock


class Conformance(IntFlag):
    """The conformance block; bit 0 is the most significant of 24 (IEC 62056-5-3, 7.3.1)."""

    GENERAL_PROTECTION = 1 << 22
    GENERAL_BLOCK_TRANSFER = 1 << 21
    PRIORITY = 1 << 14
    BLOCK_GET = 1 << 12
    BLOCK_SET = 1 << 11
    BLOCK_ACTION = 1 << 10
    MULTIPLE_REFERENCES = 1 << 9
    GET = 1 << 4
    SET = 1 << 3
    SELECTIVE_ACCESS = 1 << 2
    EVENT_NOTIFICATION = 1 << 1
    ACTION = 1 << 0


DEFAULT_CONFORMANCE: Final = (
    Conformance.GENERAL_BLOCK_TRANSFER | Conformance.PRIORITY | Conformance.BLOCK_GET | Conformance.BLOCK_SET
    | Conformance.BLOCK_ACTION | Conformance.MULTIPLE_REFERENCES | Conformance.GET | Conformance.SET
    | Conformance.SELECTIVE_ACCESS | Conformance.ACTION
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Association:
    """
    How to open an association: mechanism, secret (LLS password or HLS challenge), keys, titles.

    With `keys` the context is ciphered: every APDU is encrypted and authenticated, as a `glo-` service or, with
    `general`, as general-glo-ciphering.  `meter_title` pins the meter's system title.
    """

    mechanism: acse.Mechanism = acse.Mechanism.NONE
    secret: bytes = field(default=b"", repr=False)
    keys: Keys | None = None
    system_title: bytes = b""
    meter_title: bytes = b""
    general: bool = False
    conformance: int = DEFAULT_CONFORMANCE
    pdu_size_max: int = 0xFFFF

    def __post_init__(self) -> None:
        if (self.keys is not None) != (len(self.system_title) == 8):
            raise LocalProtocolError("keys and a system title of 8 bytes go together")
        if self.mechanism is acse.Mechanism.HLS_GMAC and (self.keys is None or not 8 <= len(self.secret) <= 64):
            raise LocalProtocolError("HLS with GMAC needs keys and a challenge of 8..64 bytes")
        if self.mechanism not in (acse.Mechanism.NONE, acse.Mechanism.LLS, acse.Mechanism.HLS_GMAC):
            raise LocalProtocolError(f"mechanism {self.mechanism.name} is not offered")


class DlmsClient:
    """
    One association with one meter.

    Every method is a `Conversation`; all raise RemoteProtocolError for what the meter does wrong (`dlms_access_*`
    where it merely refuses one attribute) and LocalProtocolError without an association.
    """

    def __init__(
        self, association: Association, counter: InvocationCounter | None = None, guard: ReplayGuard | None = None
    ) -> None:
        self._association = association
        self._counter = counter or InvocationCounter()
        self._guard = guard or ReplayGuard()
        self.meter_title = association.meter_title
        self.associated = False
        self.conformance = 0
        self._peer_pdu_size_max = 0xFFFF
        self._invoke_id = 0
        self._ciphered = False

    def associate(self) -> Conversation[None]:
        """Open the association, with the second half of HLS where it is called for."""
        settings = self._association
        self.associated = False
        self._ciphered = settings.keys is not None
        initiate = apdu.InitiateRequest(None, None, None, _DLMS_VERSION, settings.conformance, settings.pdu_size_max)
        request = acse.AssociationRequest(
            acse.Context.LOGICAL_NAME_CIPHERED if self._ciphered else acse.Context.LOGICAL_NAME,
            settings.mechanism,
            settings.system_title,
            settings.secret,
            self._seal(initiate.to_bytes(), general=False),
        )
        answer = acse.AssociationResponse.from_bytes(
            _accepted((yield request.to_bytes()), ciphered=settings.keys is not None)
        )
        if answer.system_title:
            if settings.meter_title not in (b"", answer.system_title):
                raise RemoteProtocolError("dlms_system_title", "another meter answers than the one expected")
            self.meter_title = answer.system_title
        if answer.result != 0:
            raise RemoteProtocolError("dlms_association", answer.refusal)
        agreed = apdu.decode_apdu(self._open(answer.user_information))
        if not isinstance(agreed, apdu.InitiateResponse) or agreed.dlms_version != _DLMS_VERSION:
            raise RemoteProtocolError("dlms_association", "no InitiateResponse of DLMS version 6")
        self.conformance = agreed.conformance & settings.conformance
        self._peer_pdu_size_max = agreed.pdu_size_max or 0xFFFF
        if self._peer_pdu_size_max < _PDU_SIZE_MIN:
            raise RemoteProtocolError("dlms_association", f"the meter takes PDUs of {agreed.pdu_size_max} bytes only")
        if settings.mechanism is acse.Mechanism.HLS_GMAC:
            yield from self._prove(answer)
        self.associated = True

    def _prove(self, answer: acse.AssociationResponse) -> Conversation[None]:
        """
        Passes 3 and 4 of HLS: each proves that it has the keys by a GMAC over the other's challenge.

        The challenge is what makes the proof fresh; its counter is older than that of the APDU around it.
        """
        keys = self._association.keys
        if keys is None or not 8 <= len(answer.authentication) <= 64:
            raise RemoteProtocolError("dlms_association", "no challenge from the meter")
        if answer.authentication == self._association.secret:
            raise RemoteProtocolError("dlms_authentication", "the meter sends our own challenge back")
        own = octets(gmac(answer.authentication, keys, self._association.system_title, self._counter.take()))
        method = Attribute(15, ASSOCIATION, 1)
        response = yield from self._ask(apdu.ActionRequest(self._next_invoke(), method, own), apdu.ActionResponse)
        returned = response.returned
        if response.result != apdu.SUCCESS or not isinstance(returned, Data) or returned.type is not Type.OCTET_STRING:
            raise RemoteProtocolError("dlms_authentication", "the meter does not accept our keys")
        check_gmac(returned.value, self._association.secret, keys, self.meter_title)

    def release(self) -> Conversation[None]:
        """Close the association; under ciphering with a ciphered InitiateRequest, so that nobody else can."""
        self._must_be_associated()
        information = b""
        if self._ciphered:
            settings = self._association
            initiate = apdu.InitiateRequest(
                None, None, None, _DLMS_VERSION, settings.conformance, settings.pdu_size_max
            )
            information = self._seal(initiate.to_bytes(), general=False)
        self.associated = False
        acse.Release.from_bytes((yield acse.Release(acse.RLRQ, 0, information).to_bytes()))

    def get(self, attribute: Attribute, access: Access | None = None) -> Conversation[Data]:
        """Read an attribute, in as many blocks as the meter likes."""
        answer = yield from self._ask(
            apdu.GetRequest(self._invoke(), attribute, access), apdu.GetResponse, apdu.GetResponseBlock
        )
        if isinstance(answer, apdu.GetResponseBlock):
            return decode_data((yield from self._get_blocks(answer)))
        assert isinstance(answer, apdu.GetResponse)  # noqa: S101
        if isinstance(answer.result, int):
            raise _refusal(answer.result)
        return answer.result

    def get_list(self, attributes: list[Attribute]) -> Conversation[list[Data | int]]:
        """Read several attributes at once; an int is a data-access-result for that one."""
        items = tuple((attribute, None) for attribute in attributes)
        request = apdu.GetRequestList(self._invoke(), items)
        answer = yield from self._ask(request, apdu.GetResponseList, apdu.GetResponseBlock, apdu.GetResponse)
        if isinstance(answer, apdu.GetResponse):
            raise _refusal(answer.result if isinstance(answer.result, int) else 250)
        if isinstance(answer, apdu.GetResponseBlock):
            results = apdu.results_from_bytes((yield from self._get_blocks(answer)))
        else:
            assert isinstance(answer, apdu.GetResponseList)  # noqa: S101
            results = answer.results
        return list(_as_many(results, attributes))

    def _get_blocks(self, answer: apdu.GetResponseBlock) -> Conversation[bytes]:
        raw = bytearray()
        expected = 1
        while True:
            if isinstance(answer.result, int):
                raise _refusal(answer.result)
            check_block(answer.block_number, expected, len(raw) + len(answer.result))
            raw += answer.result
            expected += 1
            if answer.last:
                return bytes(raw)
            request = apdu.GetRequestNext(answer.invoke, answer.block_number)
            following = yield from self._ask(request, apdu.GetResponse, apdu.GetResponseBlock)
            if isinstance(following, apdu.GetResponse):
                raise _refusal(following.result if isinstance(following.result, int) else 250)
            assert isinstance(following, apdu.GetResponseBlock)  # noqa: S101
            answer = following

    def set(self, attribute: Attribute, data: Data, access: Access | None = None) -> Conversation[None]:
        """Write an attribute; in blocks where it does not fit the meter's PDU."""
        whole = apdu.SetRequest(self._invoke(), attribute, access, data)
        if self._fits(whole, Conformance.BLOCK_SET):
            result = (yield from self._ask(whole, apdu.SetResponse)).result
        else:
            first = apdu.SetRequestFirstBlock(whole.invoke, attribute, access, False, 1, b"")
            answer = yield from self._send_blocks(first, data.to_bytes(), apdu.SetResponse, apdu.SetResponseLastBlock)
            assert isinstance(answer, apdu.SetResponse | apdu.SetResponseLastBlock)  # noqa: S101
            result = answer.result
        if result != apdu.SUCCESS:
            raise _refusal(result)

    def set_list(self, values: list[tuple[Attribute, Data]]) -> Conversation[list[int]]:
        """Write several attributes at once, in blocks where they do not fit; a data-access-result for each."""
        items = tuple((attribute, None) for attribute, _ in values)
        contents = tuple(data for _, data in values)
        whole = apdu.SetRequestList(self._invoke(), items, contents)
        kinds = (apdu.SetResponse, apdu.SetResponseList, apdu.SetResponseListLastBlock)
        answer: apdu.Apdu
        if self._fits(whole, Conformance.BLOCK_SET):
            answer = yield from self._ask(whole, *kinds)
        else:
            first = apdu.SetRequestListFirstBlock(whole.invoke, items, False, 1, b"")
            answer = yield from self._send_blocks(first, apdu.values_to_bytes(contents), *kinds)
        if isinstance(answer, apdu.SetResponse):
            raise _refusal(answer.result or 250)
        assert isinstance(answer, apdu.SetResponseList | apdu.SetResponseListLastBlock)  # noqa: S101
        return list(_as_many(answer.results, values))

    def action(self, method: Attribute, parameters: Data | None = None) -> Conversation[Data | None]:
        """Call a method, its parameters in blocks where they do not fit; returns what it returns."""
        whole = apdu.ActionRequest(self._invoke(), method, parameters)
        kinds = (apdu.ActionResponse, apdu.ActionResponseBlock)
        answer: apdu.Apdu
        if parameters is None or self._fits(whole, Conformance.BLOCK_ACTION):
            answer = yield from self._ask(whole, *kinds)
        else:
            first = apdu.ActionRequestFirstBlock(whole.invoke, method, False, 1, b"")
            answer = yield from self._send_blocks(first, parameters.to_bytes(), *kinds)
        raw = bytearray()
        expected = 1
        while isinstance(answer, apdu.ActionResponseBlock):
            check_block(answer.block_number, expected, len(raw) + len(answer.raw))
            raw += answer.raw
            expected += 1
            if answer.last:
                return decode_data(bytes(raw))
            answer = yield from self._ask(apdu.ActionRequestNext(whole.invoke, answer.block_number), *kinds)
        assert isinstance(answer, apdu.ActionResponse)  # noqa: S101
        if answer.result != apdu.SUCCESS:
            raise _refusal(answer.result)
        if isinstance(answer.returned, int):
            if answer.returned != apdu.SUCCESS:
                raise _refusal(answer.returned)
            return None
        return answer.returned

    def _fits(self, whole: apdu.Apdu, blocks: Conformance) -> bool:
        """Whether a request goes in one piece: it is short, or the meter takes no blocks of this service."""
        return len(whole.to_bytes()) <= self._peer_pdu_size_max - _BLOCK_OVERHEAD or not self.conformance & blocks

    def _send_blocks(self, first: _FirstBlock, raw: bytes, *results: type[apdu.Apdu]) -> Conversation[apdu.Apdu]:
        """A long set or action: block after block, each acknowledged; gives the result of the whole."""
        size = self._peer_pdu_size_max - _BLOCK_OVERHEAD
        is_action = isinstance(first, apdu.ActionRequestFirstBlock)
        further = apdu.ActionRequestBlock if is_action else apdu.SetRequestBlock
        acknowledgement = apdu.ActionResponseNextBlock if is_action else apdu.SetResponseBlock
        room = max(size - len(first.to_bytes()), 1)
        starts = [0, *range(room, len(raw), size)]
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(raw)], strict=True), 1):
            last = number == len(starts)
            request: apdu.Apdu = further(first.invoke, last, number, raw[start:end])
            if number == 1:
                request = replace(first, last=last, raw=raw[start:end])
            answer = yield from self._ask(request, acknowledgement, *results)
            if isinstance(answer, apdu.ActionResponseNextBlock | apdu.SetResponseBlock):
                check_block(answer.block_number, number, 0)
            elif not last and getattr(answer, "result", apdu.SUCCESS) == apdu.SUCCESS:
                raise RemoteProtocolError("dlms_block_number", "success before the last block")
            else:
                return answer
        raise RemoteProtocolError("dlms_block_number", "no result after the last block")

    def _ask(self, request: apdu.Apdu, *expected: type[A]) -> Conversation[A]:
        answer = apdu.decode_apdu((yield from self._exchange(request.to_bytes())))
        if isinstance(answer, expected):
            if getattr(answer, "invoke", 0) & 0x0F != getattr(request, "invoke", 0) & 0x0F:
                raise RemoteProtocolError("dlms_invoke_id", "the answer to another request")
            return answer
        if isinstance(answer, apdu.ExceptionResponse):
            raise RemoteProtocolError("dlms_exception", f"state {answer.state_error}, service {answer.service_error}")
        raise RemoteProtocolError("dlms_unexpected", f"{type(answer).__name__} in answer to {type(request).__name__}")

    def _exchange(self, plain: bytes) -> Conversation[bytes]:
        request = self._seal(plain, general=self._association.general)
        own_blocks = 0
        if len(request) <= self._peer_pdu_size_max or not self.conformance & Conformance.GENERAL_BLOCK_TRANSFER:
            answer = yield request
        else:
            size = self._peer_pdu_size_max - _BLOCK_OVERHEAD
            starts = range(0, len(request), size)
            for own_blocks, start in enumerate(starts, 1):
                last = start + size >= len(request)
                answer = yield from send_block(own_blocks, request[start : start + size], last=last)
        if answer[:1] == b"\xe0":
            answer = yield from receive_blocks(answer, own_blocks)
        return self._open(answer)

    def _seal(self, plain: bytes, *, general: bool) -> bytes:
        keys = self._association.keys
        if keys is None or not self._ciphered:
            return plain
        text = protect(plain, keys, self._association.system_title, self._counter.take())
        if general:
            return apdu.GeneralGlobalCiphering(self._association.system_title, text).to_bytes()
        return apdu.Ciphered(apdu.GLOBAL_TAGS[plain[0]], text).to_bytes()

    def _open(self, answer: bytes) -> bytes:
        keys = self._association.keys
        if keys is None or not self._ciphered:
            return answer
        outer = apdu.decode_apdu(answer)
        title = self.meter_title
        if isinstance(outer, apdu.GeneralGlobalCiphering):
            if outer.system_title not in (b"", title):
                raise RemoteProtocolError("dlms_system_title", "another meter answers than the one expected")
            tag, protected = None, outer.protected
        elif isinstance(outer, apdu.Ciphered):
            tag, protected = outer.tag, outer.protected
        elif isinstance(outer, apdu.ExceptionResponse):
            raise RemoteProtocolError("dlms_exception", f"state {outer.state_error}, service {outer.service_error}")
        elif isinstance(outer, apdu.ConfirmedServiceError):
            raise RemoteProtocolError("dlms_service_error", f"service {outer.service}, error {outer.error}")
        else:
            raise RemoteProtocolError("dlms_unprotected", "a plain answer in a ciphered association")
        plain, counter, control = unprotect(protected, keys, title)
        if control & (Control.ENCRYPTED | Control.AUTHENTICATED) != Control.ENCRYPTED | Control.AUTHENTICATED:
            raise RemoteProtocolError("dlms_unprotected", "an answer with less protection than the request")
        if tag is not None and apdu.GLOBAL_TAGS.get(plain[0] if plain else 0) != tag:
            raise RemoteProtocolError("dlms_unexpected", "the ciphered service is not the one its tag names")
        self._guard.check(title, counter)
        self._guard.accept(title, counter)
        return plain

    def _invoke(self) -> int:
        self._must_be_associated()
        return self._next_invoke()

    def _next_invoke(self) -> int:
        self._invoke_id = self._invoke_id % 15 + 1
        return _CONFIRMED_HIGH | self._invoke_id

    def _must_be_associated(self) -> None:
        if not self.associated:
            raise LocalProtocolError("no association is open")


def _as_many(results: Sequence[T], asked: Sequence[object]) -> Sequence[T]:
    if len(results) != len(asked):
        raise RemoteProtocolError("dlms_list", "another number of results than of attributes")
    return results


def _refusal(result: int) -> RemoteProtocolError:
    name = apdu.DATA_ACCESS_RESULTS.get(result, "unknown")
    return RemoteProtocolError(f"dlms_access_{name.replace('-', '_')}", f"data-access-result {result}")


def _accepted(answer: bytes, *, ciphered: bool) -> bytes:
    """What answers AARQ, unless the meter says that it cannot read it."""
    if answer[:1] in (b"\xd8", b"\x0e"):
        why = "; its keys may be others, or it has seen a higher invocation counter" if ciphered else ""
        raise RemoteProtocolError(
            "dlms_association", f"refused: the meter cannot take the request ({answer[:8].hex()}){why}"
        )
    return answer
