"""
Differencing: totals of rosters with and without a household, compared.

The plain kind takes what a total with the household has more than the next one without it.  The designed kind is a
coordinator that chooses the rosters, and the best linear estimate of the household's curve from everything it gets:
all totals, all rosters, the rule by which energy of intervals without it is carried over, and mean and covariance of
households of the area.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from loadtest.lab.views import Series

Floats = NDArray[np.float64]
_HELD_S = 24


def next_to(series: Sequence[Series], household: int, slot_s: int) -> tuple[NDArray[np.int64], Floats]:
    """
    Slots in which the household is in a total and in the next it is not, and the drop of the total between them.

    Only totals whose rosters differ by the household alone are compared. Within `_HELD_S` seconds a load hardly
    changes: the median over so many seconds takes away what others switched in between.
    """
    by_roster: dict[frozenset[int], list[Series]] = {}
    for each in series:
        if each.households:
            by_roster.setdefault(frozenset(each.households), []).append(each)
    found: dict[int, int] = {}
    for roster in sorted((each for each in by_roster if household in each), key=len, reverse=True):
        slots, values = _joined(by_roster[roster])
        rest = roster - {household}
        if rest:
            after, without = _joined(by_roster.get(rest, []))
            _, here, there = np.intersect1d(slots + 1, after, assume_unique=True, return_indices=True)
            slots, values = slots[here], values[here] - without[there]
        # Of two differences the one of the fewer members is taken; a total of one is its reading, without another.
        found.update(zip(slots.tolist(), values.tolist(), strict=True))
    slots = np.array(sorted(found), np.int64)
    drops = np.array([found[slot] for slot in slots.tolist()], np.float64)
    width = min(int(_HELD_S // (2 * slot_s)), max(0, len(drops) // 2 - 1)) * 2 + 1
    if width > 1:
        padded = np.pad(drops, width // 2, mode="edge")
        drops = np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)
    return slots, drops


def _joined(series: Sequence[Series]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slots and values of all, each slot once."""
    if not series:
        return np.array([], np.int64), np.array([], np.int64)
    slots, first = np.unique(np.concatenate([each.slots for each in series]), return_index=True)
    return slots, np.concatenate([each.values for each in series])[first]


class LinearAttacker:
    """
    The best linear estimate of a household's readings from totals: made once for rosters, then applied to totals.

    `target` (totals, slots) says how the household's slots enter each total and `others` the same for each of the
    others, of whom there are `count` in all totals or `count[t]` in total t, each roster a part of the larger ones;
    mean and covariance are those of one household.
    """

    def __init__(
        self, target: Floats, others: Floats, count: int | NDArray[np.int64], mean_w: Floats, covariance: Floats,
        noise_w2: float = 25.0,
    ) -> None:  # fmt: skip
        counts = np.broadcast_to(count, len(target))
        shared = np.minimum.outer(counts, counts)
        spread = target @ covariance @ target.T + shared * (others @ covariance @ others.T)
        spread[np.diag_indices_from(spread)] += noise_w2
        self._mean_w = mean_w
        self._expected = target @ mean_w + counts * (others @ mean_w)
        self._gain = cho_solve(cho_factor(spread, lower=True), target @ covariance).T

    def estimate(self, totals_w: Floats) -> Floats:
        """The household's readings, shape (slots,), from totals of shape (totals,)."""
        return np.asarray(self._mean_w + self._gain @ (totals_w - self._expected), np.float64)


class RosterAttacker:
    """
    A coordinator that chose the rosters, and what it makes of its view.

    `target` and `others` are as for `LinearAttacker`, a total a slot.
    """

    def __init__(self, target: Floats, others: Floats, mean_w: Floats, covariance: Floats) -> None:
        self._rules = target, others
        self._household = mean_w, covariance
        self._made: dict[bytes, LinearAttacker] = {}

    def estimate(self, series: Sequence[Series], household: int) -> Floats:
        """
        The household's readings, shape (slots,), W.

        In each slot from the total of the fewest members with the household, else from the one of the most without.
        Raises ValueError where a slot has no total at all.
        """
        target, others = self._rules
        totals_w, counts = np.zeros(len(target)), np.full(len(target), -1)
        known = sorted((each for each in series if each.households), key=lambda each: each.members)
        without = [each for each in known if household not in (each.households or ())]
        with_it = [each for each in known if household in (each.households or ())]
        for each in (*without, *reversed(with_it)):
            totals_w[each.slots] = each.values
            counts[each.slots] = each.members - (household in (each.households or ()))
        if (counts < 0).any():
            raise ValueError("a slot without any total")
        made = self._made.get(counts.tobytes())
        if made is None:
            made = self._made[counts.tobytes()] = LinearAttacker(target, others, counts, *self._household)
        return made.estimate(totals_w)
