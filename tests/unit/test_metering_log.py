"""The metering log: durable before it is handed out, in order, once; what is old becomes blocks or goes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node.metering.entries import (
    Entry,
    LoggedReading,
    decode_block,
    decode_entry,
    encode_block,
    encode_entry,
    nearest,
)
from node.metering.log import MeteringLog
from node.metering.retention import LogKeeper, Retention
from node.storage.cipher import StorageCipher
from node.storage.engine import Statement, Store
from node.storage.errors import StoreError
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol.errors import LocalProtocolError
from protocol.metering.interval import DAY_S, RegistrationGrid, day_of
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality

GATEWAY, METER = "ESTK0000000001", "1STK0000000001"
IMPORT, EXPORT = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255)
NOON_S = 1_800_000_000 // DAY_S * DAY_S + 43_200


class Clock:
    """Set by the test."""

    def __init__(self) -> None:
        self.now_s = float(NOON_S)

    def __call__(self) -> float:
        return self.now_s


def logged(registration_s: int | None, value: int, deviation_ms: int = 100, **more: Any) -> LoggedReading:
    measured_ms = (registration_s or NOON_S) * 1000 + deviation_ms
    reading = LoggedReading(
        METER, IMPORT, value, -1, 30, None, measured_ms, measured_ms + 5, registration_s,
        None if registration_s is None else deviation_ms, abs(deviation_ms) <= 9000, Quality.VALID,
    )  # fmt: skip
    return reading._replace(**more)


@asynccontextmanager
async def repository(path: Path) -> AsyncIterator[MeteringLogRepository]:
    store = Store(path / "registers.sqlite", StorageCipher(bytes(32)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield MeteringLogRepository(store)
        nursery.cancel_scope.cancel()
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def collect(into: list[Entry]) -> Callable[[Entry], Awaitable[None]]:
    async def take(entry: Entry) -> None:
        into.append(entry)

    return take


# --- what is kept -----------------------------------------------------------------------------------------------------

INT64 = st.integers(-(2**63), 2**63 - 1)
STATUS = st.none() | st.integers(0, 2**64 - 1)
READINGS = st.builds(
    LoggedReading, st.just(METER), st.sampled_from([IMPORT, EXPORT]), st.none() | INT64, st.integers(-128, 127),
    st.none() | st.integers(0, 255), STATUS, st.integers(0, 2**42), st.just(NOON_S * 1000),
    st.none() | st.integers(0, 2**32), st.none() | st.integers(-(2**31), 2**31 - 1), st.booleans(),
    st.sampled_from(Quality),
)  # fmt: skip


@given(st.lists(READINGS, min_size=1, max_size=5))
def test_an_entry_reads_back_as_it_was_written(readings: list[LoggedReading]) -> None:
    assert decode_entry(7, encode_entry(readings)) == Entry(7, tuple(readings))


@given(st.lists(READINGS, max_size=100), st.integers(0, 40_000))
def test_a_block_reads_back_as_it_was_written(readings: list[LoggedReading], day: int) -> None:
    of_day = [
        each._replace(obis=IMPORT, registration_s=day * DAY_S + index, value=each.value or 0, deviation_ms=index)
        for index, each in enumerate(readings)
    ]
    assert list(decode_block(METER, IMPORT, day, encode_block(of_day))) == of_day


def test_the_size_of_a_block_does_not_depend_on_the_values() -> None:
    small, large = ([logged(NOON_S + 900 * i, value) for i in range(96)] for value in (0, 2**62))
    assert len(encode_block(small)) == len(encode_block(large))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-9000, 900_000)), max_size=30))
def test_of_each_registration_time_the_nearest_value_is_kept(values: list[tuple[int, int]]) -> None:
    readings = [logged(NOON_S + 900 * i, n, deviation_ms) for n, (i, deviation_ms) in enumerate(values)]
    kept = nearest(readings)
    assert [each.registration_s for each in kept] == sorted({each.registration_s or 0 for each in readings})
    for each in kept:
        rivals = [other for other in readings if other.registration_s == each.registration_s]
        assert abs(each.deviation_ms or 0) == min(abs(other.deviation_ms or 0) for other in rivals)


# --- writing and subscribing ------------------------------------------------------------------------------------------


async def test_an_entry_is_durable_before_it_is_handed_out(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        subscription = await log.subscribe("s")
        there: list[bool] = []

        async def take(entry: Entry) -> None:
            there.append(entry in log.read(0, 10))

        await subscription.attach(take)
        await log.append([logged(NOON_S, 1), logged(NOON_S, 2, meter="2STK0000000002")])
        assert there == [True, True]


@pytest.mark.parametrize("set_back_s", [0, 0.5, 3600])
async def test_a_restart_continues_at_the_cursor(tmp_path: Path, clock: Clock, set_back_s: float) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        await log.append([logged(NOON_S, 0)])
        subscription = await log.subscribe("s")
        for value in (1, 2, 3):
            await log.append([logged(NOON_S, value)])
        await subscription.advance(subscription.pending()[0].position)
    async with repository(tmp_path) as mine:
        clock.now_s -= set_back_s  # positions go on
        log = MeteringLog(mine, GATEWAY, clock)
        seen: list[Entry] = []
        await (await log.subscribe("s")).attach(collect(seen))
        await log.append([logged(NOON_S, 4)])
        everything: list[Entry] = []
        await (await log.subscribe("all", from_beginning=True)).attach(collect(everything))
    assert [entry.readings[0].value for entry in seen] == [2, 3, 4]
    assert [entry.readings[0].value for entry in everything] == [0, 1, 2, 3, 4]


async def test_entries_that_come_while_a_subscriber_is_busy_stay_in_order(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        seen: list[int | None] = []

        async def slow(entry: Entry) -> None:
            for _ in range(entry.readings[0].value or 0):
                await trio.lowlevel.checkpoint()
            seen.append(entry.readings[0].value)

        await (await log.subscribe("s")).attach(slow)
        async with trio.open_nursery() as nursery:
            for value in range(20, 0, -1):
                nursery.start_soon(log.append, [logged(NOON_S, value)])
                await trio.lowlevel.checkpoint()
        assert sorted(map(int, filter(None, seen))) == list(range(1, 21))
        assert seen == [each.readings[0].value for each in log.read(0, 100)]


async def test_a_write_that_fails_is_handed_to_nobody_and_the_next_one_is(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        seen: list[Entry] = []
        await (await log.subscribe("s")).attach(collect(seen))
        full = "CREATE TRIGGER full BEFORE INSERT ON metering_entry BEGIN SELECT RAISE(ABORT, 'full'); END"
        await mine.store.write([Statement(full, ())])
        with pytest.raises(StoreError):
            await log.append([logged(NOON_S, 1)])
        await mine.store.write([Statement("DROP TRIGGER full", ())])
        await log.append([logged(NOON_S, 2)])
        assert [entry.readings[0].value for entry in seen] == [2]
        assert [each.value for each in log.registered(METER, IMPORT, NOON_S, NOON_S + 900)] == [2]


async def test_a_subscriber_that_fails_gets_the_same_again_and_costs_no_other(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        failing, steady = await log.subscribe("failing"), await log.subscribe("steady")
        disk_is_full = True
        taken: list[Entry] = []
        other: list[Entry] = []

        async def take(entry: Entry) -> None:
            if disk_is_full:
                raise StoreError("the disk is full")
            taken.append(entry)

        await failing.attach(take)
        await steady.attach(collect(other))
        for value in range(3):
            await log.append([logged(NOON_S, value)])  # durable, and so not the telegram's failure
        assert len(log.read(0, 10)) == len(other) == 3
        assert "'failing' gets a telegram again: the disk is full" in caplog.text
        disk_is_full = False
        await log.append([logged(NOON_S, 3)])
        assert taken == other == log.read(0, 10)


async def test_attaching_says_what_the_subscriber_could_not_do(tmp_path: Path, clock: Clock) -> None:
    async def take(entry: Entry) -> None:
        raise StoreError(f"no room for {entry.position}")

    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        subscription = await log.subscribe("s", from_beginning=True)
        await log.append([logged(NOON_S, 1)])
        with pytest.raises(StoreError, match="no room"):
            await subscription.attach(take)


async def test_a_value_that_could_not_be_written_takes_nobodys_registration_time(tmp_path: Path, clock: Clock) -> None:
    """The telegram nearest to the quarter hour met a full disk: the next one stands for it, and is kept."""
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        full = "CREATE TRIGGER full BEFORE INSERT ON metering_entry BEGIN SELECT RAISE(ABORT, 'full'); END"
        await mine.store.write([Statement(full, ())])
        with pytest.raises(StoreError):
            await log.append([logged(NOON_S, 1, 100)])
        await mine.store.write([Statement("DROP TRIGGER full", ())])
        await log.append([logged(NOON_S, 2, 1100)])
        clock.now_s += 1800
        await LogKeeper(mine, [GATEWAY], Retention(telegrams_s=900), clock).keep()
        assert [each.value for each in log.registered(METER, IMPORT, NOON_S, NOON_S + 900)] == [2]


async def test_registers_spread_over_telegrams_each_have_their_value(tmp_path: Path, clock: Clock) -> None:
    """A meter that sends one register at once and the other ten seconds later: both stand for the quarter hour."""
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        await log.append([logged(NOON_S, 1, 100), logged(NOON_S, 0, 100, obis=EXPORT)._replace(value=None)])
        await log.append([logged(NOON_S, 2, 10_000, obis=EXPORT)])
        await log.append([logged(NOON_S, 3, 20_000), logged(NOON_S, 4, 20_000, obis=EXPORT)])
        clock.now_s += 1800
        await LogKeeper(mine, [GATEWAY], Retention(telegrams_s=900), clock).keep()
        found = [log.registered(METER, register, NOON_S, NOON_S + 900) for register in (IMPORT, EXPORT)]
        assert [[each.value for each in values] for values in found] == [[1], [2]]
        assert len(log.read(0, 100)) == 2


async def test_a_subscriber_task_gets_stored_and_new_entries(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine, trio.open_nursery() as nursery:
        log = MeteringLog(mine, GATEWAY, clock)
        await log.append([logged(NOON_S, 1)])
        subscription = await log.subscribe("s", from_beginning=True)
        sent, received = trio.open_memory_channel[int | None](10)

        async def follow() -> None:
            async for entry in subscription.entries():
                await sent.send(entry.readings[0].value)

        nursery.start_soon(follow)
        assert await received.receive() == 1
        await log.append([logged(NOON_S, 2)])
        assert await received.receive() == 2
        nursery.cancel_scope.cancel()


async def test_one_name_is_one_subscription(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        await log.subscribe("s")
        with pytest.raises(LocalProtocolError, match="subscriber 's' already"):
            await log.subscribe("s")


async def test_an_entry_moved_to_another_gateway_does_not_open(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with repository(tmp_path) as mine:
        other = "ESTK0000000002"
        await MeteringLog(mine, GATEWAY, clock).append([logged(NOON_S, 1)])
        await mine.store.write([Statement("UPDATE metering_entry SET gateway=?", (other,))])
        log = MeteringLog(mine, other, clock)
        await log.append([logged(NOON_S, 2)])
        seen: list[Entry] = []
        await (await log.subscribe("s", from_beginning=True)).attach(collect(seen))
        assert [entry.readings[0].value for entry in seen] == [2]
        assert [each.value for each in log.registered(METER, IMPORT, 0, 2 * NOON_S)] == [2]
    assert "1 entries" in caplog.text


# --- reading and retention --------------------------------------------------------------------------------------------


async def fill(log: MeteringLog, clock: Clock, quarter_hours: range) -> None:
    """A telegram just after each quarter hour begins, and another five minutes later."""
    for index in quarter_hours:
        for later_s in (1, 300):
            clock.now_s = NOON_S + 900 * index + later_s
            values = [
                logged(NOON_S + 900 * index, 10 * index + later_s, 1000 * later_s, obis=o) for o in (IMPORT, EXPORT)
            ]
            await log.append(values)


async def test_registered_values_are_the_same_before_and_after_they_are_blocks(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        keeper = LogKeeper(mine, [GATEWAY], Retention(), clock)
        await fill(log, clock, range(200))
        before = log.registered(METER, IMPORT, NOON_S, NOON_S + 900 * 200)
        assert [each.value for each in before] == [10 * index + 1 for index in range(200)]
        for _ in range(5):
            clock.now_s += 43_200
            await keeper.keep()
        ((entries,),) = mine.store.read("SELECT count(*) FROM metering_entry")
        ((blocks,),) = mine.store.read("SELECT count(*) FROM metering_block")
        log = MeteringLog(mine, GATEWAY, clock)
        assert (entries, blocks) == (0, 2 * 3)  # two registers, noon to noon and a little
        assert log.registered(METER, IMPORT, NOON_S, NOON_S + 900 * 200) == before
        assert log.registered(METER, IMPORT, NOON_S + 900, NOON_S + 2700) == before[1:3]
        assert log.registered(METER, IMPORT, NOON_S + 900, NOON_S + 900) == []


async def test_telegrams_go_after_their_time_and_registered_values_stay(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        await fill(log, clock, range(4))
        clock.now_s += 1800
        await LogKeeper(mine, [GATEWAY], Retention(telegrams_s=900), clock).keep()
        left = [each.readings[0].value for each in log.read(0, 100)]
        assert left == [1, 11, 21, 31]


async def keep_hourly(keeper: LogKeeper, clock: Clock, days: float) -> None:
    for _ in range(int(24 * days)):
        clock.now_s += 3600
        await keeper.keep()


def days_kept(mine: MeteringLogRepository, gateway: str = GATEWAY, meter: str = METER) -> list[int]:
    """The days of a meter's blocks, counted from the first of the test."""
    rows = mine.store.read("SELECT DISTINCT day FROM metering_block WHERE gateway=? AND meter=?", gateway, meter)
    return sorted(day - day_of(NOON_S) for (day,) in rows)


