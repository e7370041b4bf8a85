"""Interval arithmetic: every moment is in exactly one interval, and the border belongs to the one that it begins."""

from hypothesis import given
from hypothesis import strategies as st

from node.metering.interval import TOLERANCE, Measured, Registration, next_border_s, registration
from protocol.metering.interval import (
    QUARTER_HOURS,
    RegistrationGrid,
    first_index_from,
    index_at,
    index_starting_at,
    next_start,
    start_of,
)

UNIX_S = st.integers(0, 4_000_000_000)
INDICES = st.integers(0, 1_000_000)
GRIDS = st.builds(
    RegistrationGrid, st.integers(0, 2_000_000_000_000), st.integers(100, 86_400_000), UNIX_S, st.integers(1, 86_400)
)
SHARES = st.floats(0, 1, exclude_max=True)


@given(UNIX_S, UNIX_S, st.integers(1, 86_400))
def test_a_moment_is_in_the_interval_whose_index_it_gets(moment: int, origin: int, length: int) -> None:
    index = index_at(moment, origin, length)
    assert start_of(index, origin, length) <= moment < start_of(index + 1, origin, length)


@given(UNIX_S, INDICES, st.integers(1, 86_400), INDICES)
def test_only_the_start_of_an_interval_has_its_index(origin: int, index: int, length: int, count: int) -> None:
    start = start_of(index, origin, length)
    assert index_starting_at(start, origin, length, count) == (index if index < count else None)
    if length > 1:
        assert index_starting_at(start + 1, origin, length, index + 2) is None


@given(st.floats(0, 4e9), st.floats(0.05, 86_400))
def test_the_next_start_is_later_and_the_first_index_from_it_is_its_own(moment: float, length: float) -> None:
    following = next_start(moment, 0.0, length)
    assert following > moment
    assert following - moment <= length * (1 + 1e-6)
    assert first_index_from(following, 0.0, length) in {index_at(moment, 0.0, length) + n for n in (1, 2)}


@given(GRIDS, INDICES)
def test_the_moment_at_which_a_period_begins_is_in_that_period(grid: RegistrationGrid, index: int) -> None:
    begins_s = grid.time_s(index)
    assert grid.index_at(begins_s) == index
    assert grid.next_time_s(begins_s) == grid.time_s(index + 1)
    assert grid.index_of(grid.registration_s(index), index + 1) == index
    assert grid.index_of(grid.registration_s(index), index) is None


@given(UNIX_S)
def test_in_the_field_metering_time_is_real_time(now_s: int) -> None:
    assert QUARTER_HOURS.registration_s(QUARTER_HOURS.index_at(now_s)) == now_s // 900 * 900


@given(GRIDS, INDICES, SHARES, st.booleans())
def test_a_moment_known_exactly_always_counts_for_one_registration(
    grid: RegistrationGrid, index: int, share: float, asked: bool
) -> None:
    moment_s = grid.time_s(index) + share * grid.period_s
    found = registration(grid, Measured.at(moment_s), asked=asked)
    assert found is not None
    assert found.period in {grid.index_at(moment_s), grid.index_at(moment_s) + (not asked)}
    deviation_s = abs(moment_s - grid.time_s(found.period))
    assert found.on_time == (deviation_s <= TOLERANCE * grid.period_s)


@given(GRIDS, INDICES, SHARES, SHARES, SHARES, st.booleans())
def test_every_moment_in_a_span_counts_for_what_the_span_counts_for(
    grid: RegistrationGrid, index: int, begins: float, length: float, inside: float, asked: bool
) -> None:
    """What is claimed of an uncertain time holds wherever in it the value was measured, but for the tolerance."""
    earliest_s = grid.time_s(index) + begins * grid.period_s
    latest_s = earliest_s + length * grid.period_s
    found = registration(grid, Measured(earliest_s, latest_s), asked=asked)
    moment_s = min(latest_s, earliest_s + inside * (latest_s - earliest_s))
    if found is None:
        assert grid.index_at(earliest_s) != grid.index_at(latest_s)
    elif found.on_time:
        assert abs(moment_s - grid.time_s(found.period)) <= TOLERANCE * grid.period_s
    else:
        assert grid.index_at(moment_s) == found.period


@given(GRIDS, INDICES, SHARES)
def test_between_two_borders_all_moments_count_alike(grid: RegistrationGrid, index: int, share: float) -> None:
    moment_s = grid.time_s(index) + share * grid.period_s
    border_s = next_border_s(grid, moment_s)
    assert moment_s < border_s <= grid.time_s(index + 1)
    assert next_border_s(grid, border_s) > border_s


def test_the_rule_at_a_quarter_hour_is_nine_seconds_to_either_side() -> None:
    noon_s = 1_800_000_000 // 900 * 900
    index = QUARTER_HOURS.index_at(noon_s)

    def found(earliest_s: float, latest_s: float, asked: bool = False) -> Registration | None:
        return registration(QUARTER_HOURS, Measured(noon_s + earliest_s, noon_s + latest_s), asked=asked)

    assert found(-9, -9) == found(-9, 9) == found(9, 9) == Registration(index, on_time=True)
    assert found(9.1, 9.1) == found(0, 880) == Registration(index, on_time=False)
    assert found(-9.1, -9.1) == Registration(index - 1, on_time=False)
    assert found(-9.1, 0.1) is None
    assert found(-1, -0.5, asked=True) == Registration(index - 1, on_time=False)
    assert found(-1, 0.5, asked=True) is None
