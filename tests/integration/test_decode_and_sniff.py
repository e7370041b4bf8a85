"""The desk tools on everything recorded, and on live meters: real processes, real sockets and pseudo-terminals."""

import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
import typer
from typer.testing import CliRunner

from loadtest.meters.mbus import MBusMeter, serve_stream
from loadtest.meters.meter_list import MeterEntry, read_meter_list
from loadtest.meters.p1 import P1Settings, telegram
from loadtest.meters.serial_bus import serial_bus
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.link import Frame
from node.lmn.profiles import profile_of_url
from node.lmn.serial_link import open_serial
from node.lmn.session import LmnStores
from stromkreis import sniff
from stromkreis.decode import decode

ROOT = Path(__file__).parents[2]
CORPORA = ROOT / "../shared/corpora"
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
FILES = {
    "sml": ("sml/dumps.jsonl", "sml/frames.jsonl", "sml/smllib_frames.jsonl"),
    "dlms": ("dlms/frames.jsonl", "dlms/apdu_vectors.jsonl"),
    "mbus": ("mbus/libmbus.jsonl",),
    "wmbus": ("wmbus/telegrams.jsonl", "wmbus/oms_vectors.jsonl"),
    "iec62056-21": ("iec62056_21/readouts.jsonl",),
    "p1": ("dsmr/telegrams.jsonl",),
}
app = typer.Typer()
app.command()(decode)
needs_corpora = pytest.mark.beside_repository


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPORA / name).read_text().splitlines()]


@needs_corpora
def test_every_sml_capture_as_a_file_gives_what_libsml_gives() -> None:
    expected = {row["id"]: row["expected"]["libsml_sml_server_stdout"].splitlines() for row in rows("sml/dumps.jsonl")}
    files = sorted((CORPORA / "sml").glob("*.bin"))
    assert {file.stem for file in files} == set(expected)
    for file in files:
        done = CliRunner().invoke(app, ["sml", str(file)])
        assert done.exit_code == 0, file
        found = [json.loads(line) for line in done.stdout.splitlines()]
        lines = expected[file.stem]
        assert [row["obis"] for row in found] == [line.partition("#")[0] for line in lines]
        for row, line in zip(found, lines, strict=True):
            if row["unit"] is not None:
                assert Decimal(row["value"]).scaleb(row["scaler"]) == pytest.approx(Decimal(line.split("#")[1]))


@needs_corpora
@pytest.mark.parametrize("protocol", FILES)
def test_no_recorded_telegram_ends_in_a_traceback(protocol: str) -> None:
    run, good = CliRunner(), 0
    for name in FILES[protocol]:
        for row in rows(name):
            key = ["--key", str(row["key"])] if row.get("key") and len(str(row["key"])) == 32 else []
            done = run.invoke(app, [protocol, "--hex", *key, "-"], input=str(row["hex"]))
            assert done.exception is None or isinstance(done.exception, SystemExit), row["id"]
            assert done.exit_code == (0 if done.stdout else 1), row["id"]
            assert done.stdout or done.stderr, row["id"]
            good += bool(done.stdout)
    assert good


@contextmanager
def meters(tmp_path: Path, *options: str) -> Iterator[list[MeterEntry]]:
    """A `stromkreis meters` process and its meter_list."""
    meter_list = tmp_path / "meter_list.json"
    command = [
        sys.executable,
        "-m",
        "stromkreis",
        "meters",
        "--first-port",
        "0",
        "--period-s",
        "1",
        "--meter-list",
        str(meter_list),
    ]
    with subprocess.Popen([*command, *options], env=ENVIRON, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "meters listen" in process.stderr.readline()
            assert meter_list.stat().st_mode & 0o777 == 0o600
            yield read_meter_list(meter_list)
        finally:
            process.terminate()
            process.wait(10)


@pytest.mark.parametrize("link", ["tcp", "pty"])
def test_sniff_shows_meters_that_speak_unasked(tmp_path: Path, link: str) -> None:
    with meters(tmp_path, "--count", "2", "--protocol", "p1,wmbus", "--link", link) as meter_list:
        for entry in meter_list:
            protocol, _, url = entry.url.partition("+")
            bare = url.replace(f"id={entry.id}", "").rstrip("?&")
            key = ["--key", f"{entry.id}={entry.keys['encryption']}"] if entry.keys else []
            command = [sys.executable, "-m", "stromkreis", "sniff", bare, "--protocol", protocol, *key]
            with subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, text=True) as sniffer:
                assert sniffer.stdout is not None
                heard = [json.loads(sniffer.stdout.readline()) for _ in range(12)]
                sniffer.terminate()
            assert {row["device"] for row in heard} == {entry.id}
            assert "1-0:1.8.0*255" in {row["obis"] for row in heard}