async def test_values_go_after_their_retention(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        keeper = LogKeeper(mine, [GATEWAY], Retention(values_s=2 * DAY_S), clock)
        await fill(log, clock, range(96))
        await keep_hourly(keeper, clock, 1.5)
        assert days_kept(mine) == [0, 1]
        await keep_hourly(keeper, clock, 3)
        assert days_kept(mine) == []


async def test_a_meter_may_have_a_retention_of_its_own(tmp_path: Path, clock: Clock) -> None:
    other = "2STK0000000002"
    own = {(GATEWAY, other): Retention(telegrams_s=7200, values_s=9 * DAY_S)}
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        keeper = LogKeeper(mine, [GATEWAY], Retention(values_s=2 * DAY_S), clock, own)
        for meter in (METER, other):
            await log.append([logged(NOON_S, 1, meter=meter), logged(None, 2, meter=meter)])
            await log.append([logged(None, 3, meter=meter)])
        clock.now_s += 6000
        await keeper.keep()
        left = [(each.readings[0].meter, len(each.readings)) for each in log.read(0, 10)]
        assert left == [(METER, 2), (other, 2), (other, 1)]
        await keep_hourly(keeper, clock, 5)
        assert (days_kept(mine), days_kept(mine, meter=other)) == ([], [0])


async def test_a_clock_far_ahead_deletes_no_values(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        await fill(log, clock, range(96))
        keeper = LogKeeper(mine, [GATEWAY], Retention(values_s=10 * DAY_S), clock)
        await keep_hourly(keeper, clock, 2)
        assert days_kept(mine) == [0, 1]
    right_s, clock.now_s = clock.now_s, clock.now_s + 1000 * DAY_S
    async with repository(tmp_path) as mine:
        keeper = LogKeeper(mine, [GATEWAY], Retention(values_s=10 * DAY_S), clock)
        for _ in range(8):  # two hours until it is noticed
            await keeper.keep()
        clock.now_s = right_s
        await keep_hourly(keeper, clock, 1)
        assert days_kept(mine) == [0, 1]


async def test_a_log_that_is_ahead_of_the_clock_is_packed(tmp_path: Path, clock: Clock) -> None:
    clock.now_s += 30 * DAY_S
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        await log.append([logged(None, 7)])  # while the clock was wrong
    clock.now_s -= 30 * DAY_S
    async with repository(tmp_path) as mine:
        log, other = (MeteringLog(mine, gateway, clock) for gateway in (GATEWAY, "ESTK0000000002"))
        await log.append([logged(NOON_S, 1)])
        await other.append([logged(NOON_S, 2)])
        assert log.read(0, 10)[-1].position > clock.now_s * 1_000_000 > other.read(0, 10)[-1].position - DAY_S
        keeper = LogKeeper(mine, [GATEWAY, other.gateway], Retention(), clock)
        await keeper.keep()
        assert days_kept(mine) == [0]
        assert mine.store.read("SELECT gateway FROM metering_entry") == [(other.gateway,)]
        await log.append([logged(NOON_S + 900, 3)])
        await keep_hourly(keeper, clock, 2)
        assert days_kept(mine, other.gateway) == [0]
        assert mine.store.read("SELECT count(*) FROM metering_entry") == [(0,)]
        assert [each.value for each in log.registered(METER, IMPORT, NOON_S, NOON_S + 1800)] == [1, 3]


async def test_values_of_a_gateway_that_left_go_after_their_retention(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine:
        left = MeteringLog(mine, "ESTK0000000002", clock)
        await fill(left, clock, range(8))
        both = LogKeeper(mine, [GATEWAY, left.gateway], Retention(values_s=3 * DAY_S), clock)
        await keep_hourly(both, clock, 2)
        assert days_kept(mine, left.gateway) == [0]
        keeper = LogKeeper(mine, [GATEWAY], Retention(values_s=3 * DAY_S), clock)
        await keep_hourly(keeper, clock, 1)
        assert days_kept(mine, left.gateway) == [0]
        await keep_hourly(keeper, clock, 3)
        assert days_kept(mine, left.gateway) == []


async def test_packing_that_fails_is_done_again_and_nothing_is_lost(tmp_path: Path, clock: Clock) -> None:
    async with repository(tmp_path) as mine:
        log = MeteringLog(mine, GATEWAY, clock)
        keeper = LogKeeper(mine, [GATEWAY], Retention(), clock)
        await fill(log, clock, range(96))
        before = log.registered(METER, IMPORT, 0, 2 * NOON_S)
        full = "CREATE TRIGGER full BEFORE INSERT ON metering_block BEGIN SELECT RAISE(ABORT, 'full'); END"
        await mine.store.write([Statement(full, ())])
        clock.now_s += 2 * DAY_S
        with pytest.raises(StoreError):
            await keeper.keep()
        assert MeteringLog(mine, GATEWAY, clock).registered(METER, IMPORT, 0, 2 * NOON_S) == before
        await mine.store.write([Statement("DROP TRIGGER full", ())])
        await keeper.keep()
        assert MeteringLog(mine, GATEWAY, clock).registered(METER, IMPORT, 0, 2 * NOON_S) == before


async def test_the_registration_grid_outlives_the_process(tmp_path: Path) -> None:
    first = RegistrationGrid(1000, 2000, 900, 900)
    second = replace(first, period_ms=4000)
    async with repository(tmp_path) as mine:
        assert mine.grid(GATEWAY) is None
        await mine.store.write([mine.put_grid(GATEWAY, first)])
        await mine.store.write([mine.put_grid(GATEWAY, second)])
    async with repository(tmp_path) as mine:
        assert mine.grid(GATEWAY) == second


def test_days_are_of_utc() -> None:
    assert [day_of(second) for second in (0, DAY_S - 1, DAY_S)] == [0, 0, 1]


async def test_a_gateway_that_is_away_for_days_keeps_what_nobody_packed(tmp_path: Path, clock: Clock) -> None:
    """Out of the configuration and back: the others' packing deletes nothing of it."""
    async with repository(tmp_path) as mine:
        away = MeteringLog(mine, "ESTK0000000002", clock)
        await LogKeeper(mine, [GATEWAY, away.gateway], Retention(), clock).keep()
        await fill(away, clock, range(8))
        keeper = LogKeeper(mine, [GATEWAY], Retention(), clock)
        for _ in range(10):
            clock.now_s += 43_200
            await keeper.keep()
        assert len(away.registered(METER, IMPORT, NOON_S, NOON_S + 7200)) == 8
        await LogKeeper(mine, [GATEWAY, away.gateway], Retention(), clock).keep()
        back = MeteringLog(mine, away.gateway, clock)
        assert len(back.registered(METER, IMPORT, NOON_S, NOON_S + 7200)) == 8
        assert mine.store.read("SELECT count(*) FROM metering_entry") == [(0,)]
