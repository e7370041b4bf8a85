"""Registers as the schema wants them: all meters heard, summed, at the slot's scale, and nothing that is not usable."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.metering.entries import Entry, LoggedReading
from node.metering.registers import Registers, RegisterSet
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from protocol.metering.units import WATT, WATT_HOUR

IMPORT, EXPORT, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)
POSITIONS = count(1)


def reading(
    meter: str, obis: Obis, value: int | None, scaler: int = -1, unit: int = WATT_HOUR, **more: Any
) -> LoggedReading:
    fields: dict[str, Any] = {
        "status": None, "measured_ms": 0, "received_ms": 0, "registration_s": 0, "deviation_ms": 0, "on_time": True,
        "quality": Quality.VALID,
    }  # fmt: skip
    return LoggedReading(meter, obis, value, scaler, unit, **(fields | more))


def told(registers: RegisterSet, interval_s: int, *readings: LoggedReading) -> list[Registers]:
    """What one telegram completes; readings that count for a time count for `interval_s`."""
    stamped = [each if each.registration_s is None else each._replace(registration_s=interval_s) for each in readings]
    return registers.take(Entry(next(POSITIONS), tuple(stamped)))


@pytest.fixture
def registers() -> RegisterSet:
    return RegisterSet(DEFAULT_SCHEMA, ["a", "b"])


def test_it_waits_for_every_meter_and_sums_them(registers: RegisterSet) -> None:
    a = [reading("a", IMPORT, 100), reading("a", EXPORT, 7), reading("a", POWER, -30, 0, WATT)]
    b = [reading("b", IMPORT, 5, 0), reading("b", POWER, 40, 0, WATT)]
    assert told(registers, 900, *a) == []
    assert told(registers, 900, *b) == [Registers(900, (1, 150, 7, 10))]
    assert told(registers, 900, *b) == []  # every meter anew


def test_what_was_heard_in_another_interval_does_not_complete_this_one(registers: RegisterSet) -> None:
    assert told(registers, 0, reading("a", IMPORT, 100)) == []
    assert told(registers, 900, reading("b", IMPORT, 1)) == []
    assert told(registers, 900, reading("a", IMPORT, 103)) == [Registers(900, (1, 104, 0, 0))]


def test_the_last_telegram_of_an_interval_counts(registers: RegisterSet) -> None:
    told(registers, 0, reading("a", IMPORT, 100))
    told(registers, 0, reading("a", IMPORT, 103))
    assert told(registers, 0, reading("b", IMPORT, 0)) == [Registers(0, (1, 103, 0, 0))]


def test_a_meter_that_is_early_does_not_cost_the_others_their_interval(registers: RegisterSet) -> None:
    told(registers, 0, reading("a", IMPORT, 100))
    told(registers, 900, reading("a", IMPORT, 103))
    assert told(registers, 0, reading("b", IMPORT, 1)) == [Registers(0, (1, 101, 0, 0))]
    assert told(registers, 900, reading("b", IMPORT, 2)) == [Registers(900, (1, 105, 0, 0))]


def test_late_readings_before_the_last_complete_interval_are_left(registers: RegisterSet) -> None:
    told(registers, 0, reading("a", IMPORT, 100))
    told(registers, 900, reading("a", IMPORT, 103))
    told(registers, 900, reading("b", IMPORT, 1))
    assert told(registers, 0, reading("b", IMPORT, 0)) == []


def test_one_telegram_may_complete_two_intervals(registers: RegisterSet) -> None:
    for interval_s in (0, 900):
        told(registers, interval_s, reading("a", IMPORT, 100))
    both = Entry(next(POSITIONS), tuple(reading("b", IMPORT, 1, registration_s=each) for each in (0, 900)))
    assert [each.interval_s for each in registers.take(both)] == [0, 900]


TELEGRAMS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), max_size=40)


@given(TELEGRAMS)
def test_nothing_that_is_still_needed_lies_before_the_position(telegrams: list[tuple[str, int]]) -> None:
    """After a restart the log is read behind the position: the same registers become complete as without it."""
    entries = [
        Entry(position, (reading(meter, IMPORT, position, registration_s=900 * interval),))
        for position, (meter, interval) in enumerate(telegrams, 1)
    ]
    steady = RegisterSet(DEFAULT_SCHEMA, ["a", "b", "c"])
    expected = [steady.take(entry) for entry in entries]
    for crashed, complete in enumerate(expected):
        for registers in complete:
            restarted = RegisterSet(DEFAULT_SCHEMA, ["a", "b", "c"])
            again = [restarted.take(entry) for entry in entries[registers.position :]]
            after = [each for step in again[crashed + 1 - registers.position :] for each in step]
            newer = [
                each for step in expected[crashed + 1 :] for each in step if each.interval_s > registers.interval_s
            ]
            assert [each for each in after if each.interval_s > registers.interval_s] == newer


def test_the_rows_of_a_load_profile_are_not_taken_for_the_register() -> None:
    """A DLMS profile and IEC 62056-21's P.01 repeat the register's code with older values, behind the present one."""
    registers = RegisterSet(DEFAULT_SCHEMA, ["a"])
    past = [reading("a", IMPORT, 90 + n, registration_s=None) for n in range(3)]
    assert told(registers, 0, reading("a", IMPORT, 100), *past) == [Registers(0, (1, 100, 0, 0))]


BAD = [
    [reading("stranger", IMPORT, 9)],
    [reading("a", POWER, 9, 0, WATT)],
    [reading("a", IMPORT, None)],
    [reading("a", IMPORT, 9, unit=WATT)],
    [reading("a", IMPORT, 9), reading("a", EXPORT, 9, unit=WATT)],
    *(
        [reading("a", IMPORT, 9), reading("a", EXPORT, 9, quality=quality)]
        for quality in set(Quality) - {Quality.VALID}
    ),
    [reading("a", IMPORT, 9, quality=Quality.UNVERIFIED)],
    [reading("a", IMPORT, 9, quality=Quality.NOT_FOR_BILLING)],
    [reading("a", IMPORT, 9, registration_s=None)],
]


@pytest.mark.parametrize("bad", BAD)
def test_a_telegram_with_a_bad_register_does_not_count_as_heard(
    registers: RegisterSet, bad: list[LoggedReading]
) -> None:
    """As 0 a bad register would become the zero of the account, and the next good one a giant difference."""
    assert told(registers, 0, *bad) == []
    assert told(registers, 0, reading("b", IMPORT, 1)) == []
    assert told(registers, 0, reading("a", IMPORT, 100)) == [Registers(0, (1, 101, 0, 0))]
