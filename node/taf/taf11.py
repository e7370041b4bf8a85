"""
TAF 11, control of consumers and producers: each limitation with the register values around it.

For a limitation from one moment to another: the last value at or before its start and the first at or after its end,
so that what was used meanwhile can be bounded without a meter that is read in that second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from node.taf.result import Period
from node.taf.series import RegisterValue


@dataclass(frozen=True, slots=True)
class ControlEvent:
    """A controllable system was limited from `start_s` up to `end_s` (Unix, s), to `limit_w`; None is without limit."""

    system: str
    start_s: int
    end_s: int
    limit_w: int | None


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """A control event and the valid values around it, None where there is none."""

    event: ControlEvent
    before: RegisterValue | None
    after: RegisterValue | None


def evaluate(period: Period, events: Sequence[ControlEvent]) -> tuple[ControlRecord, ...]:
    """The records of the events that ended in the period, in the order of their ends."""
    valid = period.series.valid
    ended = [each for each in events if period.start_s < each.end_s <= period.end_s]
    return tuple(
        ControlRecord(
            event,
            max((each for each in valid if each.at_s <= event.start_s), key=lambda each: each.at_s, default=None),
            min((each for each in valid if each.at_s >= event.end_s), key=lambda each: each.at_s, default=None),
        )
        for event in sorted(ended, key=lambda each: (each.end_s, each.start_s, each.system))
    )
