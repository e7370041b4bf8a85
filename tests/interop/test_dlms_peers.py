"""
Software that nobody here wrote, on the other end: gurux-dlms and dlms-cosem as clients of our meter, gurux-dlms as
a meter for our client.

They live in an environment of their own (see `requirements-peers-dlms.lock`) and run as processes; neither is ever
imported here.
"""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from loadtest.config import MetersConfig
from loadtest.households import households
from loadtest.meters.clock import SimulatedClock
from loadtest.meters.dlms import DlmsServer, ServerSettings, serve_hdlc, serve_tcp
from loadtest.meters.dlms_objects import CosemObjects
from loadtest.meters.serial_bus import serial_bus
from loadtest.meters.servers import speaker
from node.lmn.dlms.acse import Mechanism
from node.lmn.dlms.axdr import Data, Type, decode_data, octets
from node.lmn.dlms.client import Association
from node.lmn.dlms.decode import decode_stream as dlms_stream
from node.lmn.dlms.driver import MeterSession, MeterSettings
from node.lmn.dlms.fields import Attribute
from node.lmn.dlms.listing import scaler_unit
from node.lmn.dlms.security import Keys
from node.lmn.dlms.transport import HdlcTransport, Transport, WrapperTransport
from node.lmn.hdlc.frame import Address
from node.lmn.hdlc.link import HdlcBus, HdlcLink
from node.lmn.hdlc.station import Parameters
from node.lmn.serial_link import open_serial
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

HERE = Path(__file__).parent
PYTHON = Path(os.environ.get("STROMKREIS_PEERS_DLMS") or HERE.parents[1] / ".venv-peers-dlms/bin/python")
pytestmark = pytest.mark.skipif(
    not PYTHON.exists() and "CI" not in os.environ, reason="the DLMS peers are not installed (make peers)"
)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
ENERGY, EXPORT, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255)
REGISTERS = [(ENERGY, 123_456_789_012, -1, 30), (EXPORT, 17, 0, 30), (POWER, -250, 0, 27)]
KEYS = Keys(bytes(range(16)), bytes(range(16, 32)))
CLIENT_TITLE, METER_TITLE = b"SMG\x00\x00\x00\x00\x01", b"STK\x00\x00\x00\x00\x01"
SERVER = {
    ("NONE", False): ServerSettings(),
    ("NONE", True): ServerSettings(keys=KEYS, system_title=METER_TITLE),
    ("LLS", False): ServerSettings(Mechanism.LLS, b"12345678"),
    ("LLS", True): ServerSettings(Mechanism.LLS, b"12345678", KEYS, METER_TITLE),
    ("HLS_GMAC", True): ServerSettings(Mechanism.HLS_GMAC, b"meterchallenge01", KEYS, METER_TITLE),
}
GURUX = {"NONE": "NONE", "LLS": "LOW", "HLS_GMAC": "HIGH_GMAC"}


def meter(settings: ServerSettings, rows: int = 60, **more: Any) -> DlmsServer:
    now = [NOON]
    objects = CosemObjects("1STK0000000001", lambda _: REGISTERS, lambda: now[0])
    for _ in range(rows):
        objects.capture()
        now[0] += timedelta(minutes=15)
    return DlmsServer(objects, ServerSettings(**{name: getattr(settings, name) for name in settings.__slots__} | more))


async def run_peer(script: str, what: dict[str, Any]) -> Any:
    command = [str(PYTHON), str(HERE / script), json.dumps(what)]
    with trio.fail_after(120):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout.splitlines()[-1])  # gurux-dlms prints what it decrypts


