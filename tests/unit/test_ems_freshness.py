"""How old values are, with gaps that were planted, against ages added up second by second."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.ems.freshness import (
    Arrival,
    age_percentile,
    freshness,
    newer_only,
    percentile,
    recovery_s,
    teeth,
)

REGULAR = [Arrival(second + 0.25, float(second)) for second in range(60)]


def test_a_value_a_second_is_half_a_period_older_than_its_transfer() -> None:
    found = freshness(REGULAR, 10.0, 50.0, nominal_s=1.0)
    assert found.count == 40
    assert found.period_s_p50 == found.period_s_p95 == 1.0
    assert found.age_s_p50 == pytest.approx(0.75)
    assert found.age_s_p95 == pytest.approx(1.20)
    assert found.age_s_max == pytest.approx(1.25)
    assert (found.gaps, found.gap_s_max) == (0, 0.0)


def test_values_that_come_a_minute_at_a_time_are_old_though_there_are_many() -> None:
    batches = [Arrival(60.0 * minute + 62, 60.0 * minute + second) for minute in range(3) for second in range(60)]
    found = freshness(batches, 70.0, 170.0, nominal_s=1.0)
    assert found.period_s_p50 == 1.0
    assert found.gaps == 0
    assert found.age_s_max == pytest.approx(63.0)
    assert found.age_s_p50 == pytest.approx(30.0, abs=10.0)


def test_planted_gaps_are_counted_with_their_length() -> None:
    planted = [each for each in REGULAR if not (20 <= each.measured_s < 24 or each.measured_s == 40)]
    found = freshness(planted, 0.0, 60.0, nominal_s=1.0)
    assert found.gaps == 1  # a single value that is missing is no gap
    assert found.gap_s_max == 5.0
    assert found.age_s_max == pytest.approx(5.25)
    assert found.period_s_p50 == 1.0


def test_a_gap_at_the_end_shows_in_the_age() -> None:
    found = freshness(REGULAR[:31], 0.0, 60.0, nominal_s=1.0)
    assert found.age_s_max == pytest.approx(30.0)
    assert found.gaps == 0  # nobody knows yet that a value will come


def test_what_is_told_again_or_late_makes_nothing_newer() -> None:
    told = [Arrival(1.0, 0.0), Arrival(2.0, 0.0), Arrival(3.0, 2.0), Arrival(4.0, 1.0)]
    assert newer_only(told) == [told[0], told[2]]
    assert teeth(told, 0.0, 5.0) == [(1.0, 3.0), (1.0, 3.0)]


def test_an_age_from_before_the_span_goes_on_in_it() -> None:
    assert teeth([Arrival(0.0, 0.0), Arrival(10.0, 9.0)], 4.0, 12.0) == [(4.0, 10.0), (1.0, 3.0)]


def test_nothing_heard_is_no_age() -> None:
    found = freshness([], 0.0, 10.0, nominal_s=1.0)
    assert (found.count, found.age_s_p50, found.age_s_max, found.period_s_p50) == (0, None, None, None)
    assert age_percentile([], 0.5) is None
    assert percentile([], 0.5) is None


def test_recovery_waits_for_a_value_that_is_not_old() -> None:
    late = [*REGULAR[:10], Arrival(30.2, 12.0), Arrival(31.0, 30.5)]
    assert recovery_s(late, 30.0, 1.5) == pytest.approx(1.0)
    assert recovery_s(REGULAR[:10], 30.0, 1.5) is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.95, 4), (0.25, 1), (1.0, 4)])
def test_percentiles_go_by_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile([4, 2, 1, 3], share) == expected


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 30)), min_size=1, max_size=30), st.sampled_from([0.5, 0.95])
)
def test_the_age_is_that_of_moments_counted_one_by_one(steps: list[tuple[int, int]], share: float) -> None:
    at, arrivals = 0, list[Arrival]()
    for distance, delay in steps:
        at += distance
        arrivals.append(Arrival(at / 10, (at - delay) / 10))
    end = at + 20
    found = teeth(arrivals, 0.0, end / 10)
    assert all(begin < end for begin, end in found)
    fine, known = 20, newer_only(arrivals)
    ages = sorted(
        moment / (10 * fine) - max(each.measured_s for each in known if each.at_s <= moment / (10 * fine))
        for moment in range(round(known[0].at_s * 10 * fine), end * fine)
    )
    counted = ages[max(0, math.ceil(share * len(ages)) - 1)]
    assert age_percentile(found, share) == pytest.approx(counted, abs=1 / fine + 1e-6) or any(
        abs(high - low) > 1 / fine and low <= counted + 1e-6 for low, high in pairwise(ages)
    )
