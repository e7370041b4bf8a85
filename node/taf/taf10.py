"""
TAF 10, grid state: an event when a register leaves its limits, and one when it is back.

Back is what lies inside by the hysteresis at least: a voltage that wavers at its limit makes one event and not a
hundred.  Values that the meter itself doubts make none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from node.metering.entries import LoggedReading
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from protocol.profiles.use_cases import Limit


class Side(Enum):
    """Where a register is."""

    INSIDE = "inside"
    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class LimitEvent:
    """A register went to another side of its limits."""

    obis: Obis
    measured_ms: int
    side: Side


class LimitWatch:
    """One limit; feed it readings in the order of time."""

    def __init__(self, limit: Limit, side: Side = Side.INSIDE) -> None:
        self.side = side
        self._obis = Obis.parse(limit.obis)
        unit = Fraction(10) ** limit.scaler
        self._low = None if limit.low is None else limit.low * unit
        self._high = None if limit.high is None else limit.high * unit
        self._hysteresis = limit.hysteresis * unit

    def take(self, reading: LoggedReading) -> LimitEvent | None:
        """The event that a reading makes, if it makes one."""
        if reading.obis != self._obis or reading.value is None or reading.quality is Quality.METER_ERROR:
            return None
        side = self._side_of(reading.value * Fraction(10) ** reading.scaler)
        if side is self.side:
            return None
        self.side = side
        return LimitEvent(self._obis, reading.measured_ms, side)

    def _side_of(self, value: Fraction) -> Side:
        inward_low = self._hysteresis if self.side is Side.LOW else 0
        inward_high = self._hysteresis if self.side is Side.HIGH else 0
        if self._low is not None and value < self._low + inward_low:
            return Side.LOW
        if self._high is not None and value > self._high - inward_high:
            return Side.HIGH
        return Side.INSIDE
