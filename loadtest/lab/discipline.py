"""
Who is in a total, and how the energy of a household that was left out comes back: as linear maps over intervals.

The first edition of the protocol lets a head leave a member out in any round, and all that was missed comes with the
next contribution.  The second has a bucket of tokens for returns and releases missed energy slowly: a
model of its rules for members, until the machines that follow them can be played in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rules:
    """
    `tokens` returns at once and one more every `refill` intervals (None: any number), and the least number of parts in
    which missed energy is released (1: all at once).
    """

    tokens: int | None
    refill: int
    release: int


FIRST_EDITION = Rules(None, 1, 1)
SECOND_EDITION = Rules(4, 16, 16)


def toggling(count: int, rules: Rules) -> Bools:
    """
    The most that a head gets from a member that keeps to the rules: out for one interval whenever the return is paid.

    Without a token the member cannot come back, so a head that wants to go on seeing it keeps it in.
    """
    served = np.ones(count, np.bool_)
    bucket, since = rules.tokens, 0
    for interval in range(1, count):
        since += 1
        if bucket is not None and rules.tokens is not None and since >= rules.refill:
            bucket, since = min(rules.tokens, bucket + 1), 0
        if served[interval - 1] and (bucket is None or bucket > 0):
            served[interval] = False
            bucket = None if bucket is None else bucket - 1
    return served


def contributions(served: Bools, release: int, opened: Bools | None = None) -> Floats:
    """
    How intervals enter contributions, shape (intervals, intervals): row t is what is contributed in interval t.

    A member that is not served carries the interval's energy.  At a return the carry is cut into
    max(`release`, half of the intervals it comes from) equal parts, fixed until it is used up.  In rounds that are not
    `opened` (void) it contributes but its account does not move.
    """
    count = len(served)
    opened = np.ones(count, np.bool_) if opened is None else opened
    rows = np.zeros((count, count))
    carried = np.zeros(count)
    part = np.zeros(count)
    absent = 0
    was_in = True
    for interval in range(count):
        if not served[interval]:
            carried[interval] += 1.0
            absent += 1
            was_in = False
            continue
        if not was_in and carried.any():
            part = carried / (1 if release == 1 else max(release, -(-absent // 2)))
        was_in = True
        paid = np.minimum(part, carried)
        rows[interval] = paid
        rows[interval, interval] += 1.0
        if opened[interval]:
            carried = carried - paid
            if carried.sum() < 1e-9:
                carried, part, absent = np.zeros(count), np.zeros(count), 0
        else:
            carried[interval] += 1.0
            absent += 1
            part = carried / (1 if release == 1 else max(release, -(-absent // 2)))
    return rows


def alternating(count: int) -> Bools:
    """In every second interval."""
    return np.asarray(np.arange(count) % 2 == 0)


def out_for(count: int, shortest: int, longest: int, rng: np.random.Generator) -> Bools:
    """Out for so many intervals at random, then in for as many."""
    wanted = np.ones(count, np.bool_)
    at = int(rng.integers(1, 8))
    while at < count:
        length = int(rng.integers(shortest, longest + 1))
        wanted[at : at + length] = False
        at += length + int(rng.integers(shortest, longest + 1))
    return wanted
