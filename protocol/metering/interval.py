"""
Interval arithmetic: the one place where a moment becomes a metering interval, a round or a price's index.

Intervals are half-open: interval i of an origin covers [origin + i·length, origin + (i+1)·length).  All is UTC, so a
day has 96 quarter hours; days of 92 and 100 are a matter of local time and of whoever shows it.

Metering time and real time are one in the field.  In a time lapse an interval of metering time (a quarter hour) takes
another period of real time (a second): `RegistrationGrid` maps one to the other.  Real time comes as floating-point
seconds and is counted in whole microseconds, so that the moment at which a period is said to begin is in that period.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

QUARTER_HOUR_S = 900
HOUR_S = 3_600
DAY_S = 86_400
_US = 1_000_000
_CEIL_SLACK = 1e-6  # of an interval: a moment computed in floating point may lie just after the start that is meant

Number = TypeVar("Number", int, float)


def index_at(moment: Number, origin: Number, length: Number) -> int:
    """The index of the interval that a moment lies in; negative before the origin.  All three in one unit."""
    return int((moment - origin) // length)


def start_of(index: int, origin: Number, length: Number) -> Number:
    """When interval `index` begins."""
    return origin + index * length


def next_start(moment: float, origin: float, length: float) -> float:
    """The first start of an interval later than `moment`."""
    return start_of(index_at(moment, origin, length) + 1, origin, length)


def first_index_from(moment: float, origin: float, length: float) -> int:
    """The index of the first interval that begins at `moment` or later."""
    return math.ceil((moment - origin) / length - _CEIL_SLACK)


def index_starting_at(start: int, origin: int, length: int, count: int) -> int | None:
    """The index of the interval that begins exactly at `start`, None where none of `count` intervals does."""
    index, rest = divmod(start - origin, length)
    return index if not rest and 0 <= index < count else None


def latest_start(moment: Number, origin: Number, length: Number) -> Number:
    """The last start of an interval that is not later than `moment`."""
    return start_of(index_at(moment, origin, length), origin, length)


def day_of(moment_s: int) -> int:
    """The UTC day that a moment (Unix, s) lies in, counted from 1970."""
    return index_at(moment_s, 0, DAY_S)


def second_of_day(moment_s: int) -> int:
    """Seconds since the UTC day of a moment began."""
    return moment_s - latest_start(moment_s, 0, DAY_S)


@dataclass(frozen=True, slots=True)
class RegistrationGrid:
    """
    Registration periods: period i begins in real time at `start_ms` + i·`period_ms` (Unix time in ms).

    Its registration time, in metering time, is `metering_start_s` + i·`interval_s` (Unix time in s).
    """

    start_ms: int
    period_ms: int
    metering_start_s: int
    interval_s: int

    @property
    def period_s(self) -> float:
        """Real seconds from one registration time to the next."""
        return self.period_ms / 1000

    def index_at(self, now_s: float) -> int:
        """The registration period that has begun by `now_s`, real time."""
        return index_at(round(now_s * _US), self.start_ms * 1000, self.period_ms * 1000)

    def time_s(self, index: int) -> float:
        """When a registration period begins, real time."""
        return start_of(index, self.start_ms * 1000, self.period_ms * 1000) / _US

    def next_time_s(self, now_s: float) -> float:
        """When the next registration period begins, real time."""
        return self.time_s(self.index_at(now_s) + 1)

    def registration_s(self, index: int) -> int:
        """The registration time of a period, metering time."""
        return start_of(index, self.metering_start_s, self.interval_s)

    def agrees_with(self, other: RegistrationGrid) -> bool:
        """Whether both have the same registration times; they may count from different ones."""
        if (self.period_ms, self.interval_s) != (other.period_ms, other.interval_s):
            return False
        index, rest = divmod(self.start_ms - other.start_ms, self.period_ms)
        return not rest and other.registration_s(index) == self.metering_start_s

    def finer(self, interval_s: int) -> RegistrationGrid | None:
        """The registration periods of `interval_s` that these consist of; None where they do not."""
        count, rest = divmod(self.interval_s, interval_s)
        if rest or count < 2 or self.period_ms % count:
            return None
        return RegistrationGrid(self.start_ms, self.period_ms // count, self.metering_start_s, interval_s)

    def has(self, registration_s: int) -> bool:
        """Whether a moment of metering time is one of the registration times."""
        return (registration_s - self.metering_start_s) % self.interval_s == 0

    def index_of(self, registration_s: int, count: int) -> int | None:
        """The period of a registration time (metering time), None where it is none of the first `count`."""
        return index_starting_at(registration_s, self.metering_start_s, self.interval_s, count)


QUARTER_HOURS = RegistrationGrid(0, QUARTER_HOUR_S * 1000, 0, QUARTER_HOUR_S)
"""The field's registration periods: the quarter hours of UTC, real time being metering time."""
