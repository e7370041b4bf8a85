"""
The application layer's messages (xDLMS APDUs, IEC 62056-5-3 clause 10), as data.

Each message is a dataclass whose fields carry their own codec, in the order in which they are sent; so there is one
place per message, encoder and decoder cannot drift apart, and the tests' round trips mean something.  Results are
either the data or the number of a data-access-result, never both: `Data | int`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, TypeVar, get_type_hints

from node.lmn.dlms.axdr import Data, Reader, encode_length
from node.lmn.dlms.clock import CosemDateTime
from node.lmn.dlms.fields import (
    ACCESS,
    ATTRIBUTE,
    BOOLEAN,
    BYTE,
    CONFORMANCE,
    DATA,
    DATE_TIME,
    OCTETS,
    REST,
    WORD,
    Access,
    Attribute,
    Codec,
    either,
    list_of,
    optional,
    pair,
    unsigned,
)
from protocol.errors import RemoteProtocolError

SUCCESS: Final = 0
DATA_ACCESS_RESULTS: Final = {
    0: "success", 1: "hardware-fault", 2: "temporary-failure", 3: "read-write-denied", 4: "object-undefined",
    9: "object-class-inconsistent", 11: "object-unavailable", 12: "type-unmatched", 13: "scope-of-access-violated",
    14: "data-block-unavailable", 15: "long-get-aborted", 16: "no-long-get-in-progress", 17: "long-set-aborted",
    18: "no-long-set-in-progress", 19: "data-block-number-invalid", 250: "other-reason",
}  # fmt: skip


class Apdu:
    """A message; `to_bytes` encodes it, `decode_apdu` is its inverse."""

    __slots__ = ()
    PREFIX: ClassVar[bytes] = b""
    CODECS: ClassVar[tuple[tuple[str, Codec], ...]] = ()

    def to_bytes(self) -> bytes:
        """Raises LocalProtocolError for data whose type cannot hold it."""
        return self.PREFIX + b"".join(codec.write(getattr(self, name)) for name, codec in self.CODECS)


_MESSAGES: dict[bytes, type[Apdu]] = {}
_A = TypeVar("_A", bound=type[Apdu])


def _message(*prefix: int) -> Callable[[_A], _A]:
    def register(cls: _A) -> _A:
        hints = get_type_hints(cls, include_extras=True)
        names = cls.__dataclass_fields__  # type: ignore[attr-defined]
        cls.PREFIX = bytes(prefix)
        cls.CODECS = tuple((name, hints[name].__metadata__[0]) for name in names)
        _MESSAGES[cls.PREFIX] = cls
        return cls

    return register


@_message(0x01)
@dataclass(frozen=True, slots=True)
class InitiateRequest(Apdu):
    """Proposal of an application association; `conformance` is 24 bits, bit 0 the most significant."""

    dedicated_key: Annotated[bytes | None, optional(OCTETS)]
    response_allowed: Annotated[bool | None, optional(BOOLEAN)]
    quality_of_service: Annotated[int | None, optional(BYTE)]
    dlms_version: Annotated[int, BYTE]
    conformance: Annotated[int, CONFORMANCE]
    pdu_size_max: Annotated[int, unsigned(2)]


@_message(0x08)
@dataclass(frozen=True, slots=True)
class InitiateResponse(Apdu):
    """What the server agrees to."""

    quality_of_service: Annotated[int | None, optional(BYTE)]
    dlms_version: Annotated[int, BYTE]
    conformance: Annotated[int, CONFORMANCE]
    pdu_size_max: Annotated[int, unsigned(2)]
    vaa_name: Annotated[int, unsigned(2)]


@_message(0x0E)
@dataclass(frozen=True, slots=True)
class ConfirmedServiceError(Apdu):
    """A refusal of an old kind of service: service, kind of error, value."""

    service: Annotated[int, BYTE]
    error: Annotated[int, BYTE]
    value: Annotated[int, BYTE]


@_message(0x0F)
@dataclass(frozen=True, slots=True)
class DataNotification(Apdu):
    """What a meter says unasked."""

    invoke: Annotated[int, WORD]
    date_time: Annotated[CosemDateTime | None, DATE_TIME]
    body: Annotated[Data, DATA]


@_message(0xC0, 0x01)
@dataclass(frozen=True, slots=True)
class GetRequest(Apdu):
    """Read one attribute; `invoke` has the id in its low four bits, 0x40 confirmed, 0x80 high priority."""

    invoke: Annotated[int, BYTE]
    attribute: Annotated[Attribute, ATTRIBUTE]
    access: Annotated[Access | None, ACCESS]


@_message(0xC0, 0x02)
@dataclass(frozen=True, slots=True)
class GetRequestNext(Apdu):
    """Ask for the block after `block_number`."""

    invoke: Annotated[int, BYTE]
    block_number: Annotated[int, WORD]


@_message(0xC0, 0x03)
@dataclass(frozen=True, slots=True)
class GetRequestList(Apdu):
    """Read several attributes at once."""

    invoke: Annotated[int, BYTE]
    items: Annotated[tuple[tuple[Attribute, Access | None], ...], list_of(pair(ATTRIBUTE, ACCESS))]


@_message(0xC4, 0x01)
@dataclass(frozen=True, slots=True)
class GetResponse(Apdu):
    """The attribute, or why not."""

    invoke: Annotated[int, BYTE]
    result: Annotated[Data | int, either(DATA)]


@_message(0xC4, 0x02)
@dataclass(frozen=True, slots=True)
class GetResponseBlock(Apdu):
    """A part of a long answer."""

    invoke: Annotated[int, BYTE]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    result: Annotated[bytes | int, either(OCTETS)]


@_message(0xC4, 0x03)
@dataclass(frozen=True, slots=True)
class GetResponseList(Apdu):
    """One result for each attribute asked for."""

    invoke: Annotated[int, BYTE]
    results: Annotated[tuple[Data | int, ...], list_of(either(DATA))]


@_message(0xC1, 0x01)
@dataclass(frozen=True, slots=True)
class SetRequest(Apdu):
    """Write one attribute."""

    invoke: Annotated[int, BYTE]
    attribute: Annotated[Attribute, ATTRIBUTE]
    access: Annotated[Access | None, ACCESS]
    data: Annotated[Data, DATA]


@_message(0xC1, 0x02)
@dataclass(frozen=True, slots=True)
class SetRequestFirstBlock(Apdu):
    """Begin to write a long attribute."""

    invoke: Annotated[int, BYTE]
    attribute: Annotated[Attribute, ATTRIBUTE]
    access: Annotated[Access | None, ACCESS]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@_message(0xC1, 0x03)
@dataclass(frozen=True, slots=True)
class SetRequestBlock(Apdu):
    """Go on writing."""

    invoke: Annotated[int, BYTE]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@_message(0xC1, 0x04)
@dataclass(frozen=True, slots=True)
class SetRequestList(Apdu):
    """Write several attributes at once."""

    invoke: Annotated[int, BYTE]
    items: Annotated[tuple[tuple[Attribute, Access | None], ...], list_of(pair(ATTRIBUTE, ACCESS))]
    values: Annotated[tuple[Data, ...], list_of(DATA)]


@_message(0xC1, 0x05)
@dataclass(frozen=True, slots=True)
class SetRequestListFirstBlock(Apdu):
    """Begin to write several attributes whose values together are long."""

    invoke: Annotated[int, BYTE]
    items: Annotated[tuple[tuple[Attribute, Access | None], ...], list_of(pair(ATTRIBUTE, ACCESS))]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@_message(0xC5, 0x01)
@dataclass(frozen=True, slots=True)
class SetResponse(Apdu):
    """Done, or why not."""

    invoke: Annotated[int, BYTE]
    result: Annotated[int, BYTE]


@_message(0xC5, 0x02)
@dataclass(frozen=True, slots=True)
class SetResponseBlock(Apdu):
    """The block has arrived; go on."""

    invoke: Annotated[int, BYTE]
    block_number: Annotated[int, WORD]


@_message(0xC5, 0x03)
@dataclass(frozen=True, slots=True)
class SetResponseLastBlock(Apdu):
    """All blocks have arrived; the result of the whole."""

    invoke: Annotated[int, BYTE]
    result: Annotated[int, BYTE]
    block_number: Annotated[int, WORD]


@_message(0xC5, 0x04)
@dataclass(frozen=True, slots=True)
class SetResponseListLastBlock(Apdu):
    """All blocks have arrived; one result for each attribute written."""

    invoke: Annotated[int, BYTE]
    results: Annotated[tuple[int, ...], list_of(BYTE)]
    block_number: Annotated[int, WORD]


@_message(0xC5, 0x05)
@dataclass(frozen=True, slots=True)
class SetResponseList(Apdu):
    """One result for each attribute written."""

    invoke: Annotated[int, BYTE]
    results: Annotated[tuple[int, ...], list_of(BYTE)]


@_message(0xC2)
@dataclass(frozen=True, slots=True)
class EventNotification(Apdu):
    """An attribute that a meter reports unasked (the older kind of push)."""

    date_time: Annotated[CosemDateTime | None, optional(DATE_TIME)]
    attribute: Annotated[Attribute, ATTRIBUTE]
    body: Annotated[Data, DATA]


@_message(0xC3, 0x01)
@dataclass(frozen=True, slots=True)
class ActionRequest(Apdu):
    """Call a method."""

    invoke: Annotated[int, BYTE]
    method: Annotated[Attribute, ATTRIBUTE]
    parameters: Annotated[Data | None, optional(DATA)]


@_message(0xC3, 0x02)
@dataclass(frozen=True, slots=True)
class ActionRequestNext(Apdu):
    """Ask for the next part of a long answer."""

    invoke: Annotated[int, BYTE]
    block_number: Annotated[int, WORD]


@_message(0xC3, 0x04)
@dataclass(frozen=True, slots=True)
class ActionRequestFirstBlock(Apdu):
    """Begin to call a method whose parameters are long."""

    invoke: Annotated[int, BYTE]
    method: Annotated[Attribute, ATTRIBUTE]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@_message(0xC3, 0x06)
@dataclass(frozen=True, slots=True)
class ActionRequestBlock(Apdu):
    """Go on with the parameters."""

    invoke: Annotated[int, BYTE]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@_message(0xC7, 0x01)
@dataclass(frozen=True, slots=True)
class ActionResponse(Apdu):
    """The method's result, with what it returned, if anything."""

    invoke: Annotated[int, BYTE]
    result: Annotated[int, BYTE]
    returned: Annotated[Data | int | None, optional(either(DATA))]


