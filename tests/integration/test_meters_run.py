"""`stromkreis meters` for real: sockets, the meter list, our own gateway driver reading what truth says."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
import trio

from loadtest.config import MeterProtocol, MetersConfig
from loadtest.households import Household, households
from loadtest.meters.clock import SimulatedClock, clock_of
from loadtest.meters.guide import meter_summary
from loadtest.meters.meter_list import MeterEntry, read_meter_list
from loadtest.meters.run import run, simulated_meters
from node.configured import meter_profiles
from node.gateway_config import GatewayConfig
from node.lmn.events import LmnEvent
from node.lmn.runtime import Periodic, run_meters
from node.lmn.sml.client import SmlClient
from node.lmn.sml.driver import SmlLink, read_meter
from node.metering.interval import Arrival
from protocol.errors import StromkreisError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "../shared/corpora/sml"


async def _read(entry: MeterEntry) -> dict[str, tuple[object, int]]:
    host, port = entry.url.removeprefix("sml+tcp://").partition("?")[0].split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        if "push" in entry.url:
            link = SmlLink(stream, lambda: datetime.now(UTC))
            readings = await anext(link.pushed(10))
        else:
            readings = await read_meter(stream, SmlClient(b"gateway"), lambda: datetime.now(UTC), timeout_s=10)
    return {str(reading.obis): (reading.value, reading.scaler) for reading in readings}


async def _serve(nursery: trio.Nursery, config: MetersConfig) -> list[MeterEntry]:
    found: list[MeterEntry] = []
    listening = trio.Event()

    def ready(meter_list: list[MeterEntry]) -> None:
        found.extend(meter_list)
        listening.set()

    nursery.start_soon(lambda: run(config, ready=ready))
    await listening.wait()
    return found


@pytest.mark.parametrize("q", [-3, 0, 7])
async def test_a_meter_says_over_sml_what_truth_says(q: int, tmp_path: Path) -> None:
    # A long quarter hour around now, so that it cannot end while the test reads.
    period_s = 1_000.0
    origin_unix_s = time.time() - (q + 0.5) * period_s
    list_path = tmp_path / "sub" / "meter_list.json"
    config = MetersConfig(
        count=4,
        first_port=0,
        origin_unix_s=origin_unix_s,
        period_s=period_s,
        start_quarter_hour=172 * 96 + 44,
        meter_list=list_path,
    )
    async with trio.open_nursery() as nursery:
        meter_list = await _serve(nursery, config)
        assert read_meter_list(list_path) == meter_list
        assert [entry.profile for entry in meter_list] == ["H25", "H0", "G0", "PV"]
        for meter, entry in zip(simulated_meters(config), meter_list, strict=True):
            said, shown = await _read(entry), meter.registers(q)
            assert said["1-0:1.8.0*255"] == (shown.import_tenth_wh, -1)
            assert said["1-0:2.8.0*255"] == (shown.export_tenth_wh, -1)
            assert said["1-0:16.7.0*255"] == (shown.power_w, 0)
        nursery.cancel_scope.cancel()


@pytest.mark.beside_repository
async def test_every_recording_says_over_sml_what_libsml_says() -> None:
    wrong = []
    for q in (0, 6):
        config = MetersConfig(
            count=0, replay=CORPUS, first_port=0, origin_unix_s=time.time() - (q + 0.5) * 1_000, period_s=1_000
        )
        async with trio.open_nursery() as nursery:
            meter_list = await _serve(nursery, config)
            readouts: dict[str, dict[str, tuple[object, int]]] = {}

            async def read(entry: MeterEntry, into: dict[str, dict[str, tuple[object, int]]] = readouts) -> None:
                into[entry.id] = await _read(entry)

            async with trio.open_nursery() as reading:
                for entry in meter_list:
                    reading.start_soon(read, entry)
            for meter, entry in zip(simulated_meters(config), meter_list, strict=True):
                said, shown = readouts[entry.id], meter.registers(q)
                for code, expected, scaler in (
                    ("1-0:1.8.0*255", shown.import_tenth_wh, -1),
                    ("1-0:2.8.0*255", shown.export_tenth_wh, -1),
                    ("1-0:16.7.0*255", shown.power_w, 0),
                ):
                    value, power = said.get(code, (0, 0))
                    assert isinstance(value, int)
                    shift = power - scaler
                    at_scaler = value * 10**shift if shift >= 0 else value // 10**-shift
                    if at_scaler != expected:
                        wrong.append((entry.id, code))
            nursery.cancel_scope.cancel()
    assert wrong == []


def test_a_taken_port_is_told_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "stromkreis", "meters", "--count", "2", "--first-port", str(port)]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == f"stromkreis: port {port} of 127.0.0.1 cannot be listened on (Address already in use)\n"


def test_a_malformed_meter_list_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"meters": [{"id": 1}]}'):
        (tmp_path / "meter_list.json").write_text(text)
        with pytest.raises(StromkreisError, match="no meter list"):
            read_meter_list(tmp_path / "meter_list.json")


def test_quarter_hours_of_the_clock() -> None:
    clock = SimulatedClock(1_000.0, 2.0)
    assert [clock.quarter_hour(s) for s in (997.9, 999.9, 1_000.0, 1_001.9, 1_002.0)] == [-2, -1, 0, 0, 1]


def test_the_command_serves_a_hundred_meters_and_stops_on_sigterm(tmp_path: Path) -> None:
    meter_list = tmp_path / "meter_list.json"
    command = [sys.executable, "-m", "stromkreis", "meters", "--count", "100", "--first-port", "0"]
    command += ["--meter-list", str(meter_list)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = ["--period-s", "1", "--log-format", "json"]
    with subprocess.Popen([*command, *arguments], env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        assert (line["event"], line["meters"]) == ("meters listen", 100)
        entries = read_meter_list(meter_list)
        assert len({entry.url for entry in entries}) == 100
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


@pytest.mark.parametrize("link", ["tcp", "pty"])
async def test_the_gateways_that_are_told_read_every_meter_of_every_protocol(tmp_path: Path, link: Any) -> None:
    """The file is put into a node's configuration as it is; the registers are those of the households."""
    path = tmp_path / "gateways.toml"
    protocols: Any = get_args(MeterProtocol)
    config = MetersConfig(
        count=len(protocols), protocols=protocols, link=link, first_port=0, period_s=3600, profiles=("H25",),
        register_decimals=0, gateways=path, origin_unix_s=time.time(),
    )  # fmt: skip
    shown: dict[str, int] = {}
    faults: list[LmnEvent] = []
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            await _serve(nursery, config)
            assert path.stat().st_mode & 0o777 == 0o600
            gateways = [GatewayConfig(**row) for row in tomllib.loads(path.read_text())["node"]["gateways"]]

            async def deliver(readings: list[Reading], _arrival: Arrival) -> None:
                for reading in readings:
                    if reading.obis == Obis(1, 0, 1, 8, 0, 255):
                        shown[reading.device] = reading.at_scaler(-1)
                if len(shown) == len(gateways):
                    nursery.cancel_scope.cancel()

            for gateway in gateways:
                read = partial(run_meters, meter_profiles(gateway), deliver, Periodic(5.0), rng=Random(1))
                nursery.start_soon(partial(read, on_event=faults.append))
    homes = [home for home in simulated_meters(config) if isinstance(home, Household)]
    assert [shown[f"{gateway.id}/0"] for gateway in gateways] == [home.registers(0).import_tenth_wh for home in homes]
    assert faults == []


