"""
TAF 13, visualisation over the WAN: the values that the consumer sees at home, for a portal that the consumer chose.

Values are those of the registration period, not finer: what leaves the house is no more than what a load profile has.
"""

from __future__ import annotations

from node.taf.result import Period, Result, result_of
from protocol.profiles.use_cases import Visualisation


def evaluate(_parameters: Visualisation, period: Period) -> Result:
    """The values after the period's start, which belongs to what was sent before."""
    return result_of(period, rows=[each for each in period.rows if each.at_s > period.start_s])
