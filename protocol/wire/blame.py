"""Messages by which the round ledger finds out, with proofs, who lied where a round did not open."""

from __future__ import annotations

from typing import Annotated

from protocol.wire.fields import (
    MAX_RING,
    Attempt,
    Bitmap,
    Digest,
    Epoch,
    FeldmanCommitments,
    MemberSignature,
    Nonces,
    Position,
    Ring,
    Round,
    SealedShares,
    Term,
    Vector,
    many,
    octets,
    record,
    ring_position,
)
from protocol.wire.registry import Message, Sender, message

OPENING_SIZE = 96
Evidence = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]


@message(64, Sender.GATEWAY)
class CorruptSum(Message):
    """
    The head's evidence that the masks of an attempt did not cancel; it voids the round.

    `nonces` are those of E by rising position, `mask_terms` what the self masks' labels bind beside.  `evidence` is for
    each member of the roster, by rising position: of its MASKED_INPUT the first word, the vector's
    digest, the commitment to the seed, the commitment half and the signature; its seed; and of its CONFIRM the first
    net word, the digest of all of them and the signature.  A member without a CONFIRM has nothing in the last three.
    """

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    term: Term
    expected: Bitmap
    roster: Bitmap
    nonces: Nonces
    mask_terms: Digest
    evidence: Annotated[
        tuple[Evidence, ...],
        many(
            record(
                octets(8), octets(32), octets(32), octets(32), octets(64), octets(32),
                octets(0, 8, 8), octets(0, 32, 32), octets(0, 64, 64),
            ),
            MAX_RING,
        ),
    ]  # fmt: skip


@message(65, Sender.COORDINATOR)
class Inquiry(Message):
    """
    The round ledger's signed word that an attempt is void because its masks did not cancel, to each member of U: it
    owes its first mask words.
    """

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    term: Term
    expected: Bitmap
    roster: Bitmap
    nonces: Nonces
    mask_terms: Digest
    signature: MemberSignature


@message(66, Sender.GATEWAY)
class MaskWords(Message):
    """The answer: the first mask word with each neighbour in E, by rising position, signed."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    words: Vector
    signature: MemberSignature


@message(67, Sender.COORDINATOR)
class DisputedPair(Message):
    """What the neighbour at `position` signed and differs from what the receiver did: either may open the pair."""

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    position: Position
    words: Vector
    signature: MemberSignature


@message(68, Sender.COORDINATOR)
class DisputedDeal(Message):
    """A whole signed DEAL of which the receiver said that its share is bad: it may open the pair."""

    epoch: Epoch
    ring: Ring
    dealer: Position
    commitments: FeldmanCommitments
    sealed: SealedShares
    signature: MemberSignature


@message(69, Sender.GATEWAY)
class PairOpening(Message):
    """The secret of the pair with the member at `position`, with a proof (`crypto.pair_opening`)."""

    epoch: Epoch
    ring: Ring
    position: Position
    opening: Annotated[bytes, octets(OPENING_SIZE)]


@message(70, Sender.GATEWAY)
class WrongCommitment(Message):
    """
    The head's evidence that a member committed to another seed than that of its self mask: the signed MASKED_INPUT as
    in `CorruptSum`, and t parts of its neighbours with their proofs.
    """

    epoch: Epoch
    ring: Ring
    round: Round
    attempt: Attempt
    term: Term
    expected: Bitmap
    nonces: Nonces
    mask_terms: Digest
    position: Position
    evidence: Annotated[
        tuple[bytes, bytes, bytes, bytes, bytes],
        record(octets(8), octets(32), octets(32), octets(32), octets(64)),
    ]
    parts: Annotated[
        tuple[tuple[int, bytes, bytes], ...], many(record(ring_position, octets(32), octets(64)), MAX_RING)
    ]


@message(71, Sender.COORDINATOR)
class PresenceRequest(Message):
    """The head says that the receiver fell silent in a round that was lost: is it there?"""

    epoch: Epoch
    ring: Ring
    round: Round


@message(72, Sender.GATEWAY)
class Presence(Message):
    """The answer."""

    epoch: Epoch
    ring: Ring
    round: Round
