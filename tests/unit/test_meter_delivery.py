"""What a reading counts for: it follows from when the value was measured, never from when it was delivered."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.metering.delivery import MeterDelivery
from node.metering.entries import LoggedReading, decode_entry, encode_entry
from node.metering.interval import Arrival, Measured
from node.metering.log import MeteringLog
from node.metering.meter_clock import MeterClock
from protocol.metering.interval import QUARTER_HOURS, RegistrationGrid
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import WATT_HOUR

IMPORT, VOLTAGE, SERIAL = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 32, 7, 0, 255), Obis(1, 0, 96, 1, 0, 255)
NOON_S = 1_800_000_000 // 900 * 900
NOON = datetime.fromtimestamp(NOON_S, UTC)


class Log:
    """Takes the place of the log: what would be durable."""

    def __init__(self) -> None:
        self.rows: list[LoggedReading] = []

    async def append(self, readings: Sequence[LoggedReading]) -> None:
        self.rows = list(readings)


class Meter:
    """Delivers one telegram after the other, long after they were received."""

    def __init__(self, grid: RegistrationGrid = QUARTER_HOURS) -> None:
        self.log = Log()
        self.delivery = MeterDelivery(cast(MeteringLog, self.log), lambda: NOON_S + 1e6, grid)

    async def says(
        self, received_s: float, value: Any = 100, *, earliest_s: float | None = None, asked: bool = False,
        clock_s: float | None = None, scaler: int = -1, **more: Any,
    ) -> list[LoggedReading]:  # fmt: skip
        """All times in seconds after noon; `clock_s` is what the meter's clock shows."""
        received_at = NOON + timedelta(seconds=received_s)
        measured_at = None if clock_s is None else NOON + timedelta(seconds=clock_s)
        reading = Reading(
            "a", IMPORT, value, scaler, WATT_HOUR, measured_at=measured_at, received_at=received_at, **more
        )
        earliest = received_s if earliest_s is None else earliest_s
        await self.delivery.deliver([reading], Arrival(NOON_S + earliest, asked))
        return self.log.rows


def counts_for(rows: list[LoggedReading]) -> int | None:
    """The quarter hour after noon that the only reading counts for."""
    (row,) = rows
    return None if row.registration_s is None else (row.registration_s - NOON_S) // 900


async def test_a_telegram_counts_for_the_quarter_hour_in_which_it_was_received() -> None:
    meter = Meter()
    assert counts_for(await meter.says(899.0 - 20)) == 0
    assert counts_for(await meter.says(900.5)) == 1
    (row,) = await meter.says(900.5)
    assert (row.deviation_ms, row.on_time, row.received_ms) == (500, True, NOON_S * 1000 + 900_500)
    (row,) = await meter.says(930.0)
    assert (row.deviation_ms, row.on_time) == (30_000, False)


async def test_a_telegram_up_to_one_per_cent_early_is_the_next_quarter_hours() -> None:
    meter = Meter()
    assert counts_for(await meter.says(892.0)) == 1
    assert counts_for(await meter.says(890.0)) == 0
    assert counts_for(await meter.says(892.0, earliest_s=892.0, asked=True)) == 0


async def test_a_telegram_that_may_be_of_either_quarter_hour_counts_for_none() -> None:
    meter = Meter()
    (row,) = await meter.says(930.0, earliest_s=850.0)
    assert (row.registration_s, row.deviation_ms, row.value) == (None, None, 100)
    assert counts_for(await meter.says(910.0, earliest_s=880.0, asked=True)) is None


@pytest.mark.parametrize("wrong_s", [0.0, -4321.0, 86_400.0, -1_000_000_000.0])
async def test_a_meter_with_any_clock_that_runs_tells_which_quarter_hour_it_was(wrong_s: float) -> None:
    meter = Meter()
    for at_s in (800.0, 810.0, 820.0):
        await meter.says(at_s + 0.1, clock_s=wrong_s + at_s)
    assert counts_for(await meter.says(930.0, earliest_s=821.0, clock_s=wrong_s + 830.0)) == 0
    assert counts_for(await meter.says(930.0, earliest_s=821.0, clock_s=wrong_s + 929.0)) == 1
    assert counts_for(await meter.says(931.0, clock_s=wrong_s + 930.0)) == 1


async def test_a_count_of_seconds_tells_it_too_and_a_first_telegram_tells_nothing() -> None:
    meter = Meter()
    assert counts_for(await meter.says(930.0, earliest_s=820.0, meter_seconds=5830)) is None
    await meter.says(940.0, meter_seconds=5940)
    assert counts_for(await meter.says(1830.0, earliest_s=941.0, meter_seconds=5950)) == 1


async def test_a_telegram_that_a_converter_kept_counts_for_when_it_was_made() -> None:
    meter = Meter()
    for at_s in (800.0, 810.0, 820.0):
        await meter.says(at_s, clock_s=at_s)
    assert counts_for(await meter.says(930.0, clock_s=830.0)) == 0


async def test_a_clock_that_stands_still_or_is_set_back_is_not_followed() -> None:
    meter = Meter()
    for at_s in (0.0, 30.0, 60.0, 930.0, 1830.0):
        assert counts_for(await meter.says(at_s, clock_s=0.0)) == at_s // 900
    for at_s in (1900.0, 2000.0):
        await meter.says(at_s, clock_s=at_s)
    assert counts_for(await meter.says(2730.0, clock_s=-900.0)) == 3
    assert counts_for(await meter.says(2760.0, clock_s=-870.0)) == 3


