"""The services of an association (get, set, action, in blocks too), what a meter says unasked, and its refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from node.lmn.dlms.apdu.message import Apdu, message
from node.lmn.dlms.axdr import Data
from node.lmn.dlms.clock import CosemDateTime
from node.lmn.dlms.fields import (
    ACCESS,
    ATTRIBUTE,
    BOOLEAN,
    BYTE,
    DATA,
    DATE_TIME,
    OCTETS,
    REST,
    WORD,
    Access,
    Attribute,
    either,
    list_of,
    optional,
    pair,
)

SUCCESS: Final = 0
DATA_ACCESS_RESULTS: Final = {
    0: "success", 1: "hardware-fault", 2: "temporary-failure", 3: "read-write-denied", 4: "object-undefined",
    9: "object-class-inconsistent", 11: "object-unavailable", 12: "type-unmatched", 13: "scope-of-access-violated",
    14: "data-block-unavailable", 15: "long-get-aborted", 16: "no-long-get-in-progress", 17: "long-set-aborted",
    18: "no-long-set-in-progress", 19: "data-block-number-invalid", 250: "other-reason",
}  # fmt: skip


@message(0xC0, 0x01)
@dataclass(frozen=True, slots=True)
class GetRequest(Apdu):
    """Read one attribute; `invoke` has the id in its low four bits, 0x40 confirmed, 0x80 high priority."""

    invoke: Annotated[int, BYTE]
    attribute: Annotated[Attribute, ATTRIBUTE]
    access: Annotated[Access | None, ACCESS]


@message(0xC0, 0x02)
@dataclass(frozen=True, slots=True)
class GetRequestNext(Apdu):
    """Ask for the block after `block_number`."""

    invoke: Annotated[int, BYTE]
    block_number: Annotated[int, WORD]


@message(0xC0, 0x03)
@dataclass(frozen=True, slots=True)
class GetRequestList(Apdu):
    """Read several attributes at once."""

    invoke: Annotated[int, BYTE]
    items: Annotated[tuple[tuple[Attribute, Access | None], ...], list_of(pair(ATTRIBUTE, ACCESS))]


@message(0xC4, 0x01)
@dataclass(frozen=True, slots=True)
class GetResponse(Apdu):
    """The attribute, or why not."""

    invoke: Annotated[int, BYTE]
    result: Annotated[Data | int, either(DATA)]


@message(0xC4, 0x02)
@dataclass(frozen=True, slots=True)
class GetResponseBlock(Apdu):
    """A part of a long answer."""

    invoke: Annotated[int, BYTE]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    result: Annotated[bytes | int, either(OCTETS)]


@message(0xC4, 0x03)
@dataclass(frozen=True, slots=True)
class GetResponseList(Apdu):
    """One result for each attribute asked for."""

    invoke: Annotated[int, BYTE]
    results: Annotated[tuple[Data | int, ...], list_of(either(DATA))]


@message(0xC1, 0x01)
@dataclass(frozen=True, slots=True)
class SetRequest(Apdu):
    """Write one attribute."""

    invoke: Annotated[int, BYTE]
    attribute: Annotated[Attribute, ATTRIBUTE]
    access: Annotated[Access | None, ACCESS]
    data: Annotated[Data, DATA]


@message(0xC1, 0x02)
@dataclass(frozen=True, slots=True)
class SetRequestFirstBlock(Apdu):
    """Begin to write a long attribute."""

    invoke: Annotated[int, BYTE]
    attribute: Annotated[Attribute, ATTRIBUTE]
    access: Annotated[Access | None, ACCESS]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@message(0xC1, 0x03)
@dataclass(frozen=True, slots=True)
class SetRequestBlock(Apdu):
    """Go on writing."""

    invoke: Annotated[int, BYTE]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@message(0xC1, 0x04)
@dataclass(frozen=True, slots=True)
class SetRequestList(Apdu):
    """Write several attributes at once."""

    invoke: Annotated[int, BYTE]
    items: Annotated[tuple[tuple[Attribute, Access | None], ...], list_of(pair(ATTRIBUTE, ACCESS))]
    values: Annotated[tuple[Data, ...], list_of(DATA)]


@message(0xC1, 0x05)
@dataclass(frozen=True, slots=True)
class SetRequestListFirstBlock(Apdu):
    """Begin to write several attributes whose values together are long."""

    invoke: Annotated[int, BYTE]
    items: Annotated[tuple[tuple[Attribute, Access | None], ...], list_of(pair(ATTRIBUTE, ACCESS))]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@message(0xC5, 0x01)
@dataclass(frozen=True, slots=True)
class SetResponse(Apdu):
    """Done, or why not."""

    invoke: Annotated[int, BYTE]
    result: Annotated[int, BYTE]


@message(0xC5, 0x02)
@dataclass(frozen=True, slots=True)
class SetResponseBlock(Apdu):
    """The block has arrived; go on."""

    invoke: Annotated[int, BYTE]
    block_number: Annotated[int, WORD]


@message(0xC5, 0x03)
@dataclass(frozen=True, slots=True)
class SetResponseLastBlock(Apdu):
    """All blocks have arrived; the result of the whole."""

    invoke: Annotated[int, BYTE]
    result: Annotated[int, BYTE]
    block_number: Annotated[int, WORD]


@message(0xC5, 0x04)
@dataclass(frozen=True, slots=True)
class SetResponseListLastBlock(Apdu):
    """All blocks have arrived; one result for each attribute written."""

    invoke: Annotated[int, BYTE]
    results: Annotated[tuple[int, ...], list_of(BYTE)]
    block_number: Annotated[int, WORD]


@message(0xC5, 0x05)
@dataclass(frozen=True, slots=True)
class SetResponseList(Apdu):
    """One result for each attribute written."""

    invoke: Annotated[int, BYTE]
    results: Annotated[tuple[int, ...], list_of(BYTE)]


@message(0xC3, 0x01)
@dataclass(frozen=True, slots=True)
class ActionRequest(Apdu):
    """Call a method."""

    invoke: Annotated[int, BYTE]
    method: Annotated[Attribute, ATTRIBUTE]
    parameters: Annotated[Data | None, optional(DATA)]


@message(0xC3, 0x02)
@dataclass(frozen=True, slots=True)
class ActionRequestNext(Apdu):
    """Ask for the next part of a long answer."""

    invoke: Annotated[int, BYTE]
    block_number: Annotated[int, WORD]


@message(0xC3, 0x04)
@dataclass(frozen=True, slots=True)
class ActionRequestFirstBlock(Apdu):
    """Begin to call a method whose parameters are long."""

    invoke: Annotated[int, BYTE]
    method: Annotated[Attribute, ATTRIBUTE]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@message(0xC3, 0x06)
@dataclass(frozen=True, slots=True)
class ActionRequestBlock(Apdu):
    """Go on with the parameters."""

    invoke: Annotated[int, BYTE]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@message(0xC7, 0x01)
@dataclass(frozen=True, slots=True)
class ActionResponse(Apdu):
    """The method's result, with what it returned, if anything."""

    invoke: Annotated[int, BYTE]
    result: Annotated[int, BYTE]
    returned: Annotated[Data | int | None, optional(either(DATA))]


