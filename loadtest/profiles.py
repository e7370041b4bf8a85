"""
Standard load profiles as integers: what share of a year's energy has flown by the end of each quarter hour.

The figures come from the tables that the `demandlib` package carries: the BDEW profiles H0 (made dynamic), G0 and H25,
and the test reference year of the German weather service (region 4, Potsdam) for the sun.  We read the tables and not
its classes: those need pandas, a second of every process's start, and `ElecSlp` turns warnings into errors, which
stops it with pandas 3.1.  A test holds both to the same numbers.

A profile is a running sum in billionths of a year, so a register is annual·share // 10^9: rounding never adds up, and
the arithmetic that truth is checked against has no float in it.
"""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadtest.config import Profile
from protocol.errors import StromkreisError

QUARTER_HOURS = 35_040
SHARES = 1_000_000_000
_FIRST_WEEKDAY = 3  # 1 January 2026, a Thursday; Monday is 0
_DAYS_IN_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SEASON_STARTS = ((1, 1, "winter"), (3, 21, "transition"), (5, 15, "summer"), (9, 15, "transition"), (11, 1, "winter"))
_WEATHER_COLUMNS = {"direct_w_m2": 13, "diffuse_w_m2": 14}

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class YearShares:
    """Running sums of import and export, 35,041 each from 0; `SHARES` of import is the annual consumption."""

    imported: tuple[int, ...]
    exported: tuple[int, ...]


@cache
def year_shares(profile: Profile, feed_in_percent: int = 0) -> YearShares:
    """
    The shares of a profile; `feed_in_percent` is a PV home's annual generation in percent of its annual consumption.

    A PV home imports and exports what is left of load and sun in each quarter hour, so its `imported` ends below
    SHARES.  Raises StromkreisError where demandlib is not installed.
    """
    if profile == "PV":
        balance = _h25() - _sun() * (feed_in_percent / 100)
        return YearShares(_running(np.maximum(balance, 0)), _running(np.maximum(-balance, 0)))
    load = {"H25": _h25, "H0": _h0, "G0": _g0}[profile]()
    return YearShares(_running(load), (0,) * (QUARTER_HOURS + 1))


def _running(weights: FloatArray) -> tuple[int, ...]:
    sums = np.floor(np.cumsum(weights) * SHARES + 0.5).astype(np.int64)
    return (0, *sums.tolist())


def _normalised(weights: FloatArray) -> FloatArray:
    return np.asarray(weights / weights.sum())


def _table(name: str) -> Path:
    found = importlib.util.find_spec("demandlib")
    if found is None or not found.submodule_search_locations:
        raise StromkreisError("load profiles need the package demandlib (install stromkreis[demo])")
    return Path(found.submodule_search_locations[0]) / name


def _weekday(day: int) -> int:
    return (_FIRST_WEEKDAY + day) % 7


def _h25() -> FloatArray:
    """BDEW 2025: a value for month, kind of day and quarter hour, then the dynamisation of the day."""
    with _table("bdew/bdew_data/h25.csv").open(encoding="utf-8", newline="") as file:
        _months, kinds, *rows = list(csv.reader(file))
    values = np.array([[float(cell) for cell in row[1:]] for row in rows])
    column = {(index // 3, kind): index for index, kind in enumerate(kinds[1:])}
    year = []
    day = 0
    for month, days in enumerate(_DAYS_IN_MONTH):
        for _ in range(days):
            kind = {5: "SA", 6: "FT"}.get(_weekday(day), "WT")
            day += 1
            year.append(values[:, column[month, kind]] * _dynamisation(-3.92, np.array(float(day))))
    return _normalised(np.concatenate(year))


def _h0() -> FloatArray:
    day = (np.arange(QUARTER_HOURS) + 1) / 96
    return _normalised(_seasonal("h0") * _dynamisation(-3.916649251, day))


def _g0() -> FloatArray:
    return _normalised(_seasonal("g0"))


def _dynamisation(fourth: float, day: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """BDEW's polynomial for households over the day of the year, with the fourth order's coefficient in 10^-10."""
    return np.asarray(fourth * 1e-10 * day**4 + 3.2e-7 * day**3 - 7.02e-5 * day**2 + 0.0021 * day + 1.24)


def _seasonal(name: str) -> FloatArray:
    """BDEW 1999: a value for season, weekday and quarter hour."""
    days: dict[tuple[str, int], list[float]] = {}
    with _table("bdew/bdew_data/selp_series.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            days.setdefault((row["period"], int(row["weekday"]) - 1), []).append(float(row[name]))
    year: list[float] = []
    for month, length in enumerate(_DAYS_IN_MONTH, 1):
        for date in range(1, length + 1):
            season = [season for *start, season in _SEASON_STARTS if (month, date) >= tuple(start)][-1]
            year += days[season, _weekday(len(year) // 96)]
    return np.array(year)


def _sun() -> FloatArray:
    """Direct and diffuse irradiance of the test reference year: hourly means, linear between their middles."""
    hours: list[float] = []
    with _table("vdi/resources_weather/TRY2010_04_Jahr.dat").open(encoding="latin-1") as file:
        for line in file:
            if line.startswith("***"):
                break
        for line in file:
            cells = line.split()
            if cells:
                hours.append(
                    float(cells[_WEATHER_COLUMNS["direct_w_m2"]]) + float(cells[_WEATHER_COLUMNS["diffuse_w_m2"]])
                )
    middles = np.arange(len(hours)) * 4 + 2
    quarters = np.interp(np.arange(QUARTER_HOURS) + 0.5, middles, hours)
    return _normalised(quarters)
