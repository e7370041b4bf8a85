"""The driver runtime on memory streams and simulated time: schedules, back-off, faults that stay where they are."""

import itertools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from random import Random
from zoneinfo import ZoneInfo

import pytest
import trio
from prometheus_client import REGISTRY
from pydantic import ValidationError
from trio.testing import MockClock, memory_stream_pair

from loadtest.meters.iec62056_21 import MeterSettings, Register, SimulatedMeter
from loadtest.meters.p1 import P1Settings, telegram
from node.lmn.events import LmnEvent, log_event
from node.lmn.links import parse_link
from node.lmn.profiles import MeterProfile
from node.lmn.registry import DRIVERS
from node.lmn.runtime import Backoff, NotLoggedError, Periodic, run_meters
from node.lmn.session import Batch, Clock, Driver, LmnStores
from node.metering.interval import Arrival
from protocol.errors import InvariantError, LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading
from protocol.metering.units import CUBIC_METRE, WATT, WATT_HOUR

IMPORT, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)
GAS = Obis(7, 0, 3, 0, 0, 255)
RECEPTION_DELAY_MAX_S = 0.5  # REQ.TLSHDLC.SMGW.50, REQ.WMBUS.apl.40


def simulated_now() -> datetime:
    return datetime.fromtimestamp(trio.current_time(), UTC)


def registers(now: datetime) -> list[Register]:
    wh = int(now.timestamp())
    return [(IMPORT, wh, 0, WATT_HOUR), (POWER, 1234, -1, WATT), (GAS, 5000 + wh, -3, CUBIC_METRE)]


