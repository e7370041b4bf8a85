"""
TAF 5, event-variable tariffs: the stage that the last event set.

Values exist at registration times only, so an event takes effect at the registration time at which or after which it
came: an interval has the stage that was set by its start, and no energy has to be divided by guess.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from node.taf.result import ERROR_STAGE, Period, Result, result_of, stage_registers
from protocol.errors import LocalProtocolError
from protocol.profiles.use_cases import EventVariable


class TariffEvent(NamedTuple):
    """A stage that a market participant set (Unix, s)."""

    at_s: int
    stage: int


def evaluate(parameters: EventVariable, period: Period, events: Sequence[TariffEvent]) -> Result:
    """
    The registers of all stages; `events` in the order of time, from before the period on.

    Raises LocalProtocolError for a stage that the profile does not name: such events are refused when they come.
    """
    if unknown := {each.stage for each in events} - set(parameters.stages):
        raise LocalProtocolError(f"events with stages {sorted(unknown)}, which the profile does not name")
    times = [each.at_s for each in events]
    energies = Counter(dict.fromkeys(parameters.stages, 0))
    for each in period.intervals:
        index = bisect_right(times, each.start_s) - 1
        stage = parameters.default_stage if index < 0 else events[index].stage
        energies[stage if each.is_valid else ERROR_STAGE] += each.energy
    return result_of(period, stage_registers(period.obis, energies))
