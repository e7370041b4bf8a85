"""
From the meters' drivers into the metering log: each reading gets the registration time that it counts for.

Every driver of a gateway delivers here and nowhere else.  What is known of a value's time comes from three sources,
the weaker ones only where the stronger are silent: the gateway's own clock at the telegram's first octet, as far as the
line can vouch for it (`node.lmn.arrival`); the meter's clock, where a telegram may have waited
(`node.metering.meter_clock`); the moment at which the gateway asked.  The time at which `deliver` is called is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import NamedTuple

from node.metering.entries import LoggedReading
from node.metering.interval import Arrival, Measured, Registration, next_border_s, registration
from node.metering.log import MeteringLog
from node.metering.meter_clock import MeterClock
from protocol.metering.interval import RegistrationGrid
from protocol.metering.obis import is_cumulative
from protocol.metering.reading import Reading, is_past

_INT8, _INT64, _UINT64 = 2**7, 2**63, 2**64  # what a block has room for


class _Time(NamedTuple):
    """What a telegram says of its newest value: when it was measured, and at which second of the meter's time."""

    measured: Measured
    stamp_s: float | None


class MeterDelivery:
    """
    Takes what the drivers of one gateway read.

    `grid` are the registration periods in force, the readings' times and the meters' schedule.  Between its times there
    may be others, for profiles of shorter periods that are never billed: they take nothing from it, since a value that
    is on time for one of the grid's is never another one's.
    """

    __slots__ = ("_clock", "_clocks", "_finer", "_finest_s", "_is_time_good", "_log", "grid")

    def __init__(
        self, log: MeteringLog, clock: Callable[[], float], grid: RegistrationGrid,
        is_time_good: Callable[[], bool] = lambda: True, finest_s: Callable[[], int | None] = lambda: None,
    ) -> None:  # fmt: skip
        """
        While `is_time_good` says no, what is measured counts as late: it is in totals and not for billing.

        `finest_s` is the shortest registration period of a profile (s), None where none is shorter than the grid's.
        """
        self.grid = grid
        self._finest_s = finest_s
        self._finer: tuple[RegistrationGrid, int, RegistrationGrid | None] | None = None
        self._log = log
        self._clock = clock
        self._is_time_good = is_time_good
        self._clocks: dict[str, MeterClock] = {}

    def next_reading_time(self, now_s: float) -> float:
        """When the meters are asked next: at the next registration time."""
        finer = self._finer_grid()
        return self.grid.next_time_s(now_s) if finer is None else finer.next_time_s(now_s)

    def next_border(self, now_s: float) -> float:
        """The next moment from which on values count for another registration time."""
        finer = self._finer_grid()
        border_s = next_border_s(self.grid, now_s)
        return border_s if finer is None else min(border_s, next_border_s(finer, now_s))

    def _finer_grid(self) -> RegistrationGrid | None:
        finest_s = self._finest_s()
        if finest_s is None:
            return None
        if self._finer is None or self._finer[:2] != (self.grid, finest_s):
            self._finer = self.grid, finest_s, self.grid.finer(finest_s)
        return self._finer[2]

    def _registered(self, measured: Measured, arrival: Arrival) -> tuple[RegistrationGrid, Registration | None]:
        """The registration that a value counts for, and of which periods it is."""
        found, finer = registration(self.grid, measured, asked=arrival.asked), self._finer_grid()
        if finer is None or (found is not None and found.on_time):
            return self.grid, found
        return finer, registration(finer, measured, asked=arrival.asked)

    async def deliver(self, readings: Sequence[Reading], arrival: Arrival) -> None:
        """
        Log the readings of one telegram or readout; returns when they are durable and every subscriber has them.

        Raises StoreError: then nobody has them.
        """
        devices = dict.fromkeys(each.device for each in readings)
        times = {
            device: self._time([each for each in readings if each.device == device], arrival) for device in devices
        }
        rows = [self._row(each, times[each.device], arrival) for each in readings if _is_register(each)]
        if logged := [row for row in rows if row is not None]:
            await self._log.append(logged)

    def _received_s(self, reading: Reading) -> float:
        return self._clock() if reading.received_at is None else reading.received_at.timestamp()

    def _time(self, readings: Sequence[Reading], arrival: Arrival) -> _Time:
        """Of the newest value that one meter's readings have; older ones are as much older as the meter says."""
        newest = max(readings, key=lambda each: (not is_past(each), _stamp_s(each) or 0.0))
        received_s = self._received_s(newest)
        received = Measured(min(arrival.earliest_s, received_s), received_s)
        stamp_s = _stamp_s(newest)
        if stamp_s is None or is_past(newest):
            return _Time(received, None)
        when = newest.measured_at
        if newest.meter_seconds is not None and when is not None and when.tzinfo is not None:
            # The telegram itself says how long before its sending the value was measured.
            received = _shifted(received, when.timestamp() - received_s)
        clock = self._clocks.setdefault(newest.device, MeterClock())
        return _Time(clock.measured(stamp_s, received, self.grid.index_at(received_s)), stamp_s)

    def _row(self, reading: Reading, time: _Time, arrival: Arrival) -> LoggedReading | None:
        if reading.obis is None:
            return None
        received_s, stamp_s, measured, grid = self._received_s(reading), _stamp_s(reading), time.measured, self.grid
        if is_past(reading):
            found = None
            aware = reading.measured_at is not None and reading.measured_at.tzinfo is not None
            measured = Measured.at((_stamp_s(reading) if aware else None) or received_s)
        else:
            if stamp_s is not None and time.stamp_s is not None:
                measured = _shifted(measured, stamp_s - time.stamp_s)
            grid, found = self._registered(measured, arrival)
        status = reading.status
        value, scaler = _fitted(reading.value, reading.scaler)
        return LoggedReading(
            meter=reading.device,
            obis=reading.obis,
            value=value,
            scaler=scaler,
            unit=reading.unit,
            status=status if status is not None and 0 <= status < _UINT64 else None,
            measured_ms=round(measured.latest_s * 1000),
            received_ms=round(received_s * 1000),
            registration_s=None if found is None else grid.registration_s(found.period),
            deviation_ms=None if found is None else round((measured.latest_s - grid.time_s(found.period)) * 1000),
            on_time=found is not None and found.on_time and self._is_time_good(),
            quality=reading.quality,
        )


