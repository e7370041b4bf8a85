"""Each protocol through the runtime: a simulated meter on real TCP or a pseudo-terminal, read by its profile alone."""

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from pydantic import SecretStr

from loadtest.meters import dlms, mbus, p1, sml_server, wmbus
from loadtest.meters.dlms_objects import CosemObjects
from loadtest.meters.serial_bus import serial_bus
from loadtest.meters.sml import SmlMeter
from node.lmn.dlms.acse import Mechanism
from node.lmn.dlms.security import Keys
from node.lmn.events import LmnEvent
from node.lmn.hdlc.frame import Address
from node.lmn.links import open_link
from node.lmn.mbus.adapter import MBusPoll
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.link import FCB, REQ_UD2, RSP_UD, SND_NKE, LongFrame
from node.lmn.profiles import MeterProfile
from node.lmn.runtime import Backoff, Periodic, run_meters
from node.lmn.serial_link import open_serial
from node.lmn.session import LmnStores
from node.lmn.sml.bodies import GetProcParameterRequest, Message
from node.metering.interval import Arrival
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import WATT, WATT_HOUR

IMPORT = Obis(1, 0, 1, 8, 0, 255)
KEY, AUTHENTICATION = bytes(range(16)), bytes(range(16, 32))
DEVICE = DeviceAddress.from_text("1SKR0112345678", 2)
WIRES = "1SKR0112345678"
TITLE = b"STK\x00\x00\x00\x00\x01"
GATEWAY = "ESKR0100000001"


def registers(now: datetime) -> list[tuple[Obis, int, int, int]]:
    return [(IMPORT, 1234567, 0, WATT_HOUR), (Obis(1, 0, 16, 7, 0, 255), 1234, -1, WATT)]


def now() -> datetime:
    return datetime.now(UTC)


async def read_twice(
    *profiles: MeterProfile, period_s: float = 0.3, stores: LmnStores | None = None
) -> tuple[dict[str, list[Reading]], list[LmnEvent]]:
    """Run until every profile's meter has given its import register twice; it must be read within a period."""
    got: dict[str, list[Reading]] = {profile.device: [] for profile in profiles}
    events: list[LmnEvent] = []
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:

            async def deliver(readings: list[Reading], _arrival: Arrival) -> None:
                for reading in readings:
                    if reading.obis == IMPORT:
                        got[reading.device].append(reading)
                if all(len(each) >= 2 for each in got.values()):
                    nursery.cancel_scope.cancel()

            schedule = Periodic(period_s)
            await run_meters(profiles, deliver, schedule, rng=Random(1), on_event=events.append, stores=stores)
    for reading in (reading for each in got.values() for reading in each):
        assert reading.decimal() == 1234567
        assert reading.unit == WATT_HOUR
        assert reading.received_at is not None
        assert abs(reading.received_at.timestamp() - time.time()) < 30
    return got, events


@contextlib.asynccontextmanager
async def serving(serve: Callable[..., Awaitable[Any]]) -> AsyncGenerator[str, None]:
    async with trio.open_nursery() as nursery:
        yield f"tcp://127.0.0.1:{await nursery.start(serve)}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("push", [False, True])
async def test_sml(push: bool) -> None:
    meter = SmlMeter(WIRES, registers, push_interval_s=0.05 if push else None)
    async with serving(partial(sml_server.serve, [meter], now)) as link:
        _, events = await read_twice(MeterProfile(device=WIRES, protocol="sml", link=link, push=push))
    assert events == []


