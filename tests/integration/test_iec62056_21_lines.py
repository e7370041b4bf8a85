"""Simulated IEC 62056-21 and P1 meters over real TCP and real (pseudo-terminal) serial lines, read by the drivers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

import pytest
import trio
from trio.testing import memory_stream_pair

from loadtest.meters import p1
from loadtest.meters.iec62056_21 import MeterSettings, Register, SimulatedMeter
from loadtest.meters.serial_bus import serial_bus
from node.lmn.events import LmnEvent
from node.lmn.iec62056_21.checks import block_check
from node.lmn.iec62056_21.client import Mode
from node.lmn.iec62056_21.driver import listen, read_meter
from node.lmn.iec62056_21.framing import ETX, STX
from node.lmn.profiles import MeterProfile
from node.lmn.runtime import Periodic, run_meters
from node.lmn.serial_link import open_serial
from node.metering.interval import Arrival
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import CUBIC_METRE, WATT, WATT_HOUR

P1 = p1.P1Settings("1SKR0000000002", period_s=0.05)
IMPORT = Obis(1, 0, 1, 8, 0, 255)


def now() -> datetime:
    return datetime.now(UTC)


def registers(now: datetime) -> list[Register]:
    return [(IMPORT, 1234567, 0, WATT_HOUR), (Obis(1, 0, 16, 7, 0, 255), -56, 1, WATT)]


def meter(**settings: object) -> SimulatedMeter:
    return SimulatedMeter(MeterSettings("00000001", pause_s=0.01, **settings), registers, now)  # type: ignore[arg-type]


def imported(items: list[Reading | RemoteProtocolError]) -> Reading:
    (reading,) = (item for item in items if isinstance(item, Reading) and item.obis == IMPORT)
    assert (reading.decimal(), reading.unit, reading.quality) == (Decimal(1234567), WATT_HOUR, Quality.VALID)
    return reading


@pytest.mark.parametrize("mode", [Mode.A, Mode.B, Mode.C])
async def test_asked_over_tcp(mode: Mode) -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(meter(mode=mode).serve_tcp)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for _ in range(2):
                imported(await read_meter(stream, clock=time.time))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("mode", [Mode.A, Mode.B, Mode.C])
async def test_asked_over_a_serial_line_at_7e1_with_its_change_of_speed(mode: Mode) -> None:
    async with serial_bus() as (ours, theirs), trio.open_nursery() as nursery:
        device = open_serial(theirs, 300, 7, "E", 1)
        nursery.start_soon(meter(mode=mode).serve, device)
        async with open_serial(ours, 300, 7, "E", 1) as stream:
            imported(await read_meter(stream, clock=time.time))
            assert stream.baudrate == (300 if mode is Mode.A else 9600)
            imported(await read_meter(stream, clock=time.time))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("mode", [Mode.A, Mode.B, Mode.C])
@pytest.mark.parametrize("frame", [("7E1", False), ("8N1", True)])
async def test_an_identification_that_lost_its_slash_counts_after_our_request(
    mode: Mode, frame: tuple[str, bool]
) -> None:
    """Optical heads that wake too late; with parity bits on a line of eight bits as well."""
    bits, parity, stop = (7, "E", 1) if frame[0] == "7E1" else (8, "N", 1)
    async with serial_bus() as (ours, theirs), trio.open_nursery() as nursery:
        device = open_serial(theirs, 300, bits, parity, stop)  # type: ignore[arg-type]
        nursery.start_soon(meter(mode=mode, loses_slash=True, parity=frame[1]).serve, device)
        async with open_serial(ours, 300, bits, parity, stop) as stream:  # type: ignore[arg-type]
            imported(await read_meter(stream, clock=time.time))
            imported(await read_meter(stream, clock=time.time))
        nursery.cancel_scope.cancel()


async def test_a_heat_meter_on_a_battery_whose_head_loses_the_slash(autojump_clock: trio.testing.MockClock) -> None:
    """Landis+Gyr and Siemens UH50: woken, mode B at 2400 baud, codes of EN 1434."""
    ours, theirs = memory_stream_pair()
    lines = b"6.8(0041234*kWh)6.26(00711.28*m3)9.21(10000001)\r\n6.8*01(0040119*kWh)9.4(101.3*C&078.4*C)\r\n!\r\n"
    check = block_check(lines + ETX)

    async def meter_(stream: trio.abc.Stream) -> None:
        heard = b""
        while not heard.endswith(b"/?!\r\n"):
            heard += await stream.receive_some()
        assert heard.count(b"\0") >= 60
        await stream.send_all(b"LUGCUH50\r\n")
        await trio.sleep(0.3)
        await stream.send_all(STX + lines + ETX + bytes([check]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter_, theirs)
        found = await read_meter(ours, clock=time.time, wake_up=True)
    values = {(str(r.obis), r.decimal(), r.unit) for r in found if isinstance(r, Reading) and isinstance(r.value, int)}
    assert ("6-0:1.0.0*255", Decimal(41234000), WATT_HOUR) in values
    assert ("6-0:2.0.0*255", Decimal("711.28"), CUBIC_METRE) in values


async def test_parity_on_an_eight_bit_line_and_a_damaged_block_are_handled() -> None:
    simulated = meter(parity=True, damaged=2)
    async with serial_bus() as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(simulated.serve, open_serial(theirs, 300))
        async with open_serial(ours, 300) as stream:
            imported(await read_meter(stream, clock=time.time))
        assert simulated.readout_count == 3
        nursery.cancel_scope.cancel()


async def test_a_meter_that_sleeps_on_a_battery_is_woken(autojump_clock: trio.testing.MockClock) -> None:
    """IEC 62056-21 annex B: 2.1 to 2.3 s of NULs, then 1.5 to 1.7 s of peace before the request."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meter(asleep=True).serve, theirs)
        with pytest.raises(RemoteProtocolError, match="silent"):
            await read_meter(ours, clock=time.time)
        began_s = trio.current_time()
        imported(await read_meter(ours, clock=time.time, wake_up=True))
        assert 65 / 30 + 1.5 < trio.current_time() - began_s < 65 / 30 + 3
        nursery.cancel_scope.cancel()


