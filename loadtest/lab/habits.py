"""
Who lives in a simulated household and when they do what: presence, sleep, appliances owned, times and rates of use.

All parameters are assumptions in the range of time-use surveys, not estimates from one; what the lab compares are
schemes on the same households, so their order matters less than that they differ from each other and repeat
themselves from day to day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

MINUTES = 1440


class Use(NamedTuple):
    """How a type of appliance is used: owners' share, uses a day, usual hours, and seconds (0: as recorded)."""

    owned: float
    daily: float
    hours: tuple[float, ...]
    duration_s: tuple[int, int] = (0, 0)


USES: dict[str, Use] = {
    "KETTLE": Use(0.85, 2.2, (7.0, 10.5, 16.0, 20.5)),
    "COFFEEMAKER": Use(0.7, 1.3, (6.9, 14.8)),
    "TOASTER": Use(0.7, 0.6, (7.2,)),
    "BREADCUTTER": Use(0.3, 0.5, (7.1, 18.6)),
    "MICROWAVE": Use(0.7, 0.8, (12.5, 18.8)),
    "COOKINGSTOVE": Use(0.95, 1.1, (12.2, 18.4), (900, 3600)),
    "DISHWASHER": Use(0.7, 0.6, (13.6, 20.2)),
    "WASHINGMACHINE": Use(0.95, 0.45, (9.8, 17.4)),
    "DRYER": Use(0.42, 0.25, (12.0, 19.2)),
    "IRON": Use(0.6, 0.15, (16.5,), (900, 2700)),
    "VACUUMCLEANER": Use(0.9, 0.25, (10.5, 16.8), (600, 1800)),
    "TV": Use(0.9, 1.4, (13.0, 20.2), (2400, 12000)),
    "PC": Use(0.8, 1.2, (10.0, 19.0), (1800, 14400)),
    "PRINTER": Use(0.3, 0.1, (17.0,)),
    "CDPLAYER": Use(0.3, 0.2, (17.5,), (1800, 5400)),
    "AMPLIFIER": Use(0.3, 0.3, (18.5,), (1800, 7200)),
}
CYCLING: dict[str, float] = {"REFRIGERATOR": 1.0, "FREEZER": 0.55}
DAYS_A_WEEK = 7
_WORKDAYS = 5


@dataclass(frozen=True, slots=True)
class Habits:
    """What stays the same in a household from day to day; hours are local, shares in [0, 1]."""

    wake_h: float
    sleep_h: float
    leave_h: float
    absent_h: float
    workday_absence: float
    errand_rate: float
    rates: dict[str, float]
    hours: dict[str, tuple[float, ...]]
    devices: dict[str, int]
    power_scale: float
    standby_w: float
    light_w: float
    cycling: dict[str, float]

    @classmethod
    def draw(cls, rng: Generator, device_counts: dict[str, int]) -> Habits:
        """The habits of one household; `device_counts` says how many recorded devices each appliance type has."""
        kind = rng.choice(3, p=(0.5, 0.25, 0.25))  # away for work, at home with errands, a mixture
        rates, hours = {}, {}
        for name, use in USES.items():
            owned = rng.random() < use.owned
            rate, shifts = use.daily * rng.lognormal(-0.15, 0.6), rng.normal(0.0, 1.8, len(use.hours))
            if owned:
                rates[name] = float(rate)
                hours[name] = tuple(float(hour + shift) for hour, shift in zip(use.hours, shifts, strict=True))
        cycling = {name: float(rng.uniform(0.35, 0.6)) for name, share in CYCLING.items() if rng.random() < share}
        return cls(
            wake_h=float(rng.normal(6.9, 1.1)), sleep_h=float(rng.normal(22.9, 1.0)),
            leave_h=float(rng.normal(8.4, 1.8)),
            absent_h=float(np.clip(rng.normal((9.2, 2.0, 5.5)[kind], 1.2), 0.5, 13)),
            workday_absence=(0.92, 0.1, 0.6)[kind], errand_rate=float(rng.gamma(2.0, 0.35)), rates=rates, hours=hours,
            devices={name: int(rng.integers(count)) for name, count in sorted(device_counts.items())},
            power_scale=float(np.clip(rng.normal(1.0, 0.1), 0.7, 1.3)), standby_w=float(rng.gamma(3.0, 25.0) + 15.0),
            light_w=float(rng.gamma(2.0, 30.0) + 10.0), cycling=cycling,
        )  # fmt: skip


class Day(NamedTuple):
    """By minute of a day: is anybody at home, is anybody at home and awake."""

    present: NDArray[np.bool_]
    awake: NDArray[np.bool_]


def draw_day(habits: Habits, weekday: int, rng: Generator) -> Day:
    """One day's presence; `weekday` is 0 for Monday."""
    present = np.ones(MINUTES, np.bool_)
    is_workday = weekday < _WORKDAYS
    if rng.random() < (habits.workday_absence if is_workday else 0.15):
        leave_h = habits.leave_h + rng.normal(0.0, 0.25) + (0.0 if is_workday else 2.0)
        _leave(present, leave_h, habits.absent_h + rng.normal(0.0, 0.5))
    for _ in range(rng.poisson(habits.errand_rate)):
        _leave(present, rng.uniform(9.0, 20.0), rng.gamma(2.0, 0.7))
    awake = present.copy()
    late_h = 0.0 if is_workday else 1.2
    awake[: max(0, round((habits.wake_h + late_h + rng.normal(0.0, 0.3)) * 60))] = False
    awake[max(0, round((habits.sleep_h + late_h / 2 + rng.normal(0.0, 0.4)) * 60)) :] = False
    return Day(present, awake)


def _leave(present: NDArray[np.bool_], from_h: float, duration_h: float) -> None:
    begin = max(0, round(from_h * 60))
    present[begin : max(begin, round((from_h + max(0.1, duration_h)) * 60))] = False
