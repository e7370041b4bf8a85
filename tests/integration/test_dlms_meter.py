"""Our DLMS client against our meter, over real TCP and over pseudo-terminals: every way of security and of blocks."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
import trio.testing

from loadtest.meters.dlms import DlmsServer, ServerSettings, push_frames, serve_hdlc, serve_tcp
from loadtest.meters.dlms_objects import LOAD_PROFILE, MESSAGE, CosemObjects, Register
from loadtest.meters.mode_e import serve_mode_e
from loadtest.meters.serial_bus import serial_bus
from node.lmn.dlms.acse import Mechanism
from node.lmn.dlms.adapter import DlmsPoll
from node.lmn.dlms.axdr import octets
from node.lmn.dlms.client import DEFAULT_CONFORMANCE, Association, Conformance
from node.lmn.dlms.driver import HdlcSettings, MeterSession, MeterSettings, hdlc_transport, pushes, read_meter
from node.lmn.dlms.handover import hand_over
from node.lmn.dlms.push import PushReceiver
from node.lmn.dlms.security import InvocationCounter, Keys, ReplayGuard
from node.lmn.dlms.transport import WrapperTransport
from node.lmn.hdlc.frame import Address
from node.lmn.hdlc.link import HdlcBus
from node.lmn.hdlc.primary import Timing
from node.lmn.hdlc.station import Parameters
from node.lmn.iec62056_21.checks import with_even_parity
from node.lmn.profiles import MeterProfile
from node.lmn.serial_link import open_serial
from node.lmn.session import LmnStores
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
ENERGY, POWER, EXPORT = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 16, 7, 0, 255), Obis(1, 0, 2, 8, 0, 255)
REGISTERS = [(ENERGY, 123_456_789_012, -1, 30), (EXPORT, 17, 0, 30), (POWER, -250, 0, 27)]
KEYS = Keys(bytes(range(16)), bytes(range(16, 32)))
KEYS_SUITE_2 = Keys(bytes(range(32)), bytes(range(32, 64)), suite=2)
METER_TITLE, CLIENT_TITLE = b"STK\x00\x00\x00\x00\x01", b"SMG\x00\x00\x00\x00\x01"
FAST = Timing(response_timeout_s=0.3, poll_interval_s=0.005)


class Clock:
    now = NOON

    def __call__(self) -> datetime:
        return self.now


def meter(settings: ServerSettings | None = None, rows: int = 0, registers: list[Register] = REGISTERS) -> DlmsServer:
    clock = Clock()
    objects = CosemObjects("1STK0000000001", lambda _: registers, clock)
    for _ in range(rows):
        objects.capture()
        clock.now += timedelta(minutes=15)
    return DlmsServer(objects, settings)


def settings(association: Association | None = None, **more: Any) -> MeterSettings:
    return MeterSettings(
        "1STK0000000001", association or Association(), exchange_timeout_s=5, session_timeout_s=10, **more
    )


@asynccontextmanager
async def tcp(server: DlmsServer) -> AsyncIterator[trio.SocketStream]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(serve_tcp, lambda: server, listeners)
        port = listeners[0].socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield stream
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def line() -> AsyncIterator[tuple[trio.abc.Stream, trio.abc.Stream, trio.Nursery]]:
    async with (
        serial_bus() as (ours, theirs),
        open_serial(ours) as a,
        open_serial(theirs) as b,
        trio.open_nursery() as nursery,
    ):
        yield a, b, nursery
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serial(
    server: DlmsServer, address: Address | None = None, capabilities: Parameters | None = None
) -> AsyncIterator[trio.abc.Stream]:
    async with line() as (a, b, nursery):
        nursery.start_soon(serve_hdlc, server, b, address or Address(1), capabilities)
        yield a


def numbers(readings: Iterable[Reading]) -> list[tuple[Any, ...]]:
    return [(r.obis, r.value, r.scaler, r.unit) for r in readings]


WAYS = {
    "plain": (Association(), ServerSettings()),
    "lls": (Association(Mechanism.LLS, b"12345678"), ServerSettings(Mechanism.LLS, b"12345678")),
    "ciphered": (
        Association(keys=KEYS, system_title=CLIENT_TITLE),
        ServerSettings(keys=KEYS, system_title=METER_TITLE),
    ),
    "lls-ciphered": (
        Association(Mechanism.LLS, b"12345678", keys=KEYS, system_title=CLIENT_TITLE),
        ServerSettings(Mechanism.LLS, b"12345678", keys=KEYS, system_title=METER_TITLE),
    ),
    "hls-gmac": (
        Association(Mechanism.HLS_GMAC, b"clientchallenge1", keys=KEYS, system_title=CLIENT_TITLE),
        ServerSettings(Mechanism.HLS_GMAC, b"meterchallenge01", keys=KEYS, system_title=METER_TITLE),
    ),
    "hls-general-glo": (
        Association(Mechanism.HLS_GMAC, b"clientchallenge1", keys=KEYS, system_title=CLIENT_TITLE, general=True),
        ServerSettings(Mechanism.HLS_GMAC, b"meterchallenge01", keys=KEYS, system_title=METER_TITLE),
    ),
    "hls-suite-1": (
        Association(Mechanism.HLS_GMAC, b"clientchallenge1", keys=replace(KEYS, suite=1), system_title=CLIENT_TITLE),
        ServerSettings(Mechanism.HLS_GMAC, b"meterchallenge01", keys=replace(KEYS, suite=1), system_title=METER_TITLE),
    ),
    "hls-suite-2": (
        Association(Mechanism.HLS_GMAC, b"clientchallenge1", keys=KEYS_SUITE_2, system_title=CLIENT_TITLE),
        ServerSettings(Mechanism.HLS_GMAC, b"meterchallenge01", keys=KEYS_SUITE_2, system_title=METER_TITLE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
async def test_registers_over_tcp(way: str) -> None:
    association, server = WAYS[way]
    async with tcp(meter(server)) as stream:
        readings = await read_meter(stream, settings(association), now=lambda: NOON)
    assert numbers(readings) == REGISTERS
    assert {r.measured_at for r in readings} == {NOON}
    assert {r.quality for r in readings} == {Quality.VALID}


@pytest.mark.parametrize("way", ["plain", "lls", "hls-gmac", "hls-general-glo"])
@pytest.mark.parametrize(
    ("address", "parameters"),
    [
        (Address(1), Parameters()),
        (Address(1, 17, 2), Parameters(512, 512, 1, 1)),
        (Address(1, 0x3FFF, 4), Parameters(64, 48, 7, 7)),
    ],
)
async def test_registers_over_a_serial_bus(way: str, address: Address, parameters: Parameters) -> None:
    association, server = WAYS[way]
    hdlc = HdlcSettings(Address(16), address, parameters, FAST)
    async with serial(meter(server), address, parameters) as stream:
        assert numbers(await read_meter(stream, settings(association), hdlc=hdlc)) == REGISTERS


@pytest.mark.parametrize("general_block", [False, True])
@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("way", ["plain", "hls-gmac"])
async def test_a_profile_comes_in_blocks(way: str, general_block: bool, window: int) -> None:
    association, server = WAYS[way]
    server = replace(server, pdu_size_max=256, general_block=general_block, block_window=window)
    async with tcp(meter(server, rows=100)) as stream:
        session = MeterSession(WrapperTransport(stream), settings(association))
        await session.open()
        everything = await session.profile(LOAD_PROFILE)
        assert len(everything) == 300
        assert numbers(everything[:3]) == REGISTERS
        hour = await session.profile(LOAD_PROFILE, begin=NOON, end=NOON + timedelta(minutes=45))
        assert [r.measured_at for r in hour[::3]] == [NOON + timedelta(minutes=15 * n) for n in range(4)]
        some = await session.profile(LOAD_PROFILE, entries=(99, 0))
        assert [r.measured_at for r in some[::3]] == [NOON + timedelta(minutes=15 * n) for n in (98, 99)]
        await session.close()


@pytest.mark.parametrize("general_block", [False, True])
@pytest.mark.parametrize("size", [20, 5000])
async def test_set_and_action(general_block: bool, size: int) -> None:
    association, its_settings = WAYS["hls-gmac"]
    conformance = DEFAULT_CONFORMANCE & ~(Conformance.BLOCK_SET if general_block else 0)
    association = replace(association, conformance=conformance)
    server = meter(replace(its_settings, pdu_size_max=256, general_block=general_block))
    async with tcp(server) as stream:
        session = MeterSession(WrapperTransport(stream), settings(association))
        await session.open()
        text = octets(bytes(n % 251 for n in range(size)))
        await session.set(1, MESSAGE, 2, text)
        assert server.objects.message == text
        assert await session.get(1, MESSAGE, 2) == text
        assert await session.action(7, LOAD_PROFILE, 2) is None
        assert len(await session.profile(LOAD_PROFILE)) == 3
        with pytest.raises(RemoteProtocolError, match="dlms_access_read_write_denied"):
            await session.set(3, ENERGY, 2, text)
        await session.close()


async def test_a_refused_register_costs_only_itself() -> None:
    wanted = [(3, ENERGY), (3, Obis(1, 0, 99, 99, 0, 255)), (3, POWER)]
    async with tcp(meter()) as stream:
        readings = await read_meter(stream, settings(registers=wanted))
    assert [r.quality for r in readings] == [Quality.VALID, Quality.METER_ERROR, Quality.VALID]
    assert readings[1].record == {"refused": "dlms_access_object_undefined"}


@pytest.mark.parametrize(
    ("way", "change", "reason"),
    [
        ("lls", {"secret": b"87654321"}, "dlms_association"),
        ("ciphered", {"keys": replace(KEYS, encryption=bytes(16))}, "dlms_"),
        ("ciphered", {"keys": replace(KEYS, authentication=bytes(16))}, "dlms_"),
        ("hls-gmac", {"keys": replace(KEYS, authentication=bytes(16))}, "dlms_"),
        ("hls-gmac", {"meter_title": b"STRANGER"}, "dlms_system_title"),
        ("plain", {"mechanism": Mechanism.LLS}, "dlms_association"),
    ],
)
async def test_wrong_secrets_give_no_reading(way: str, change: dict[str, Any], reason: str) -> None:
    association, server = WAYS[way]
    async with tcp(meter(server)) as stream:
        with pytest.raises(RemoteProtocolError, match=reason):
            await read_meter(stream, settings(replace(association, **change)))


async def test_counters_rise_and_survive_a_session() -> None:
    association, its_settings = WAYS["hls-gmac"]
    highest: dict[bytes, int] = {}
    server = meter(its_settings)
    counter = InvocationCounter(7, 1000)

    async def session() -> list[Reading]:
        guard = ReplayGuard(highest, highest.__setitem__)
        async with tcp(server) as stream:
            return await read_meter(stream, settings(association), counter=counter, guard=guard)

    assert numbers(await session()) == REGISTERS
    left_after_one, meter_at = counter.left, highest[METER_TITLE]
    assert left_after_one < 993
    assert numbers(await session()) == REGISTERS
    assert counter.left < left_after_one
    assert highest[METER_TITLE] > meter_at


async def test_a_counter_that_fell_back_is_refused_on_both_sides() -> None:
    association, server_settings = WAYS["hls-gmac"]
    server = meter(server_settings)
    async with tcp(server) as stream:
        await read_meter(stream, settings(association), counter=InvocationCounter(1000))
    async with tcp(server) as stream:
        with pytest.raises(RemoteProtocolError):
            await read_meter(stream, settings(association), counter=InvocationCounter(1000))
    guard = ReplayGuard({METER_TITLE: 5000})
    async with tcp(server) as stream:
        with pytest.raises(RemoteProtocolError, match="dlms_replay"):
            await read_meter(stream, settings(association), counter=InvocationCounter(2000), guard=guard)


class Noisy(trio.abc.Stream):
    """A line that spoils or swallows what passes, by plan: the n-th transmission meets plan[n]."""

    def __init__(self, stream: trio.abc.Stream, plan: Iterable[str]) -> None:
        self._stream, self._plan = stream, list(plan)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        what = self._plan.pop(0) if self._plan else "pass"
        if what == "spoil":
            data = bytes(data[:-4]) + bytes([data[-4] ^ 1]) + bytes(data[-3:])
        if what != "drop":
            await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@pytest.mark.parametrize("side", ["question", "answer"])
@pytest.mark.parametrize("fault", ["drop", "spoil"])
@pytest.mark.parametrize("at", range(6))
async def test_hdlc_repairs_a_lost_or_spoilt_frame_anywhere(
    side: str, fault: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ["pass"] * at + [fault]
    server = meter(replace(WAYS["lls"][1]))
    asked, original = [], server.objects.get
    monkeypatch.setattr(server.objects, "get", lambda *what: asked.append(what) or original(*what))
    async with line() as (a, b, nursery):
        meter_line = Noisy(b, plan) if side == "answer" else b
        gateway_line = Noisy(a, plan) if side == "question" else a
        nursery.start_soon(serve_hdlc, server, meter_line, Address(1))
        hdlc = HdlcSettings(timing=Timing(response_timeout_s=0.05, poll_interval_s=0.005))
        wanted = [(3, ENERGY), (3, POWER)]
        readings = await read_meter(gateway_line, settings(WAYS["lls"][0], registers=wanted), hdlc=hdlc)
    assert numbers(readings) == [REGISTERS[0], REGISTERS[2]]
    assert len(asked) == 5  # clock, and scaler and value of two registers: nothing was asked twice


class Slow(Noisy):
    """A line on which every byte takes its time."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for byte in data:
            await trio.sleep(0.001)
            await self._stream.send_all(bytes([byte]))


