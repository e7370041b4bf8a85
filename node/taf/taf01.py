"""
TAF 1, data-sparing tariffs: the register's values at both ends of the billing period, and their difference.

The gateway keeps and delivers nothing between them.
"""

from __future__ import annotations

from node.taf.result import TOTAL_STAGE, DerivedRegister, Period, Result, result_of, stage_register
from protocol.profiles.use_cases import DataSparing


def evaluate(_parameters: DataSparing, period: Period) -> Result:
    """The total and the values at the ends, as far as they are there."""
    energy = sum(each.energy for each in period.intervals)
    total = DerivedRegister(stage_register(period.obis, TOTAL_STAGE), energy)
    ends = [each for each in period.rows if each.at_s in (period.start_s, period.end_s)]
    return result_of(period, [total], ends)
