"""Scenarios of simulated meters, and what a gateway makes of each: exchange, silence, wrong clocks, manipulation."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from loadtest.config import MetersConfig
from loadtest.households import Household, households
from loadtest.meters.clock import SimulatedClock
from loadtest.meters.run import run
from loadtest.meters.scenario import Timeline, read_scenario, timelines
from loadtest.meters.scenario_line import SilencedStream
from loadtest.meters.sml import SmlMeter
from node.lmn.sml.readings import frame_readings
from node.lmn.sml.transport import Frame, TransportReader
from node.metering.delivery import MeterDelivery
from node.metering.entries import Entry
from node.metering.interval import Arrival
from node.metering.registers import RegisterSet
from node.profiles.ring_readings import RingReadings
from node.taf.series import STATUS_GAP, STATUS_REGISTER_FELL, STATUS_SUBSTITUTE
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.errors import StromkreisError
from protocol.metering.interval import QUARTER_HOURS
from tests.unit.taf_gateway import IMPORT, METERS, OCTOBER_S, TafGateway, moment, profile_set, taf_gateway

CLOCK = SimulatedClock(OCTOBER_S, 900.0)
QUARTERS = 96
WHOLE_DAY = {
    "day_profiles": [{"id": "d", "switches": [{"at": "00:00", "stage": 1}]}],
    "seasons": [{"begins": "01-01", "weekdays": ["d"] * 7}],
}
STAGES = {"id": "stages", "use_case": {"taf": 2, "calendar": WHOLE_DAY}}
LIST = {"id": "list", "use_case": {"taf": 7}}


def home() -> Household:
    (made,) = households(MetersConfig(count=1, annual_kwh=4_000, profiles=("G0",)))
    return made


def timeline(tmp_path: Path, text: str) -> Timeline:
    """The only household's, under a scenario."""
    file = tmp_path / "scenario.toml"
    file.write_text(text)
    (made,) = timelines(read_scenario(file), [home()], ["sml"], CLOCK)
    return made


async def play(gateway: TafGateway, meter: Timeline, count: int = QUARTERS + 2) -> None:
    """A day of an SML meter, from its telegrams to closed periods."""
    delivery = MeterDelivery(gateway.log, lambda: gateway.now_s, QUARTER_HOURS)
    for index in range(count):
        now_s = OCTOBER_S + index * 900
        gateway.now_s = now_s + 1.0
        if not meter.is_silent(now_s):
            shown = [(IMPORT, meter.registers(index).import_tenth_wh, -1, 30)]
            sml = SmlMeter(meter.shown_id(now_s), lambda _, rows=shown: rows, status=meter.status(now_s))  # type: ignore[misc]
            now = datetime.fromtimestamp(now_s, UTC)
            (frame,) = TransportReader().feed(sml.push(now + timedelta(seconds=meter.offset_s(now_s))))
            assert isinstance(frame, Frame)
            readings = [replace(each, device=METERS[0]) for each in frame_readings(frame.payload, now)]
            await delivery.deliver(readings, Arrival(now_s, asked=True))
        await gateway.use_cases.close_due()


def truth(from_: int, to: int) -> int:
    """What the household used, tenths of a watt hour."""
    return home().registers(to).import_tenth_wh - home().registers(from_).import_tenth_wh


def exchanged(final: int) -> list[dict[str, Any]]:
    return [
        {"meter": "m0", "exchange": {"at": moment(40 * 900), "final": final, "initial": 70}},
        {"meter": "m2"},
    ]


EXCHANGE = """
[[events]]
kind = "exchange"
households = [0]
quarter_hour = 40
initial_wh = 7
id = "1EMH0012345999"
"""