async def test_a_frame_longer_than_the_answer_timeout_is_still_heard() -> None:
    server = meter()
    server.objects.message = octets(bytes(200))
    async with line() as (a, b, nursery):
        nursery.start_soon(serve_hdlc, server, Slow(b, []), Address(1), Parameters(500, 500))
        timing = Timing(response_timeout_s=0.1, retry_count_max=0)
        transport = hdlc_transport(HdlcBus(a), HdlcSettings(parameters=Parameters(500, 500), timing=timing))
        session = MeterSession(transport, settings())
        await session.open()
        assert await session.get(1, MESSAGE, 2) == server.objects.message
        await session.close()


async def test_two_meters_on_one_bus() -> None:
    first, second = meter(), meter(registers=[(ENERGY, 4711, 0, 30)])
    async with (
        serial_bus(3) as paths,
        open_serial(paths[0]) as ours,
        open_serial(paths[1]) as one,
        open_serial(paths[2]) as two,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve_hdlc, first, one, Address(1, 17, 2))
        nursery.start_soon(serve_hdlc, second, two, Address(1, 18, 2))
        bus = HdlcBus(ours)
        values = {}

        async def read(physical: int) -> None:
            transport = hdlc_transport(bus, HdlcSettings(server=Address(1, physical, 2), timing=FAST))
            session = MeterSession(transport, settings())
            await session.open()
            values[physical] = numbers(await session.read_registers())
            await session.close()

        async with trio.open_nursery() as readers:
            readers.start_soon(read, 17)
            readers.start_soon(read, 18)
        nursery.cancel_scope.cancel()
    assert values == {17: REGISTERS, 18: [(ENERGY, 4711, 0, 30)]}


