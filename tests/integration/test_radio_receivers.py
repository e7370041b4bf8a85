"""
Radio receivers as they are sold: modules on pseudo-terminals that must be set up first, programs that are started.

Each test fails where the receiver is not set to its mode, its lines are not read, or its signal strength is lost.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from loadtest.meters.radio_sticks import AmberStick, CulStick, ImstStick, Stick, serve_stick
from loadtest.meters.serial_bus import serial_bus
from loadtest.meters.wmbus import WirelessMeter
from node.lmn.events import LmnEvent
from node.lmn.links import open_link
from node.lmn.mbus.device import DeviceAddress
from node.lmn.profiles import profile_of_url
from node.lmn.runtime import Backoff, Periodic, run_meters
from node.lmn.serial_link import open_serial
from node.lmn.session import LmnStores
from node.lmn.wmbus.adapter import WirelessPush
from node.lmn.wmbus.framing import rtl_wmbus_line
from node.lmn.wmbus.link import Format, seal
from node.metering.interval import Arrival
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

ROOT = Path(__file__).parents[2]
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
needs_rtl_433 = pytest.mark.skipif(
    shutil.which("rtl_433") is None and "CI" not in os.environ, reason="rtl_433 is not installed"
)
VOLUME = Obis(8, 0, 1, 0, 0, 255)
CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
OURS, NEIGHBOUR, LOCKED = (DeviceAddress.from_text(f"8STK01{number:08d}", 7) for number in (1, 2, 3))


def meter(device: DeviceAddress, **how: Any) -> WirelessMeter:
    return WirelessMeter(device, lambda _: [(VOLUME, int(device.number), -3, 13)], lambda: CLOCK, **how)


def meters() -> list[WirelessMeter]:
    return [meter(OURS), meter(NEIGHBOUR), meter(LOCKED, key=bytes(16), mode=5)]


STICKS = [
    pytest.param(CulStick, "cul", "t", 38400, id="cul-default-t"),
    pytest.param(CulStick, "cul:c", "c", 38400, id="cul-c"),
    pytest.param(ImstStick, "imst:t", "t", 57600, id="imst-t"),
    pytest.param(ImstStick, "imst:ct", "c", 57600, id="imst-ct"),
    pytest.param(AmberStick, "amber-rssi:ct", "t", 9600, id="amber-ct"),
    pytest.param(AmberStick, "amber-rssi:s", "s", 9600, id="amber-s"),
]


@pytest.mark.parametrize(("make", "address", "mode", "baudrate"), STICKS)
async def test_a_gateway_sets_its_radio_module_up_and_hears_its_meter(
    make: type[Stick], address: str, mode: str, baudrate: int
) -> None:
    async with serial_bus(2) as (here, there), trio.open_nursery() as nursery:
        nursery.start_soon(serve_stick, open_serial(there, baudrate), make(), meters(), mode, 0.01)
        profile = profile_of_url(f"wmbus+radio://{here}?baud={baudrate}&address={address}&id={OURS}", str(OURS), {})
        push = WirelessPush([profile], LmnStores())
        heard: list[Reading] = []
        with trio.fail_after(120):
            async with (
                await open_link(profile.link) as stream,
                aclosing(push.listen(stream, CLOCK.timestamp)) as batches,
            ):
                async for batch in batches:
                    assert not [item for item in batch if isinstance(item, RemoteProtocolError)]
                    heard += [item for item in batch if isinstance(item, Reading)]
                    if len(heard) >= 4:
                        break
        nursery.cancel_scope.cancel()
    assert {(item.device, item.value) for item in heard if item.obis == VOLUME} == {(str(OURS), 1)}


LEVELS = {"cul": -79.0, "imst": -55.0, "amber-rssi": -79.0}


@pytest.mark.parametrize(("make", "address", "mode", "baudrate"), STICKS)
async def test_sniff_sets_a_module_up_and_says_who_is_heard_how_often_and_strongly(
    make: type[Stick], address: str, mode: str, baudrate: int
) -> None:
    """The neighbour's meter and the one without a key are heard as well; the interval is that of the telegrams."""
    link = "wmbus+radio://{}?baud=" + f"{baudrate}&address={address}"
    async with serial_bus(2) as (here, there), trio.open_nursery() as nursery:
        nursery.start_soon(serve_stick, open_serial(there, baudrate), make(), meters(), mode, 0.2)
        command = [sys.executable, "-m", "stromkreis", "sniff", "--heard", link.format(here)]
        process = await trio.lowlevel.open_process(command, env=ENVIRON, stdout=subprocess.PIPE)
        assert process.stdout is not None
        said = b""
        with trio.fail_after(120):
            while said.count(b"\n") < 9:
                said += await process.stdout.receive_some()
        process.terminate()
        await process.wait()
        nursery.cancel_scope.cancel()
    rows = [json.loads(line) for line in said.decode().splitlines()[:9]]
    last = {row["device"]: row for row in rows}
    assert set(last) == {str(OURS), str(NEIGHBOUR), str(LOCKED)}
    assert {last[str(LOCKED)]["outcome"], last[str(OURS)]["outcome"]} == {"no_key", "readings"}
    assert {row["count"] for row in rows} == {1, 2, 3}
    assert all(row["signal"]["level"] == LEVELS[address.partition(":")[0]] for row in rows)
    assert all(0.1 < row["interval_s"] < 5.0 for row in rows if row["count"] > 1)


