"""
The MessagePack messages between gateways, heads and coordinator: one table, strict decoding, bounded sizes.

A message is a MessagePack array: its code, then its fields in the order of the class.  Every field carries its
bound in its annotation, and `decode` holds a peer to all of them: wrong count, wrong type, too long, unknown code
or a message that this kind of peer may not send, each is a `RemoteProtocolError`.  Nothing is optional and nothing
is ignored, so two implementations cannot disagree about what was said.  Fields are taken off one by one as the class
says, so that nested arrays, which MessagePack allows to promise a thousand times their own size, are never built.

Bitmaps run over ring positions: position p is bit p%8 of byte p//8.  Vectors are little-endian 64-bit words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Annotated, Any, get_args, get_type_hints

import msgpack

from protocol.errors import RemoteProtocolError

VERSION = 1
MAX_RING = 1024  # members of one ring; the parameters never ask for more
MAX_AREA = 16_384  # gateways of one area: their epoch keys, with a ring of 200, fit one message of a link
MAX_SLOTS = 4096
MAX_ROUNDS = 1 << 20
MAX_FRAME_SIZE = 8 << 20  # every field alone at its bound fits; a link carries less (LinkLimits.message_bytes_max)
MAX_ATTEMPTS = 3  # aggregation.md, section 5

Read = Callable[[msgpack.Unpacker], Any]  # takes one field off the front, or raises for what it may not be


def _fail(expected: str) -> RemoteProtocolError:
    return RemoteProtocolError("malformed_message", f"expected {expected}")


def _integer(low: int, high: int) -> Read:
    def read(source: msgpack.Unpacker) -> int:
        value = source.unpack()
        if type(value) is not int or not low <= value <= high:
            raise _fail(f"an integer from {low} to {high}")
        return value

    return read


def _octets(low: int, high: int | None = None, multiple: int = 1) -> Read:
    top = low if high is None else high

    def read(source: msgpack.Unpacker) -> bytes:
        value = source.unpack()
        if type(value) is not bytes or not low <= len(value) <= top or len(value) % multiple:
            raise _fail(f"{low} to {top} octets in multiples of {multiple}")
        return value

    return read


def _text(high: int) -> Read:
    def read(source: msgpack.Unpacker) -> str:
        value = source.unpack()
        if type(value) is not str or not 0 < len(value) <= high or not value.isprintable():
            raise _fail(f"printable text of 1 to {high} characters")
        return value

    return read


def _many(item: Read, high: int) -> Read:
    def read(source: msgpack.Unpacker) -> tuple[Any, ...]:
        count = source.read_array_header()
        if count > high:
            raise _fail(f"an array of at most {high} items")
        return tuple(item(source) for _ in range(count))

    return read


def _record(*items: Read) -> Read:
    def read(source: msgpack.Unpacker) -> tuple[Any, ...]:
        if source.read_array_header() != len(items):
            raise _fail(f"an array of {len(items)} items")
        return tuple(item(source) for item in items)

    return read


_position = _integer(0, MAX_RING - 1)
_identity = _text(64)
_commitments = _many(_octets(32), MAX_RING)
_sealed = _octets(1, 128)

Counter = Annotated[int, _integer(0, 2**63 - 1)]
Epoch = Annotated[int, _integer(0, 2**40)]
Ring = Annotated[int, _integer(0, 2**32)]
Round = Annotated[int, _integer(0, MAX_ROUNDS - 1)]
Attempt = Annotated[int, _integer(0, MAX_ATTEMPTS - 1)]
Term = Annotated[int, _integer(0, 2**32)]
Position = Annotated[int, _position]
Identity = Annotated[str, _identity]
Key = Annotated[bytes, _octets(32)]
Digest = Annotated[bytes, _octets(32)]
Signature = Annotated[bytes, _octets(8, 160)]
Bitmap = Annotated[bytes, _octets(1, MAX_RING // 8)]
Vector = Annotated[bytes, _octets(0, 8 * MAX_SLOTS, 8)]
Elements = Annotated[bytes, _octets(0, 32 * MAX_SLOTS, 32)]
Scalars = Annotated[bytes, _octets(0, 32 * MAX_SLOTS, 32)]
Macs = Annotated[bytes, _octets(0, 16 * MAX_RING, 16)]
Binding = Annotated[bytes, _octets(16)]
Reason = Annotated[str, _text(200)]
Endpoint = Annotated[str, _text(200)]
Fraction = Annotated[int, _integer(0, 1_000_000)]  # parts in a million: no float goes into a digest


class Outcome(IntEnum):
    """How a ring round ended; there is no third way and no way back."""

    OPENED = 1
    VOID = 2


class Lie(IntEnum):
    """What a head says of a member: its seed fits not what its share was bound to, or it is what spoils the sums."""

    WRONG_SEED = 1
    SPOILT_SUM = 2


# --- gateway and coordinator: enrolment is over, epochs are made -----------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """A gateway says that it is there; the coordinator answers with the calls and layouts it should know."""

    version: Annotated[int, _integer(0, 255)]
    known_epoch: Annotated[int, _integer(-1, 2**40)]


@dataclass(frozen=True, slots=True)
class EpochCall:
    """
    The coordinator calls for an epoch; `nonce_commitment` fixes its part of the beacon before it sees a key.

    Round r belongs to metering interval interval_start_s + r·interval_s and runs at start_ms + r·period_ms;
    in the field both clocks are one, under time lapse a quarter hour takes `period_ms`.
    """

    epoch: Epoch
    area: Identity
    nonce_commitment: Digest
    schema: Annotated[bytes, _octets(1, 65_536)]
    rounds: Annotated[int, _integer(1, MAX_ROUNDS)]
    start_ms: Counter
    period_ms: Annotated[int, _integer(1, 2**40)]
    interval_start_s: Counter
    interval_s: Annotated[int, _integer(1, 2**30)]
    ring_size: Annotated[int, _integer(3, MAX_RING)]
    corrupt_ppm: Fraction
    dropout_ppm: Fraction
    join_until_ms: Counter


@dataclass(frozen=True, slots=True)
class Join:
    """A gateway's fresh epoch key, signed with its certified signature key (aggregation.md, section 3)."""

    epoch: Epoch
    public_key: Key
    signature: Signature


