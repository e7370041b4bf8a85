"""Messages between gateway and coordinator: how epochs are made, and how rounds end."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from protocol.wire.fields import (
    MAX_LIST,
    MAX_RING,
    MAX_ROUNDS,
    MAX_SPOT_CHECKS,
    NONCE_SIZE,
    Attempt,
    Attestations,
    Bitmap,
    Counter,
    Digest,
    Elements,
    Endpoint,
    Epoch,
    FeldmanCommitments,
    Fraction,
    FuseRating,
    Identity,
    Key,
    MemberSignature,
    Nonce,
    Position,
    Reason,
    Ring,
    Round,
    Scalars,
    SealedShares,
    Signature,
    Term,
    Try,
    Vector,
    feldman,
    gateway_identity,
    integer,
    many,
    octets,
    record,
    ring_position,
    sealed_share,
)
from protocol.wire.registry import Message, RingMessage, Sender, message

MemberRow = tuple[str, bytes, bytes, bytes, bytes, bytes, bytes]
"""Identity, epoch key, CURVE key, signing key, nonce, signature of the join, certificate (DER)."""
member_row = record(gateway_identity, *[octets(32)] * 3, octets(NONCE_SIZE), octets(8, 160), octets(1, 4096))


class Outcome(IntEnum):
    """How a ring round ended; there is no third way and no way back."""

    OPENED = 1
    VOID = 2


@message(1, Sender.GATEWAY)
class Hello(Message):
    """
    A gateway says that it is there; the coordinator answers with the calls and layouts it should know.

    `known_epoch` is the newest epoch that it is in, `bound_epoch` the newest that it ever had a layout of, -1 for none:
    it joins none up to that, so a coordinator whose database was put back calls a later one.
    """

    version: Annotated[int, integer(0, 255)]
    known_epoch: Annotated[int, integer(-1, 2**40)]
    bound_epoch: Annotated[int, integer(-1, 2**40)]


@message(2, Sender.COORDINATOR)
class EpochCall(Message):
    """
    The coordinator calls a part of an area for an epoch: try `try_` of drawing its rings, without `rejected`.

    An area of many gateways has 2^split_bits parts (protocol.dcnet.setup.crowd); `rejected` withheld their values in an
    earlier try.

    Round r belongs to metering interval interval_start_s + r·interval_s and runs at start_ms + r·period_ms;
    in the field both clocks are one, under time lapse a quarter hour takes `period_ms`.  `fuse_a` (A) bounds what a
    household can commit to (protocol.dcnet.setup.ranges).  `price_sheets` are the digests of the tariffs that bills may
    be asked by: the same for everybody who is called, since whoever is told others shares no key.
    """

    epoch: Epoch
    try_: Try
    area: Identity
    split_bits: Annotated[int, integer(0, 16)]
    part: Annotated[int, integer(0, 2**16 - 1)]
    rejected: Annotated[tuple[str, ...], many(gateway_identity, MAX_LIST)]
    schema: Annotated[bytes, octets(1, 65_536)]
    rounds: Annotated[int, integer(1, MAX_ROUNDS)]
    start_ms: Counter
    period_ms: Annotated[int, integer(1, 2**40)]
    interval_start_s: Counter
    interval_s: Annotated[int, integer(1, 2**30)]
    ring_size: Annotated[int, integer(3, MAX_RING)]
    corrupt_ppm: Fraction
    dropout_ppm: Fraction
    fuse_a: FuseRating
    price_sheets: Annotated[tuple[bytes, ...], many(octets(32), 64)]


@message(3, Sender.GATEWAY)
class Join(Message):
    """
    A gateway's fresh epoch keys, X25519 and Ed25519, the nonce of its process and its commitment to a part of the
    beacon, signed with its certified key (docs/explanation/protocol.md, section 3).
    """

    epoch: Epoch
    try_: Try
    commitment: Digest
    public_key: Key
    verify_key: Key
    nonce: Nonce
    signature: Signature


@message(25, Sender.COORDINATOR)
class EpochList(Message):
    """Who joined in a try, by rising id: commitment and digest of the join.  Signed with the list key, once a try."""

    epoch: Epoch
    try_: Try
    entries: Annotated[
        tuple[tuple[str, bytes, bytes], ...], many(record(gateway_identity, octets(32), octets(32)), MAX_LIST)
    ]
    signature: Annotated[bytes, octets(64)]


@message(26, Sender.GATEWAY)
class BeaconReveal(Message):
    """A gateway shows the value that it committed to, for one list and for no other."""

    epoch: Epoch
    try_: Try
    list_digest: Digest
    value: Annotated[bytes, octets(32)]


@message(4, Sender.COORDINATOR)
class EpochLayout(Message):
    """All values in the order of the list, and the members of the receiver's own ring."""

    epoch: Epoch
    try_: Try
    values: Annotated[tuple[bytes, ...], many(octets(32), MAX_LIST)]
    ring: Ring
    members: Annotated[tuple[MemberRow, ...], many(member_row, MAX_RING)]
    intermediates: Annotated[tuple[bytes, ...], many(octets(1, 4096), 4)]
    result_key: Key