async def test_a_cul_whose_firmware_has_no_wireless_mbus_is_named() -> None:
    async with serial_bus(2) as (here, there), trio.open_nursery() as nursery:
        nursery.start_soon(serve_stick, open_serial(there, 38400), CulStick(knows_wmbus=False), meters(), "t", 0.05)
        profile = profile_of_url(f"wmbus+radio://{here}?baud=38400&address=cul&id={OURS}", str(OURS), {})
        push = WirelessPush([profile], LmnStores())
        with trio.fail_after(120):
            async with (
                await open_link(profile.link) as stream,
                aclosing(push.listen(stream, CLOCK.timestamp)) as batches,
            ):
                (item,) = await anext(batches)
        nursery.cancel_scope.cancel()
    assert isinstance(item, RemoteProtocolError)
    assert item.reason == "receiver_refused"


def program(folder: Path, name: str, script: str) -> None:
    """An executable for PATH."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def path_of(folder: Path) -> dict[str, str]:
    return {**ENVIRON, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def sniffed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stromkreis", "sniff", *arguments]
    return subprocess.run(command, env=path_of(folder), capture_output=True, text=True, timeout=60, check=False)


def on_the_air(datagram: bytes, frame_format: Format) -> str:
    sync = bytes.fromhex("5555555555543d54cd" if frame_format is Format.A else "5555555555543d543d")
    bits = sync + seal(datagram, frame_format) + b"\0\0"
    return f"{{{8 * len(bits)}}}{bits.hex()}"


@needs_rtl_433
@pytest.mark.parametrize("frame_format", [Format.A, Format.B])
@pytest.mark.parametrize("how", [{}, {"key": bytes(range(16)), "mode": 5}, {"key": bytes(range(16)), "mode": 7}])
def test_rtl_433_itself_is_started_and_its_datagrams_are_read(
    tmp_path: Path, frame_format: Format, how: dict[str, Any]
) -> None:
    """The real program behind a script that gives it bits instead of a stick, and keeps its arguments."""
    bits = on_the_air(meter(OURS, **how).datagram(), frame_format)
    program(
        tmp_path,
        "rtl_433",
        f'echo "$@" >{tmp_path}/arguments\nexec /usr/bin/rtl_433 -R 104 -F json -M level -y "{bits}"',
    )
    keys = ["--key", bytes(range(16)).hex()] if how else []
    done = sniffed(tmp_path, "wmbus+rtl://rtl_433?device=1&frequency=868.9M", *keys)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    volumes = [
        (row["device"], row["value"], row["record"]["signal"]["unit"]) for row in rows if row["obis"] == str(VOLUME)
    ]
    assert volumes == [(str(OURS), "1", "dB")]
    assert (tmp_path / "arguments").read_text().split() == [
        "-d", "1", "-f", "868.9M", "-s", "1200k", "-R", "104", "-F", "json", "-M", "level",
    ]  # fmt: skip


def test_rtl_wmbus_reads_what_rtl_sdr_gives_and_its_lines_are_read(tmp_path: Path) -> None:
    """Neither is on this machine: what stands for rtl_sdr writes samples, what stands for rtl_wmbus needs them."""
    line = rtl_wmbus_line(meter(OURS).datagram()).decode().strip()
    program(tmp_path, "rtl_sdr", f'echo "$@" >{tmp_path}/arguments\nprintf samples\necho "Found 1 device(s)" >&2')
    program(tmp_path, "rtl_wmbus", f'test "$(head -c 7)" = samples && echo "{line}"')
    done = sniffed(tmp_path, "wmbus+rtl://rtl_wmbus")
    rows = [json.loads(each) for each in done.stdout.splitlines()]
    assert [(row["device"], row["value"]) for row in rows if row["obis"] == str(VOLUME)] == [(str(OURS), "1")]
    assert rows[0]["record"]["signal"] == {"level": 97.0, "unit": ""}
    assert (tmp_path / "arguments").read_text().split() == ["-d", "0", "-f", "868.95M", "-s", "1600000", "-"]


def test_a_program_that_ends_is_told_with_its_last_word(tmp_path: Path) -> None:
    program(tmp_path, "rtl_433", 'echo "rtl_433 version 22.11" >&2\necho "No supported devices found." >&2\nexit 1')
    done = sniffed(tmp_path, "wmbus+rtl://rtl_433")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the link has ended: rtl_433 has ended: No supported devices found." in done.stderr


def test_a_program_that_is_not_installed_is_named(tmp_path: Path) -> None:
    program(tmp_path, "rtl_sdr", "exit 0")
    done = sniffed(tmp_path, "wmbus+rtl://rtl_wmbus")
    assert done.returncode == 1
    assert "rtl_wmbus is not installed" in done.stderr
    assert "Traceback" not in done.stderr


async def test_closing_ends_a_program_that_writes_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error full of words must not stop it, and it must not outlive its stream."""
    program(
        tmp_path,
        "rtl_433",
        f"echo $$ >{tmp_path}/pid\nhead -c 300000 /dev/zero | tr '\\0' x >&2\necho up\nexec sleep 600",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with trio.fail_after(120):
        async with await open_link("rtl://rtl_433") as stream:
            assert await stream.receive_some() == b"up\n"
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_gateway_starts_a_program_that_ended_again_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = rtl_wmbus_line(meter(OURS).datagram()).decode().strip()
    program(tmp_path, "rtl_433", f'echo "{line}"\necho "usb_claim_interface error -6" >&2\nexit 3')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    profile = profile_of_url(f"wmbus+rtl://rtl_433?id={OURS}", str(OURS), {})
    events: list[LmnEvent] = []
    deliveries = 0
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:

            async def deliver(readings: list[Reading], _: Arrival) -> None:
                nonlocal deliveries
                assert {each.device for each in readings} == {str(OURS)}
                deliveries += 1
                if deliveries == 3:
                    nursery.cancel_scope.cancel()

            run = partial(run_meters, rng=Random(1), on_event=events.append, backoff=Backoff(0.01, 0.05))
            nursery.start_soon(run, [profile], deliver, Periodic())
    assert deliveries == 3
    assert events[0].kind == "link_broken"
    assert events[0].detail == "rtl_433 has ended: usb_claim_interface error -6"