async def test_named_sml_registers_are_asked_for_by_get_proc_parameter() -> None:
    """REQ.SML.CLI.RequestMeterData.10 to .30: one file, a request for each register, optional fields empty."""
    asked: list[Any] = []

    class Listening(SmlMeter):
        def respond(self, messages: Sequence[Message], now: datetime) -> bytes | None:
            asked.append([message.body for message in messages])
            return super().respond(messages, now)

    power = Obis(1, 0, 16, 7, 0, 255)
    async with serving(partial(sml_server.serve, [Listening(WIRES, registers)], now)) as link:
        profile = MeterProfile(device=WIRES, protocol="sml", link=link, registers=(IMPORT, power))
        _, events = await read_twice(profile)
    assert events == []
    first, second = asked[0], asked[1]
    requests = [body for body in first if isinstance(body, GetProcParameterRequest)]
    assert len(first) == 2 + len(requests)
    paths = [((0x8002).to_bytes(2, "big"), IMPORT.to_bytes()), ((3).to_bytes(2, "big"), power.to_bytes())]
    assert [body.parameter_tree_path for body in requests] == paths
    assert {(b.server_id, b.username, b.password, b.attribute) for b in requests} == {(None,) * 4}
    assert first[0].req_file_id != second[0].req_file_id


async def test_two_sml_meters_on_one_bus() -> None:
    meters = [SmlMeter(f"1SKR000000000{n}", registers) for n in (1, 2)]
    async with serving(partial(sml_server.serve, meters, now)) as link:
        profiles = [MeterProfile(device=m.device, address=m.device, protocol="sml", link=link) for m in meters]
        _, events = await read_twice(*profiles)
    assert events == []


@pytest.mark.parametrize("secured", [False, True])
async def test_dlms_over_tcp(secured: bool) -> None:
    keys: dict[str, Any] = {
        "encryption": KEY.hex(),
        "authentication": AUTHENTICATION.hex(),
        "system_title": b"SKR\0\0\0\0\x01".hex(),
    }
    settings = dlms.ServerSettings()
    if secured:
        settings = dlms.ServerSettings(
            Mechanism.HLS_GMAC, b"challenge-16-byte", Keys(KEY, AUTHENTICATION), b"SKR\0\0\0\0\x02"
        )

    async def serve(task_status: trio.TaskStatus[int]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listeners[0].socket.getsockname()[1])
        server = dlms.DlmsServer(CosemObjects(WIRES, registers, now), settings)  # one meter, with one counter
        await dlms.serve_tcp(lambda: server, listeners)

    async with serving(serve) as link:
        profile = MeterProfile(device=WIRES, protocol="dlms", link=link, keys=keys if secured else {})
        _, events = await read_twice(profile)
    assert events == []


async def test_dlms_over_hdlc_on_a_serial_line() -> None:
    async with serial_bus() as (ours, theirs), trio.open_nursery() as nursery:
        server = dlms.DlmsServer(CosemObjects(WIRES, registers, now))
        nursery.start_soon(dlms.serve_hdlc, server, open_serial(theirs, 9600), Address(1, 17, 2))
        link = f"serial://{ours}?baud=9600"
        _, events = await read_twice(MeterProfile(device=WIRES, protocol="dlms", link=link, address="16/1/17"))
        nursery.cancel_scope.cancel()
    assert events == []


@pytest.mark.parametrize("address", ["5", "12345678", ""])
async def test_mbus(address: str) -> None:
    meter = mbus.MBusMeter(DEVICE, registers, now, primary=5)
    async with serving(partial(mbus.serve, [meter])) as link:
        profile = MeterProfile(device=WIRES, protocol="mbus", link=f"{link}?latency=0.2", address=address)
        _, events = await read_twice(profile, period_s=1.5)  # selecting waits for meters that were selected before
    assert events == []


def sealed_frames(mode: int) -> Callable[[], LongFrame]:
    """A wired meter that encrypts sends the layers of a wireless one; a radio of its own makes the header long."""
    radio = DeviceAddress.from_text("FRAD0187654321", 0x37)
    meter = wmbus.WirelessMeter(DEVICE, registers, now, key=KEY, mode=mode, radio=radio)  # type: ignore[arg-type]

    def frame() -> LongFrame:
        layers = meter.datagram()[10:]
        return LongFrame(RSP_UD, 1, layers[0], layers[1:])

    return frame