class Bench:
    """Collects what `run_meters` gives, and opens links onto tasks that play the meters."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.delivered: list[tuple[float, list[Reading]]] = []
        self.events: list[LmnEvent] = []
        self.opened: list[tuple[float, str]] = []
        self.meters: dict[str, Callable[[trio.abc.Stream], object]] = {}
        self.clock_ahead_s = 0.0

    def clock(self) -> float:
        return trio.current_time() + self.clock_ahead_s

    async def deliver(self, readings: list[Reading], arrival: Arrival) -> None:
        assert readings
        self.delivered.append((trio.current_time(), readings))

    async def open_stream(self, url: str) -> trio.abc.Stream:
        self.opened.append((trio.current_time(), url))
        if url not in self.meters:
            raise ConnectionRefusedError
        ours, theirs = memory_stream_pair()
        self.nursery.start_soon(self.meters[url], theirs)  # type: ignore[arg-type]
        return ours

    async def run(self, *profiles: MeterProfile, period_s: float = 900.0, **options: object) -> None:
        await run_meters(
            profiles, self.deliver, Periodic(period_s), clock=self.clock, rng=Random(1),
            on_event=self.events.append, open_stream=self.open_stream, **options,  # type: ignore[arg-type]
        )  # fmt: skip

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@asynccontextmanager
async def bench() -> AsyncGenerator[Bench, None]:
    async with trio.open_nursery() as nursery:
        yield Bench(nursery)
        nursery.cancel_scope.cancel()


def iec_meter(serial: str, **settings: object) -> SimulatedMeter:
    return SimulatedMeter(MeterSettings(serial, **settings), registers, simulated_now)  # type: ignore[arg-type]


def profile(device: str, link: str = "tcp://a:1", protocol: str = "iec62056-21", **more: object) -> MeterProfile:
    return MeterProfile(device=device, link=link, protocol=protocol, **more)  # type: ignore[arg-type]


Ask = Callable[[trio.abc.Stream, MeterProfile, Clock], Awaitable[Batch]]
Listen = Callable[[trio.abc.Stream, Sequence[MeterProfile], Clock], AsyncGenerator[Batch, None]]


def asking(name: str, ask: Ask) -> Driver:
    """A driver whose sessions ask by this function."""

    class Session:
        async def ask(self, stream: trio.abc.Stream, profile: MeterProfile, clock: Clock) -> Batch:
            return await ask(stream, profile, clock)

    return Driver(name, poll=lambda _profiles, _stores: Session())


def listening(name: str, listen: Listen) -> Driver:
    """A driver whose sessions listen by this function."""

    class Session:
        def __init__(self, profiles: Sequence[MeterProfile], _stores: LmnStores) -> None:
            self.profiles = profiles

        def listen(self, stream: trio.abc.Stream, clock: Clock) -> AsyncGenerator[Batch, None]:
            return listen(stream, self.profiles, clock)

    return Driver(name, push=Session)


async def test_asked_on_the_quarter_hour(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.meters["tcp://a:1"] = iec_meter("00000001").serve
        b.nursery.start_soon(b.run, profile("00000001", registers=[IMPORT]))
        await trio.sleep(3 * 900 + 60)
        times = [at for at, _ in b.delivered]
        assert [int(at // 900) for at in times] == [int(times[0] // 900) + n for n in range(3)]
        for at, (reading,) in b.delivered:
            assert reading.obis == IMPORT
            assert reading.received_at is not None
            assert at % 900 < 5
            assert reading.received_at.timestamp() % 900 < 2
        assert b.events == []
        assert len(b.opened) == 3


@pytest.mark.parametrize("step_s", [660.0, 7 * 900.0, -600.0, -7 * 900.0, -86_400.0])
async def test_a_clock_that_is_set_costs_no_quarter_hour_to_come(autojump_clock: MockClock, step_s: float) -> None:
    """Set forward, a quarter hour that began meanwhile is read within a minute; set back, the next one is read."""
    async with bench() as b:
        b.meters["tcp://a:1"] = iec_meter("00000001").serve
        b.clock_ahead_s = 1_000_000 * 900.0 - trio.current_time()
        b.nursery.start_soon(b.run, profile("00000001", registers=[IMPORT]))
        await trio.sleep(2 * 900 + 300)
        assert len(b.delivered) == 2
        b.clock_ahead_s += step_s
        set_s = b.clock()
        await trio.sleep(2 * 900)
        read_s = [at + b.clock_ahead_s for at, _ in b.delivered[2:]]
        if step_s > 0:  # the quarter hour that the step led into
            assert 0 <= read_s.pop(0) - set_s <= 62
        first_s = (set_s // 900 + 1) * 900
        if step_s == -600:  # that one was read before the clock was set
            first_s += 900
        assert [round(at - first_s) // 2 for at in read_s] == [450 * n for n in range(len(read_s))]
        assert first_s + 900 * len(read_s) + 2 > b.clock()


async def test_a_dead_meter_does_not_hold_the_bus_when_the_clock_is_set_back(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.meters["tcp://a:1"] = iec_meter("00000001", address="11").serve
        b.clock_ahead_s = 1_000_000 * 900.0 - trio.current_time()
        b.nursery.start_soon(b.run, profile("00000002", address="22"), profile("00000001", address="11"))
        await trio.sleep(900 + 300)
        assert len(b.delivered) == 1
        b.clock_ahead_s -= 86_400.0
        await trio.sleep(2 * 900)
        assert len(b.delivered) == 3


async def test_alarms_do_not_depend_on_a_clock_that_is_set(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.nursery.start_soon(b.run, profile("00000001"))
        await trio.sleep(905)
        assert "link_broken" in b.kinds()
        b.clock_ahead_s -= 400.0
        told = len(b.events)
        await trio.sleep(1000)
        assert [event.kind for event in b.events[told:]].count("link_broken") == 1


async def test_a_clock_set_forward_makes_no_meter_silent(autojump_clock: MockClock) -> None:
    def listen(
        stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Callable[[], float]
    ) -> AsyncGenerator[Batch, None]:
        async def batches() -> AsyncGenerator[Batch, None]:
            for second in itertools.count():
                yield [Reading(name, IMPORT, second) for name in "XY"]
                await trio.sleep(1)

        return batches()

    async with bench() as b:
        b.meters["tcp://a:1"] = lambda _: trio.sleep_forever()
        both = [profile(name, protocol="r", interval_s=2) for name in "XY"]
        b.nursery.start_soon(lambda: b.run(*both, drivers={"r": listening("r", listen)}))
        await trio.sleep(10.5)
        b.clock_ahead_s = 86_400.0
        await trio.sleep(100)
        assert b.events == []


@pytest.mark.parametrize("day", [datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)])
def test_quarter_hours_stay_quarter_hours_where_summer_time_begins_and_ends(day: datetime) -> None:
    zone, schedule, at_s = ZoneInfo("Europe/Berlin"), Periodic(), day.timestamp() - 1
    for quarter in range(24):
        at_s = schedule.next_reading_time(at_s)
        assert at_s == day.timestamp() + 900 * quarter
        local = datetime.fromtimestamp(at_s, zone)
        assert (local.minute % 15, local.second) == (0, 0)


async def test_reception_time_is_the_first_character_s_on_a_slow_line(autojump_clock: MockClock) -> None:
    meter = iec_meter("00000001")
    first_character_s = []

    async def slow(stream: trio.abc.Stream) -> None:
        await stream.receive_some(100)
        await stream.send_all(meter.identification)
        await stream.receive_some(100)
        await trio.sleep(0.5)
        first_character_s.append(trio.current_time())
        for character in meter.block():
            await stream.send_all(bytes([character]))
            await trio.sleep(1 / 30)

    async with bench() as b:
        b.meters["tcp://a:1"] = slow
        b.nursery.start_soon(b.run, profile("00000001"))
        await trio.sleep(920)
        ((at, readings),) = b.delivered
        assert at - first_character_s[0] > 2
        stamps = {r.received_at for r in readings}
        assert [abs(s.timestamp() - first_character_s[0]) <= RECEPTION_DELAY_MAX_S for s in stamps if s] == [True]


async def test_silent_bus_backs_off_and_the_next_quarter_hour_asks_again(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.nursery.start_soon(b.run, profile("00000001"))
        await trio.sleep(2 * 900 + 1)
        first = [at for at, _ in b.opened if at < b.opened[0][0] + 900]
        waits = [later - at for at, later in itertools.pairwise(first)]
        assert waits[0] <= 0.5
        assert 30 <= max(waits) <= 60
        assert 900 / 60 <= len(first) < 60
        assert b.kinds()[:2] == ["link_broken", "no_value"]
        b.meters["tcp://a:1"] = iec_meter("00000001").serve
        await trio.sleep(900)
        assert [int(at // 900) for at, _ in b.delivered] == [2, 3]


async def test_a_dead_meter_does_not_hide_the_others_of_its_bus(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.meters["tcp://a:1"] = iec_meter("00000001", address="11").serve
        b.nursery.start_soon(b.run, profile("00000002", address="22"), profile("00000001", address="11"))
        await trio.sleep(2 * 900 + 30)
        assert [int(at) for at, _ in b.delivered] == [906, 1800]  # after the first time, the dead one comes last
        assert {r.device for _, batch in b.delivered for r in batch} == {"00000001"}
        assert ("silent", "00000002") in [(e.kind, e.device) for e in b.events]
        assert ("no_value", "00000002") in [(e.kind, e.device) for e in b.events]


async def test_a_stranger_on_the_wire_is_refused(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.meters["tcp://a:1"] = iec_meter("99999999").serve
        b.nursery.start_soon(b.run, profile("00000001"))
        await trio.sleep(910)
        assert not b.delivered
        assert "unknown_device" in b.kinds()


async def test_the_meter_s_own_name_is_replaced_by_the_profile_s(autojump_clock: MockClock) -> None:
    async with bench() as b:
        b.meters["tcp://a:1"] = iec_meter("99999999").serve
        b.nursery.start_soon(b.run, profile("1SKR0000000001", meter_id="*"))
        await trio.sleep(910)
        assert {r.device for _, batch in b.delivered for r in batch} == {"1SKR0000000001"}


async def test_a_driver_s_defect_costs_its_own_bus_and_it_starts_again(autojump_clock: MockClock) -> None:
    calls = []

    async def defect(stream: trio.abc.Stream, profile: MeterProfile, clock: Callable[[], float]) -> Batch:
        calls.append(clock())
        if len(calls) < 3:
            raise ZeroDivisionError("what was received: 4711")
        return [Reading(profile.device, IMPORT, 1)]

    async with bench() as b:
        b.meters["tcp://a:1"] = b.meters["tcp://b:1"] = iec_meter("00000001").serve
        drivers = {**DRIVERS, "defect": asking("defect", defect)}

        async def run() -> None:
            await b.run(profile("00000001"), profile("X", link="tcp://b:1", protocol="defect"), drivers=drivers)

        b.nursery.start_soon(run)
        await trio.sleep(910)
        assert {r.device for _, batch in b.delivered for r in batch} == {"00000001", "X"}
        assert [(e.kind, e.detail) for e in b.events] == [("driver_defect", "ZeroDivisionError")]
        assert len(calls) == 3


async def test_our_own_contradictions_and_faults_of_deliver_are_let_through(autojump_clock: MockClock) -> None:
    async def contradiction(stream: trio.abc.Stream, profile: MeterProfile, clock: Callable[[], float]) -> Batch:
        raise ExceptionGroup("of a nursery", [RemoteProtocolError("x"), InvariantError("impossible")])

    async with bench() as b:
        b.meters["tcp://a:1"] = iec_meter("00000001").serve
        with pytest.RaisesGroup(pytest.RaisesGroup(RemoteProtocolError, InvariantError)):
            await b.run(profile("X", protocol="bad"), drivers={"bad": asking("bad", contradiction)})

        async def full(readings: list[Reading], arrival: Arrival) -> None:
            raise OSError("the disk is full")

        b.deliver = full  # type: ignore[method-assign]
        with pytest.RaisesGroup(OSError):
            await b.run(profile("00000001"))


async def test_what_could_not_be_logged_is_asked_for_again(autojump_clock: MockClock) -> None:
    async with bench() as it:
        it.meters["tcp://a:1"] = iec_meter("1EMH0000000001").serve
        taken, refusals = it.deliver, iter([True, True])

        async def deliver(readings: list[Reading], arrival: Arrival) -> None:
            if next(refusals, False):
                raise NotLoggedError("the disk is full")
            await taken(readings, arrival)

        it.deliver = deliver  # type: ignore[method-assign]
        it.nursery.start_soon(it.run, profile("1EMH0000000001"))
        await trio.sleep(1000)
        ((at_s, _),) = it.delivered
        assert 900 < at_s < 960
        assert it.kinds() == ["not_logged"]


async def test_a_push_that_could_not_be_logged_is_not_acknowledged(autojump_clock: MockClock) -> None:
    acknowledged: list[float] = []

    async def listen(
        stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Clock
    ) -> AsyncGenerator[Batch, None]:
        for _ in range(2):
            yield [Reading("1EMH0000000001", IMPORT, 1, 0, WATT_HOUR, received_at=simulated_now())]
            acknowledged.append(trio.current_time())
        await trio.sleep_forever()

    async with bench() as it:
        it.meters["tcp://a:1"] = lambda _stream: trio.sleep_forever()
        taken, refusals = it.deliver, iter([True])

        async def deliver(readings: list[Reading], arrival: Arrival) -> None:
            if next(refusals, False):
                raise NotLoggedError("the disk is full")
            await taken(readings, arrival)

        it.deliver = deliver  # type: ignore[method-assign]
        drivers = {"x": listening("x", listen)}
        it.nursery.start_soon(partial(it.run, profile("1EMH0000000001", protocol="x", push=True), drivers=drivers))
        await trio.sleep(5)
        assert len(it.opened) == 2
        assert len(it.delivered) == len(acknowledged) == 2
        assert min(acknowledged) >= it.opened[1][0]
        assert it.kinds() == ["not_logged"]


async def test_pushed_telegrams_come_as_they_are_with_the_meter_behind(autojump_clock: MockClock) -> None:
    settings = P1Settings("E0001000000000001", gas_id="G0000000000000002", period_s=10)

    async def push(stream: trio.abc.Stream) -> None:
        while True:
            await trio.sleep(10)
            await stream.send_all(telegram(settings, registers(simulated_now()), simulated_now()))

    async with bench() as b:
        b.meters["tcp://a:1"] = push
        electricity = profile("1SKR0000000001", protocol="p1", meter_id="E0001000000000001", registers=[IMPORT])
        gas = profile("7SKR0000000002", protocol="p1", meter_id="G0000000000000002", registers=["0-1:24.2.1"])
        b.nursery.start_soon(b.run, electricity, gas)
        await trio.sleep(65)
        assert len(b.delivered) == 6
        for _, batch in b.delivered:
            assert [r.device for r in batch] == ["1SKR0000000001", "7SKR0000000002"]
        assert b.events == []


async def test_a_register_that_may_not_be_billed_is_an_event_and_no_secret(autojump_clock: MockClock) -> None:
    """DSMR before 4 has no check sum: the household wants to know why it is missing from the totals."""
    settings = P1Settings("1SKR0000000001", version=0)

    async def push(stream: trio.abc.Stream) -> None:
        while True:
            await trio.sleep(10)
            await stream.send_all(telegram(settings, registers(simulated_now()), simulated_now()))

    async with bench() as b:
        b.meters["tcp://a:1"] = push
        b.nursery.start_soon(b.run, profile("1SKR0000000001", protocol="p1"))
        await trio.sleep(65)
        assert len(b.delivered) == 6
        assert [(each.kind, each.device, each.detail) for each in b.events] == [
            ("not_billable", "1SKR0000000001", "unverified")
        ]


async def test_a_bus_that_falls_silent_or_ends_is_opened_again(autojump_clock: MockClock) -> None:
    settings = P1Settings("1SKR0000000001")
    lives = []

    async def short(stream: trio.abc.Stream) -> None:
        lives.append(trio.current_time())
        await stream.send_all(telegram(settings, registers(simulated_now()), simulated_now()))
        if len(lives) % 2:
            await trio.sleep_forever()
        await stream.aclose()

    async with bench() as b:
        b.meters["tcp://a:1"] = short
        b.nursery.start_soon(b.run, profile("1SKR0000000001", protocol="p1", meter_id="*", interval_s=1))
        await trio.sleep(30)
        assert len(lives) > 5
        assert len(b.delivered) == len(lives)
        assert set(b.kinds()) == {"silent", "link_closed"}
        assert lives[1] - lives[0] >= 3


async def test_noise_is_one_event_and_many_counts(autojump_clock: MockClock) -> None:
    async def noise(stream: trio.abc.Stream) -> None:
        while True:
            await stream.send_all(b"/ABC5\r\n\r\n1-0:1.8.0(1*kWh\r\n!\r\n")
            await trio.sleep(1)

    def count() -> float:
        labels = {"protocol": "p1", "reason": "malformed_line"}
        return REGISTRY.get_sample_value("stromkreis_lmn_errors_total", labels) or 0.0

    before = count()
    async with bench() as b:
        b.meters["tcp://a:1"] = noise
        b.nursery.start_soon(b.run, profile("X", protocol="p1", meter_id="*"))
        await trio.sleep(50.5)
        assert b.kinds() == ["malformed_line"]
        assert count() - before == 51


async def test_a_flood_of_strangers_on_a_wire_does_not_flood_the_log(autojump_clock: MockClock) -> None:
    def listen(
        stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Callable[[], float]
    ) -> AsyncGenerator[Batch, None]:
        async def batches() -> AsyncGenerator[Batch, None]:
            for number in itertools.count():
                yield [Reading(f"{number:014}", IMPORT, 1), Reading("X", IMPORT, 9 - number // 500)]
                await trio.sleep(0.1)
                if number == 990:
                    raise RemoteProtocolError("broken", "told although the strangers fill the log's share")

        return batches()

    async with bench() as b:
        b.meters["tcp://a:1"] = lambda _: trio.sleep_forever()
        b.nursery.start_soon(
            lambda: b.run(profile("X", protocol="r", interval_s=1e6), drivers={"r": listening("r", listen)})
        )
        await trio.sleep(100)
        kinds = b.kinds()
        assert kinds.count("unknown_device") == 256
        assert set(kinds) == {"unknown_device", "broken", "decremented_counter"}
        await trio.sleep(850)
        assert b.kinds().count("unknown_device") <= 2 * 256


async def test_a_falling_counter_is_an_event(autojump_clock: MockClock) -> None:
    async def falling(stream: trio.abc.Stream) -> None:
        for wh in (10, 11, 9, 9):
            await stream.send_all(telegram(P1Settings("X"), [(IMPORT, wh, 0, WATT_HOUR)], simulated_now()))
            await trio.sleep(1)
        await trio.sleep_forever()

    async with bench() as b:
        b.meters["tcp://a:1"] = falling
        b.nursery.start_soon(b.run, profile("X", protocol="p1", meter_id="*"))
        await trio.sleep(20)
        assert [(e.kind, e.detail) for e in b.events] == [("decremented_counter", "1-0:1.8.0*255")]
        assert len(b.delivered) == 4


async def test_neighbours_on_the_radio_are_no_fault(autojump_clock: MockClock) -> None:
    def listen(
        stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Callable[[], float]
    ) -> AsyncGenerator[Batch, None]:
        async def batches() -> AsyncGenerator[Batch, None]:
            yield [Reading("neighbour", IMPORT, 1)]
            yield [Reading("X", IMPORT, 2)]
            await trio.sleep_forever()

        return batches()

    async with bench() as b:
        b.meters["radio://a:1"] = lambda _: trio.sleep_forever()
        drivers = {"r": listening("r", listen)}

        async def run() -> None:
            await b.run(profile("X", link="radio://a:1", protocol="r", interval_s=900), drivers=drivers)

        b.nursery.start_soon(run)
        await trio.sleep(1)
        assert [r.device for _, batch in b.delivered for r in batch] == ["X"]
        assert b.events == []


async def test_a_meter_that_falls_silent_beside_others_is_missed(autojump_clock: MockClock) -> None:
    def listen(
        stream: trio.abc.Stream, profiles: Sequence[MeterProfile], clock: Callable[[], float]
    ) -> AsyncGenerator[Batch, None]:
        async def batches() -> AsyncGenerator[Batch, None]:
            for second in itertools.count():
                yield [Reading("X", IMPORT, second), *([Reading("Y", IMPORT, second)] if second < 20 else [])]
                await trio.sleep(1)

        return batches()

    async with bench() as b:
        b.meters["tcp://a:1"] = lambda _: trio.sleep_forever()
        both = [profile(name, protocol="r", interval_s=2) for name in "XY"]
        b.nursery.start_soon(lambda: b.run(*both, drivers={"r": listening("r", listen)}))
        await trio.sleep(100)
        assert [(event.kind, event.device) for event in b.events] == [("meter_silent", "Y")]
        assert b.events[0].at_s == pytest.approx(19 + 3 * 2, abs=1)
        await trio.sleep(900)  # and is news again at the next quarter hour
        assert [event.kind for event in b.events] == ["meter_silent"] * 2


@pytest.mark.parametrize(
    "profiles",
    [
        [profile("X", protocol="none")],
        [profile("X", protocol="p1"), profile("Y")],
        [profile("X"), profile("X")],
        [profile("X"), profile("Y", push=True)],
    ],
)
async def test_profiles_that_contradict_each_other(profiles: list[MeterProfile]) -> None:
    with pytest.raises(LocalProtocolError):
        await Bench(None).run(*profiles)  # type: ignore[arg-type]


def test_backoff_grows_is_bounded_and_jittered() -> None:
    backoff, rng = Backoff(0.5, 60), Random(7)
    delays = [backoff.delay_s(n, rng) for n in range(1, 200)]
    assert all(0.25 * min(2**n, 120) <= d <= 0.5 * min(2**n, 120) for n, d in enumerate(delays))
    assert len(set(delays)) == len(delays)


def test_periodic_is_strictly_later() -> None:
    assert Periodic(900).next_reading_time(0.0) == 900
    assert Periodic(900).next_reading_time(899.999) == 900
    assert Periodic(1).next_reading_time(5.0) == 6


@pytest.mark.parametrize(
    "link",
    [
        "tcp://host",
        "http://a:1",
        "serial://ttyS0",
        "serial:///dev/x?frame=9N1",
        "serial:///dev/x?speed=1",
        "x",
        "rtl://rm",
        "rtl://rtl_433?device=0;reboot",
        "rtl://rtl_433?frequency=fast",
        "rtl://rtl_433/x",
        "rtl://rtl_433?a=1",
    ],
)
def test_links_that_cannot_be(link: str) -> None:
    with pytest.raises(ValidationError):
        profile("X", link=link)


def test_links() -> None:
    link = parse_link("serial:///dev/ttyUSB0?baud=300&frame=7E1")
    assert (link.path, link.baudrate, link.bytesize, link.parity, link.stopbits) == ("/dev/ttyUSB0", 300, 7, "E", 1)
    assert parse_link("radio://host:1").radio
    receiver = parse_link("rtl://rtl_wmbus?device=2")
    assert receiver.radio
    assert [command[0] for command in receiver.programs] == ["rtl_sdr", "rtl_wmbus"]


def test_a_profile_hides_its_keys_and_says_what_is_wrong() -> None:
    with_key = profile("X", keys={"encryption": "00112233445566778899aabbccddeeff"})
    assert "0011" not in repr(with_key)
    assert with_key.key("encryption") == bytes.fromhex("00112233445566778899aabbccddeeff")
    assert with_key.key("authentication") is None
    with pytest.raises(ValidationError, match="not hexadecimal"):
        profile("X", keys={"encryption": "zz"})
    with pytest.raises(ValidationError, match="no time zone"):
        profile("X", time_zone="Mars/Olympus")


def test_events_reach_the_log_without_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log_event(LmnEvent("silent", "p1", "", 0.0))
    assert "silent (p1, bus)" in caplog.text