async def test_pushed_in_mode_d_over_a_serial_line_is_unverified() -> None:
    async with serial_bus() as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(meter(mode=Mode.D, period_s=0.01).serve, open_serial(theirs, 2400, 7, "E", 1))
        async with open_serial(ours, 2400, 7, "E", 1) as stream:
            batches = listen(stream, clock=time.time)
            async for batch in batches:
                qualities = {item.quality for item in batch if isinstance(item, Reading)}
                if qualities:
                    assert qualities == {Quality.UNVERIFIED}
                    break
            await batches.aclose()
        nursery.cancel_scope.cancel()


async def test_a_meter_that_is_silent_ends_or_never_ends(autojump_clock: trio.testing.MockClock) -> None:
    async def fault(play: Callable[[trio.abc.Stream], Awaitable[None]]) -> str:
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, theirs)
            with pytest.raises(RemoteProtocolError) as caught:
                await read_meter(ours, clock=time.time, timeout_s=60)
            nursery.cancel_scope.cancel()
        return caught.value.reason

    async def silent(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async def hangs_up(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"/SKR@X\r\n\x02")
        await stream.aclose()

    async def stops(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"/SKR@X\r\n\x021.8.0(1*kWh)\r\n")
        await trio.sleep_forever()

    async def endless(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"/SKR@X\r\n\x02")
        while True:
            await stream.send_all(b"1")
            await trio.sleep(1)

    assert await fault(silent) == "silent"
    assert await fault(hangs_up) == "link_closed"
    assert await fault(stops) == "truncated"
    assert await fault(endless) == "endless"


async def test_one_gateway_two_links_two_households() -> None:
    got: dict[str, int] = {}
    events: list[LmnEvent] = []
    done = trio.Event()

    async def deliver(readings: list[Reading], _arrival: Arrival) -> None:
        for reading in readings:
            got[reading.device] = got.get(reading.device, 0) + 1
        if min(got.get("1SKR0000000001", 0), got.get("1SKR0000000002", 0)) >= 3:
            done.set()

    async with trio.open_nursery() as nursery:
        asked = await nursery.start(meter().serve_tcp)
        pushing = await nursery.start(p1.serve_tcp, P1, registers, now)
        profiles = [
            MeterProfile(
                device="1SKR0000000001", meter_id="00000001", link=f"tcp://127.0.0.1:{asked}", protocol="iec62056-21",
                registers=(IMPORT,),
            ),
            MeterProfile(device="1SKR0000000002", meter_id="*", link=f"tcp://127.0.0.1:{pushing}", protocol="p1"),
        ]  # fmt: skip

        async def run() -> None:
            await run_meters(profiles, deliver, Periodic(0.3), rng=Random(1), on_event=events.append)

        nursery.start_soon(run)
        with trio.fail_after(120):
            await done.wait()
        nursery.cancel_scope.cancel()
    assert events == []


def test_sniff_shows_a_live_bus_as_json_lines() -> None:
    lines: list[str] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(p1.serve_tcp, P1, registers, now)
            program = "import typer; from stromkreis.sniff import sniff; typer.run(sniff)"
            command = [sys.executable, "-c", program, f"tcp://127.0.0.1:{port}", "-p", "p1"]
            with trio.fail_after(120):
                process = await trio.lowlevel.open_process(
                    command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
                )
                assert process.stdout is not None
                data = b""
                while data.count(b"\n") < 12:
                    data += await process.stdout.receive_some()
                process.terminate()
                await process.wait()
            lines.extend(data.decode().splitlines()[:12])
            nursery.cancel_scope.cancel()

    trio.run(main)
    found = [json.loads(line) for line in lines]
    assert {"1-0:1.8.0*255", "0-0:96.1.1*255"} <= {row["obis"] for row in found}
    assert {row["device"] for row in found} == {"1SKR0000000002"}