@message(27, Sender.GATEWAY)
class SpotCheck(Message):
    """A gateway asks for the joins of members of other rings, drawn at random (protocol.dcnet.setup.crowd)."""

    epoch: Epoch
    try_: Try
    members: Annotated[tuple[str, ...], many(gateway_identity, MAX_SPOT_CHECKS)]


@message(28, Sender.COORDINATOR)
class SpotCheckAnswer(Message):
    """The joins that a gateway asked for, in its order, each as in a layout."""

    epoch: Epoch
    try_: Try
    members: Annotated[tuple[MemberRow, ...], many(member_row, MAX_SPOT_CHECKS)]


@message(5, Sender.GATEWAY)
class Deal(Message):
    """Shamir shares of the sender's PRF key, each sealed to a neighbour, and Feldman commitments, signed as a whole."""

    epoch: Epoch
    commitments: FeldmanCommitments
    sealed: SealedShares
    signature: MemberSignature


@message(7, Sender.COORDINATOR)
class Deals(Message):
    """What the neighbours dealt the receiver: position, commitments, sealed share."""

    epoch: Epoch
    deals: Annotated[
        tuple[tuple[int, tuple[bytes, ...], bytes], ...],
        many(record(ring_position, feldman, sealed_share), MAX_RING),
    ]


@message(8, Sender.COORDINATOR)
class Appoint(Message):
    """The coordinator names the head of a term: the member at position term mod n."""

    epoch: Epoch
    ring: Ring
    term: Term


@message(9, Sender.GATEWAY | Sender.COORDINATOR)
class HeadAt(Message):
    """The appointed head's ring-link address, signed by it; `relay:` where it cannot accept connections."""

    epoch: Epoch
    ring: Ring
    term: Term
    endpoint: Endpoint
    signature: Signature


@message(10, Sender.GATEWAY)
class HeadSilent(Message):
    """A member waited in vain for the head of `term` in `round`."""

    epoch: Epoch
    ring: Ring
    term: Term
    round: Round


