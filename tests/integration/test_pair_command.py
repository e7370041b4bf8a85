"""`stromkreis pair` against a simulated meter on a pseudo-terminal: paired, read with what it wrote, undone."""

import os
import random
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from cryptography import x509

from loadtest.meters.lmn_station import LmnMeter
from loadtest.meters.serial_bus import serial_bus
from node.lmn.hdlc.tls import lmn_context_from_der
from node.lmn.lks1.sym import PairingMeter
from node.lmn.serial_link import open_serial

METER, GATEWAY, MAIN_KEY = "1STK0070000071", "ESTK0070000001", bytes(range(0x30, 0x40))


async def silent(stream: trio.abc.Stream) -> None:
    await stream.receive_some()


@asynccontextmanager
async def meter(pairing: PairingMeter) -> AsyncIterator[str]:
    """The line of a bus with this meter on it."""
    async with serial_bus(2) as (ours, theirs), trio.open_nursery() as nursery, open_serial(theirs, 921600) as line:
        nursery.start_soon(LmnMeter(METER, silent, pairing.answer, random.Random(1).randrange).run, line)
        yield f"serial://{ours}"
        nursery.cancel_scope.cancel()


def _is_paired(meter_: PairingMeter) -> bool:
    return meter_.credentials is not None


async def run(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stromkreis", "pair", *arguments]
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "NO_COLOR": "1", "COLUMNS": "200"}
    return await trio.to_thread.run_sync(
        lambda: subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    )


async def test_a_meter_is_paired_once_until_it_is_reset(tmp_path: Path) -> None:
    pairing = PairingMeter(MAIN_KEY, METER.encode())
    (tmp_path / "mk0").write_text(MAIN_KEY.hex(), encoding="ascii")
    out, again = tmp_path / "pairing.toml", tmp_path / "again.toml"
    common = ["--meter", METER, "--key", f"@{tmp_path / 'mk0'}"]
    async with meter(pairing) as line:
        done = await run(tmp_path, line, *common, "--gateway", GATEWAY, "--out", str(out))
        assert done.returncode == 0, done.stderr
        brought = pairing.credentials
        assert brought is not None
        refused = await run(tmp_path, line, *common, "--gateway", GATEWAY, "--out", str(again))
        assert refused.returncode != 0
        assert "paired already" in refused.stderr
        assert not again.exists()
        assert pairing.credentials == brought
        assert (await run(tmp_path, line, *common, "--reset")).returncode == 0
        assert not _is_paired(pairing)
        assert (await run(tmp_path, line, *common, "--gateway", GATEWAY, "--out", str(again))).returncode == 0
    assert out.stat().st_mode & 0o777 == 0o600
    keys = {
        name: bytes.fromhex(text)
        for name, text in tomllib.loads(out.read_text())["node"]["gateways"][0]["keys"][METER].items()
    }
    assert (keys["certificate"], keys["meter_certificate"]) == (brought.gateway_certificate, brought.meter_certificate)
    lmn_context_from_der(keys["certificate"], keys["private_key"], keys["meter_certificate"])
    assert (
        x509.load_der_x509_certificate(keys["meter_certificate"]).subject.rfc4514_string() == f"CN={METER.lower()}.sm"
    )
    for text in (done.stdout, done.stderr, refused.stderr):
        assert MAIN_KEY.hex() not in text
        assert keys["private_key"].hex() not in text


async def test_another_main_key_pairs_nobody_and_is_not_repeated(tmp_path: Path) -> None:
    pairing = PairingMeter(MAIN_KEY, METER.encode())
    out = tmp_path / "pairing.toml"
    async with meter(pairing) as line:
        arguments = [line, "--meter", METER, "--gateway", GATEWAY, "--key", "00" * 16, "--out", str(out)]
        done = await run(tmp_path, *arguments)
    assert done.returncode != 0
    assert pairing.credentials is None
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--meter", METER, "--key", "00"], "16 octets"),
        (["--meter", METER, "--key", "00" * 16], "--gateway and --out"),
        (["--meter", "none", "--key", "00" * 16, "--gateway", GATEWAY, "--out", "x.toml"], "DIN 43849"),
    ],
)
async def test_what_cannot_be_paired_is_said(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = await run(tmp_path, "tcp://127.0.0.1:1", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