@dataclass(frozen=True, slots=True)
class EpochLayout:
    """The area's submissions, the opened nonce, and the members of the receiver's own ring."""

    epoch: Epoch
    nonce: Digest
    submissions: Annotated[tuple[tuple[str, bytes], ...], _many(_record(_identity, _octets(32)), MAX_AREA)]
    ring: Ring
    members: Annotated[
        tuple[tuple[str, bytes, bytes, bytes, bytes], ...],
        _many(_record(_identity, _octets(32), _octets(32), _octets(8, 160), _octets(1, 4096)), MAX_RING),
    ]  # identity, epoch key, CURVE key, signature of the join, certificate (DER)
    intermediates: Annotated[tuple[bytes, ...], _many(_octets(1, 4096), 4)]
    result_key: Key


@dataclass(frozen=True, slots=True)
class Deal:
    """Shamir shares of the sender's PRF key, each sealed to one neighbour, with Feldman commitments."""

    epoch: Epoch
    commitments: Annotated[tuple[bytes, ...], _commitments]
    sealed: Annotated[tuple[tuple[int, bytes], ...], _many(_record(_position, _sealed), MAX_RING)]


@dataclass(frozen=True, slots=True)
class Deals:
    """What the neighbours dealt the receiver: position, commitments, sealed share."""

    epoch: Epoch
    deals: Annotated[
        tuple[tuple[int, tuple[bytes, ...], bytes], ...],
        _many(_record(_position, _commitments, _sealed), MAX_RING),
    ]