@_message(0xC7, 0x02)
@dataclass(frozen=True, slots=True)
class ActionResponseBlock(Apdu):
    """A part of a long answer."""

    invoke: Annotated[int, BYTE]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@_message(0xC7, 0x04)
@dataclass(frozen=True, slots=True)
class ActionResponseNextBlock(Apdu):
    """The block of parameters has arrived; go on."""

    invoke: Annotated[int, BYTE]
    block_number: Annotated[int, WORD]


@_message(0xD8)
@dataclass(frozen=True, slots=True)
class ExceptionResponse(Apdu):
    """The request could not be served at all; `more` has the invocation counter where the error is about it."""

    state_error: Annotated[int, BYTE]
    service_error: Annotated[int, BYTE]
    more: Annotated[bytes, REST]


@_message(0xDB)
@dataclass(frozen=True, slots=True)
class GeneralGlobalCiphering(Apdu):
    """Any APDU under the global keys, with its sender."""

    system_title: Annotated[bytes, OCTETS]
    protected: Annotated[bytes, OCTETS]


@_message(0xDC)
@dataclass(frozen=True, slots=True)
class GeneralDedicatedCiphering(Apdu):
    """Any APDU under the key of one association, with its sender."""

    system_title: Annotated[bytes, OCTETS]
    protected: Annotated[bytes, OCTETS]


