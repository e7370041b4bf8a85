"""
TAF 14, high-frequency values: readings as they come, thinned to one in `period_s`.

Never billed and never part of a ring: a total of seconds tells what each household does (docs/explanation/protocol.md).
"""

from __future__ import annotations

from node.metering.entries import LoggedReading
from protocol.metering.obis import Obis
from protocol.profiles.use_cases import HighFrequency


class Thinning:
    """One register; feed it readings in the order of time."""

    def __init__(self, parameters: HighFrequency, obis: Obis) -> None:
        self._period_ms = 1000 * parameters.period_s
        self._obis = obis
        self._next_ms = 0

    def take(self, reading: LoggedReading) -> bool:
        """Whether a reading is delivered: it is the first one measured in its period."""
        if reading.obis != self._obis or reading.value is None or reading.measured_ms < self._next_ms:
            return False
        self._next_ms = (reading.measured_ms // self._period_ms + 1) * self._period_ms
        return True
