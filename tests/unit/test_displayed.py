"""How often the interface to the home shows a new value: by the display interval of the meter's profile."""

from __future__ import annotations

import json

import pytest

from node.han.displayed import DisplayedValues
from node.metering.entries import LoggedReading
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from protocol.profiles.meter import MeterProfile

IMPORT, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)
METER = "ESTK0100000001/0"


class Clock:
    """Set by the test."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def profile(display_interval_s: int) -> MeterProfile:
    document = {
        "id": "m", "device": METER, "protocol": "sml", "registers": [str(IMPORT), str(POWER)],
        "valid_from": "2026-01-01T00:00:00Z", "display_interval_s": display_interval_s,
    }  # fmt: skip
    return MeterProfile.model_validate_json(json.dumps(document))


def reading(at_s: float, obis: Obis = IMPORT) -> LoggedReading:
    at_ms = int(at_s * 1000)
    return LoggedReading(METER, obis, at_ms, -1, 30, None, at_ms, at_ms, None, None, False, Quality.VALID)


@pytest.mark.parametrize("interval_s", [1, 60, 900])
def test_a_value_stays_for_the_display_interval(interval_s: int) -> None:
    clock = Clock()
    shown, ages_s = DisplayedValues(clock), list[float]()
    for second in range(2000):
        clock.now_s = 1000.0 + second
        (value,) = shown.of(METER, [reading(clock.now_s)], profile(interval_s))
        ages_s.append(clock.now_s - value.measured_ms / 1000)
    assert max(ages_s) == interval_s - 1
    assert ages_s.count(0) == -(-2000 // interval_s)


def test_who_asks_a_little_early_does_not_wait_for_another_interval() -> None:
    clock = Clock()
    shown = DisplayedValues(clock)
    for at_s in (1000.0, 1000.9, 1001.95):
        clock.now_s = at_s
        assert shown.of(METER, [reading(at_s)], profile(1)) == [reading(at_s)]


def test_without_a_profile_each_value_is_shown() -> None:
    shown = DisplayedValues(Clock())
    for at_s in (1.0, 1.1):
        assert shown.of(METER, [reading(at_s)], None) == [reading(at_s)]


def test_a_register_that_comes_later_is_shown_at_once() -> None:
    clock = Clock()
    shown = DisplayedValues(clock)
    shown.of(METER, [reading(1000)], profile(900))
    clock.now_s += 10
    newest = [reading(1010), reading(1010, POWER)]
    assert shown.of(METER, newest, profile(900)) == [reading(1000), reading(1010, POWER)]


def test_a_clock_that_was_set_back_hides_no_values() -> None:
    clock = Clock()
    shown = DisplayedValues(clock)
    shown.of(METER, [reading(1000)], profile(900))
    clock.now_s = 500.0
    assert shown.of(METER, [reading(500)], profile(900)) == [reading(500)]


def test_registers_that_are_gone_are_not_remembered() -> None:
    shown = DisplayedValues(Clock())
    for number in range(200):
        shown.of(METER, [reading(1, Obis(1, 0, number, 8, 0, 255))], profile(900))
    assert sum(map(len, shown._shown.values())) == 1
