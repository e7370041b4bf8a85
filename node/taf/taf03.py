"""
TAF 3, load-variable tariffs: the whole energy of an interval counts for the stage of its mean power.

Stage 1 reaches up to and without the first threshold.  The mean power is not rounded: with energy of n·10^scaler Wh in
an interval of s seconds, n·10^scaler·3600 is compared with threshold·s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from fractions import Fraction

from node.taf.result import ERROR_STAGE, Period, Result, result_of, stage_registers
from protocol.profiles.use_cases import LoadVariable


def evaluate(parameters: LoadVariable, period: Period) -> Result:
    """The registers of all stages."""
    thresholds = parameters.thresholds_w
    energies = Counter(dict.fromkeys(range(1, len(thresholds) + 2), 0))
    unit_ws = 3600 * Fraction(10) ** period.scaler
    for each in period.intervals:
        power_w = each.energy * unit_ws / (each.end_s - each.start_s)
        energies[bisect_right(thresholds, power_w) + 1 if each.is_valid else ERROR_STAGE] += each.energy
    return result_of(period, stage_registers(period.obis, energies))
