"""
The DLMS client as conversations: generators that yield a request and are sent its answer.

No I/O, no clock, no entropy: the driver carries the bytes, the challenge and the counter come in from outside.  One
service is one generator (`get`, `set`, `action` ...), and what makes services long, namely blocks, general block
transfer and ciphering, is handled one layer below, in `_ask`; yielding b"" means "nothing to say, give me the next".

What an answer may be is decided before it is looked at: under ciphering a plain answer is refused, whatever it says,
and the meter's invocation counter has to rise.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final, TypeVar

from node.lmn.dlms import acse, apdu
from node.lmn.dlms.axdr import Data, Type, decode_data, octets
from node.lmn.dlms.fields import Access, Attribute
from node.lmn.dlms.security import Control, InvocationCounter, Keys, ReplayGuard, check_gmac, gmac, protect, unprotect
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis

T = TypeVar("T")
A = TypeVar("A", bound=apdu.Apdu)
Conversation = Generator[bytes, bytes, T]

ASSOCIATION: Final = Obis(0, 0, 40, 0, 0, 255)
ANSWER_SIZE_MAX: Final = 1 << 20
_CONFIRMED_HIGH: Final = 0xC0
_DLMS_VERSION: Final = 6
_BLOCK_OVERHEAD: Final = 32


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
        answer = acse.AssociationResponse.from_bytes((yield request.to_bytes()))
        if answer.system_title:
            if settings.meter_title not in (b"", answer.system_title):
                raise RemoteProtocolError("dlms_system_title", "another meter answers than the one expected")
            self.meter_title = answer.system_title
        if answer.result != 0:
            raise RemoteProtocolError("dlms_association", f"refused: result {answer.result}, {answer.diagnostic}")
        agreed = apdu.decode_apdu(self._open(answer.user_information))
        if not isinstance(agreed, apdu.InitiateResponse) or agreed.dlms_version != _DLMS_VERSION:
            raise RemoteProtocolError("dlms_association", "no InitiateResponse of DLMS version 6")
        self.conformance = agreed.conformance & settings.conformance
        self._peer_pdu_size_max = agreed.pdu_size_max or 0xFFFF
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
        invoke = self._invoke()
        answer = yield from self._ask(
            apdu.GetRequest(invoke, attribute, access), apdu.GetResponse, apdu.GetResponseBlock
        )
        raw = bytearray()
        expected = 1
        while isinstance(answer, apdu.GetResponseBlock):
            if isinstance(answer.result, int):
                raise _refusal(answer.result)
            _check_block(answer.block_number, expected, len(raw) + len(answer.result))
            raw += answer.result
            expected += 1
            if answer.last:
                return decode_data(bytes(raw))
            answer = yield from self._ask(
                apdu.GetRequestNext(invoke, answer.block_number), apdu.GetResponse, apdu.GetResponseBlock
            )
        assert isinstance(answer, apdu.GetResponse)  # noqa: S101
        if isinstance(answer.result, int):
            raise _refusal(answer.result)
        return answer.result

    def get_list(self, attributes: list[Attribute]) -> Conversation[list[Data | int]]:
        """Read several attributes in one exchange; an int is a data-access-result for that one."""
        items = tuple((attribute, None) for attribute in attributes)
        invoke = self._invoke()
        answer = yield from self._ask(
            apdu.GetRequestList(invoke, items), apdu.GetResponseList, apdu.GetResponseBlock, apdu.GetResponse
        )
        if isinstance(answer, apdu.GetResponse):
            raise _refusal(answer.result if isinstance(answer.result, int) else 250)
        if isinstance(answer, apdu.GetResponseBlock):
            raise RemoteProtocolError("dlms_list_in_blocks", "a list of attributes in blocks; ask for fewer")
        assert isinstance(answer, apdu.GetResponseList)  # noqa: S101
        if len(answer.results) != len(attributes):
            raise RemoteProtocolError("dlms_list", "another number of results than of attributes")
        return list(answer.results)

    def set(self, attribute: Attribute, data: Data, access: Access | None = None) -> Conversation[None]:
        """Write an attribute; in blocks where it does not fit the meter's PDU."""
        invoke = self._invoke()
        whole = apdu.SetRequest(invoke, attribute, access, data)
        size = self._peer_pdu_size_max - _BLOCK_OVERHEAD
        if len(whole.to_bytes()) <= size or not self.conformance & Conformance.BLOCK_SET:
            result = (yield from self._ask(whole, apdu.SetResponse)).result
        else:
            result = yield from self._set_in_blocks(invoke, attribute, access, data.to_bytes(), size)
        if result != apdu.SUCCESS:
            raise _refusal(result)

    def _set_in_blocks(
        self, invoke: int, attribute: Attribute, access: Access | None, raw: bytes, size: int
    ) -> Conversation[int]:
        parts = [raw[start : start + size] for start in range(0, len(raw), size)]
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            request: apdu.Apdu = apdu.SetRequestBlock(invoke, last, number, part)
            if number == 1:
                request = apdu.SetRequestFirstBlock(invoke, attribute, access, last, number, part)
            answer = yield from self._ask(request, apdu.SetResponseBlock, apdu.SetResponseLastBlock, apdu.SetResponse)
            if isinstance(answer, apdu.SetResponseBlock):
                _check_block(answer.block_number, number, 0)
            else:
                assert isinstance(answer, apdu.SetResponseLastBlock | apdu.SetResponse)  # noqa: S101
                if not last and answer.result == apdu.SUCCESS:
                    raise RemoteProtocolError("dlms_block_number", "success before the last block")
                return answer.result
        raise RemoteProtocolError("dlms_block_number", "no result after the last block")

    def action(self, method: Attribute, parameters: Data | None = None) -> Conversation[Data | None]:
        """Call a method; returns what it returns."""
        invoke = self._invoke()
        request = apdu.ActionRequest(invoke, method, parameters)
        answer = yield from self._ask(request, apdu.ActionResponse, apdu.ActionResponseBlock)
        raw = bytearray()
        expected = 1
        while isinstance(answer, apdu.ActionResponseBlock):
            _check_block(answer.block_number, expected, len(raw) + len(answer.raw))
            raw += answer.raw
            expected += 1
            if answer.last:
                return decode_data(bytes(raw))
            answer = yield from self._ask(
                apdu.ActionRequestNext(invoke, answer.block_number), apdu.ActionResponse, apdu.ActionResponseBlock
            )
        assert isinstance(answer, apdu.ActionResponse)  # noqa: S101
        if answer.result != apdu.SUCCESS:
            raise _refusal(answer.result)
        if isinstance(answer.returned, int):
            if answer.returned != apdu.SUCCESS:
                raise _refusal(answer.returned)
            return None
        return answer.returned

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
        own_blocks = 1
        if len(request) <= self._peer_pdu_size_max or not self.conformance & Conformance.GENERAL_BLOCK_TRANSFER:
            answer = yield request
        else:
            size = self._peer_pdu_size_max - _BLOCK_OVERHEAD
            starts = range(0, len(request), size)
            for own_blocks, start in enumerate(starts, 1):
                last = start + size >= len(request)
                block = apdu.GeneralBlock(0x80 * last | 1, own_blocks, 0, request[start : start + size])
                answer = yield block.to_bytes()
                if not last:
                    _acknowledged(answer, own_blocks)
        if answer[:1] == b"\xe0":
            answer = yield from self._receive_blocks(answer, own_blocks)
        return self._open(answer)

    def _receive_blocks(self, answer: bytes, own_blocks: int) -> Conversation[bytes]:
        """General block transfer: put the blocks together, acknowledging whenever the meter stops streaming."""
        whole = bytearray()
        expected = 1
        while True:
            block = apdu.decode_apdu(answer)
            if not isinstance(block, apdu.GeneralBlock):
                raise RemoteProtocolError("dlms_unexpected", "the block transfer ends before its last block")
            _check_block(block.block_number, expected, len(whole) + len(block.content))
            whole += block.content
            expected += 1
            if block.control & 0x80:
                return bytes(whole)
            if block.control & 0x40:
                answer = yield b""
            else:
                own_blocks += 1
                answer = yield apdu.GeneralBlock(0x81, own_blocks, block.block_number, b"").to_bytes()

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


def _check_block(number: int, expected: int, size: int) -> None:
    if number != expected:
        raise RemoteProtocolError("dlms_block_number", "a block is missing or comes twice")
    if size > ANSWER_SIZE_MAX:
        raise RemoteProtocolError("dlms_too_large", f"an answer of more than {ANSWER_SIZE_MAX} bytes")


def _acknowledged(answer: bytes, number: int) -> None:
    block = apdu.decode_apdu(answer)
    if not isinstance(block, apdu.GeneralBlock) or block.acknowledged != number:
        raise RemoteProtocolError("dlms_block_number", "our block was not acknowledged")


def _refusal(result: int) -> RemoteProtocolError:
    name = apdu.DATA_ACCESS_RESULTS.get(result, "unknown")
    return RemoteProtocolError(f"dlms_access_{name.replace('-', '_')}", f"data-access-result {result}")
