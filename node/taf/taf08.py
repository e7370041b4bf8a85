"""
TAF 8, extreme values: the intervals with the largest and the smallest energy of the billing period.

All intervals are one registration period long, so their order by energy is that by mean power; among equals the
earlier one goes first.  Intervals without valid values at both ends say nothing of power and take no part.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import nlargest, nsmallest

from node.taf.result import Period, Result, result_of
from protocol.profiles.use_cases import ExtremeValues


def evaluate(parameters: ExtremeValues, period: Period) -> Result:
    """The `count` largest and smallest, fewer where the period has fewer."""
    valid = [each for each in period.intervals if each.is_valid]
    largest = nlargest(parameters.count, valid, key=lambda each: (each.energy, -each.start_s))
    smallest = nsmallest(parameters.count, valid, key=lambda each: (each.energy, each.start_s))
    return replace(result_of(period), largest=tuple(largest), smallest=tuple(smallest))