@pytest.mark.parametrize("mode", [5, 7, 10])
async def test_a_wired_mbus_meter_that_encrypts_is_read_with_the_profiles_key(mode: int) -> None:
    meter = mbus.MBusMeter(DEVICE, registers, now, primary=1, sealed=sealed_frames(mode))
    async with serving(partial(mbus.serve, [meter])) as link:
        keys: dict[str, Any] = {"encryption": KEY.hex()}
        profile = MeterProfile(device=str(DEVICE), protocol="mbus", link=link, address="1", keys=keys)
        stores = LmnStores()
        got, events = await read_twice(profile, period_s=1.0, stores=stores)
    assert events == []
    assert {reading.quality for reading in got[str(DEVICE)]} == {Quality.VALID}
    assert bool(stores.counters.taken(profile.device)) == (mode != 5)


def clear_frames(layers: bytes) -> Callable[[], LongFrame]:
    return lambda: LongFrame(RSP_UD, 1, layers[0], layers[1:])


RECORDS = bytes.fromhex("040301000000")
CLEAR = bytes([0x72]) + DEVICE.to_transport() + bytes(4) + RECORDS
FIXED = bytes.fromhex("73785634120A00E97E0100000035010000")


@pytest.mark.parametrize("layers", [CLEAR, bytes([0x90, 2, 0, 0]) + CLEAR, bytes([0x78]) + RECORDS, FIXED])
@pytest.mark.parametrize("meter_id", ["", "*"])
async def test_a_wired_mbus_meter_with_a_key_is_not_believed_in_the_clear(layers: bytes, meter_id: str) -> None:
    """In no shape: long header, fragmentation layer without a MAC, no header, fixed structure; nor is anyone else."""
    meter = mbus.MBusMeter(DEVICE, registers, now, primary=1, sealed=clear_frames(layers))
    async with serving(partial(mbus.serve, [meter])) as link:
        profile = MeterProfile(
            device=str(DEVICE), protocol="mbus", link=link, address="1", keys={"encryption": SecretStr(KEY.hex())},
            meter_id=meter_id,
        )  # fmt: skip
        async with await open_link(link) as stream:
            with pytest.raises(RemoteProtocolError, match="not_secured"):
                await MBusPoll([profile], LmnStores()).ask(stream, profile, time.time)


@pytest.mark.parametrize("protocol", ["sml", "dlms", "p1", "wmbus", "mbus"])
async def test_a_serial_device_that_is_unplugged_and_comes_back(tmp_path: Path, protocol: str) -> None:
    """Its reader hangs up or its path is gone; either is a named fault, and the meter is read again once it is back."""
    path = tmp_path / "meter"
    wire = mbus.MBusMeter(DEVICE, registers, now, primary=7)
    radio = wmbus.WirelessMeter(DEVICE, registers, now, key=KEY, mode=7)
    server = dlms.DlmsServer(CosemObjects(WIRES, registers, now))

    def message() -> bytes:
        match protocol:
            case "sml":
                return SmlMeter(WIRES, registers).push(now())
            case "dlms":
                return dlms.push_frames(server.notification(), Address(1), Address(16))
            case "p1":
                return p1.telegram(p1.P1Settings(WIRES), [registers(now())[0]], now())
        return wmbus.framed(radio.datagram(), "imst")

    async def plug(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            async with serial_bus() as (ours, theirs), open_serial(theirs) as device:
                path.symlink_to(ours)
                task_status.started(scope)
                if protocol == "mbus":
                    await mbus.serve_stream(device, [wire])
                while True:
                    await device.send_all(message())
                    await trio.sleep(0.05)

    tell_heard, heard = trio.open_memory_channel[None](math.inf)
    faults: list[str] = []
    gone = trio.Event()

    def on_event(event: LmnEvent) -> None:
        faults.append(event.kind)
        if event.kind in {"link_closed", "link_broken", "connection_closed"}:
            gone.set()

    async def deliver(readings: list[Reading], _arrival: Arrival) -> None:
        assert {reading.decimal() for reading in readings if reading.obis == IMPORT} == {1234567}
        tell_heard.send_nowait(None)

    profile = MeterProfile(
        device=WIRES, protocol=protocol, link=f"serial://{path}", push=protocol != "mbus", interval_s=60,
        address="7" if protocol == "mbus" else "",
        keys={"encryption": SecretStr(KEY.hex())} if protocol == "wmbus" else {},
    )  # fmt: skip
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    run_meters, [profile], deliver, Periodic(0.5), rng=Random(1), backoff=Backoff(0.05, 0.1),
                    on_event=on_event,
                )
            )  # fmt: skip
            for _ in range(2):
                scope = await nursery.start(plug)
                await heard.receive()
                scope.cancel()
                path.unlink()
                await gone.wait()
                while heard.statistics().current_buffer_used:
                    heard.receive_nowait()
            nursery.cancel_scope.cancel()
    assert "driver_defect" not in faults


