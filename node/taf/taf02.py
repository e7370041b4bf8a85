"""
TAF 2, time-variable tariffs: the energy of each stage of a tariff calendar.

Stages change at registration times only (the profile is refused otherwise), so an interval has one stage, that of its
start.  An interval without valid values at both ends goes into the error register.
"""

from __future__ import annotations

from collections import Counter

from node.taf.result import ERROR_STAGE, Period, Result, result_of, stage_registers
from protocol.profiles.calendar import StageLookup
from protocol.profiles.use_cases import TimeVariable


def evaluate(parameters: TimeVariable, period: Period) -> Result:
    """The registers of all stages of the calendar, used or not."""
    lookup = StageLookup(parameters.calendar)
    energies = Counter(dict.fromkeys(parameters.calendar.stages, 0))
    for each in period.intervals:
        energies[lookup.stage_at(each.start_s) if each.is_valid else ERROR_STAGE] += each.energy
    return result_of(period, stage_registers(period.obis, energies))
