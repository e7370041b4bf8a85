"""Messages between gateway and coordinator: proofs of the range of what a gateway committed to."""

from __future__ import annotations

from typing import Annotated

from protocol.wire.fields import (
    Bitmap,
    Counter,
    Digest,
    Epoch,
    FuseRating,
    Position,
    Ring,
    Round,
    integer,
    many,
    octets,
)
from protocol.wire.registry import Message, Sender, message

MAX_COMMITTED = 16  # slots with commitments
MAX_RANGE_PROOF = 8192  # bytes; a proof of 52 bits has 6,656


@message(29, Sender.COORDINATOR)
class LeftOut(Message):
    """The members of a ring that owe an answer, all of them: its head starts no attempt with one of them."""

    epoch: Epoch
    ring: Ring
    members: Bitmap


@message(30, Sender.COORDINATOR)
class RangeRequest(Message):
    """
    The round ledger has drawn the receiver: prove the ranges of what it committed to in a round.

    The statement of a proof names `epoch_digest`, ring, round, position, slot, commitment and bits
    (protocol.dcnet.machines.range_draw); the bits follow from `fuse_a` (A) and `interval_s`.
    """

    epoch: Epoch
    ring: Ring
    round: Round
    position: Position
    epoch_digest: Digest
    interval_start_s: Counter
    interval_s: Annotated[int, integer(1, 2**30)]
    fuse_a: FuseRating


@message(31, Sender.GATEWAY)
class RangeProof(Message):
    """A proof for each committed slot, in their order; none where the gateway cannot prove."""

    epoch: Epoch
    ring: Ring
    round: Round
    position: Position
    proofs: Annotated[tuple[bytes, ...], many(octets(1, MAX_RANGE_PROOF), MAX_COMMITTED)]
