"""Tariff use cases that book energy into stages (TAF 1 to 5), against sums by numpy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.taf import taf01, taf02, taf03, taf04, taf05
from node.taf.result import Period, Result
from node.taf.series import STATUS_GAP, STATUS_REGISTER_FELL, STATUS_SUBSTITUTE, Exchange, RegisterValue, Series
from protocol.profiles.calendar import LEGAL_TIME, DayProfile, Season, SpecialDay, Switch, TariffCalendar
from protocol.profiles.use_cases import (
    ConsumptionVariable,
    DataSparing,
    EventVariable,
    LoadVariable,
    StageEvent,
    TimeVariable,
)
from tests.unit.taf_series import QUARTER_S, by_stage, period_of, series_of, stages_by_numpy


def local_s(*fields: int) -> int:
    """Unix time of a moment of German legal time."""
    return int(datetime(*fields, tzinfo=LEGAL_TIME).timestamp())  # type: ignore[arg-type,misc]


def day(name: str, *switches: tuple[str, int]) -> DayProfile:
    """A day profile."""
    return DayProfile(id=name, switches=tuple(Switch(at=at, stage=stage) for at, stage in switches))


def calendar() -> TariffCalendar:
    """Night and day on weekdays, night all Sunday, one special day with a third stage."""
    week = ("work",) * 6 + ("sunday",)
    return TariffCalendar(
        day_profiles=(
            day("work", ("00:00", 1), ("06:00", 2), ("22:00", 1)),
            day("sunday", ("00:00", 1)),
            day("peak", ("00:00", 1), ("17:30", 3)),
        ),
        seasons=(Season(begins="03-01", weekdays=week), Season(begins="11-01", weekdays=("sunday",) * 7)),
        special_days=(SpecialDay(day="2026-10-02", day_profile="peak"), SpecialDay(day="05-01", day_profile="sunday")),
    )  # fmt: skip


ENERGIES = [int(each) for each in np.random.default_rng(7).integers(0, 900, 31 * 96)]
OCTOBER_S = local_s(2026, 10, 1)


def expected_stage(index: int) -> int:
    """The calendar above, once more and in other words."""
    local = (datetime.fromtimestamp(OCTOBER_S, UTC) + timedelta(seconds=900 * index)).astimezone(LEGAL_TIME)
    if (local.month, local.day) == (10, 2):
        return 3 if (local.hour, local.minute) >= (17, 30) else 1
    if local.weekday() == 6 or not (3 <= local.month <= 10):
        return 1
    return 2 if 6 <= local.hour < 22 else 1


def test_taf1_gives_both_ends_and_the_difference() -> None:
    period = period_of(series_of(ENERGIES[:96], OCTOBER_S), OCTOBER_S, 96)
    result = taf01.evaluate(DataSparing(taf=1), period)
    assert by_stage(result) == {0: sum(ENERGIES[:96])}
    assert [each.at_s for each in result.rows] == [OCTOBER_S, OCTOBER_S + 86_400]
    assert result.is_complete


@pytest.mark.parametrize(
    ("missing", "late"), [((), ()), ((700,), ()), ((), (12, 1500)), ((40, 41, 42), (2000,))],
    ids=["whole", "one missing", "two late", "three missing and one late"],
)  # fmt: skip
def test_taf2_books_october_as_numpy_does(missing: tuple[int, ...], late: tuple[int, ...]) -> None:
    count = (local_s(2026, 11, 1) - OCTOBER_S) // QUARTER_S  # 31 days of which one has 25 hours
    energies = [*ENERGIES, 1, 2, 3, 4]
    assert count == len(energies)
    period = period_of(series_of(energies, OCTOBER_S, missing=missing, late=late), OCTOBER_S, count)
    result = taf02.evaluate(TimeVariable(taf=2, calendar=calendar()), period)
    expected = stages_by_numpy(energies, expected_stage, (*missing, *late))
    assert by_stage(result) == {0: sum(energies), 63: 0, 3: 0, **expected}
    assert result.is_complete is not bool(missing or late)
    assert result.derivation == (STATUS_GAP if missing or late else 0)


@pytest.mark.parametrize(("date", "count"), [((2026, 3, 29), 92), ((2026, 10, 25), 100), ((2026, 6, 1), 96)])
def test_taf2_follows_the_wall_clock_over_its_changes(date: tuple[int, int, int], count: int) -> None:
    start_s = local_s(*date)
    following = datetime(*date, tzinfo=LEGAL_TIME).date() + timedelta(days=1)
    assert (local_s(following.year, following.month, following.day) - start_s) // QUARTER_S == count
    week = ("d",) * 7
    two_rates = day("d", ("00:00", 1), ("03:00", 2))
    plain = TariffCalendar(day_profiles=(two_rates,), seasons=(Season(begins="01-01", weekdays=week),))
    period = period_of(series_of([1] * count, start_s), start_s, count)
    result = by_stage(taf02.evaluate(TimeVariable(taf=2, calendar=plain), period))
    assert result == {0: count, 1: count - 84, 2: 84, 63: 0}  # 21 hours are left from 03:00 on, every day


@pytest.mark.parametrize("scaler", [0, -1, 3])
def test_taf3_takes_the_stage_of_the_mean_power(scaler: int) -> None:
    parameters = LoadVariable(taf=3, thresholds_w=(400, 2_000))
    energies = [0, 99, 100, 101, 499, 500, 501, 5_000]
    period = period_of(series_of(energies, OCTOBER_S, missing=(8,)), OCTOBER_S, len(energies), scaler=scaler)
    power = np.array(energies[:-1], dtype=float) * 10.0**scaler * 4
    stages = np.digitize(power, [400, 2_000]) + 1
    expected = {int(s): int(np.array(energies[:-1])[stages == s].sum()) for s in (1, 2, 3)}
    assert by_stage(taf03.evaluate(parameters, period)) == {0: sum(energies[:-1]), 63: 0, **expected}


@pytest.mark.parametrize(
    ("energy", "scaler", "stages"),
    [
        (0, 0, (0, 0, 0)), (999, 0, (999, 0, 0)), (1_000, 0, (1_000, 0, 0)), (1_001, 0, (1_000, 1, 0)),
        (6_000, 0, (1_000, 1_500, 3_500)), (25_000, -1, (10_000, 15_000, 0)), (7, 3, (1, 2, 4)),
    ],
)  # fmt: skip
def test_taf4_splits_at_its_thresholds_exactly(energy: int, scaler: int, stages: tuple[int, int, int]) -> None:
    parameters = ConsumptionVariable(taf=4, thresholds_wh=(1_000, 2_500))
    period = period_of(series_of([energy // 2, energy - energy // 2], OCTOBER_S), OCTOBER_S, 2, scaler=scaler)
    result = by_stage(taf04.evaluate(parameters, period))
    assert result == {0: energy, 1: stages[0], 2: stages[1], 3: stages[2], 63: 0}


def test_taf4_needs_no_error_register_over_a_gap() -> None:
    parameters = ConsumptionVariable(taf=4, thresholds_wh=(1_000,))
    period = period_of(series_of([600, 600, 600], OCTOBER_S, missing=(1, 2)), OCTOBER_S, 3)
    result = taf04.evaluate(parameters, period)
    assert by_stage(result) == {0: 1_800, 1: 1_000, 2: 800, 63: 0}
    assert not result.is_complete


def stage_event(at_s: int, stage: int) -> StageEvent:
    return StageEvent(at=datetime.fromtimestamp(at_s, UTC), stage=stage, source="emp")


def event_variable(*events: StageEvent) -> EventVariable:
    return EventVariable(taf=5, default_stage=1, stages=(1, 2), event_sources=("emp",), events=events)


def test_taf5_event_counts_from_the_next_registration_time() -> None:
    parameters = event_variable(stage_event(OCTOBER_S + 900, 2), stage_event(OCTOBER_S + 2_000, 1))
    period = period_of(series_of([1, 10, 100, 1_000], OCTOBER_S), OCTOBER_S, 4)
    assert by_stage(taf05.evaluate(parameters, period)) == {0: 1_111, 1: 1_001, 2: 110, 63: 0}


def test_taf5_books_a_month_of_events_as_numpy_does() -> None:
    draw = np.random.default_rng(5)
    times = np.sort(draw.choice(31 * 86_400, 300, replace=False)) + OCTOBER_S
    stages = draw.integers(1, 3, 300)
    parameters = event_variable(*(stage_event(int(at), int(stage)) for at, stage in zip(times, stages, strict=True)))
    period = period_of(series_of(ENERGIES, OCTOBER_S, missing=(99,), late=(2_000,)), OCTOBER_S, len(ENERGIES))

    def stage_of(index: int) -> int:
        before = times <= OCTOBER_S + index * 900
        return int(stages[before][-1]) if before.any() else 1

    expected = stages_by_numpy(ENERGIES, stage_of, (99, 2_000))
    assert by_stage(taf05.evaluate(parameters, period)) == {0: sum(ENERGIES), **expected}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"stage": 7}, "stages"), ({"source": "stranger"}, "event_sources"),
        ({"at": datetime(2026, 9, 1, tzinfo=UTC)}, "ascending"),
    ],
)  # fmt: skip
def test_taf5_profile_with_an_event_that_does_not_fit_is_refused(changed: dict[str, object], reason: str) -> None:
    first = stage_event(OCTOBER_S, 1)
    with pytest.raises(ValueError, match=reason):
        event_variable(first, stage_event(OCTOBER_S + 900, 2).model_copy(update=changed))


def test_meter_exchange_costs_no_energy_and_is_marked() -> None:
    exchange = Exchange(OCTOBER_S + 1_000, final=1_025, initial=7)
    values = (
        RegisterValue(OCTOBER_S, 1_000, is_valid=True), RegisterValue(OCTOBER_S + 900, 1_020, is_valid=True),
        RegisterValue(OCTOBER_S + 1_800, 10, is_valid=True),
    )  # fmt: skip
    period = period_of(Series(QUARTER_S, values, (exchange,)), OCTOBER_S, 2)
    result = taf01.evaluate(DataSparing(taf=1), period)
    assert by_stage(result) == {0: 20 + 5 + 3}
    assert result.derivation == STATUS_SUBSTITUTE
    assert result.is_complete


def test_register_that_falls_is_marked_and_never_billed() -> None:
    values = tuple(RegisterValue(OCTOBER_S + 900 * i, value, is_valid=True) for i, value in enumerate((50, 60, 5, 8)))
    period = period_of(Series(QUARTER_S, values), OCTOBER_S, 3)
    result = taf02.evaluate(TimeVariable(taf=2, calendar=calendar()), period)
    assert by_stage(result)[0] == 10 + 3
    assert result.derivation == STATUS_REGISTER_FELL
    assert not result.is_complete


def test_exchange_hides_no_register_that_fell() -> None:
    exchange = Exchange(OCTOBER_S + 100, final=900, initial=0)  # the old meter had 1,000 already
    values = (RegisterValue(OCTOBER_S, 1_000, is_valid=True), RegisterValue(OCTOBER_S + 900, 500, is_valid=True))
    result = taf01.evaluate(DataSparing(taf=1), period_of(Series(QUARTER_S, values, (exchange,)), OCTOBER_S, 1))
    assert by_stage(result) == {0: 0}
    assert result.derivation == STATUS_REGISTER_FELL | STATUS_SUBSTITUTE


energies_of_a_day = st.lists(st.integers(0, 10**6), min_size=96, max_size=96)
holes = st.sets(st.integers(0, 96), max_size=30)


@settings(max_examples=40, deadline=None)
@given(energies=energies_of_a_day, missing=holes, late=holes, border=st.integers(1, 95))
def test_periods_add_up_to_the_difference_of_the_register(
    energies: list[int], missing: set[int], late: set[int], border: int
) -> None:
    series = series_of(energies, OCTOBER_S, missing=sorted(missing), late=sorted(late))
    valid = series.valid
    expected = valid[-1].value - valid[0].value if valid else 0
    parts = [period_of(series, OCTOBER_S, border), period_of(series, OCTOBER_S + 900 * border, 96 - border)]
    evaluations: list[Callable[[Period], Result]] = [
        partial(taf02.evaluate, TimeVariable(taf=2, calendar=calendar())),
        partial(taf03.evaluate, LoadVariable(taf=3, thresholds_w=(100, 10**5))),
        partial(taf04.evaluate, ConsumptionVariable(taf=4, thresholds_wh=(100, 10**7))),
    ]
    for evaluate in evaluations:
        results = [by_stage(evaluate(part)) for part in parts]
        assert sum(each[0] for each in results) == expected
        for each in results:
            assert sum(value for stage, value in each.items() if stage) == each[0]
