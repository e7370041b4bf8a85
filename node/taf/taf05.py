"""
TAF 5, event-variable tariffs: the stage that the last event set.

Values exist at registration times only, so an event takes effect at the registration time at which or after which it
came: an interval has the stage that was set by its start, and no energy has to be divided by guess.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

from node.taf.result import ERROR_STAGE, Period, Result, result_of, stage_registers
from protocol.profiles.use_cases import EventVariable


def evaluate(parameters: EventVariable, period: Period) -> Result:
    """The registers of all stages; what an event set holds over the ends of billing periods."""
    times = [each.at.timestamp() for each in parameters.events]
    energies = Counter(dict.fromkeys(parameters.stages, 0))
    for each in period.intervals:
        index = bisect_right(times, each.start_s) - 1
        stage = parameters.default_stage if index < 0 else parameters.events[index].stage
        energies[stage if each.is_valid else ERROR_STAGE] += each.energy
    return result_of(period, stage_registers(period.obis, energies))
