"""The gateway's clock: set once, slewed gently, never moved by the system's, and honest about what it does not know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.timekeeping.clock import DRIFT_PPM, SLEW_PPM, Correction, GatewayClock
from protocol.ntp import Sample


class World:
    """A monotonic clock that only this test moves, and the system's clock."""

    def __init__(self) -> None:
        self.monotonic_s = 50.0
        self.system_s = 1_000.0
        self.clock = GatewayClock(lambda: self.system_s, lambda: self.monotonic_s)

    def after(self, seconds: float) -> float:
        self.monotonic_s += seconds
        return self.clock()


def sample(offset_s: float, error_s: float = 0.01) -> Sample:
    return Sample(round(offset_s * 1_000_000), round(error_s * 1_000_000), 2)


def test_before_the_first_answer_it_shows_the_systems_time_unsynchronised() -> None:
    world = World()
    assert world.after(10) == 1_010
    assert world.clock.error_us is None
    assert not world.clock.is_for_billing


def test_first_answer_sets_it_whatever_the_difference() -> None:
    world = World()
    deviation = world.clock.correct(sample(1_000_000_000))
    assert deviation.correction is Correction.FIRST
    assert world.clock() == 1_000_001_000
    assert world.clock.is_for_billing


def test_step_of_the_systems_clock_moves_nothing() -> None:
    world = World()
    world.clock.correct(sample(0))
    world.system_s += 7_200
    assert world.after(1) == 1_001


@pytest.mark.parametrize("offset_s", [0.5, -0.5, 1.0, -1.0])
def test_small_offset_is_slewed_in_steps_that_keep_the_order(offset_s: float) -> None:
    world = World()
    world.clock.correct(sample(0))
    assert world.clock.correct(sample(offset_s)).correction is Correction.SLEWED
    assert world.clock() == 1_000
    assert world.after(100) == pytest.approx(1_100 + (0.1 if offset_s > 0 else -0.1), abs=1e-6)
    assert world.after(10_000) == pytest.approx(11_100 + offset_s, abs=1e-6)


@pytest.mark.parametrize(
    ("offset_s", "correction", "is_for_billing"),
    [(1.001, Correction.SET, True), (-27, Correction.SET, True), (27.001, Correction.SET_FAR, False)],
)
def test_over_3_percent_of_the_period_values_are_not_for_billing(
    offset_s: float, correction: Correction, *, is_for_billing: bool
) -> None:
    world = World()
    world.clock.correct(sample(0))
    assert world.clock.correct(sample(offset_s)).correction is correction
    assert world.clock() == pytest.approx(1_000 + offset_s)
    assert world.clock.is_for_billing is is_for_billing
    world.clock.correct(sample(0.01))
    assert world.clock.is_for_billing


def test_without_answers_the_error_grows_until_it_is_not_synchronised() -> None:
    world = World()
    world.clock.correct(sample(0, error_s=0))
    holds_s = 27 / (DRIFT_PPM / 1_000_000)  # 6 days and 6 hours
    synchronised = []
    for seconds in (holds_s, 1):
        world.after(seconds)
        synchronised.append(world.clock.is_synchronised)
    assert synchronised == [True, False]
    assert world.clock.correct(sample(500)).correction is Correction.FIRST


def test_error_counts_what_is_still_to_be_slewed() -> None:
    world = World()
    world.clock.correct(sample(0, error_s=0))
    world.clock.correct(sample(0.8, error_s=0.1))
    assert world.clock.error_us == 900_000
    world.after(400)
    assert world.clock.error_us == 500_000 + 400 * DRIFT_PPM


@given(
    offsets=st.lists(st.floats(-1, 1), max_size=8), pauses=st.lists(st.floats(0, 2_000), min_size=8, max_size=8)
)  # fmt: skip
def test_slewed_clock_never_goes_back_nor_runs_away(offsets: list[float], pauses: list[float]) -> None:
    world = World()
    world.clock.correct(sample(0))
    before = world.clock()
    for offset_s, pause_s in zip(offsets, pauses, strict=False):
        world.clock.correct(sample(offset_s))
        assert world.clock() == pytest.approx(before, abs=2e-6)
        now = world.after(pause_s)
        assert abs(now - before - pause_s) <= pause_s * SLEW_PPM / 1_000_000 + 2e-6
        before = now
