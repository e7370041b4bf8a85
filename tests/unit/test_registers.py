"""Registers as the schema wants them: all meters heard, summed, at the slot's scale, and nothing that is not usable."""

from typing import Any

import pytest

from node.aggregation.contribution import Registers
from node.lmn.s0 import PulseInput
from node.metering.registers import RegisterSet
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import WATT, WATT_HOUR

IMPORT, EXPORT, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)


def reading(
    device: str, obis: Obis, value: int | bytes, scaler: int = -1, unit: int = WATT_HOUR, **more: Any
) -> Reading:
    return Reading(device=device, obis=obis, value=value, scaler=scaler, unit=unit, **more)


@pytest.fixture
def registers() -> RegisterSet:
    return RegisterSet(DEFAULT_SCHEMA, ["a", "b"])


def test_it_waits_for_every_meter_and_sums_them(registers: RegisterSet) -> None:
    a = [reading("a", IMPORT, 100), reading("a", EXPORT, 7), reading("a", POWER, -30, 0, WATT)]
    b = [reading("b", IMPORT, 5, 0), reading("b", POWER, 40, 0, WATT)]
    assert registers.take(900, a) is None
    assert registers.take(900, b) == Registers(900, (1, 150, 7, 10))
    assert registers.take(900, b) is None  # every meter anew


def test_what_was_heard_in_another_interval_does_not_complete_this_one(registers: RegisterSet) -> None:
    assert registers.take(0, [reading("a", IMPORT, 100)]) is None
    assert registers.take(900, [reading("b", IMPORT, 1)]) is None
    assert registers.take(900, [reading("a", IMPORT, 103)]) == Registers(900, (1, 104, 0, 0))


def test_the_last_telegram_of_an_interval_counts(registers: RegisterSet) -> None:
    registers.take(0, [reading("a", IMPORT, 100)])
    registers.take(0, [reading("a", IMPORT, 103)])
    assert registers.take(0, [reading("b", IMPORT, 0)]) == Registers(0, (1, 103, 0, 0))


def test_the_rows_of_a_load_profile_are_not_taken_for_the_register() -> None:
    """A DLMS profile and IEC 62056-21's P.01 repeat the register's code with older values, behind the present one."""
    registers = RegisterSet(DEFAULT_SCHEMA, ["a"])
    past = [reading("a", IMPORT, 90 + n, record={"period": n}) for n in range(3)]
    assert registers.take(0, [reading("a", IMPORT, 100), *past]) == Registers(0, (1, 100, 0, 0))


BAD = [
    [reading("stranger", IMPORT, 9)],
    [reading("a", POWER, 9, 0, WATT)],
    [reading("a", IMPORT, b"9")],
    [reading("a", IMPORT, 9, unit=WATT)],
    [reading("a", IMPORT, 9), reading("a", EXPORT, 9, unit=WATT)],
    *(
        [reading("a", IMPORT, 9), reading("a", EXPORT, 9, quality=quality)]
        for quality in set(Quality) - {Quality.VALID}
    ),
    [reading("a", IMPORT, 9, quality=Quality.UNVERIFIED)],
    [PulseInput("a", 1000, obis=IMPORT, start_wh=9).reading()],
    [reading("a", IMPORT, 9, record={"period": 0})],
    [reading("a", IMPORT, 9, record={"storage": 1})],
]


@pytest.mark.parametrize("bad", BAD)
def test_a_telegram_with_a_bad_register_does_not_count_as_heard(registers: RegisterSet, bad: list[Reading]) -> None:
    """As 0 a bad register would become the zero of the account, and the next good one a giant difference."""
    assert registers.take(0, bad) is None
    assert registers.take(0, [reading("b", IMPORT, 1)]) is None
    assert registers.take(0, [reading("a", IMPORT, 100)]) == Registers(0, (1, 101, 0, 0))
