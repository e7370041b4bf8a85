"""D1: crowds too small for differences of rosters to hide anybody, and epochs that bring members together anew."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import wire
from protocol.dcnet.setup.calendar import CalendarPolicy, NewestEpoch, check_start
from protocol.dcnet.setup.epoch import HONEST_FLOOR, Policy, check_call, ring_parameters
from protocol.dcnet.setup.rings import cut_rings
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, VERIFIED_SCHEMA
from protocol.errors import LocalProtocolError, RemoteProtocolError

START_S = 1_772_366_400
CALL = wire.EpochCall(
    epoch=7, try_=0, area="north", split_bits=0, part=0, rejected=(), schema=DEFAULT_SCHEMA.to_bytes(), rounds=24,
    start_ms=START_S * 1000, period_ms=900_000, interval_start_s=START_S, interval_s=900, ring_size=64,
    corrupt_ppm=50_000, dropout_ppm=50_000, fuse_a=63, price_sheets=(),
)  # fmt: skip
SHORT = CalendarPolicy()


def honest_min(size: int, population: int, corrupt_ppm: int) -> int:
    numbers = ring_parameters(size, population, corrupt_ppm, 50_000)
    return numbers.n_min - numbers.corrupt


@pytest.mark.parametrize(("corrupt_ppm", "least"), [(10_000, 46), (50_000, 49)])
def test_the_floor_is_met_from_46_and_49_members(corrupt_ppm: int, least: int) -> None:
    """The check values of the second edition: γ of 1 % and 5 %, one ring for the area."""
    assert honest_min(least - 1, least - 1, corrupt_ppm) < HONEST_FLOOR
    assert all(honest_min(n, n, corrupt_ppm) >= HONEST_FLOOR for n in range(least, 128))


@pytest.mark.parametrize("population", [64, 100, 127, 128, 191, 200, 256])
def test_rings_cut_by_64_meet_the_floor_up_to_areas_of_256(population: int) -> None:
    rings = cut_rings(bytes(32), [f"g{i}" for i in range(population)], 64)
    assert all(64 <= len(ring) < 128 for ring in rings)
    assert all(honest_min(len(ring), population, 50_000) >= HONEST_FLOOR for ring in rings)


def test_many_corrupt_gateways_miss_the_floor_in_rings_of_64() -> None:
    assert honest_min(64, 1024, 50_000) == 22


@given(st.integers(3, 400), st.sampled_from([8, 24, 64]))
def test_no_ring_is_smaller_than_the_size_asked_for_unless_the_area_is(population: int, size: int) -> None:
    sizes = [len(ring) for ring in cut_rings(bytes(32), [f"g{i}" for i in range(population)], size)]
    assert sum(sizes) == population
    assert min(sizes) >= min(population, size)
    assert max(sizes) < 2 * max(size, population if len(sizes) == 1 else 0)


@pytest.mark.parametrize("schema", [DEFAULT_SCHEMA, VERIFIED_SCHEMA])
@pytest.mark.parametrize("floor", [2, 10, 29])
def test_a_gateway_that_admits_small_totals_gives_no_power(schema: object, floor: int) -> None:
    assert isinstance(schema, type(DEFAULT_SCHEMA))
    call = replace(CALL, schema=schema.to_bytes())
    with pytest.raises(RemoteProtocolError, match="power_below_floor"):
        check_call(call, Policy(honest_floor=floor))
    assert check_call(call, Policy()) == schema
    without = replace(CALL, schema=schema.without_power().to_bytes())
    assert check_call(without, Policy(honest_floor=floor)) == schema.without_power()


@pytest.mark.parametrize("intervals", [-96, -1, 0, 1, 8, 15])
def test_an_epoch_that_begins_anew_within_16_intervals_is_refused(intervals: int) -> None:
    newest = NewestEpoch(6, START_S)
    with pytest.raises(RemoteProtocolError, match="early_epoch"):
        check_start(replace(CALL, interval_start_s=START_S + 900 * intervals), SHORT, newest)


def test_an_epoch_16_intervals_later_the_first_one_and_the_same_one_are_not() -> None:
    check_start(CALL, SHORT, None)
    check_start(CALL, SHORT, NewestEpoch(7, START_S))  # after a restart within it
    check_start(replace(CALL, interval_start_s=START_S + 900 * 16), SHORT, NewestEpoch(6, START_S))
    check_start(replace(CALL, interval_start_s=START_S + 900), CalendarPolicy(rounds_min=1), NewestEpoch(6, START_S))


@pytest.mark.parametrize("size", [5, 12, 24, 45])
def test_small_areas_are_below_the_floor(size: int) -> None:
    with suppress(LocalProtocolError):  # or nothing reaches the announced security at all
        assert honest_min(size, size, 10_000) < HONEST_FLOOR