def sniffed(*arguments: str, state: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stromkreis", "sniff", *arguments]
    environ = ENVIRON if state is None else {**ENVIRON, "XDG_STATE_HOME": str(state)}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("link", ["tcp", "pty"])
def test_sniff_asks_meters_and_finds_those_of_an_mbus(tmp_path: Path, link: str) -> None:
    """The URL of the meter list is all it takes, with the keys of a meter that has some."""
    with meters(tmp_path, "--count", "4", "--protocol", "sml,dlms,mbus,iec62056-21", "--link", link) as meter_list:
        for entry in meter_list:
            keys = [part for purpose, key in entry.keys.items() for part in ("--key", f"{purpose}={key}")]
            done = sniffed("--ask", "--once", entry.url, *keys, state=tmp_path)
            rows = [json.loads(line) for line in done.stdout.splitlines()]
            assert (done.returncode, done.stderr) == (0, ""), entry.url
            assert "1-0:1.8.0*255" in {row["obis"] for row in rows}
            if entry.url.startswith(("sml", "dlms")):
                # At once after the first: ciphered DLMS would be refused with the counters of the process before.
                found = sniffed("--search", entry.url, *keys, state=tmp_path)
                assert (found.returncode, found.stderr) == (0, "")
                names = [line.split()[0] for line in found.stdout.splitlines()]
                assert {"1-0:1.8.0*255", "1-0:2.8.0*255", "1-0:16.7.0*255"} <= set(names)
        (mbus,) = (entry for entry in meter_list if entry.url.startswith("mbus"))
        found = sniffed("--search", mbus.url)
        assert (found.returncode, found.stdout.split()[0]) == (0, mbus.id)
        address = found.stdout.split("address=")[1].split()[0]
        again = sniffed("--ask", "--once", mbus.url.replace("address=1", f"address={address}"))
        assert json.loads(again.stdout.splitlines()[0])["device"] == mbus.id
        silent = sniffed("--ask", "--once", mbus.url.replace("address=1", "address=77"))
        assert (silent.returncode, silent.stdout) == (1, "")
        first, tried = silent.stderr.splitlines()
        assert first == "no_answer: the meter does not answer"
        assert "is its address right (77)? --search finds the meters of a bus" in tried
        assert ("baud=2400, frame=8E1" in tried) == (link == "pty")


def test_sniff_says_what_was_wrong_with_keys_certificates_and_names(tmp_path: Path) -> None:
    """Whose fault it was, what was expected, what to try; no key in it."""
    with meters(tmp_path, "--count", "3", "--protocol", "dlms,lks1,dlms-mbus") as meter_list:
        dlms, lks1, push = meter_list

        def told(entry: MeterEntry, url: str, **other: str) -> str:
            keys = [part for name, key in {**entry.keys, **other}.items() for part in ("--key", f"{name}={key}")]
            done = sniffed("--ask", "--once", url, *keys, state=tmp_path)
            assert (done.returncode != 0, done.stdout) == (True, "")
            assert not [key for key in entry.keys.values() if key in done.stderr]
            return " ".join(done.stderr.replace("│", " ").split())

        assert "its keys may be others" in told(dlms, dlms.url, encryption="00" * 16)
        shown = told(lks1, lks1.url, meter_certificate=lks1.keys["certificate"])
        assert "lmn_tls: the meter shows another certificate than the one it is known by" in shown
        assert "meter_certificate= the meter's" in shown
        absent = told(lks1, lks1.url.replace(lks1.id, "1STK0000000099"))
        assert "lmn_absent: '1STK0000000099' does not answer an invitation, 1 others do" in absent
        assert "tells who is on the line" in absent
        assert "speaks by itself" in told(push, push.url)
        plain = sniffed("--ask", "--once", dlms.url)
        assert "refused for good: another authentication mechanism is wanted (11)" in plain.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["tcp://127.0.0.1:1", "-p", "sml"], 1, "the link cannot be opened"),
        (["serial:///dev/nothing", "-p", "mbus"], 1, "the link cannot be opened"),
        (["tcp://127.0.0.1:1"], 2, "what do the meters speak"),
        (["dlms+tcp://h:1", "-p", "sml"], 2, "expected sml"),
        (["p1+tcp://h:1", "--ask"], 2, "speak by themselves"),
        (["p1+tcp://h:1", "--search"], 2, "only the meters of an M-Bus"),
        (["s0+tcp://h:1"], 2, "cannot be listened to here"),
        (["lks1+tcp://h:1"], 2, "cannot be listened to here"),
        (["sml+tcp://h:1", "--once"], 2, "only what is asked"),
        (["dlms+tcp://h:1", "--ask", "--key", "authentication=secret"], 2, "is not hexadecimal"),
        (["hello", "-p", "sml"], 2, "a link is tcp://host:port"),
    ],
)
def test_what_sniff_cannot_do_is_a_sentence(arguments: list[str], code: int, told: str) -> None:
    done = sniffed(*arguments)
    text = " ".join(done.stderr.replace("│", " ").split())
    assert (done.returncode, done.stdout) == (code, "")
    assert told in text
    assert "Traceback" not in text
    assert "secret" not in text


