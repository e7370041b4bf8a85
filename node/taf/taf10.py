"""
TAF 10, grid state: an event when a register leaves its limits, and one when it is back.

Back is what lies inside by the hysteresis at least: a voltage that wavers at its limit makes one event and not a
hundred.  Values that the meter itself doubts make none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from fractions import Fraction

from node.metering.entries import LoggedReading
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from protocol.profiles.use_cases import GridState, Limit


class Side(Enum):
    """Where a register is."""

    INSIDE = "inside"
    LOW = "low"
    HIGH = "high"


class LimitWatch:
    """One limit; feed it readings in the order of time."""

    def __init__(self, limit: Limit, side: Side = Side.INSIDE) -> None:
        self.side = side
        self.obis = Obis.parse(limit.obis)
        unit = Fraction(10) ** limit.scaler
        self._low = None if limit.low is None else limit.low * unit
        self._high = None if limit.high is None else limit.high * unit
        self._hysteresis = limit.hysteresis * unit

    def take(self, reading: LoggedReading) -> bool:
        """Whether the register has come to another side with this reading."""
        if reading.obis != self.obis or reading.value is None or reading.quality is Quality.METER_ERROR:
            return False
        side = self._side_of(reading.value * Fraction(10) ** reading.scaler)
        is_event, self.side = side is not self.side, side
        return is_event

    def _side_of(self, value: Fraction) -> Side:
        inward_low = self._hysteresis if self.side is Side.LOW else 0
        inward_high = self._hysteresis if self.side is Side.HIGH else 0
        if self._low is not None and value < self._low + inward_low:
            return Side.LOW
        if self._high is not None and value > self._high - inward_high:
            return Side.HIGH
        return Side.INSIDE


def evaluate(
    parameters: GridState, readings: Iterable[LoggedReading], before: Mapping[Obis, Side]
) -> tuple[list[tuple[LoggedReading, Side]], dict[Obis, Side]]:  # fmt: skip
    """
    The readings (in the order of time) with which a register came to another side, and where each is after them.

    `before` says on which side registers were, those that it does not name inside.
    """
    watches = [LimitWatch(each, before.get(Obis.parse(each.obis), Side.INSIDE)) for each in parameters.limits]
    events = [(reading, watch.side) for reading in readings for watch in watches if watch.take(reading)]
    return events, {each.obis: each.side for each in watches}