async def test_exchange_that_the_profile_names_loses_nothing(tmp_path: Path) -> None:
    meter = timeline(tmp_path, EXCHANGE)
    meters = exchanged(home().registers(40).import_tenth_wh)
    async with taf_gateway(tmp_path, profile_set(STAGES | {"meters": meters}, LIST | {"meters": meters})) as gateway:
        await play(gateway, meter)
        (stages,), (values,) = gateway.results("stages"), gateway.results("list")
    assert {obis.e: value for obis, value in stages.registers} == {0: truth(0, 96), 1: truth(0, 96), 63: 0}
    assert (stages.is_complete, stages.derivation) == (True, STATUS_SUBSTITUTE)
    assert [values.rows[index].value for index in (40, 41)] == [70, 70 + truth(40, 41)]


async def test_exchange_that_nobody_names_is_marked_and_not_billed(tmp_path: Path) -> None:
    meter = timeline(tmp_path, EXCHANGE)
    async with taf_gateway(tmp_path, profile_set(STAGES)) as gateway:
        await play(gateway, meter)
        (stages,) = gateway.results("stages")
    assert {obis.e: value for obis, value in stages.registers} == {
        0: truth(0, 39) + truth(40, 96), 1: truth(0, 39) + truth(40, 96), 63: 0,
    }  # fmt: skip
    assert not stages.is_complete
    assert stages.derivation == STATUS_REGISTER_FELL


