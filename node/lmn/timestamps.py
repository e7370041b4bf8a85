"""
When a value was measured, and whether a meter's counters and clocks run forwards.

A base meter has no calendar, only seconds since it was switched on; it sends with each value the second of the value
and the second of sending.  Their difference taken from the reception time is the time of measurement, so the
meter's own epoch cancels out.  Source: TR-03109-1 detail specification 2.0, clause 9.3.4 (REQ.TLSHDLC.SMGW.50 to 70).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis, is_cumulative
from protocol.metering.reading import Reading, is_past


def time_of_measurement(received_at: datetime, reference_s: int, value_s: int) -> datetime:
    """
    The time `ts` = reception - (reference time - value time), both seconds indices of the same message.

    Raises RemoteProtocolError where the value would be newer than its message.
    """
    if value_s > reference_s:
        raise RemoteProtocolError("value_after_message", "the value's second is later than its message's")
    return received_at - timedelta(seconds=reference_s - value_s)


def localized(reading: Reading, zone: tzinfo) -> Reading:
    """
    The same with the offset of `zone` where its time has none; as it is in an hour that summer time's end repeats.

    `zone` is where the meter's clock is: a time without an offset is the local one (DLMS UA 1000-1, 4.1.4.1).
    """
    when = reading.measured_at
    if when is None or when.tzinfo is not None:
        return reading
    fixed = when.replace(tzinfo=zone)
    return replace(reading, measured_at=fixed) if fixed.utcoffset() == fixed.replace(fold=1).utcoffset() else reading


@dataclass(frozen=True, slots=True)
class Fallen:
    """What ran backwards: `reason` is `decremented_timestamp` or `decremented_counter`; no values."""

    device: str
    reason: str
    obis: Obis | None = None


class MonotonicWatch:
    """
    Remembers each meter's last second and last counters; says what fell.

    A fall is reported once: the lower value is the new base, as after an exchange of the meter.  Bounded by
    `register_count_max` registers; beyond it, registers not seen before are not watched.
    """

    def __init__(self, register_count_max: int = 4096) -> None:
        self._max = register_count_max
        self._seconds: dict[str, int] = {}
        self._counters: dict[tuple[str, Obis], tuple[int, int]] = {}

    def check(self, readings: Iterable[Reading]) -> list[Fallen]:
        """The falls that the readings of one message show, against the messages before."""
        fallen: list[Fallen] = []
        latest_s: dict[str, int] = {}
        for reading in readings:
            second = reading.record.get("reference_seconds", reading.meter_seconds)
            if second is not None and not is_past(reading):
                latest_s[reading.device] = max(second, latest_s.get(reading.device, 0))
            obis, value = reading.obis, reading.value
            if obis is None or not isinstance(value, int) or not is_cumulative(obis) or is_past(reading):
                continue
            key = (reading.device, obis)
            if not self._room(key in self._counters):
                continue
            before, scaler = self._counters.get(key, (value, reading.scaler))
            low = min(scaler, reading.scaler)
            if value * 10 ** (reading.scaler - low) < before * 10 ** (scaler - low):
                fallen.append(Fallen(reading.device, "decremented_counter", obis))
            self._counters[key] = (value, reading.scaler)
        # Where the message's own second is not known, the latest of its values' stands for it.
        for device, second in latest_s.items():
            if self._room(device in self._seconds):
                if second < self._seconds.get(device, second):
                    fallen.append(Fallen(device, "decremented_timestamp"))
                self._seconds[device] = second
        return fallen

    def _room(self, known: bool) -> bool:
        return known or len(self._seconds) + len(self._counters) < self._max
