"""
TAF 9, actual feed-in: the newest value of the feed-in power.

Asked for by the market participant, or each `period_s` of the profile.  Never billed.
"""

from __future__ import annotations

from collections.abc import Iterable

from node.metering.entries import LoggedReading
from protocol.metering.obis import Obis


def newest(readings: Iterable[LoggedReading], obis: Obis) -> LoggedReading | None:
    """The reading of a register that was measured last, None where there is none."""
    found = [each for each in readings if each.obis == obis and each.value is not None]
    return max(found, key=lambda each: (each.measured_ms, each.received_ms), default=None)