@asynccontextmanager
async def on_tcp(server: DlmsServer) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(serve_tcp, lambda: server, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def on_serial(server: DlmsServer, address: Address, capabilities: Parameters | None = None) -> AsyncIterator[str]:
    async with serial_bus() as (ours, theirs), open_serial(ours) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(serve_hdlc, server, stream, address, capabilities)
        yield theirs
        nursery.cancel_scope.cancel()


def check_gurux(seen: dict[str, Any], server: DlmsServer) -> None:
    expected = [
        [".".join(map(str, code)), str(Decimal(value).scaleb(scaler)), unit] for code, value, scaler, unit in REGISTERS
    ]
    assert [[code, value, unit] for code, value, _, unit in seen["registers"]] == expected
    assert (seen["rows"], seen["columns"]) == (60, 4)
    assert seen["by_entry"] == 3
    assert server.objects.message == octets(b"hello from gurux" * 40)
    assert bytes.fromhex(seen["message"]) == b"hello from gurux" * 40


@pytest.mark.parametrize(("authentication", "ciphered"), SERVER)
async def test_gurux_reads_our_meter_over_tcp(authentication: str, ciphered: bool) -> None:
    server = meter(SERVER[authentication, ciphered], pdu_size_max=512)
    async with on_tcp(server) as port:
        what: dict[str, Any] = {"port": port, "hdlc": False, "pdu_size_max": 512, "ciphered": ciphered}
        what |= {"authentication": GURUX[authentication], "password": "12345678"}
        check_gurux(await run_peer("dlms_peer_gurux_client.py", what), server)


@pytest.mark.parametrize(("authentication", "ciphered"), [("LLS", False), ("HLS_GMAC", True)])
async def test_gurux_reads_our_meter_over_a_serial_line(authentication: str, ciphered: bool) -> None:
    server = meter(SERVER[authentication, ciphered], pdu_size_max=512)
    async with on_serial(server, Address(1), Parameters(128, 128)) as path:
        what: dict[str, Any] = {"path": path, "hdlc": True, "pdu_size_max": 512, "ciphered": ciphered}
        what |= {"authentication": GURUX[authentication], "password": "12345678"}
        check_gurux(await run_peer("dlms_peer_gurux_client.py", what), server)


def check_dlms_cosem(seen: dict[str, Any]) -> None:
    assert seen["profile_rows"] == 60
    for code, value, scaler, unit in REGISTERS:
        sent_value, sent_scale = seen["registers"][code.to_bytes().hex()]
        assert decode_data(bytes.fromhex(sent_value)).value == value
        assert scaler_unit(decode_data(bytes.fromhex(sent_scale))) == (scaler, unit)


async def test_gurux_reads_our_austrian_meters_push() -> None:
    """The meter that `stromkreis meters --protocol dlms-mbus` is, off its line."""
    (home,) = households(MetersConfig(count=1, protocols=("dlms-mbus",)))
    austrian = speaker("dlms-mbus", home, SimulatedClock(0.0, 0.1), seed=1, serial=False)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(austrian.serve, theirs)
        frames = bytes(await ours.receive_some())
        nursery.cancel_scope.cancel()
    seen = await run_peer("dlms_peer_gurux_push.py", {"frames": frames.hex(), **austrian.keys})
    keys = "".join(austrian.keys[name] for name in ("encryption", "authentication"))
    found = [item for item in dlms_stream([frames], bytes.fromhex(keys)) if isinstance(item, Reading)]
    read = [(r.obis, r) for r in found if r.obis is not None and r.unit is not None]
    assert {r.quality for _, r in read} == {Quality.VALID}
    assert seen["frames"] == 2
    assert seen["rows"][2:] == [[obis.to_bytes().hex(), r.value, [r.scaler, r.unit]] for obis, r in read]
    assert [obis for obis, _ in read] == [ENERGY, EXPORT, POWER]
    assert read[0][1].decimal() > 0


CODES = [code.to_bytes().hex() for code, *_ in REGISTERS]


@pytest.mark.parametrize(("authentication", "ciphered"), [("NONE", False), ("LLS", False), ("HLS_GMAC", True)])
async def test_dlms_cosem_reads_our_meter_over_tcp(authentication: str, ciphered: bool) -> None:
    server = meter(SERVER[authentication, ciphered], pdu_size_max=512)
    async with on_tcp(server) as port:
        what: dict[str, Any] = {
            "port": port,
            "authentication": authentication,
            "ciphered": ciphered,
            "registers": CODES,
        }
        check_dlms_cosem(await run_peer("dlms_peer_dlms_cosem.py", what))


async def test_dlms_cosem_reads_our_meter_over_a_serial_line() -> None:
    """Plain only: this version waits for ever where a flag's byte stands inside a frame, as ciphered text has it."""
    server = meter(SERVER["LLS", False], pdu_size_max=512)
    async with on_serial(server, Address(1, 17, 2), Parameters(128, 128)) as path:
        what: dict[str, Any] = {"path": path, "authentication": "LLS", "ciphered": False, "registers": CODES}
        check_dlms_cosem(await run_peer("dlms_peer_dlms_cosem.py", what))


@asynccontextmanager
async def gurux_meter(
    told: list[Any], *, authentication: str, ciphered: bool, hdlc: bool = False
) -> AsyncIterator[trio.SocketStream]:
    """gurux-dlms as a meter in its own process; what it says at the end is appended to `told`."""
    what = {"authentication": GURUX[authentication], "password": "12345678", "ciphered": ciphered, "pdu_size_max": 256}
    what["hdlc"] = hdlc
    command = [str(PYTHON), str(HERE / "dlms_peer_gurux_server.py"), json.dumps(what)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE))
        said = b""
        with trio.fail_after(120):
            while not (line := said.partition(b"\n"))[1]:
                said += await process.stdout.receive_some()
            yield await trio.open_tcp_stream("127.0.0.1", json.loads(line[0])["port"])
            async for piece in process.stdout:
                said += piece
        told.append(json.loads(said.splitlines()[-1]))