@message(11, Sender.GATEWAY)
class RingTotal(Message):
    """
    The head's sum over the roster; slot 0 must be the roster's size.

    `commitments`, `blinding` and `attestations` are empty unless the schema has committed slots: then they hold,
    slot by slot of the committed ones, each member's Pedersen commitment in roster order and the sum of the blindings,
    and for each member, in roster order, what shows that it signed its commitments in this attempt: the blame half of
    its MASKED_INPUT, the digest of its masked blindings, and its signature (`dcnet.setup.statements`).
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
    attestations: Attestations


@message(12, Sender.GATEWAY)
class RingVoid(Message):
    """The head gives a round up and says why; `silent` are those whose silence lost it."""

    epoch: Epoch
    ring: Ring
    round: Round
    term: Term
    reason: Reason
    silent: Bitmap


@message(13, Sender.GATEWAY)
class RoundStatusRequest(Message):
    """How did this round of my ring end?"""

    epoch: Epoch
    ring: Ring
    round: Round


@message(17, Sender.GATEWAY)
class LastContributionRequest(Message):
    """
    Which opened total was I in last?  `epoch` and `round` are those of the asker's own last contribution, -1 for none.

    It is asked after each start, `started_ms`, and about a round whose ring, and its keys, the asker no longer has.
    Nothing is answered before every round has ended that the asker can have contributed to until then.
    """

    epoch: Annotated[int, integer(-1, 2**40)]
    round: Annotated[int, integer(-1, MAX_ROUNDS - 1)]
    started_ms: Counter


@message(18, Sender.COORDINATOR)
class LastContribution(Message):
    """
    The answer from the round ledger's durable record: the newest opened total with the receiver in its roster.

    `epoch`, `ring` and `round` are -1, 0 and -1 where there is none, `roster` and `signature` then empty; else these
    are the round's RESULT.  `asked_epoch` and `asked_round` repeat the request.  `is_known` says whether the
    coordinator knows the epoch that was asked about, with the receiver in one of its rings: not after its database was
    put back to an earlier state.  `statement` is the coordinator's signature over all of it, by the key that gateways
    pin at enrolment: what it says of a contribution can be held against it.
    """

    asked_epoch: Annotated[int, integer(-1, 2**40)]
    asked_round: Annotated[int, integer(-1, MAX_ROUNDS - 1)]
    is_known: Annotated[int, integer(0, 1)]
    epoch: Annotated[int, integer(-1, 2**40)]
    ring: Ring
    round: Annotated[int, integer(-1, MAX_ROUNDS - 1)]
    interval_start_s: Counter
    roster: Annotated[bytes, octets(0, MAX_RING // 8)]
    signature: Annotated[bytes, octets(0, 64, 64)]
    statement: Annotated[bytes, octets(64)]


@message(46, Sender.GATEWAY)
class HistoryRequest(Message):
    """How did the rounds of my ring end, from `round` on?  The answer is their RESULTs, as many as have ended."""

    epoch: Epoch
    ring: Ring
    round: Round


@message(47, Sender.GATEWAY)
class TwoResults(Message):
    """Two RESULTs of one round that the same key signed: outcome, roster and signature of each."""

    epoch: Epoch
    ring: Ring
    round: Round
    first: Annotated[tuple[int, bytes, bytes], record(integer(1, 2), octets(1, MAX_RING // 8), octets(64))]
    second: Annotated[tuple[int, bytes, bytes], record(integer(1, 2), octets(1, MAX_RING // 8), octets(64))]


@message(14, Sender.COORDINATOR | Sender.HEAD)
class Result(RingMessage):
    """The round ledger's word on a round, signed with the epoch's result key, so that a head cannot bend it."""

    epoch: Epoch
    ring: Ring
    round: Round
    outcome: Annotated[int, integer(1, 2)]
    roster: Bitmap
    signature: Annotated[bytes, octets(64)]


@message(15, Sender.GATEWAY | Sender.COORDINATOR)
class Relay(Message):
    """A ring message through the coordinator, sealed between the two members; `position` is the other end."""

    epoch: Epoch
    ring: Ring
    position: Position
    sealed: Annotated[bytes, octets(17, 1 << 20)]


@message(16, Sender.COORDINATOR)
class Refused(Message):
    """The coordinator declines, and says why: too small an area, a certificate out of date."""

    epoch: Epoch
    reason: Reason


@message(24, Sender.COORDINATOR)
class Expelled(Message):
    """The members of a ring that were revoked while the epoch runs, all of them: no attempt may start with one."""

    epoch: Epoch
    ring: Ring
    members: Bitmap
