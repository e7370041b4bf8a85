"""
TAF 13, visualisation over the WAN: the values that the consumer sees at home, for a portal that the consumer chose.

Values are those of the registration period, not finer: what leaves the house is no more than what a load profile has.
"""

from __future__ import annotations

from node.taf.result import Period, Result, result_of
from node.taf.series import RegisterValue
from protocol.profiles.use_cases import Visualisation


def evaluate(_parameters: Visualisation, period: Period, after_s: int) -> Result:
    """The values after `after_s` (Unix, s), which were not sent yet."""
    rows: list[RegisterValue] = [each for each in period.rows if each.at_s > after_s]
    return result_of(period, rows=rows)
