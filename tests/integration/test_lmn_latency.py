"""Meters behind slow ways: `latency=` on a link makes every driver wait longer, and without it they are lost."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from loadtest.meters import mbus
from loadtest.meters.dlms import DlmsServer, serve_wrapper
from loadtest.meters.dlms_objects import CosemObjects
from loadtest.meters.iec62056_21 import MeterSettings, SimulatedMeter
from loadtest.meters.sml import SmlMeter
from loadtest.meters.sml_server import serve_stream
from node.lmn.links import parse_link
from node.lmn.mbus.device import DeviceAddress
from node.lmn.profiles import MeterProfile
from node.lmn.registry import DRIVERS
from node.lmn.session import LmnStores
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

NAME = "1STK0070000051"
REGISTERS = [(Obis(1, 0, 1, 8, 0, 255), 4711, 0, 30)]
Serve = Callable[[trio.abc.Stream], Awaitable[object]]


def registers(_now: datetime) -> list[tuple[Obis, int, int, int]]:
    return REGISTERS


def now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def meter(protocol: str) -> Serve:
    match protocol:
        case "iec62056-21":
            return SimulatedMeter(MeterSettings("70000051"), registers, now).serve
        case "dlms":
            return partial(serve_wrapper, DlmsServer(CosemObjects(NAME, registers, now)))
        case "sml":
            return partial(serve_stream, [SmlMeter(NAME, registers)], now)
        case _:
            device = DeviceAddress.from_text(NAME, 2)
            return lambda stream: mbus.serve_stream(stream, [mbus.MBusMeter(device, registers, now, primary=1)])


async def read_through(protocol: str, delay_s: float, query: str, **more: Any) -> list[Reading]:
    """One question over a way that holds every answer back."""
    ours, near = memory_stream_pair()
    far, theirs = memory_stream_pair()

    async def forward() -> None:
        while data := await near.receive_some():
            await far.send_all(data)

    async def hold_back() -> None:
        while data := await far.receive_some():
            await trio.sleep(delay_s)
            await near.send_all(data)

    profile = MeterProfile(device=NAME, protocol=protocol, link=f"tcp://127.0.0.1:1{query}", meter_id="*", **more)
    poll = DRIVERS[protocol].poll
    assert poll is not None
    async with trio.open_nursery() as nursery:
        for task in (forward, hold_back, partial(meter(protocol), theirs)):
            nursery.start_soon(task)
        found = await poll([profile], LmnStores()).ask(ours, profile, time.time)
        nursery.cancel_scope.cancel()
    return [item for item in found if isinstance(item, Reading)]


@pytest.mark.parametrize(
    ("protocol", "delay_s", "more"),
    [
        ("iec62056-21", 7.0, {}),
        ("dlms", 11.0, {"address": "wrapper:16/1"}),
        ("sml", 11.0, {}),
        ("mbus", 1.0, {"address": "1"}),
        ("mbus", 3.0, {"address": "1"}),
    ],
)
async def test_a_meter_behind_a_slow_way_is_read_where_the_link_says_so(
    autojump_clock: MockClock, protocol: str, delay_s: float, more: dict[str, Any]
) -> None:
    readings = await read_through(protocol, delay_s, f"?latency={delay_s + 1:g}", **more)
    assert 4711 in {reading.value for reading in readings}


@pytest.mark.parametrize(
    ("protocol", "delay_s", "more"),
    [("iec62056-21", 7.0, {}), ("dlms", 11.0, {"address": "wrapper:16/1"}), ("sml", 11.0, {})],
)
async def test_without_it_the_meter_is_lost(
    autojump_clock: MockClock, protocol: str, delay_s: float, more: dict[str, Any]
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(RemoteProtocolError), allow_unwrapped=True, flatten_subgroups=True):
        await read_through(protocol, delay_s, "", **more)


def test_latency_is_a_setting_of_every_link() -> None:
    assert parse_link("tcp://h:1?latency=3").latency_s == 3
    assert parse_link("serial:///dev/ttyS0?latency=0.5&baud=300&frame=7E1").latency_s == 0.5
    assert parse_link("tcp://h:1").latency_s is None
    profile = MeterProfile(device="X", protocol="mbus", link="serial:///dev/ttyS0?latency=2")
    assert (parse_link(profile.link).latency_s, parse_link(profile.link).baudrate) == (2, 2400)
    for wrong in ("latency=-1", "latency=61", "latency=soon", "speed=1", "latency="):
        with pytest.raises(ValueError, match=r"latency="):
            parse_link(f"tcp://h:1?{wrong}")