@pytest.mark.parametrize("mode", [0, 5, 7])
async def test_wireless_mbus_with_a_neighbour(mode: Any) -> None:
    """That a neighbour's telegram cannot be read is no fault of anybody."""
    ours = wmbus.WirelessMeter(DEVICE, registers, now, key=KEY, mode=5)
    other = DeviceAddress.from_text("1SKR0187654321", 2)
    neighbour = wmbus.WirelessMeter(other, registers, now, key=AUTHENTICATION, mode=mode)
    async with serving(partial(wmbus.serve, [neighbour, ours], "imst", interval_s=0.05)) as link:
        radio = link.replace("tcp:", "radio:")
        profile = MeterProfile(device=WIRES, protocol="wmbus", link=radio, keys={"encryption": SecretStr(KEY.hex())})
        got, events = await read_twice(profile)
    assert {reading.quality for reading in got[WIRES]} == {Quality.VALID}
    assert events == []


@pytest.mark.parametrize(("module", "mode"), [("imst", 7), ("amber", 5)])
async def test_a_bidirectional_wireless_meter_is_asked_once_a_quarter_hour(module: Any, mode: Any) -> None:
    """It listens after it has spoken; a meter that does not is left in peace, and a stranger's window as well."""
    asked: dict[str, list[int]] = {}

    class Meter(wmbus.WirelessMeter):
        def answer(self, request: bytes) -> bytes | None:
            reply = super().answer(request)
            if reply is not None:
                asked.setdefault(str(self.device), []).append(request[1])
            return reply

    other, silent = (DeviceAddress.from_text(f"1SKR018765432{n}", 2) for n in (1, 2))
    meters = [
        Meter(DEVICE, registers, now, key=KEY, mode=mode, bidirectional=True),
        Meter(other, registers, now, bidirectional=True),
        Meter(silent, registers, now, key=KEY, mode=5),
    ]
    got: list[str] = []
    events: list[LmnEvent] = []
    async with serving(partial(wmbus.serve, meters, module, interval_s=0.02)) as link:
        radio = link.replace("tcp:", "radio:")
        profiles = [
            MeterProfile(
                device=name,
                protocol="wmbus",
                link=radio,
                keys={"encryption": SecretStr(KEY.hex())},
                address=f"{module}/{GATEWAY}",
            )
            for name in (WIRES, str(silent))
        ]
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:

                async def deliver(readings: list[Reading], _arrival: Arrival) -> None:
                    got.extend(reading.device for reading in readings if reading.obis == IMPORT)
                    if len(got) > 40:
                        nursery.cancel_scope.cancel()

                # Far from a border: the test must not last over one.
                began_s = trio.current_time()
                clock = lambda: 1_800_000_000.0 + trio.current_time() - began_s  # noqa: E731
                await run_meters(profiles, deliver, Periodic(), clock=clock, rng=Random(1), on_event=events.append)
    assert asked == {WIRES: [REQ_UD2 | FCB, SND_NKE]}
    assert set(got) == {WIRES, str(silent)}
    assert events == []