async def test_search_tries_the_speeds_of_mbus_meters_where_none_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    """A meter of 300 baud: what it hears at another speed is noise."""
    heard_at: list[int] = []
    descriptor = -1

    def speed() -> int:
        return {termios.B300: 300, termios.B2400: 2400}.get(termios.tcgetattr(descriptor)[5], 0)

    class At300(MBusMeter):
        def answer(self, frame: Frame) -> bytes:
            heard_at.append(speed())
            return super().answer(frame) if speed() == 300 else b""

    meter = At300(DeviceAddress.from_text("1ISK0112345678", 2), lambda _: [], lambda: datetime(2026, 1, 1, tzinfo=UTC))
    async with serial_bus(2) as (here, there), trio.open_nursery() as nursery:
        descriptor = os.open(here, os.O_RDWR | os.O_NOCTTY)
        nursery.start_soon(serve_stream, open_serial(there, 38400), [meter])
        found = await sniff._search(profile_of_url(f"mbus+serial://{here}", "meter", {}), (2400, 300), LmnStores())
        os.close(descriptor)
        nursery.cancel_scope.cancel()
    assert found == 1
    assert capsys.readouterr().out.startswith("1ISK0112345678  address=12345678")
    assert set(heard_at) == {2400, 300}


def test_output_that_cannot_be_written_is_a_sentence_and_a_closed_pipe_none(tmp_path: Path) -> None:
    file = tmp_path / "p1.bin"
    file.write_bytes(telegram(P1Settings("X"), [], datetime.fromtimestamp(0, UTC)) * 5000)
    command = [sys.executable, "-m", "stromkreis", "decode", "p1", str(file)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=ENVIRON, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "standard output cannot be written" in done.stderr
    with subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait(30)) == ("", 1)


@pytest.fixture
def in_the_foreground() -> Iterator[None]:
    """What a shell runs in the background ignores Ctrl-C, and so would its children: not those of this test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_the_foreground")
@pytest.mark.parametrize("ask", [False, True])
def test_ctrl_c_ends_sniff_without_a_word(tmp_path: Path, ask: bool) -> None:
    with meters(tmp_path, "--count", "1", "--protocol", "sml" if ask else "p1") as (entry,):
        command = [
            sys.executable,
            "-m",
            "stromkreis",
            "sniff",
            *(["--ask", "--every-s", "1"] if ask else []),
            entry.url,
        ]
        with subprocess.Popen(
            command, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert (process.wait(30), process.stderr.read()) == (130, "")