@dataclass(frozen=True, slots=True)
class Appoint:
    """The coordinator names the head of a term: the member at position term mod n."""

    epoch: Epoch
    ring: Ring
    term: Term


@dataclass(frozen=True, slots=True)
class HeadAt:
    """The appointed head's ring-link address, signed by it; `relay:` where it cannot accept connections."""

    epoch: Epoch
    ring: Ring
    term: Term
    endpoint: Endpoint
    signature: Signature


@dataclass(frozen=True, slots=True)
class HeadSilent:
    """A member waited in vain for the head of `term` in `round`."""

    epoch: Epoch
    ring: Ring
    term: Term
    round: Round


@dataclass(frozen=True, slots=True)
class RingTotal:
    """
    The head's sum over the roster; slot 0 must be the roster's size.

    `commitments` and `blinding` are empty unless the schema has committed slots: then they hold, slot by slot of
    the committed ones, each member's Pedersen commitment in roster order and the sum of the blindings.
    """

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    term: Term
    expected: Bitmap
    roster: Bitmap
    total: Vector
    commitments: Elements
    blinding: Scalars


@dataclass(frozen=True, slots=True)
class RingVoid:
    """The head gives a round up and says why; `suspects` are whom it searches for a liar, none where it does not."""

    epoch: Epoch
    ring: Ring
    round: Round
    term: Term
    reason: Reason
    suspects: Bitmap


@dataclass(frozen=True, slots=True)
class Accused:
    """The head of `term` found in `round` that the member at `position` lied: a head's claim, for the operator."""

    epoch: Epoch
    ring: Ring
    term: Term
    round: Round
    position: Position
    lie: Annotated[int, _integer(1, 2)]


@dataclass(frozen=True, slots=True)
class Ask:
    """How did this round of my ring end?"""

    epoch: Epoch
    ring: Ring
    round: Round


@dataclass(frozen=True, slots=True)
class AskAccount:
    """Was I in an opened total of this round?  For a round whose ring, and its keys, the asker no longer has."""

    epoch: Epoch
    round: Round


@dataclass(frozen=True, slots=True)
class Account:
    """The answer from the round book's durable record: whether the receiver was in the round's opened total."""

    epoch: Epoch
    round: Round
    included: Annotated[int, _integer(0, 1)]


@dataclass(frozen=True, slots=True)
class Result:
    """The round book's word on a round, signed with the epoch's result key, so that a head cannot bend it."""

    epoch: Epoch
    ring: Ring
    round: Round
    outcome: Annotated[int, _integer(1, 2)]
    roster: Bitmap
    signature: Annotated[bytes, _octets(64)]


@dataclass(frozen=True, slots=True)
class Relay:
    """A ring message through the coordinator, sealed between the two members; `position` is the other end."""

    epoch: Epoch
    ring: Ring
    position: Position
    sealed: Annotated[bytes, _octets(17, 1 << 20)]


@dataclass(frozen=True, slots=True)
class Refused:
    """The coordinator declines, and says why: too small an area, a certificate out of date."""

    epoch: Epoch
    reason: Reason


# --- member and head: one round ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """A member reached the head and asks to be in the next E; the (round, attempt) it can still take part in."""

    epoch: Epoch
    ring: Ring
    term: Term
    round: Annotated[int, _integer(0, MAX_ROUNDS)]
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Open:
    """The head starts an attempt with the members of `expected` (E)."""

    epoch: Epoch
    ring: Ring
    term: Term
    round: Round
    attempt: Attempt
    expected: Bitmap


@dataclass(frozen=True, slots=True)
class Share:
    """
    A member's masked vector and a binding to its self mask's seed; with committed slots also its commitments and its
    masked blindings.
    """

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    vector: Vector
    binding: Binding
    commitments: Elements
    blinding: Scalars


