"""What one attempt at a round has brought in at its head, and the sum that comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from protocol import wire
from protocol.dcnet.commitments import Lane, add_lanes, decode_lane, subtract_lanes
from protocol.dcnet.masks import Words, self_blinding, self_masks, words_from_bytes
from protocol.dcnet.recovery import Recovery
from protocol.dcnet.rings import RingView, positions_of
from protocol.dcnet.suite import MAC_SIZE, Suite
from protocol.errors import RemoteProtocolError


@dataclass(slots=True)
class Attempt:
    """Sets of positions are bitmaps; `wrong_seeds` are revealed ones that do not fit what their share was bound to."""

    round: int
    attempt: int
    expected: int
    opened_s: float
    roster: int = 0
    confirmed: int = 0
    shares: dict[int, wire.Share] = field(default_factory=dict)
    confirms: dict[int, wire.Confirm] = field(default_factory=dict)
    seeds: dict[int, bytes] = field(default_factory=dict)
    wrong_seeds: dict[int, bytes] = field(default_factory=dict)
    recoveries: dict[int, Recovery] = field(default_factory=dict)

    @property
    def gone(self) -> int:
        r"""E \ U, towards whom the others' words are owed."""
        return self.expected & ~self.roster

    def macs_by_target(self, view: RingView, maker: int) -> dict[int, bytes]:
        """The MACs that a member made, by the neighbour they are for."""
        macs = self.confirms[maker].macs
        others = positions_of(view.neighbourhoods[maker] & self.roster)
        return {other: macs[MAC_SIZE * i : MAC_SIZE * (i + 1)] for i, other in enumerate(others)}

    def total(self, suite: Suite, view: RingView) -> tuple[Words, Lane]:
        """Σ shares - Σ words towards the dropped - Σ self masks, in both lanes; every seed is there."""
        group, count = suite.group, view.committed_count
        total = np.zeros(view.word_count, dtype=np.uint64)
        lane: Lane = (0,) * count
        seeds = []
        for i in positions_of(self.roster):
            share = self.shares[i]
            seed = self.seeds[i] if i in self.seeds else self.recoveries[i].seed
            total += words_from_bytes(share.vector)
            seeds.append(seed)
            confirm = self.confirms.get(i)
            towards_dropped = confirm is not None and bool(confirm.dropped)
            if confirm is not None and towards_dropped:
                total -= words_from_bytes(confirm.dropped)
            if count:
                lane = add_lanes(group, lane, decode_lane(group, share.blinding, count))
                lane = subtract_lanes(group, lane, self_blinding(suite, seed, count))
                if confirm is not None and towards_dropped:
                    lane = subtract_lanes(group, lane, decode_lane(group, confirm.dropped_blinding, count))
        total -= self_masks(suite, seeds, view.word_count)
        return total, lane


def check_share(suite: Suite, view: RingView, message: wire.Share) -> None:
    """A share's shape.  Raises RemoteProtocolError, here at its sender, or the round book would blame the head."""
    count = view.committed_count
    if (
        len(message.vector) != 8 * view.word_count
        or len(message.commitments) != 32 * count
        or len(message.blinding) != 32 * count
    ):
        raise RemoteProtocolError("bad_share", f"expected {view.word_count} words and {count} commitments")
    decode_lane(suite.group, message.blinding, count)
    if not all(suite.group.is_element(message.commitments[32 * i : 32 * (i + 1)]) for i in range(count)):
        raise RemoteProtocolError("bad_share", "a commitment is no group element")


def check_confirm(suite: Suite, view: RingView, attempt: Attempt, position: int, message: wire.Confirm) -> None:
    """The shape of a confirmation of a member in U.  Raises RemoteProtocolError."""
    neighbours = view.neighbourhoods[position]
    has_gone = bool(neighbours & attempt.gone)
    if (
        len(message.macs) != MAC_SIZE * (neighbours & attempt.roster).bit_count()
        or len(message.dropped) != 8 * view.word_count * has_gone
        or len(message.dropped_blinding) != 32 * view.committed_count * has_gone
    ):
        raise RemoteProtocolError("bad_confirm", "expected a MAC per neighbour and the words towards the dropped")
    decode_lane(suite.group, message.dropped_blinding, view.committed_count * has_gone)