def _is_register(reading: Reading) -> bool:
    """A number under an OBIS code; or a counter without one, which must not be taken for one that is not there."""
    return reading.obis is not None and (isinstance(reading.value, int) or is_cumulative(reading.obis))


def _fitted(value: object, scaler: int) -> tuple[int | None, int]:
    """
    Mantissa and scaler as the log holds them: 64 and 8 bits, signed; None for what is no such number.

    A meter's floating-point number is exact with some 40 digits.  Those that do not fit go, from the right and
    downwards: a register never shows more than was metered.
    """
    if not isinstance(value, int):
        return None, max(-_INT8, min(scaler, _INT8 - 1))
    while not -_INT64 <= value < _INT64 or scaler < -_INT8:
        value, scaler = value // 10, scaler + 1
    return (value, scaler) if scaler < _INT8 else (None, _INT8 - 1)


def _stamp_s(reading: Reading) -> float | None:
    """The value's time by the meter's clock; of one without an offset to UTC it is enough that it runs."""
    if reading.meter_seconds is not None:
        return float(reading.meter_seconds)
    when = reading.measured_at
    if when is None:
        return None
    return (when.replace(tzinfo=UTC) if when.tzinfo is None else when).timestamp()


def _shifted(measured: Measured, by_s: float) -> Measured:
    return Measured(measured.earliest_s + by_s, measured.latest_s + by_s)
