"""
The project's ring through its real machines: the one place where the lab touches them.

Every slot is a round of `loadtest.ring.LocalRing`; the messages to the head are caught on their way.  The pairwise
masks are computed once more from the members' keys, so that coalitions with neighbours can be checked as well.
"""

from __future__ import annotations

import numpy as np

from loadtest.lab.real.run import Inputs, Numbers, RealRun, Stopwatch
from loadtest.lab.schemes.sums import CORRUPT, DROPOUT, ring_shape_of
from loadtest.ring import LocalRing, RingSize
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.masks import MaskSchedule, self_mask, words_from_bytes
from protocol.dcnet.parameters.choice import choose
from protocol.dcnet.setup.rings import bitmap, positions_of
from protocol.errors import InvariantError, StromkreisError

MEMBERS_MIN = 5
_WORDS = 2  # the count and the reading


def run(inputs: Inputs) -> RealRun:
    """A round for each slot.  Raises StromkreisError for a group that no ring's numbers exist for."""
    if inputs.members < MEMBERS_MIN:
        raise StromkreisError(f"a ring of {inputs.members}; expected {MEMBERS_MIN} members or more")
    numbers = choose(inputs.members, CORRUPT, DROPOUT)
    suite = StandardSuite()
    size = RingSize(
        numbers.n, numbers.k, numbers.t, numbers.t_c, numbers.k_min, numbers.n_min, words=_WORDS, rounds=inputs.slots
    )
    caught: list[tuple[int, int, int]] = []  # slot, message of the shape, payload
    sent_bytes = 0

    def trace(target: str, sender: str, message: wire.Message) -> None:
        nonlocal sent_bytes
        sent_bytes += len(wire.encode(message))
        if target == "head" and isinstance(message, wire.MaskedInput):
            word = int(words_from_bytes(message.vector)[1])
            caught.append((message.round, int(sender), word))
        elif target == "head" and isinstance(message, wire.Reveal):
            word = int(self_mask(suite, message.seed, _WORDS)[1])
            caught.append((message.round, inputs.members + int(sender), word))

    with Stopwatch() as watch:
        ring = LocalRing(suite, size, inputs.seed)
        ring.trace = trace
        ended = []
        if inputs.missing is not None:
            ring.silent.add(inputs.missing)
        for slot in range(inputs.slots):
            vectors = [np.array([1, value], np.int64).view(np.uint64) for value in inputs.readings_w[slot]]
            ended.append(ring.round(slot, vectors))
    roster = bitmap(inputs.present)
    if any(each.outcome is not wire.Outcome.OPENED or each.roster != roster for each in ended):
        raise InvariantError("a round of honest members did not open with all who were there")
    pairs = {
        (low, high) for low, bits in enumerate(ring.view.neighbourhoods) for high in positions_of(bits) if low < high
    }
    shape = ring_shape_of(inputs.members, frozenset(pairs))
    payload = np.zeros((inputs.slots, len(shape.messages)), object)
    for slot, message_index, word in caught:
        payload[slot, message_index] = word
    sums = np.array([int(each.total[1]) for each in ended], dtype=object)
    payload[:, -2:] = sums[:, None]
    secrets = _pair_masks(ring, pairs, inputs.slots) | {
        f"self:{i}": payload[:, inputs.members + i] for i in range(inputs.members)
    }
    return RealRun(shape, payload, secrets, sums.astype(np.float64), watch.cpu_s, sent_bytes, 4)


def _pair_masks(ring: LocalRing, pairs: set[tuple[int, int]], slots: int) -> dict[str, Numbers]:
    masks: dict[str, Numbers] = {}
    schedules = [MaskSchedule(ring.suite, ring.view, each) for each in ring.secrets]
    for slot in range(slots):
        for schedule in schedules:
            schedule.prepare(slot)
        for low, high in pairs:
            word = int(schedules[low].words(slot, 0, 1 << high)[1])
            masks.setdefault(f"mask:{low}:{high}", np.zeros(slots, object))[slot] = word
    return masks
