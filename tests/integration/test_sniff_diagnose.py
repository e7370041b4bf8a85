"""`stromkreis sniff --diagnose` over sockets and pseudo-terminals: it says what a question met, and what to set."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial

import pytest
import trio

from loadtest.meters import mbus
from loadtest.meters.iec62056_21 import MeterSettings, SimulatedMeter
from loadtest.meters.serial_bus import serial_bus
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.link import FrameReader
from node.lmn.profiles import profile_of_url
from node.lmn.registry import DRIVERS
from node.lmn.serial_link import open_serial
from node.lmn.session import LmnStores
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from stromkreis import sniff

REGISTERS = [(Obis(1, 0, 1, 8, 0, 255), 4711, 0, 30)]
DEVICE = DeviceAddress.from_text("1STK0070000052", 2)


def now() -> datetime:
    return datetime.now(UTC)


def meter_on_bus() -> mbus.MBusMeter:
    return mbus.MBusMeter(DEVICE, lambda _: REGISTERS, now, primary=1)


async def diagnose(url: str) -> int:
    profile = profile_of_url(url, "meter", {})
    poll = DRIVERS[profile.protocol].poll
    assert poll is not None
    return await sniff._diagnose(profile, poll, LmnStores())


@asynccontextmanager
async def on_tcp(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"tcp://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def answer_late(stream: trio.SocketStream, *, delay_s: float = 0.0, before: bytes = b"") -> None:
    """An M-Bus meter behind a gateway that holds answers back, or puts octets before them."""
    meter = meter_on_bus()
    reader = FrameReader()
    while data := await stream.receive_some():
        for frame in reader.feed(bytes(data)):
            if not isinstance(frame, RemoteProtocolError) and (answer := meter.answer(frame)):
                await trio.sleep(delay_s)
                with suppress(trio.BrokenResourceError):  # nobody waits for it any more
                    await stream.send_all(before + answer)


async def test_a_late_answer_is_told_from_none_and_the_setting_named(capsys: pytest.CaptureFixture[str]) -> None:
    async with on_tcp(partial(answer_late, delay_s=1.5)) as link:
        assert await diagnose(f"mbus+{link}?address=1&latency=0.2") == 0
        told = capsys.readouterr().err
        assert "no_answer" in told or "unexpected_ack" in told  # an answer to the question before the last
        assert "latency=2" in told or "latency=3" in told
        assert await diagnose(f"mbus+{link}?address=1&latency=3") >= 1
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "4711" in {row["value"] for row in found}


async def test_octets_before_an_answer_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with on_tcp(partial(answer_late, before=b"\x00\xff")) as link:
        await diagnose(f"mbus+{link}?address=1")
    assert "octets that belong to no message stand before" in capsys.readouterr().err


async def test_a_lost_slash_and_parity_bits_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    settings = MeterSettings("70000053", pause_s=0.01, loses_slash=True, parity=True)
    async with serial_bus() as (ours, theirs), trio.open_nursery() as nursery:
        meter = SimulatedMeter(settings, lambda _: REGISTERS, now)
        nursery.start_soon(meter.serve, open_serial(theirs, 300))
        assert await diagnose(f"iec62056-21+serial://{ours}?baud=300&frame=8N1") >= 1
        nursery.cancel_scope.cancel()
    told = capsys.readouterr().err
    assert "came without its slash" in told
    assert "parity bits" in told


async def test_a_meter_that_is_not_there_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stromkreis.diagnose.LATE_ANSWER_S", 0.2)

    async def silent(stream: trio.SocketStream) -> None:
        while await stream.receive_some():
            pass

    async with on_tcp(silent) as link:
        assert await diagnose(f"mbus+{link}?address=1") == 0
    assert "no octet came" in capsys.readouterr().err
