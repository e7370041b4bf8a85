"""D1: an administrator whose time service sets the gateways' clock, so that a quarter hour of it is a minute."""

from collections.abc import Callable

import pytest

from node.aggregation.start_review import StartReview
from node.process_start import ProcessStart
from node.timekeeping.clock import Correction, GatewayClock
from protocol.metering.interval import QUARTER_HOURS
from protocol.ntp import STEP_MAX_US, Sample

NOON = 1_772_366_400.0  # the start of a quarter hour


class Machine:
    """A machine whose system clock and monotonic clock run, and a gateway's clock on them."""

    def __init__(self, system_s: float = NOON) -> None:
        self.system_s, self.monotonic_s = system_s, 50.0
        self.clock = GatewayClock(lambda: self.system_s, lambda: self.monotonic_s)

    def start(self) -> ProcessStart:
        return ProcessStart(lambda: self.system_s, lambda: self.monotonic_s, lambda: 7, self.clock)

    def passes(self, seconds: float) -> None:
        self.system_s += seconds
        self.monotonic_s += seconds

    def is_told(self, offset_s: float) -> Correction:
        return self.clock.correct(Sample(round(offset_s * 1_000_000), 1000, 2)).correction


def permits(start: ProcessStart) -> Callable[[float], bool]:
    review = StartReview(start)
    review.use_grid(QUARTER_HOURS)
    review.is_done = True
    return lambda second: review.permits(int(second))


@pytest.mark.parametrize("step_s", [-900.0, -31.0, 31.0, 840.0, STEP_MAX_US / 1_000_000])
def test_what_is_measured_while_the_clock_is_set_is_not_contributed(step_s: float) -> None:
    machine = Machine()
    assert machine.is_told(0.0) is Correction.FIRST
    before = permits(machine.start())
    machine.passes(1000)
    assert before(NOON + 900)
    machine.is_told(step_s)
    assert not before(NOON + 900)
    after = permits(machine.start())
    begun = machine.clock() // 900 * 900
    assert not after(begun)  # this interval began before the step, and is shorter or longer than it says
    assert after(begun + 900)


def test_a_clock_that_is_slewed_goes_on() -> None:
    machine = Machine()
    machine.is_told(0.0)
    going = permits(machine.start())
    for _ in range(20):
        machine.passes(3600)
        assert machine.is_told(0.9) is Correction.SLEWED
    assert going(NOON + 86_400)


def test_a_start_is_told_in_the_gateways_time_and_not_in_the_systems() -> None:
    """A machine without a battery: by its own clock each interval of today began after it was switched on."""
    machine = Machine(system_s=0.0)
    machine.is_told(NOON + 100)
    start = machine.start()
    assert start.started_s == machine.clock()
    assert not permits(start)(NOON)
    assert permits(start)(NOON + 900)


def test_a_first_answer_that_comes_after_the_start_is_a_start() -> None:
    machine = Machine(system_s=0.0)
    start = machine.start()
    machine.is_told(NOON)
    assert start.is_over()
