"""TAF 7, load profile: every registered value of the billing period, valid or not, with its status."""

from __future__ import annotations

from node.taf.result import Period, Result, result_of
from protocol.profiles.use_cases import LoadProfile


def evaluate(_parameters: LoadProfile, period: Period) -> Result:
    """The values from the period's first registration time to its end, both included."""
    return result_of(period, rows=period.rows)