def test_what_is_told_of_the_meters_names_each_protocol_and_holds_no_key() -> None:
    key = "00112233445566778899aabbccddeeff"
    meter_list = [
        MeterEntry("A", "wmbus", "wmbus+radio://h:1?id=A", "H25", 1, {"encryption": key}),
        MeterEntry("B", "p1", "p1+tcp://h:2", "H25", 1),
        MeterEntry("C", "p1", "p1+tcp://h:3", "H25", 1),
    ]
    lines = meter_summary(meter_list, MetersConfig(meter_list=Path("b.json"))).splitlines()
    assert lines[0].startswith("3 meters listen")
    assert [line.split()[:3] for line in lines[1:3]] == [["1", "wmbus", "first"], ["2", "p1", "first"]]
    assert lines[3].split()[2:] == ["stromkreis", "sniff", "p1+tcp://h:2"]
    assert lines[4].endswith("b.json")
    assert "--gateways FILE" in lines[5]
    assert key not in "".join(lines)


@pytest.mark.parametrize(("hard", "code"), [(4096, 0), (200, 1)])
def test_more_meters_than_a_process_starts_with_files_for(hard: int, code: int) -> None:
    command = [sys.executable, "-m", "stromkreis", "meters", "--count", "150", "--first-port", "0", "--protocol", "p1"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))

    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True, preexec_fn=few_files) as process:  # noqa: PLW1509
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == code
        said = process.stderr.read()
    assert "Traceback" not in said
    assert first.startswith("150 meters listen") if code == 0 else "need some 364 open files and 200 are" in said


@pytest.mark.parametrize("period_s", [1.0, 4.5, 900.0])
def test_pushes_keep_away_from_the_quarter_hours_borders(period_s: float) -> None:
    clock = SimulatedClock(1_000.0, period_s)
    now, pushes = 1_000.0, []
    while now < 1_000.0 + 3 * period_s:
        now += clock.until_push_s(now)
        pushes.append((now - 1_000.0) % period_s)
    assert min(pushes) == pytest.approx(0.003, abs=1e-6)
    assert max(pushes) < period_s - 0.2
    assert len(pushes) >= 3 * max(4, period_s)


def test_registers_go_on_where_they_were_when_the_meters_start_again() -> None:
    """A register that falls ends its gateway's contributions, so a restart must not be an exchange of all meters."""
    config = MetersConfig(count=1, period_s=5)
    (home,) = households(config)
    shown = [
        home.registers(clock_of(config, now_s).quarter_hour(now_s))
        for now_s in (1_795_650_000.0, 1_795_650_007.0, 1_795_736_400.0)
    ]
    assert shown == sorted(shown)
    assert shown[2].import_tenth_wh > shown[0].import_tenth_wh
    assert home.registers(clock_of(config, 2e9).quarter_hour(2e9)).import_tenth_wh < 10**9 + 4 * 10 * home.annual_wh
    slow = clock_of(MetersConfig(count=1, period_s=3600), 1_795_650_000.0)
    assert 1_795_650_000.0 - slow.origin_unix_s < 4 * 366 * 86_400, "certificates of meters begin with the origin"
    given = MetersConfig(count=1, period_s=5, origin_unix_s=77.0)
    assert clock_of(given, 1_795_650_000.0) == SimulatedClock(77.0, 5)
