"""The metering log as rings see it, where profiles name a meter's exchange: from the next ring on, not within one."""

from __future__ import annotations

from typing import Any

from node.metering.entries import Entry, LoggedReading
from node.profiles.ring_readings import RingReadings
from protocol.metering.interval import QUARTER_HOURS
from protocol.metering.reading import Quality
from protocol.metering.units import unit_code
from tests.unit.profiled_account import DAY_S, GATEWAY, IMPORT, InForce, processing, profile_set

METER = f"{GATEWAY}/0"
EPOCH_S = 16 * 900


def with_exchange(final: int, version: int = 2) -> Any:
    """A set by which the meter, whose place its successor has, was exchanged before the day."""
    exchange = {"at": "2026-10-31T12:00:00Z", "final": final, "initial": 0}
    return profile_set(
        processing(meters=[{"meter": "m1", "exchange": exchange}, {"meter": "m0"}]), version=version
    )  # fmt: skip


def seen(readings: RingReadings, at_s: int, value: int = 1_000) -> int | None:
    read = LoggedReading(
        METER, IMPORT, value, 0, unit_code("Wh"), None, at_s * 1000, at_s * 1000, at_s, 0, True, Quality.VALID
    )
    (found,) = readings.view(Entry(1, (read,))).readings
    return found.value


def test_an_exchange_that_is_named_within_an_epoch_counts_from_the_next() -> None:
    profiles: Any = InForce(profile_set(processing()))
    readings = RingReadings(profiles, lambda: QUARTER_HOURS)
    readings.adopt(DAY_S)
    profiles.put(with_exchange(70_000))
    assert seen(readings, DAY_S + 900) == 1_000
    readings.adopt(DAY_S + EPOCH_S)
    assert [seen(readings, DAY_S + each) for each in (EPOCH_S - 900, EPOCH_S, EPOCH_S + 900)] == [1_000, 71_000, 71_000]


def test_within_an_epoch_no_profile_moves_a_register_up_or_down() -> None:
    """One that falls ends contributions: a household out of totals in a round that the administrator chose."""
    profiles: Any = InForce(with_exchange(70_000, version=1))
    readings = RingReadings(profiles, lambda: QUARTER_HOURS)
    readings.adopt(DAY_S)
    for version, final in enumerate((70_001, 60_000, 90_000), 2):
        profiles.put(with_exchange(final, version))
        assert seen(readings, DAY_S + 900 * version) == 71_000
    profiles.put(profile_set(processing(), version=9))
    assert seen(readings, DAY_S + 9_000) == 71_000
    readings.adopt(DAY_S + EPOCH_S)
    assert seen(readings, DAY_S + EPOCH_S) == 1_000


def test_before_the_first_ring_the_set_in_force_counts() -> None:
    profiles: Any = InForce(profile_set(processing()))
    readings = RingReadings(profiles, lambda: QUARTER_HOURS)
    profiles.put(with_exchange(70_000))
    assert seen(readings, DAY_S - 900) == 71_000
    readings.adopt(DAY_S)
    profiles.put(with_exchange(80_000, version=3))
    assert [seen(readings, DAY_S + each) for each in (-900, 0)] == [71_000, 71_000]


def test_a_layout_that_comes_again_takes_the_set_of_then() -> None:
    profiles: Any = InForce(profile_set(processing()))
    readings = RingReadings(profiles, lambda: QUARTER_HOURS)
    readings.adopt(DAY_S)
    profiles.put(with_exchange(70_000))
    readings.adopt(DAY_S)
    assert seen(readings, DAY_S) == 71_000
    for epoch in range(1, 6):  # bounded, however many epochs there are
        readings.adopt(DAY_S + epoch * EPOCH_S)
    assert len(readings._adopted) == 3