async def test_the_older_values_of_a_telegram_are_as_much_older_as_the_meter_says() -> None:
    meter = Meter()
    await meter.says(500.0, meter_seconds=10_500)
    received_at = NOON + timedelta(seconds=910)
    readings = [
        Reading("a", obis, 1, 0, WATT_HOUR, meter_seconds=seconds, received_at=received_at)
        for obis, seconds in ((IMPORT, 10_850), (VOLTAGE, 10_910))
    ]
    await meter.delivery.deliver(readings, Arrival(NOON_S + 910, asked=False))
    assert [(row.registration_s or 0) - NOON_S for row in meter.log.rows] == [0, 900]


async def test_past_values_are_logged_and_count_for_no_registration() -> None:
    meter = Meter()
    for record in ({"period": 3}, {"storage": 1}):
        (row,) = await meter.says(910.0, clock_s=-5000.0, record=record)
        assert (row.registration_s, row.value) == (None, 100)


async def test_a_counter_without_a_number_is_logged_as_such_and_texts_are_not() -> None:
    meter = Meter()
    for bad in (b"9", "9", None):
        (row,) = await meter.says(910.0, bad)
        assert row.value is None
    meter.log.rows = []
    serial = Reading("a", SERIAL, b"1STK", received_at=NOON)
    nameless = Reading("a", None, 5, received_at=NOON, record={"medium": 7})
    await meter.delivery.deliver([serial, nameless], Arrival(NOON_S, asked=False))
    assert meter.log.rows == []


async def test_quality_status_and_unit_are_kept() -> None:
    meter = Meter()
    (row,) = await meter.says(910.0, status=2**64 - 1, quality=Quality.METER_ERROR)
    assert (row.status, row.quality, row.scaler, row.unit) == (2**64 - 1, Quality.METER_ERROR, -1, WATT_HOUR)
    (row,) = await meter.says(910.0, status=2**64)
    assert row.status is None


async def test_in_a_time_lapse_the_registration_time_is_metering_time() -> None:
    meter = Meter(RegistrationGrid(NOON_S * 1000, 1000, 900_000, 900))
    (row,) = await meter.says(7.25)
    assert (row.registration_s, row.deviation_ms, row.on_time) == (900_000 + 7 * 900, 250, False)


OFFSETS = st.floats(-1e9, 1e9)
DELAYS = st.lists(st.floats(0, 0.5), min_size=2, max_size=20)


@given(OFFSETS, DELAYS, st.floats(1, 600))
def test_what_a_running_clock_says_holds_the_truth(offset_s: float, delays: list[float], waited_s: float) -> None:
    """Telegrams every ten seconds, each a little delayed; then one that waited."""
    clock, now_s = MeterClock(), 1e9
    for delay_s in delays:
        now_s += 10
        found = clock.measured(math.floor(now_s + offset_s), Measured.at(now_s + delay_s), int(now_s // 900))
        assert found.earliest_s - 1 <= now_s <= found.latest_s + 1
    now_s += 10
    waited = Measured(now_s - 5, now_s + waited_s)
    found = clock.measured(math.floor(now_s + offset_s), waited, int((now_s + waited_s) // 900))
    assert found.earliest_s - 1 <= now_s <= found.latest_s + 1
    assert found.latest_s - found.earliest_s <= 2.001


@pytest.mark.parametrize("number", [12345.678, 0.1, 1e-30, 2.0**80, 5e-324])
async def test_a_floating_point_register_is_logged_as_far_as_the_log_has_room(number: float) -> None:
    """Its exact mantissa has some 40 digits: the number counts, it is not dropped for its length."""
    exact = Decimal(number)
    exponent = int(exact.as_tuple().exponent)
    (row,) = await Meter().says(NOON_S + 1, int(exact.scaleb(-exponent, Context(prec=2000))), scaler=exponent)
    assert row.value is not None
    assert -128 <= row.scaler < 128
    assert 0 <= Fraction(number) - row.value * Fraction(10) ** row.scaler < Fraction(10) ** row.scaler
    assert decode_entry(1, encode_entry([row])).readings == (row,)


async def test_shorter_periods_of_a_profile_take_nothing_from_the_quarter_hours() -> None:
    meter = Meter()
    finest_s: list[int | None] = [300]
    meter.delivery = MeterDelivery(
        cast(MeteringLog, meter.log), lambda: NOON_S + 1e6, QUARTER_HOURS, finest_s=lambda: finest_s[0]
    )

    async def registered(second: float) -> tuple[int, bool]:
        (row,) = await meter.says(second)
        assert row.registration_s is not None
        return row.registration_s - NOON_S, row.on_time

    assert await registered(8.0) == (0, True)  # 1 % of the quarter hour, not of the five minutes
    assert await registered(302.0) == (300, True)
    assert await registered(304.0) == (300, False)
    assert await registered(892.0) == (900, True)
    assert await registered(880.0) == (600, False)
    assert meter.delivery.next_reading_time(NOON_S + 1.0) == NOON_S + 300
    assert meter.delivery.next_border(NOON_S + 1.0) == NOON_S + 297
    assert meter.delivery.next_border(NOON_S + 880.0) == NOON_S + 891
    finest_s[0] = None
    assert await registered(304.0) == (0, False)
    finest_s[0] = 350  # no part of a quarter hour
    assert await registered(304.0) == (0, False)
    assert meter.delivery.next_reading_time(NOON_S + 1.0) == NOON_S + 900
