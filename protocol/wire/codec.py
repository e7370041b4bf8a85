"""One table of messages, strict decoding: exactly one well-formed message of an allowed kind, or the peer's fault."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args, get_type_hints

import msgpack

from protocol.errors import RemoteProtocolError
from protocol.wire.billing import Bill, BillDeclined, BillRequest
from protocol.wire.coordination import (
    Appoint,
    ContributionStatus,
    ContributionStatusRequest,
    Deal,
    Deals,
    EpochCall,
    EpochLayout,
    Expelled,
    HeadAt,
    HeadSilent,
    Hello,
    Join,
    MisbehaviourReport,
    Refused,
    Relay,
    Result,
    RingTotal,
    RingVoid,
    RoundStatusRequest,
)
from protocol.wire.fields import MAX_FRAME_SIZE, Read, malformed
from protocol.wire.ring import BadDeal, Confirm, Confirmed, MaskedInput, Open, Partial, Ready, Recover, Reveal, Roster

Message = (
    Hello | EpochCall | Join | EpochLayout | Deal | Deals | Appoint | HeadAt | HeadSilent | RingTotal | RingVoid
    | MisbehaviourReport | Expelled | RoundStatusRequest | ContributionStatusRequest | ContributionStatus | Result
    | Relay | Refused | Ready | Open | MaskedInput | Roster | Confirm | Confirmed | Reveal | Recover | Partial | BadDeal
    | BillRequest | Bill | BillDeclined
)  # fmt: skip
RingMessage = Ready | Open | MaskedInput | Roster | Confirm | Confirmed | Reveal | Recover | Partial | BadDeal | Result

TABLE: dict[int, type[Message]] = {
    1: Hello, 2: EpochCall, 3: Join, 4: EpochLayout, 5: Deal, 7: Deals, 8: Appoint, 9: HeadAt,
    10: HeadSilent, 11: RingTotal, 12: RingVoid, 13: RoundStatusRequest, 14: Result, 15: Relay, 16: Refused,
    17: ContributionStatusRequest, 18: ContributionStatus, 19: MisbehaviourReport, 20: BillRequest, 21: Bill,
    22: BillDeclined, 24: Expelled,
    32: Ready, 33: Open, 34: MaskedInput, 35: Roster, 36: Confirm, 37: Confirmed, 38: Reveal, 39: Recover, 40: Partial,
    41: BadDeal,
}  # fmt: skip

FROM_GATEWAY = frozenset(
    {
        Hello,
        Join,
        Deal,
        HeadAt,
        HeadSilent,
        RingTotal,
        RingVoid,
        MisbehaviourReport,
        RoundStatusRequest,
        ContributionStatusRequest,
        Relay,
        BadDeal,
        Bill,
        BillDeclined,
    }
)
FROM_COORDINATOR = frozenset(
    {EpochCall, EpochLayout, Deals, Appoint, HeadAt, ContributionStatus, Result, Relay, Refused, Expelled, BillRequest}
)
FROM_MEMBER = frozenset({Ready, MaskedInput, Confirm, Reveal, Partial, BadDeal})
FROM_HEAD = frozenset({Open, Roster, Confirmed, Recover, Result})

_CODES = {kind: code for code, kind in TABLE.items()}
_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in TABLE.values()}


def _reads(kind: type[Message]) -> tuple[Read, ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(get_args(hints[name])[1] for name in _NAMES[kind])


_READS = {kind: _reads(kind) for kind in TABLE.values()}


def encode(message: Message) -> bytes:
    """The message's bytes."""
    kind = type(message)
    packed: bytes = msgpack.packb((_CODES[kind], *(getattr(message, name) for name in _NAMES[kind])))
    return packed


def decode(data: bytes, allowed: frozenset[type[Message]]) -> Message:
    """
    The one message in `data`.

    Raises RemoteProtocolError for anything that is not exactly one well-formed message of an allowed kind.
    """
    if len(data) > MAX_FRAME_SIZE:
        raise RemoteProtocolError("oversized_message", f"expected at most {MAX_FRAME_SIZE} bytes")
    # What is read whole is one field at most: an array, map or extension where a number should be ends the message.
    source = msgpack.Unpacker(
        max_buffer_size=len(data) + 1, read_size=len(data) + 1, max_array_len=0, max_map_len=0, max_ext_len=0
    )
    source.feed(data)
    try:
        message = _read(source, allowed)
        rest = len(data) - source.tell()
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteProtocolError("malformed_message", "expected one MessagePack value") from error
    if rest:
        raise malformed("nothing behind the message")
    return message


def _read(source: msgpack.Unpacker, allowed: frozenset[type[Message]]) -> Message:
    count, code = source.read_array_header(), source.unpack()
    if type(code) is not int:
        raise malformed("an array that begins with a message code")
    kind = TABLE.get(code)
    if kind is None:
        raise RemoteProtocolError("unknown_message", f"message code {code:d} is not in the table")
    if kind not in allowed:
        raise RemoteProtocolError("message_not_allowed", f"{kind.__name__} does not come from this side")
    reads = _READS[kind]
    if count != len(reads) + 1:
        raise malformed(f"{len(reads)} fields in {kind.__name__}")
    return kind(*(read(source) for read in reads))
