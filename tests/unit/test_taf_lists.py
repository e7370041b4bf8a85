"""Tariff use cases that give lists, extremes, events and credit (TAF 6 to 14)."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from node.metering.entries import LoggedReading
from node.taf import taf06, taf07, taf08, taf09, taf10, taf11, taf12, taf13
from node.taf.result import Account, Standing
from node.taf.series import register_values
from node.taf.taf10 import LimitWatch, Side
from node.taf.taf14 import Thinning
from protocol.errors import LocalProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from protocol.profiles.calendar import LEGAL_TIME, DayProfile, Season, Switch, TariffCalendar
from protocol.profiles.use_cases import (
    Control,
    ControlEvents,
    ExtremeValues,
    GridState,
    HighFrequency,
    Limit,
    LoadProfile,
    OnDemand,
    Prepaid,
    Visualisation,
)
from tests.unit.taf_series import by_stage, period_of, series_of

OCTOBER_S = int(datetime(2026, 10, 1, tzinfo=LEGAL_TIME).timestamp())
VOLTAGE = Obis.parse("1-0:32.7.0*255")


def reading(
    value: int | None, second: float, obis: Obis = VOLTAGE, scaler: int = -1, quality: Quality = Quality.VALID
) -> LoggedReading:
    moment_ms = int(second * 1000)
    return LoggedReading("m", obis, value, scaler, 35, None, moment_ms, moment_ms + 5, None, None, False, quality)


def test_taf6_gives_the_midnights_of_legal_time() -> None:
    count = 31 * 96 + 4  # October has a day of 25 hours
    period = period_of(series_of([1] * count, OCTOBER_S), OCTOBER_S, count)
    rows = taf06.evaluate(OnDemand(taf=6, days=10), period).rows
    assert [datetime.fromtimestamp(each.at_s, LEGAL_TIME).strftime("%d %H:%M") for each in rows] == [
        *(f"{day} 00:00" for day in range(22, 32)), "01 00:00",
    ]  # fmt: skip


def test_taf7_keeps_values_that_are_not_valid_as_such() -> None:
    period = period_of(series_of([1, 2, 3], OCTOBER_S, missing=(1,), late=(2,)), OCTOBER_S, 3)
    rows = taf07.evaluate(LoadProfile(taf=7), period).rows
    assert [(each.at_s - OCTOBER_S, each.is_valid) for each in rows] == [(0, True), (1_800, False), (2_700, True)]


def test_taf8_finds_the_extremes_that_sorting_finds() -> None:
    energies = [int(each) for each in np.random.default_rng(3).integers(0, 50, 400)]
    period = period_of(series_of(energies, OCTOBER_S, missing=(200,)), OCTOBER_S, 400)
    result = taf08.evaluate(ExtremeValues(taf=8, count=5), period)
    known = [(energy, index) for index, energy in enumerate(energies) if index not in (199, 200)]
    assert [(each.energy, (each.start_s - OCTOBER_S) // 900) for each in result.largest] == [
        (energy, index) for energy, index in sorted(known, key=lambda pair: (-pair[0], pair[1]))[:5]
    ]
    assert [(each.energy, (each.start_s - OCTOBER_S) // 900) for each in result.smallest] == sorted(known)[:5]


def test_taf9_takes_the_value_measured_last() -> None:
    power = Obis.parse("1-0:2.7.0*255")
    readings = [reading(1, 10, power), reading(2, 30, power), reading(9, 40), reading(None, 50, power)]
    newest = taf09.newest(readings, power)
    assert newest is not None
    assert newest.value == 2
    assert taf09.newest(readings[2:], power) is None


def test_taf10_voltage_that_wavers_makes_one_event() -> None:
    watch = LimitWatch(Limit(obis=str(VOLTAGE), scaler=0, low=207, high=253, hysteresis=2))
    values = [2300, 2531, 2529, 2531, 2512, 2511, 2509, 2069, 2071, 2091]
    events = [(second, watch.side) for second, value in enumerate(values) if watch.take(reading(value, second))]
    assert events == [
        (1, Side.HIGH), (6, Side.INSIDE), (7, Side.LOW), (9, Side.INSIDE),
    ]  # fmt: skip


def test_taf10_value_that_the_meter_doubts_makes_no_event() -> None:
    watch = LimitWatch(Limit(obis=str(VOLTAGE), scaler=0, high=253))
    assert not watch.take(reading(9_999, 0, quality=Quality.METER_ERROR))
    assert not watch.take(reading(9_999, 1, Obis.parse("1-0:52.7.0*255")))
    assert watch.side is Side.INSIDE


def test_taf10_goes_on_from_the_side_of_the_window_before() -> None:
    limit = Limit(obis=str(VOLTAGE), scaler=0, high=253)
    parameters, frequency = GridState(taf=10, period_s=60, limits=(limit,)), Obis.parse("1-0:14.7.0*255")
    readings = [reading(2_540, 1), reading(5_000, 2, frequency, -2), reading(2_541, 3)]
    assert taf10.evaluate(parameters, readings, {VOLTAGE: Side.HIGH}) == ([], {VOLTAGE: Side.HIGH})
    assert taf10.evaluate(parameters, readings, {}) == ([(readings[0], Side.HIGH)], {VOLTAGE: Side.HIGH})


def control(system: str, begins_s: int, ends_s: int, limit_w: int | None) -> Control:
    begins, ends = (datetime.fromtimestamp(OCTOBER_S + each, UTC) for each in (begins_s, ends_s))
    return Control(system=system, begins=begins, ends=ends, limit_w=limit_w)


def test_taf11_record_has_the_values_around_the_limitation() -> None:
    series = series_of([10, 20, 30, 40], OCTOBER_S, late=(1,))
    ended, open_end = control("wallbox", 1_000, 2_000, 4_200), control("wallbox", 3_000, 9_000, None)
    result = taf11.evaluate(ControlEvents(taf=11, controls=(open_end, ended)), period_of(series, OCTOBER_S, 4))
    (record,) = result.controls
    assert (record.system, record.limit_w, record.start_s, record.end_s) == (
        "wallbox", 4_200, OCTOBER_S + 1_000, OCTOBER_S + 2_000,
    )  # fmt: skip
    assert record.before is not None
    assert record.after is not None
    assert (record.before.at_s, record.after.at_s) == (OCTOBER_S, OCTOBER_S + 2_700)


def prepaid(paid: int, warning_credit: int = 500) -> Prepaid:
    day = DayProfile(id="d", switches=(Switch(at="00:00", stage=1), Switch(at="00:30", stage=2)))
    calendar = TariffCalendar(day_profiles=(day,), seasons=(Season(begins="01-01", weekdays=("d",) * 7),))
    return Prepaid(
        taf=12, calendar=calendar, price_scaler=-5, prices={1: 10, 2: 20}, warning_credit=warning_credit,
        paid_credit=paid,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("opening", "credit", "standing"),
    [(2_000, 1_000 + 500, Standing.ENOUGH), (1_000, 500, Standing.LOW), (500, 0, Standing.USED_UP)],
)
def test_taf12_credit_falls_by_price_times_energy(opening: int, credit: int, standing: Standing) -> None:
    period = period_of(series_of([10, 20, 30], OCTOBER_S), OCTOBER_S, 3)  # 30·10 + 30·20 = 900
    before = Account(opening, 7_000, Standing.ENOUGH)
    result = taf12.evaluate(prepaid(7_400), period, before)  # 400 were paid in
    assert result.account == Account(credit, 7_400, standing)
    assert taf12.evaluate(prepaid(opening + 400), period).account == Account(credit, opening + 400, standing)


def test_taf12_energy_of_unknown_stage_is_not_charged() -> None:
    period = period_of(series_of([10, 20, 30], OCTOBER_S, missing=(1,)), OCTOBER_S, 3)
    result = taf12.evaluate(prepaid(1_000), period)
    assert result.account is not None
    assert result.account.credit == 1_000 - 600
    assert by_stage(result)[63] == 30


def test_taf12_amounts_are_exact_or_refused() -> None:
    series = series_of([1], OCTOBER_S)
    fine = taf12.evaluate(prepaid(51, 50), period_of(series, OCTOBER_S, 1, scaler=-1))
    assert fine.account == Account(500, 510, Standing.LOW)  # both levels are 500 tenths
    with pytest.raises(LocalProtocolError, match="coarse"):
        taf12.evaluate(prepaid(51, 50), period_of(series, OCTOBER_S, 1, scaler=3))


def test_taf13_gives_each_value_once() -> None:
    period = period_of(series_of([1, 2, 3], OCTOBER_S), OCTOBER_S, 3)
    assert [each.at_s for each in taf13.evaluate(Visualisation(taf=13), period).rows] == [
        OCTOBER_S + 900, OCTOBER_S + 1_800, OCTOBER_S + 2_700,
    ]  # fmt: skip


def test_taf14_lets_one_reading_through_a_period() -> None:
    thinning = Thinning(HighFrequency(taf=14, period_s=2), VOLTAGE)
    taken = [second for second in (0.1, 0.9, 1.9, 2.0, 3.9, 4.4) if thinning.take(reading(1, second))]
    assert taken == [0.1, 2.0, 4.4]
    assert not thinning.take(reading(None, 9))


def test_values_that_are_not_fit_for_billing_are_marked() -> None:
    def logged(at_s: int, unit: int = 30, quality: Quality = Quality.VALID, *, on_time: bool = True) -> LoggedReading:
        obis = Obis.parse("1-0:1.8.0*255")
        return LoggedReading("m", obis, 12_345, -1, unit, None, at_s * 1000, at_s * 1000, at_s, 0, on_time, quality)

    readings = [
        logged(0), logged(900, unit=27), logged(1_800, on_time=False), logged(2_700, quality=Quality.UNVERIFIED),
        logged(3_000), logged(3_600),
    ]  # fmt: skip
    values = register_values(readings, 0, 30, 900)
    assert [(each.at_s, each.value, each.is_valid) for each in values] == [
        (0, 1_234, True), (900, 1_234, False), (1_800, 1_234, False), (2_700, 1_234, False), (3_600, 1_234, True),
    ]  # fmt: skip
