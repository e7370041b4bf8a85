"""Messages between member and head: one round of a ring."""

from __future__ import annotations

from typing import Annotated

from protocol.wire.fields import (
    MAX_RING,
    MAX_ROUNDS,
    Attempt,
    Bitmap,
    Digest,
    Elements,
    Epoch,
    Key,
    Macs,
    MemberSignature,
    Nonce,
    Nonces,
    Position,
    Ring,
    Round,
    Salt,
    Scalars,
    SeedCommitment,
    Term,
    Vector,
    integer,
    octets,
)
from protocol.wire.registry import RingMessage, Sender, message


@message(32, Sender.MEMBER)
class Ready(RingMessage):
    """
    A member reached the head and asks to be in the next E; the (round, attempt) it can still take part in, the nonce of
    its process, and of how many rounds it knows the ends, with their digest.  `signature` is the member's under a nonce
    that is not that of its JOIN, else empty.

    `is_waiting`: it has no token for a return and hears RESULTs alone.  `has_served`: it served since the last round
    that it knows to have opened.
    """

    epoch: Epoch
    ring: Ring
    term: Term
    round: Annotated[int, integer(0, MAX_ROUNDS)]
    attempt: Attempt
    nonce: Nonce
    signature: Annotated[bytes, octets(0, 64, 64)]
    settled: Annotated[int, integer(0, MAX_ROUNDS)]
    history: Digest
    is_waiting: Annotated[int, integer(0, 1)]
    has_served: Annotated[int, integer(0, 1)]


@message(33, Sender.HEAD)
class Open(RingMessage):
    """
    The head starts an attempt with the members of `expected` (E).

    `nonces` are those of E's members whose nonce is not that of LAYOUT any more (`changed`), by rising position, and
    `signatures` what each signed of its own; `settled` is of how many rounds the ends count in its terms, `served` (V)
    are the members that served since the last opened round.
    """

    epoch: Epoch
    ring: Ring
    term: Term
    round: Round
    attempt: Attempt
    expected: Bitmap
    changed: Bitmap
    nonces: Nonces
    signatures: Annotated[bytes, octets(0, 64 * MAX_RING, 64)]
    settled: Annotated[int, integer(0, MAX_ROUNDS)]
    served: Bitmap


@message(34, Sender.MEMBER)
class MaskedInput(RingMessage):
    """
    A member's masked vector and a commitment to its self mask's seed, with committed slots also its commitments and
    masked blindings, signed; `salt` is that of the vector's digest in what is signed, and for the head alone.
    """

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    vector: Vector
    seed_commitment: SeedCommitment
    salt: Salt
    commitments: Elements
    blinding: Scalars
    signature: MemberSignature


@message(35, Sender.HEAD)
class Roster(RingMessage):
    """The head's U: the members whose share it holds."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    roster: Bitmap


@message(36, Sender.MEMBER)
class Confirm(RingMessage):
    """
    MACs over the round's digest for the neighbours in U, by rising position, and the net mask words towards
    the neighbours in E that are not in U (empty when there are none), signed.
    """

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    macs: Macs
    dropped: Vector
    dropped_blinding: Scalars
    signature: MemberSignature


@message(37, Sender.HEAD)
class Confirmed(RingMessage):
    """The MACs that the receiver's neighbours made for it: who made one, and the MACs by rising position."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    makers: Bitmap
    macs: Macs


@message(38, Sender.MEMBER)
class Reveal(RingMessage):
    """The seed of the member's self mask of this attempt."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    seed: Key


@message(39, Sender.HEAD)
class Recover(RingMessage):
    """The head asks for partial evaluations of the silent members' PRF."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    silent: Bitmap


@message(40, Sender.MEMBER)
class Partial(RingMessage):
    """One neighbour's part of a silent member's PRF value, with a proof that it fits the dealer's commitments."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    silent: Position
    element: Key
    proof: Annotated[bytes, octets(64)]


@message(41, Sender.GATEWAY)
class BadDeal(RingMessage):
    """A neighbour cannot help to recover `dealer`: what it was dealt does not fit the dealer's commitments."""

    epoch: Epoch
    ring: Ring
    dealer: Position
