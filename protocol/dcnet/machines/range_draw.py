"""
Who must prove the range of what it committed to in a round, and what exactly such a proof states.

Commitments that no proof bounds let a member pollute a total: a negative value, or one that no meter counts, passes the
check of the sum.  Proofs of everybody would cost 7 ms and 2.5 KB for each slot, gateway and round.  So they are drawn,
after the round's result is durable and with entropy of the ledger's own: nobody knows before it commits.  One in
`MEMBERS_PER_DRAW` of the roster proves, all of it where the ring's total shows by itself that somebody is out of range.
A member that pollutes 96 rounds is never drawn with a probability of (23/24)^96 = 1.7 % at most.

The statement names everything that a commitment belongs to, so that no proof serves another one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from protocol import wire
from protocol.dcnet.crypto.suite import digest
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of
from protocol.dcnet.setup.schema import signed

MEMBERS_PER_DRAW = 24


def draw_members(view: RingView, ended: Ended, below: Callable[[int], int]) -> int:
    """
    The members that prove the ranges of a round, a bitmap; none where nothing was committed to and verified.

    `below(n)` gives a uniform integer of [0, n), which nobody else can know.
    """
    if ended.outcome is not wire.Outcome.OPENED or not ended.verified:
        return 0
    totals = [signed(ended.total[index]) for index in view.committed]
    if any(not 0 <= total < 1 << bits for total, bits in zip(totals, view.bits, strict=True)):
        return ended.roster
    left = positions_of(ended.roster)
    return bitmap([left.pop(below(len(left))) for _ in range(-(-len(left) // MEMBERS_PER_DRAW))])


def range_text(
    epoch_digest: bytes, ring: int, round_: int, position: int, slot: int, commitment: bytes, bits: int
) -> bytes:  # fmt: skip
    """What a proof is about: `slot` counts in the schema, `commitment` is the member's of that slot, `bits` its k."""
    return digest("range", epoch_digest, struct.pack("<QQQQQ", ring, round_, position, slot, bits), commitment)


def commitments_of(ended: Ended, commitments: bytes, position: int) -> Sequence[bytes]:
    """A roster member's own, by committed slot, out of those of a verified round."""
    count = len(commitments) // 32 // ended.roster.bit_count()
    start = 32 * count * (ended.roster & ((1 << position) - 1)).bit_count()
    return [commitments[at : at + 32] for at in range(start, start + 32 * count, 32)]