async def test_rings_register_goes_on_over_an_exchange(tmp_path: Path) -> None:
    meter = timeline(tmp_path, EXCHANGE)
    meters = exchanged(home().registers(40).import_tenth_wh)
    registers: list[int] = []
    async with taf_gateway(tmp_path, profile_set(STAGES | {"meters": meters})) as gateway:
        profiles: Any = gateway.profiles
        gateway.log.show("rings", RingReadings(profiles, lambda: QUARTER_HOURS).view)
        collected = RegisterSet(DEFAULT_SCHEMA, [METERS[0]])
        subscription = await gateway.log.subscribe("rings")

        async def take(entry: Entry) -> None:
            registers.extend(each.values[1] for each in collected.take(entry))

        await subscription.attach(take)
        await play(gateway, meter, 60)
    scaler = DEFAULT_SCHEMA.slots[1].scaler
    wanted = [home().registers(index).import_tenth_wh for index in range(60)]
    assert registers == [each * 10 ** (-1 - scaler) if scaler < 0 else each // 10 for each in wanted]


async def test_silence_is_one_gap_in_the_error_register(tmp_path: Path) -> None:
    meter = timeline(tmp_path, '[[events]]\nkind = "silent"\nquarter_hour = 60\nuntil_quarter_hour = 64\n')
    async with taf_gateway(tmp_path, profile_set(STAGES, LIST)) as gateway:
        await play(gateway, meter)
        (stages,), (values,) = gateway.results("stages"), gateway.results("list")
    gap = truth(59, 64)
    assert {obis.e: value for obis, value in stages.registers} == {0: truth(0, 96), 1: truth(0, 96) - gap, 63: gap}
    assert (stages.is_complete, stages.derivation) == (False, STATUS_GAP)
    assert len(values.rows) == 97 - 4


@pytest.mark.parametrize(
    "text",
    [
        '[[events]]\nkind = "clock_error"\nquarter_hour = 10\noffset_s = 45\ndrift_ppm = 200\n',
        '[[events]]\nkind = "clock_error"\nquarter_hour = 10\noffset_s = -86400\n',
        '[[events]]\nkind = "daylight_saving"\nquarter_hour = 30\nis_summer = true\n'
        '[[events]]\nkind = "daylight_saving"\nquarter_hour = 50\nis_summer = false\n',
    ],
    ids=["45 s fast and faster", "a day slow", "summer time and back"],
)  # fmt: skip
async def test_meters_clock_moves_no_energy_to_another_interval(tmp_path: Path, text: str) -> None:
    async with taf_gateway(tmp_path, profile_set(STAGES, LIST)) as gateway:
        await play(gateway, timeline(tmp_path, text))
        (stages,), (values,) = gateway.results("stages"), gateway.results("list")
    assert {obis.e: value for obis, value in stages.registers} == {0: truth(0, 96), 1: truth(0, 96), 63: 0}
    assert stages.is_complete
    assert [each.value for each in values.rows] == [home().registers(index).import_tenth_wh for index in range(97)]
    assert all(each.is_valid for each in values.rows)


async def test_manipulation_shows_in_the_status_of_its_values(tmp_path: Path) -> None:
    text = '[[events]]\nkind = "manipulation"\nwhat = "magnetic"\nquarter_hour = 20\nuntil_quarter_hour = 24\n'
    async with taf_gateway(tmp_path, profile_set(LIST)) as gateway:
        await play(gateway, timeline(tmp_path, text))
        (values,) = gateway.results("list")
    marked = [index for index, each in enumerate(values.rows) if (each.status or 0) & 1 << 9]
    assert marked == [20, 21, 22, 23]


async def test_silenced_line_swallows_both_directions() -> None:
    is_silent = True
    ours, theirs = memory_stream_pair()
    meter = SilencedStream(theirs, lambda: is_silent)
    await meter.send_all(b"lost")
    await ours.send_all(b"unheard")
    async with trio.open_nursery() as nursery:
        heard: list[bytes] = []

        async def hear() -> None:
            heard.append(bytes(await meter.receive_some()))

        nursery.start_soon(hear)
        await trio.testing.wait_all_tasks_blocked()
        is_silent = False
        await ours.send_all(b"heard")
    await meter.send_all(b"said")
    assert (heard, await ours.receive_some()) == ([b"heard"], b"said")


async def test_served_meter_is_exchanged_while_a_gateway_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text('[[events]]\nkind = "exchange"\nquarter_hour = 4\ninitial_wh = 1000\n')
    config = MetersConfig(
        count=1, protocols=("p1",), first_port=0, period_s=0.5, origin_unix_s=time.time(), scenario=file,
        replay_count_max=0,
    )  # fmt: skip
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            ready = trio.Event()
            urls: list[str] = []

            def on_ready(entries: Any) -> None:
                urls.extend(each.url for each in entries)
                ready.set()

            async def serve() -> None:
                await run(config, ready=on_ready)

            nursery.start_soon(serve)
            await ready.wait()
            port = int(urls[0].partition("?")[0].rpartition(":")[2])
            text = b""
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                while b"1-0:1.8.1(000001.0" not in text and b"1-0:1.8.0(000001.0" not in text:
                    text = text[-4_096:] + await stream.receive_some()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = ", "no TOML"),
        ("events = []", "at least 1"),
        ('[[events]]\nkind = "melted"\nquarter_hour = 1', "events.0"),
        ('[[events]]\nkind = "silent"\nquarter_hour = 1', "until_quarter_hour or until"),
        ('[[events]]\nkind = "exchange"', "quarter_hour or at"),
        ('[[events]]\nkind = "exchange"\nquarter_hour = 1\nat = 2026-10-01T00:00:00Z', "not both"),
        ('[[events]]\nkind = "exchange"\nat = 2026-10-01T00:00:00', "timezone"),
        ('[[events]]\nkind = "exchange"\nquarter_hour = 1\nhouseholds = [1]', "household 1, and there are 1"),
    ],
    ids=range(8),
)  # fmt: skip
def test_scenario_that_does_not_fit_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(StromkreisError, match=reason):
        timeline(tmp_path, text)


@pytest.mark.parametrize(
    "event", ['"manipulation"\nwhat = "magnetic"\nuntil_quarter_hour = 2', '"exchange"\nid = "1EMH0012345999"']
)
def test_event_that_a_protocol_cannot_show_is_refused(tmp_path: Path, event: str) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(f"[[events]]\nquarter_hour = 1\nkind = {event}\n")
    with pytest.raises(StromkreisError, match="household 0"):
        timelines(read_scenario(file), [home()], ["p1"], CLOCK)


def test_events_may_be_at_real_moments(tmp_path: Path) -> None:
    at = datetime.fromtimestamp(OCTOBER_S + 901, UTC).isoformat()
    meter = timeline(tmp_path, f'[[events]]\nkind = "exchange"\nat = {at}\n')
    assert meter.registers(1) == home().registers(1)
    assert meter.registers(2).import_tenth_wh == 0