@pytest.mark.parametrize("hdlc", [False, True])
@pytest.mark.parametrize(("authentication", "ciphered"), SERVER)
async def test_our_client_reads_gurux_meter(authentication: str, ciphered: bool, hdlc: bool) -> None:
    """A meter that nobody here wrote: registers, objects, blocks, selection, lists, set, action, HLS and ciphers."""
    secret = {"NONE": b"", "LLS": b"12345678", "HLS_GMAC": b"clientchallenge1"}[authentication]
    keys: dict[str, Any] = {"keys": KEYS, "system_title": CLIENT_TITLE} if ciphered else {}
    what = MeterSettings("1GRX0000000007", Association(Mechanism[authentication], secret, **keys))
    energy, power, message = (3, ENERGY), (3, POWER), (1, Obis(0, 0, 96, 13, 0, 255))
    load_profile = (7, Obis(1, 0, 99, 1, 0, 255))
    told: list[Any] = []
    async with gurux_meter(told, authentication=authentication, ciphered=ciphered, hdlc=hdlc) as stream:
        link = HdlcLink(HdlcBus(stream), Address(16), Address(1), Parameters(128, 128))
        transport: Transport = HdlcTransport(link) if hdlc else WrapperTransport(stream)
        session = MeterSession(transport, what)
        await session.open()
        assert await session.objects() == [
            (15, Obis(0, 0, 40, 0, 0, 255)), (8, Obis(0, 0, 1, 0, 0, 255)), energy, power, message, load_profile
        ]  # fmt: skip
        readings = await session.read_registers()
        assert [(r.obis, r.value, r.scaler, r.unit) for r in readings] == [
            (ENERGY, 123_456_789, -1, 30), (POWER, -250, 0, 27)
        ]  # fmt: skip
        assert {r.measured_at and r.measured_at.replace(tzinfo=None) for r in readings} == {NOON.replace(tzinfo=None)}
        assert await session.get(*message, 2) == octets(b"x" * 700)
        rows = await session.profile(load_profile[1])
        assert [(r.value, r.scaler, r.unit) for r in rows] == [(1000 + n, -1, 30) for n in range(60)]
        half_hour: dict[str, Any] = {
            "begin": NOON.replace(tzinfo=None),
            "end": NOON.replace(tzinfo=None) + timedelta(minutes=30),
        }
        assert [r.value for r in await session.profile(load_profile[1], **half_hour)] == [1000, 1001, 1002]
        assert [r.value for r in await session.profile(load_profile[1], entries=(59, 60))] == [1058, 1059]
        absent = Attribute(3, Obis(1, 0, 9, 8, 0, 255), 2)
        listed = await session.get_list([Attribute(*energy, 2)] * 40 + [absent])
        assert [item if isinstance(item, int) else item.value for item in listed] == [123_456_789] * 40 + [4]
        with pytest.raises(RemoteProtocolError, match="dlms_access_object_undefined"):
            await session.get(3, absent.obis, 2)
        for text in (b"short", b"longer than a message " * 40):
            await session.set(*message, 2, octets(text))
            assert await session.get(*message, 2) == octets(text)
        assert await session.action(*load_profile, 2, Data(Type.INTEGER, 0)) is None
        await session.close()
        await stream.aclose()
    name = "0.0.96.13.0.255"
    assert [(code, bytes.fromhex(text)) for code, text in told[0]["written"]] == [
        (name, b"short"), (name, b"longer than a message " * 40)
    ]  # fmt: skip
    assert told[0]["called"] == [["1.0.99.1.0.255", 2]]


async def test_gurux_meter_refuses_a_wrong_password() -> None:
    async with gurux_meter([], authentication="LLS", ciphered=False) as stream:
        wrong = MeterSettings("1GRX0000000007", Association(Mechanism.LLS, b"87654321"))
        session = MeterSession(WrapperTransport(stream), wrong)
        with pytest.raises(RemoteProtocolError, match="dlms_association"):
            await session.open()
        await stream.aclose()
