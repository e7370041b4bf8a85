"""Readings that no connection can carry are held back, count, and lose nothing."""

import itertools

from node.metering.physical_limits import PhysicalLimits
from node.metering.registers import Registers
from protocol.dcnet.setup.ranges import connection_w
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA

FUSE_A = 35
QUARTER = -(-connection_w(FUSE_A) * 900 * 10 // 3600)  # tenths of a watt hour
IMPORT, EXPORT, POWER = (slot.obis for slot in DEFAULT_SCHEMA.slots[1:])


def at(interval: int, energy: int, feed_in: int = 0, power: int = 0) -> Registers:
    return Registers(900 * interval, (1, energy, feed_in, power))


def test_what_the_fuse_carries_is_accepted_and_one_more_is_not() -> None:
    limits = PhysicalLimits(DEFAULT_SCHEMA, FUSE_A)
    assert limits.exceeded(at(0, 10**9)) is None  # the first is what the next are held against
    assert limits.exceeded(at(1, 10**9 + QUARTER + 1)) == IMPORT
    assert limits.exceeded(at(1, 10**9 + QUARTER)) is None
    assert limits.exceeded(at(2, 10**9 + QUARTER, QUARTER + 1)) == EXPORT
    assert limits.exceeded(at(2, 10**9 + QUARTER, QUARTER)) is None


def test_power_is_held_against_the_connection_in_both_directions() -> None:
    limits = PhysicalLimits(DEFAULT_SCHEMA, FUSE_A)
    most = connection_w(FUSE_A)
    assert [limits.exceeded(at(0, 0, 0, power)) for power in (most, -most, most + 1, -most - 1)] == [
        None, None, POWER, POWER,
    ]  # fmt: skip


def test_a_reading_that_was_wrong_once_costs_its_own_interval_alone() -> None:
    limits = PhysicalLimits(DEFAULT_SCHEMA, FUSE_A)
    readings = [at(0, 5000), at(1, 5010), at(2, 99_999_999), at(3, 5030)]
    assert [limits.exceeded(each) for each in readings] == [None, None, IMPORT, None]


def test_a_lasting_jump_within_the_fuse_rating_is_accepted() -> None:
    limits = PhysicalLimits(DEFAULT_SCHEMA, FUSE_A)
    limits.exceeded(at(0, 0))
    jump = 10 * QUARTER
    accepted = next(i for i in itertools.count(1) if limits.exceeded(at(i, jump)) is None)
    assert accepted == 10
    assert limits.exceeded(at(11, jump + 20)) is None


def test_after_a_restart_registers_are_checked_against_the_last_ones() -> None:
    limits = PhysicalLimits(DEFAULT_SCHEMA, FUSE_A, at(7, 5000))
    assert limits.exceeded(at(8, 5000 + QUARTER + 1)) == IMPORT
    assert limits.exceeded(at(8, 5001)) is None


def test_a_register_that_falls_is_not_the_limits_business() -> None:
    """Contributions refuse it (node.aggregation.contribution); the next true reading is no jump."""
    limits = PhysicalLimits(DEFAULT_SCHEMA, FUSE_A, at(7, 10**9))
    assert limits.exceeded(at(8, 0)) is None
    assert limits.exceeded(at(9, 10**9 + 2 * QUARTER)) is None
    assert limits.exceeded(at(10, 10**9 + 4 * QUARTER)) == IMPORT
