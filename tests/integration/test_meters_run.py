"""`stromkreis meters` for real: sockets, the book, our own gateway driver reading what truth says."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from loadtest.config import MetersConfig
from loadtest.meters.clock import SimulatedClock
from loadtest.meters.run import BookEntry, read_book, run, simulated_meters
from node.lmn.sml.client import SmlClient
from node.lmn.sml.driver import SmlLink, read_meter
from protocol.errors import StromkreisError

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "../shared/corpora/sml"


async def _read(entry: BookEntry) -> dict[str, tuple[object, int]]:
    host, port = entry.url.removeprefix("sml+tcp://").partition("?")[0].split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        if "push" in entry.url:
            link = SmlLink(stream, lambda: datetime.now(UTC))
            readings = await anext(link.pushed(10))
        else:
            readings = await read_meter(stream, SmlClient(b"gateway"), lambda: datetime.now(UTC), timeout_s=10)
    return {str(reading.obis): (reading.value, reading.scaler) for reading in readings}


async def _serve(nursery: trio.Nursery, config: MetersConfig) -> list[BookEntry]:
    found: list[BookEntry] = []
    listening = trio.Event()

    def ready(book: list[BookEntry]) -> None:
        found.extend(book)
        listening.set()

    nursery.start_soon(lambda: run(config, ready=ready))
    await listening.wait()
    return found


@pytest.mark.parametrize("q", [-3, 0, 7])
async def test_a_meter_says_over_sml_what_truth_says(q: int, tmp_path: Path) -> None:
    # A long quarter hour around now, so that it cannot end while the test reads.
    period_s = 1_000.0
    origin_unix_s = time.time() - (q + 0.5) * period_s
    book_path = tmp_path / "sub" / "book.json"
    config = MetersConfig(
        count=4,
        first_port=0,
        origin_unix_s=origin_unix_s,
        period_s=period_s,
        start_quarter_hour=172 * 96 + 44,
        book=book_path,
    )
    async with trio.open_nursery() as nursery:
        book = await _serve(nursery, config)
        assert read_book(book_path) == book
        assert [entry.profile for entry in book] == ["H25", "H0", "G0", "PV"]
        for meter, entry in zip(simulated_meters(config), book, strict=True):
            said, shown = await _read(entry), meter.registers(q)
            assert said["1-0:1.8.0*255"] == (shown.import_tenth_wh, -1)
            assert said["1-0:2.8.0*255"] == (shown.export_tenth_wh, -1)
            assert said["1-0:16.7.0*255"] == (shown.power_w, 0)
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the recorded meters (../shared/corpora/sml) are not here")
async def test_every_recording_says_over_sml_what_libsml_says() -> None:
    wrong = []
    for q in (0, 6):
        config = MetersConfig(
            count=0, replay=CORPUS, first_port=0, origin_unix_s=time.time() - (q + 0.5) * 1_000, period_s=1_000
        )
        async with trio.open_nursery() as nursery:
            book = await _serve(nursery, config)
            readouts: dict[str, dict[str, tuple[object, int]]] = {}

            async def read(entry: BookEntry, into: dict[str, dict[str, tuple[object, int]]] = readouts) -> None:
                into[entry.id] = await _read(entry)

            async with trio.open_nursery() as reading:
                for entry in book:
                    reading.start_soon(read, entry)
            for meter, entry in zip(simulated_meters(config), book, strict=True):
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


def test_a_book_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"meters": [{"id": 1}]}'):
        (tmp_path / "book.json").write_text(text)
        with pytest.raises(StromkreisError, match="no meter book"):
            read_book(tmp_path / "book.json")


def test_quarter_hours_of_the_clock() -> None:
    clock = SimulatedClock(1_000.0, 2.0)
    assert [clock.quarter_hour(s) for s in (997.9, 999.9, 1_000.0, 1_001.9, 1_002.0)] == [-2, -1, 0, 0, 1]


def test_the_command_serves_a_hundred_meters_and_stops_on_sigterm(tmp_path: Path) -> None:
    book = tmp_path / "book.json"
    command = [sys.executable, "-m", "stromkreis", "meters", "--count", "100", "--first-port", "0", "--book", str(book)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = ["--period-s", "1", "--log-format", "json"]
    with subprocess.Popen([*command, *arguments], env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        assert (line["event"], line["meters"]) == ("meters listen", 100)
        entries = read_book(book)
        assert len({entry.url for entry in entries}) == 100
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


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
