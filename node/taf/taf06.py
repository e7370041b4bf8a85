"""
TAF 6, on-demand values: the register at the beginning of each of the last days, by legal time.

Kept for the case that a supplier changes or somebody moves in or out, and delivered only when asked for.  Our reading:
who asks is the administrator, by a profile whose billing period ends when the values are wanted; they reach back beyond
that period.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from node.taf.result import Period, Result, result_of
from protocol.profiles.calendar import LEGAL_TIME
from protocol.profiles.use_cases import OnDemand


def evaluate(parameters: OnDemand, period: Period) -> Result:
    """The values at 00:00 of the last `days` days up to the period's end, as far as the series has them."""
    end = datetime.fromtimestamp(period.end_s, LEGAL_TIME)
    first = (end - timedelta(days=parameters.days)).timestamp()  # by the wall clock: days of 23 and 25 hours are one
    rows = [each for each in period.series.values if first <= each.at_s <= period.end_s and _is_midnight(each.at_s)]
    return result_of(period, rows=rows)


def _is_midnight(moment_s: int) -> bool:
    local = datetime.fromtimestamp(moment_s, LEGAL_TIME)
    return not (local.hour or local.minute or local.second)