@_message(0xE0)
@dataclass(frozen=True, slots=True)
class GeneralBlock(Apdu):
    """General block transfer: `control` has 0x80 last block, 0x40 streaming, and the window in its low six bits."""

    control: Annotated[int, BYTE]
    block_number: Annotated[int, unsigned(2)]
    acknowledged: Annotated[int, unsigned(2)]
    content: Annotated[bytes, OCTETS]


@dataclass(frozen=True, slots=True)
class Ciphered(Apdu):
    """A service under global (`glo-`) or dedicated (`ded-`) keys; its tag says which service."""

    tag: int
    protected: bytes

    def to_bytes(self) -> bytes:
        """Tag, length, protected text."""
        return bytes((self.tag,)) + encode_length(len(self.protected)) + self.protected


GLOBAL_TAGS: Final = {0x01: 0x21, 0x08: 0x28, 0x0E: 0x2E} | {plain: plain + 8 for plain in range(0xC0, 0xC8)}
DEDICATED_TAGS: Final = {0x01: 0x41, 0x08: 0x48, 0x0E: 0x4E} | {plain: plain + 16 for plain in range(0xC0, 0xC8)}
_CIPHERED: Final = frozenset(GLOBAL_TAGS.values()) | frozenset(DEDICATED_TAGS.values())


_RESULTS: Final = list_of(either(DATA))
_VALUES: Final = list_of(DATA)


def results_to_bytes(results: tuple[Data | int, ...]) -> bytes:
    """The results of a list of attributes, as they go into blocks."""
    return _RESULTS.write(results)


def results_from_bytes(raw: bytes) -> tuple[Data | int, ...]:
    """Inverse of `results_to_bytes`.  Raises RemoteProtocolError."""
    return tuple(_whole(raw, _RESULTS))


def values_to_bytes(values: tuple[Data, ...]) -> bytes:
    """The values of a list of attributes to be written, as they go into blocks."""
    return _VALUES.write(values)


def values_from_bytes(raw: bytes) -> tuple[Data, ...]:
    """Inverse of `values_to_bytes`.  Raises RemoteProtocolError."""
    return tuple(_whole(raw, _VALUES))


def _whole(raw: bytes, codec: Codec) -> Any:
    reader = Reader(raw)
    value = codec.read(reader)
    reader.end()
    return value


def read_apdu(reader: Reader) -> Apdu:
    """The APDU that begins here; bytes after it stay in the reader.  Raises RemoteProtocolError."""
    tag = reader.peek(2)
    if tag[:1] and tag[0] in _CIPHERED:
        return Ciphered(reader.byte(), reader.octets())
    cls = _MESSAGES.get(tag[:1]) or _MESSAGES.get(tag)
    if cls is None:
        raise RemoteProtocolError("dlms_apdu", "not the beginning of any APDU", offset=reader.offset)
    reader.take(len(cls.PREFIX))
    return cls(*(codec.read(reader) for _, codec in cls.CODECS))


def decode_apdu(data: bytes) -> Apdu:
    """Exactly one APDU.  Raises RemoteProtocolError for anything else."""
    reader = Reader(data)
    apdu = read_apdu(reader)
    reader.end()
    return apdu
