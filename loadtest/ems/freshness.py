"""
How old the newest value at an energy management system (EMS) is, by the meter's own clock.

Between two values the newest one ages second by second, so its age is a saw tooth over time.  Percentiles are those of
the age at a moment drawn at random, not of the ages at arrival: a value that comes each minute is 30 s old in the
middle of it, however quick its transfer was.  All times are seconds of one clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

GAP_FACTOR = 2.5
"""Values whose distance is more than so many nominal periods have a gap between them."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """At `at_s` the EMS had a value that its meter showed at `measured_s`."""

    at_s: float
    measured_s: float


@dataclass(frozen=True, slots=True)
class Freshness:
    """
    What an EMS knew over a span: `period` is the distance of successive values in the meter's time.

    None where there were too few values to say.
    """

    count: int
    period_s_p50: float | None
    period_s_p95: float | None
    age_s_p50: float | None
    age_s_p95: float | None
    age_s_max: float | None
    gaps: int
    gap_s_max: float


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed (nearest rank); None of no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def newer_only(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Without those that told the EMS nothing new: the meter had shown a later value to it before."""
    found: list[Arrival] = []
    for each in arrivals:
        if not found or each.measured_s > found[-1].measured_s:
            found.append(each)
    return found


def teeth(arrivals: Sequence[Arrival], from_s: float, to_s: float) -> list[tuple[float, float]]:
    """
    The saw tooth from `from_s` to `to_s`: for each value the age at which its turn begins, and at which it ends.

    It begins with the first arrival where that is later than `from_s`.
    """
    found = []
    known = newer_only(arrivals)
    for index, each in enumerate(known):
        following_s = known[index + 1].at_s if index + 1 < len(known) else to_s
        begin_s, end_s = max(each.at_s, from_s), min(following_s, to_s)
        if begin_s < end_s:
            found.append((begin_s - each.measured_s, end_s - each.measured_s))
    return found


def age_percentile(found: Sequence[tuple[float, float]], share: float) -> float | None:
    """The age that is not exceeded for this share of the time that the teeth cover."""
    total = sum(end - begin for begin, end in found)
    if total <= 0:
        return None
    edges = sorted({edge for tooth in found for edge in tooth})
    left = share * total
    for low, high in pairwise(edges):
        covering = sum(begin <= low and high <= end for begin, end in found)
        if covering * (high - low) >= left:
            return low + left / covering if covering else low
        left -= covering * (high - low)
    return edges[-1]


def freshness(arrivals: Sequence[Arrival], from_s: float, to_s: float, nominal_s: float) -> Freshness:
    """
    Of what arrived from `from_s` to `to_s`; `nominal_s` is the period that was ordered, which tells gaps.

    The last value before `from_s` counts for the age from then on.
    """
    known = [each for each in newer_only(arrivals) if each.at_s <= to_s]
    inside = [each for each in known if each.at_s >= from_s]
    found = teeth(known, from_s, to_s)
    periods = [after.measured_s - before.measured_s for before, after in pairwise(inside)]
    holes = [each for each in periods if each > GAP_FACTOR * nominal_s]
    return Freshness(
        count=len(inside), period_s_p50=percentile(periods, 0.5), period_s_p95=percentile(periods, 0.95),
        age_s_p50=age_percentile(found, 0.5), age_s_p95=age_percentile(found, 0.95),
        age_s_max=max((end for _, end in found), default=None), gaps=len(holes), gap_s_max=max(holes, default=0.0),
    )  # fmt: skip


def recovery_s(arrivals: Sequence[Arrival], healed_s: float, age_s_usual: float) -> float | None:
    """How long after `healed_s` the EMS had a value again that was not older than usual; None: it did not."""
    for each in newer_only(arrivals):
        if each.at_s >= healed_s and each.at_s - each.measured_s <= age_s_usual:
            return each.at_s - healed_s
    return None