@dataclass(frozen=True, slots=True)
class Roster:
    """The head's U: the members whose share it holds."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    roster: Bitmap


@dataclass(frozen=True, slots=True)
class Confirm:
    """
    MACs over the round's digest for the neighbours in U, by rising position, and the net mask words towards
    the neighbours in E that are not in U (empty when there are none).
    """

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    macs: Macs
    dropped: Vector
    dropped_blinding: Scalars


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The MACs that the receiver's neighbours made for it: who made one, and the MACs by rising position."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    makers: Bitmap
    macs: Macs


@dataclass(frozen=True, slots=True)
class Reveal:
    """The seed of the member's self mask of this attempt."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    seed: Key


@dataclass(frozen=True, slots=True)
class Recover:
    """The head asks for partial evaluations of the silent members' PRF."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    silent: Bitmap


@dataclass(frozen=True, slots=True)
class Partial:
    """One neighbour's part of a silent member's PRF value, with a proof that it fits the dealer's commitments."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    silent: Position
    element: Key
    proof: Annotated[bytes, _octets(64)]


@dataclass(frozen=True, slots=True)
class BadDeal:
    """A neighbour cannot help to recover `dealer`: what it was dealt does not fit the dealer's commitments."""

    epoch: Epoch
    ring: Ring
    dealer: Position


@dataclass(frozen=True, slots=True)
class Expelled:
    """The members of a ring that were shut out while the epoch runs, all of them: no attempt may start with one."""

    epoch: Epoch
    ring: Ring
    members: Bitmap


Message = (
    Hello | EpochCall | Join | EpochLayout | Deal | Deals | Appoint | HeadAt | HeadSilent | RingTotal
    | RingVoid | Accused | Ask | AskAccount | Account | Result | Relay | Refused | Expelled | Ready | Open | Share
    | Roster | Confirm | Confirmed | Reveal | Recover | Partial | BadDeal
)  # fmt: skip
RingMessage = Ready | Open | Share | Roster | Confirm | Confirmed | Reveal | Recover | Partial | BadDeal | Result

TABLE: dict[int, type[Message]] = {
    1: Hello, 2: EpochCall, 3: Join, 4: EpochLayout, 5: Deal, 7: Deals, 8: Appoint, 9: HeadAt,
    10: HeadSilent, 11: RingTotal, 12: RingVoid, 13: Ask, 14: Result, 15: Relay, 16: Refused,
    17: AskAccount, 18: Account, 19: Accused, 24: Expelled,
    32: Ready, 33: Open, 34: Share, 35: Roster, 36: Confirm, 37: Confirmed, 38: Reveal, 39: Recover, 40: Partial,
    41: BadDeal,
}  # fmt: skip

FROM_GATEWAY = frozenset(
    {Hello, Join, Deal, HeadAt, HeadSilent, RingTotal, RingVoid, Accused, Ask, AskAccount, Relay, BadDeal}
)
FROM_COORDINATOR = frozenset(
    {EpochCall, EpochLayout, Deals, Appoint, HeadAt, Account, Result, Relay, Refused, Expelled}
)
FROM_MEMBER = frozenset({Ready, Share, Confirm, Reveal, Partial, BadDeal})
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
        raise _fail("nothing behind the message")
    return message


def _read(source: msgpack.Unpacker, allowed: frozenset[type[Message]]) -> Message:
    count, code = source.read_array_header(), source.unpack()
    if type(code) is not int:
        raise _fail("an array that begins with a message code")
    kind = TABLE.get(code)
    if kind is None:
        raise RemoteProtocolError("unknown_message", f"message code {code:d} is not in the table")
    if kind not in allowed:
        raise RemoteProtocolError("message_not_allowed", f"{kind.__name__} does not come from this side")
    reads = _READS[kind]
    if count != len(reads) + 1:
        raise _fail(f"{len(reads)} fields in {kind.__name__}")
    return kind(*(read(source) for read in reads))