async def test_a_silent_bus_is_an_error_within_its_time() -> None:
    hdlc = HdlcSettings(timing=Timing(response_timeout_s=0.01, retry_count_max=2))
    async with serial_bus() as (ours, _), open_serial(ours) as stream:
        with pytest.raises(RemoteProtocolError, match="hdlc_timeout"):
            await read_meter(stream, settings(), hdlc=hdlc)


async def test_a_silent_tcp_meter_is_an_error_within_its_time() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    patient = MeterSettings("x", exchange_timeout_s=0.02, session_timeout_s=1)
    with pytest.raises(RemoteProtocolError, match="dlms_timeout"):
        await read_meter(ours, patient)
    await theirs.aclose()


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("size", [2000, 60])
async def test_pushes_over_a_serial_line(sealed: bool, size: int) -> None:
    """Whole telegrams: an account takes a register that is not beside the others for one that the meter lacks."""
    server = meter(ServerSettings(keys=KEYS, system_title=METER_TITLE))
    frames = push_frames(server.notification(sealed=sealed), Address(1), Address(16), size)
    replayed = frames
    receiver = PushReceiver("fallback", KEYS if sealed else None)
    got = []
    async with line() as (a, b, _):
        await b.send_all(frames + replayed)

        async def listen() -> None:
            async for batch in pushes(a, receiver, silence_timeout_s=0.1, now=lambda: NOON):
                got.append(batch)

        with pytest.raises(RemoteProtocolError, match="dlms_silence"):
            await listen()
    first, again = got
    readings = [item for item in first if isinstance(item, Reading)]
    assert numbers(readings)[2:5] == REGISTERS
    if sealed:
        assert [getattr(item, "reason", None) for item in again] == ["dlms_replay"]
    else:
        assert numbers(item for item in again if isinstance(item, Reading))[2:5] == REGISTERS
    assert {(r.device, r.measured_at, r.quality) for r in readings} == {("1STK0000000001", NOON, Quality.VALID)}