async def pushing(task_status: trio.TaskStatus[int], *, messages: list[bytes]) -> None:
    """A line that says these bytes, 20 times a second, one after the other and again from the first."""

    async def handle(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                for message in messages:
                    await stream.send_all(message)
                    await trio.sleep(0.05)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    task_status.started(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(handle, listeners)


async def test_sml_pushed_with_damage_costs_the_damaged_frame() -> None:
    good = SmlMeter(WIRES, registers).push(now())
    damaged = good.replace(good[40:44], b"\x00\x00\x00\x00", 1)
    async with serving(partial(pushing, messages=[damaged, good, damaged])) as link:
        _, events = await read_twice(MeterProfile(device=WIRES, protocol="sml", link=link, push=True))
    assert len(events) == 1


async def test_dlms_pushed() -> None:
    server = dlms.DlmsServer(CosemObjects(WIRES, registers, now))
    message = dlms.push_frames(server.notification(), Address(1), Address(16))
    async with serving(partial(pushing, messages=[message])) as link:
        _, events = await read_twice(MeterProfile(device=WIRES, protocol="dlms", link=link, push=True))
    assert events == []


async def test_dlms_pushed_on_the_mbus_of_austrian_meters() -> None:
    server = dlms.DlmsServer(
        CosemObjects(WIRES, registers, now), dlms.ServerSettings(keys=Keys(KEY, AUTHENTICATION), system_title=TITLE)
    )
    messages = [dlms.push_mbus_frames(server.notification(sealed=True), size_max=100) for _ in range(100)]
    keys: dict[str, Any] = {"encryption": KEY.hex(), "authentication": AUTHENTICATION.hex()}
    async with serving(partial(pushing, messages=messages)) as link:
        profile = MeterProfile(device=WIRES, protocol="dlms", link=link, push=True, address="mbus:", keys=keys)
        got, events = await read_twice(profile)
    assert {reading.quality for reading in got[WIRES]} == {Quality.VALID}
    assert events == []


async def test_encrypted_p1() -> None:
    keys = Keys(KEY, AUTHENTICATION)
    plain = p1.telegram(p1.P1Settings(WIRES), [registers(now())[0]], now())
    messages = [p1.encrypted(plain, keys, TITLE, counter) for counter in range(1, 100)]
    told: dict[str, Any] = {"encryption": KEY.hex(), "authentication": AUTHENTICATION.hex()}
    async with serving(partial(pushing, messages=messages)) as link:
        got, events = await read_twice(MeterProfile(device=WIRES, protocol="p1", link=link, push=True, keys=told))
    assert {reading.quality for reading in got[WIRES]} == {Quality.VALID}
    assert events == []


async def test_impulses_outlive_their_link_and_are_not_for_billing() -> None:
    got: list[Reading] = []

    async def one_life(task_status: trio.TaskStatus[int]) -> None:
        async def handle(stream: trio.SocketStream) -> None:
            for _ in range(2):
                await stream.send_all(b"\x00")
                await trio.sleep(0.1)
            await stream.aclose()

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(handle, listeners)

    with trio.fail_after(120):
        async with serving(one_life) as link, trio.open_nursery() as nursery:

            async def deliver(readings: list[Reading], _arrival: Arrival) -> None:
                got.extend(readings)
                if len(got) >= 4:
                    nursery.cancel_scope.cancel()

            profile = MeterProfile(device=WIRES, protocol="s0", link=link, constant_imp_per_kwh=500)
            await run_meters([profile], deliver, Periodic(), rng=Random(1), on_event=lambda _: None)
    assert [reading.decimal() for reading in got[:4]] == [2, 4, 6, 8]
    assert {reading.quality for reading in got} == {Quality.NOT_FOR_BILLING}


@pytest.mark.parametrize(
    ("protocol", "more"),
    [
        ("mbus", {"address": "999"}),
        ("dlms", {"address": "somewhere"}),
        ("dlms", {"address": "somewhere", "push": True}),
        ("sml", {"address": "somewhere"}),
        ("wmbus", {"address": "crystal"}),
        ("s0", {}),
        ("wmbus", {"address": "raw/1SKR0100000001"}),
        ("wmbus", {"address": "imst/me"}),
    ],
)
async def test_a_profile_that_a_driver_cannot_use_is_refused_before_a_link_opens(
    protocol: str, more: dict[str, Any]
) -> None:
    async def untouched(*_: object) -> Any:
        raise AssertionError

    profile = MeterProfile(device=WIRES, protocol=protocol, link="tcp://127.0.0.1:1", **more)
    with pytest.raises(LocalProtocolError, match=r"address|radio|input|only receives"):
        await run_meters([profile], untouched, Periodic(0.1), rng=Random(1), open_stream=untouched)
