"""
TAF 4, consumption-variable tariffs: stages by the energy used since the billing period began.

Energy at a threshold is split exactly.  What counts is how much was used, not when: energy over a gap is known in sum,
so it needs no error register.  Only where the register fell is the energy unknown, and the result incomplete.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from node.taf.result import Period, Result, result_of, stage_registers
from protocol.profiles.use_cases import ConsumptionVariable


def evaluate(parameters: ConsumptionVariable, period: Period) -> Result:
    """The registers of all stages; thresholds that lie between two digits of the register count from the next one."""
    energy = sum(each.energy for each in period.intervals)
    unit_wh = Fraction(10) ** period.scaler
    bounds = [ceil(Fraction(threshold) / unit_wh) for threshold in parameters.thresholds_wh]
    lows, highs = [0, *bounds], [*bounds, max(energy, bounds[-1])]
    stages = {
        index + 1: max(0, min(energy, high) - low)
        for index, (low, high) in enumerate(zip(lows, highs, strict=True))
    }  # fmt: skip
    return result_of(period, stage_registers(period.obis, stages))