@message(0xC7, 0x02)
@dataclass(frozen=True, slots=True)
class ActionResponseBlock(Apdu):
    """A part of a long answer."""

    invoke: Annotated[int, BYTE]
    last: Annotated[bool, BOOLEAN]
    block_number: Annotated[int, WORD]
    raw: Annotated[bytes, OCTETS]


@message(0xC7, 0x04)
@dataclass(frozen=True, slots=True)
class ActionResponseNextBlock(Apdu):
    """The block of parameters has arrived; go on."""

    invoke: Annotated[int, BYTE]
    block_number: Annotated[int, WORD]


@message(0x0F)
@dataclass(frozen=True, slots=True)
class DataNotification(Apdu):
    """What a meter says unasked."""

    invoke: Annotated[int, WORD]
    date_time: Annotated[CosemDateTime | None, DATE_TIME]
    body: Annotated[Data, DATA]


@message(0xC2)
@dataclass(frozen=True, slots=True)
class EventNotification(Apdu):
    """An attribute that a meter reports unasked (the older kind of push)."""

    date_time: Annotated[CosemDateTime | None, optional(DATE_TIME)]
    attribute: Annotated[Attribute, ATTRIBUTE]
    body: Annotated[Data, DATA]


@message(0xD8)
@dataclass(frozen=True, slots=True)
class ExceptionResponse(Apdu):
    """The request could not be served at all; `more` has the invocation counter where the error is about it."""

    state_error: Annotated[int, BYTE]
    service_error: Annotated[int, BYTE]
    more: Annotated[bytes, REST]