async def test_behind_an_optical_head_the_meter_is_brought_to_hdlc_and_read_twice() -> None:
    """IEC 62056-21 annex E: 300 baud with even parity, then HDLC at the agreed speed; anew after a disconnection."""
    async with serial_bus() as (ours, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(serve_mode_e, meter(), open_serial(theirs, 300), Address(1))
        link = f"serial://{ours}?baud=300&frame=8N1"
        profile = MeterProfile(device="1STK0000000001", protocol="dlms", link=link, address="hdlc:16/1", mode_e=True)
        session = DlmsPoll([profile], LmnStores())
        async with open_serial(ours, 300) as stream:
            for _ in range(2):
                readings = await session.ask(stream, profile, NOON.timestamp)
                values = {item.obis: item.value for item in readings if isinstance(item, Reading)}
                assert values == {obis: value for obis, value, _, _ in REGISTERS}
                assert stream.baudrate == 9600
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([b"/STK5STKE\r\n"], "mode_e_missing"),
        ([b"/STKC\\2STKE\r\n"], "mode_e_missing"),
        ([b"/STK5\\2STKE\r\n", b"\x0605"], "mode_e_refused"),
        ([], "silent"),
    ],
)
async def test_a_hand_over_that_does_not_come_about_is_named(
    autojump_clock: trio.testing.MockClock, answers: list[bytes], reason: str
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def play() -> None:
        for answer in answers:
            await theirs.receive_some()
            await theirs.send_all(answer)
        while await theirs.receive_some():
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        with pytest.raises(RemoteProtocolError, match=reason):
            await hand_over(ours)
        nursery.cancel_scope.cancel()


async def test_a_head_without_slash_or_speed_change_stays_at_300_baud() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    heard: list[bytes] = []

    async def play() -> None:
        heard.append(bytes(await theirs.receive_some()))
        await theirs.send_all(with_even_parity(b"STK5\\2STKE\r\n"))
        heard.append(bytes(await theirs.receive_some()))
        await theirs.send_all(heard[-1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        assert await hand_over(ours) == 300
    assert heard == [with_even_parity(b"/?!\r\n"), with_even_parity(b"\x06202\r\n")]
