"""
TAF 11, control of consumers and producers: each limitation with the register values around it.

For a limitation from one moment to another: the last value at or before its start and the first at or after its end,
so that what was used meanwhile can be bounded without a meter that is read in that second.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from node.taf.result import ControlRecord, Period, Result, result_of
from protocol.profiles.use_cases import Control, ControlEvents


def evaluate(parameters: ControlEvents, period: Period) -> Result:
    """The records of the limitations that ended in the period, in the order of their ends."""
    ended = [each for each in parameters.controls if period.start_s < each.ends.timestamp() <= period.end_s]
    ended.sort(key=lambda each: (each.ends, each.begins, each.system))
    return replace(result_of(period), controls=tuple(_record(each, period) for each in ended))


def _record(control: Control, period: Period) -> ControlRecord:
    start_s, end_s = control.begins.timestamp(), control.ends.timestamp()
    valid = period.series.valid
    return ControlRecord(
        control.system, int(start_s), ceil(end_s), control.limit_w,
        max((each for each in valid if each.at_s <= start_s), key=lambda each: each.at_s, default=None),
        min((each for each in valid if each.at_s >= end_s), key=lambda each: each.at_s, default=None),
    )  # fmt: skip
