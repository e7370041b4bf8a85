"""What wired meters and their converters do in the field: late answers, stray octets, pages, a meter as primary."""

import json
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import SecretStr
from trio.testing import MockClock, memory_stream_pair

from loadtest.meters.mbus import MBusMeter, answers
from loadtest.meters.serial_bus import serial_bus
from node.lmn.mbus.adapter import MBUS, MBusPoll
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.driver import Bus, Timing
from node.lmn.mbus.link import Ack, FrameReader, LongFrame, ShortFrame, encode_frame
from node.lmn.profiles import MeterProfile
from node.lmn.serial_link import open_serial
from node.lmn.session import LmnStores
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

IMPORT, VOLTAGE = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 12, 7, 0, 255)
CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
FAST = Timing(baudrate=38400, latency_s=0.02)
VECTORS = {
    row["id"]: row
    for row in map(
        json.loads, (Path(__file__).parents[1] / "data/meters/mbus.jsonl").read_text(encoding="utf-8").splitlines()
    )
}


def device(number: int) -> DeviceAddress:
    return DeviceAddress.from_text(f"1ISK01{number:08d}", 2)


def meter(number: int, primary: int, **how: Any) -> MBusMeter:
    registers = [(IMPORT, number, 0, 30)] * 3
    return MBusMeter(device(number), lambda _: registers, lambda: CLOCK, primary=primary, **how)


def numbers(batch: Sequence[Reading | RemoteProtocolError]) -> list[Any]:
    return [item.value for item in batch if isinstance(item, Reading) and item.obis == IMPORT]


async def late_bus(stream: trio.abc.Stream, meters: Sequence[MBusMeter], delay_s: float) -> None:
    """Every answer comes `delay_s` after its question, also where another question has come since."""
    reader = FrameReader()

    async def reply(octets: bytes) -> None:
        await trio.sleep(delay_s)
        await stream.send_all(octets)

    async with trio.open_nursery() as nursery:
        while data := await stream.receive_some():
            for event in reader.feed(bytes(data)):
                if not isinstance(event, RemoteProtocolError) and (octets := answers(meters, event)):
                    nursery.start_soon(reply, octets)


@pytest.mark.parametrize(
    ("query", "delay_s"), [("", 1.0), ("", 1.1), ("latency=3", 3.0), ("latency=0.2", 0.4), ("latency=5", 4.0)]
)
@pytest.mark.parametrize("records_size_max", [220, 6])
async def test_late_answers_over_tcp_are_waited_for(
    autojump_clock: MockClock, query: str, delay_s: float, records_size_max: int
) -> None:
    ours, theirs = memory_stream_pair()
    profiles = [
        MeterProfile(device=f"1ISK01{n:08d}", protocol="mbus", link=f"tcp://h:1?{query}".rstrip("?"), address=str(n))
        for n in (1, 2)
    ]
    session = MBusPoll(profiles, LmnStores())
    async with trio.open_nursery() as nursery:
        meters = [meter(n, n, records_size_max=records_size_max) for n in (1, 2)]
        nursery.start_soon(late_bus, theirs, meters, delay_s)
        found = [numbers(await session.ask(ours, profile, CLOCK.timestamp)) for profile in profiles]
        assert found == [[1] * 3, [2] * 3]
        nursery.cancel_scope.cancel()


async def test_an_answer_to_a_repeated_question_is_not_the_next_meters(autojump_clock: MockClock) -> None:
    """By secondary address all meters answer as 253: only the order tells them apart."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(late_bus, theirs, [meter(1, 1, records_size_max=6), meter(2, 2)], 0.5)
        bus = Bus(ours, Timing(latency_s=0.3))
        assert numbers(await bus.read_meter(device(1))) == [1] * 3
        assert numbers(await bus.read_meter(device(2))) == [2] * 3
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("garbage", [b"\x00\xff", b"\xff", b"\x68", b"\x68\x68\x68", b"\x10\x10", b"\xe5\x16\xe5"])
async def test_octets_before_a_whole_answer_cost_nothing(garbage: bytes) -> None:
    async with serial_bus(2) as (here, there), trio.open_nursery() as nursery:

        async def noisy() -> None:
            reader, meters = FrameReader(), [meter(7, 7, records_size_max=6), meter(8, 8)]
            async with open_serial(there, 38400, 8, "E", 1) as line:
                while data := await line.receive_some():
                    for event in reader.feed(data):
                        if not isinstance(event, RemoteProtocolError) and (octets := answers(meters, event)):
                            await line.send_all(garbage + octets)

        nursery.start_soon(noisy)
        async with open_serial(here, 38400, 8, "E", 1) as stream:
            bus = Bus(stream, FAST)
            assert numbers(await bus.read_meter(7)) == [7] * 3
            assert numbers(await bus.read_meter(device(8))) == [8] * 3
        nursery.cancel_scope.cancel()


async def test_a_frame_with_a_wrong_check_sum_behind_garbage_is_no_answer(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()

    async def noisy() -> None:
        source = meter(7, 7)
        while data := await theirs.receive_some():
            (frame,) = FrameReader().feed(bytes(data))
            assert isinstance(frame, ShortFrame)
            octets = bytearray(source.answer(frame))
            octets[-2:-1] = bytes(octet ^ 1 for octet in octets[-2:-1])
            await theirs.send_all(b"\x00\xff" + octets)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(noisy)
        with pytest.raises(RemoteProtocolError, match="not_a_frame"):
            await Bus(ours, FAST).read_meter(7)
        nursery.cancel_scope.cancel()


class PagedMeter(MBusMeter):
    """Energies as it is, voltages after a command of the maker's own."""

    def __init__(self) -> None:
        super().__init__(device(9), self._shown, lambda: CLOCK, primary=9)
        self._page = b""

    def _shown(self, _: datetime) -> list[Any]:
        return [(VOLTAGE, 2301, -1, 35)] if self._page == b"\xb1" else [(IMPORT, 900, 0, 30)]

    def answer(self, frame: Any) -> bytes:
        if isinstance(frame, LongFrame) and frame.ci == 0xB1:
            self._page = bytes([frame.ci]) + frame.data
        return super().answer(frame)


@pytest.mark.parametrize("address", ["9", "1ISK0100000009"])
async def test_the_pages_that_a_profile_names_are_all_read(autojump_clock: MockClock, address: str) -> None:
    ours, theirs = memory_stream_pair()
    profile = MeterProfile(
        device="1ISK0100000009", protocol="mbus", link="tcp://h:1", address=address, pages=("default", "B1")
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(late_bus, theirs, [PagedMeter()], 0.01)
        batch = await MBusPoll([profile], LmnStores()).ask(ours, profile, CLOCK.timestamp)
        found = {item.obis: item.value for item in batch if isinstance(item, Reading) and item.obis is not None}
        assert found.keys() >= {IMPORT, VOLTAGE}
        nursery.cancel_scope.cancel()


async def pushed(key: str | None, frames: Sequence[bytes], answers: Sequence[bytes]) -> list[Any]:
    """What a gateway takes of a meter that pushes on a pseudo-terminal, and that the meter hears these answers."""
    keys = {} if key is None else {"encryption": SecretStr(key)}
    profile = MeterProfile(device="FSAM0170000051", protocol="mbus", link="serial:///dev/x", push=True, keys=keys)
    batches: list[Any] = []
    async with serial_bus(2) as (here, there), trio.open_nursery() as nursery:

        async def listen() -> None:
            assert MBUS.push is not None
            async with open_serial(here, 2400, 8, "E", 1) as stream:
                async for batch in MBUS.push([profile], LmnStores()).listen(stream, CLOCK.timestamp):
                    batches.append(batch)

        nursery.start_soon(listen)
        async with open_serial(there, 2400, 8, "E", 1) as line:
            for octets, answer in zip(frames, answers, strict=True):
                await line.send_all(octets)
                heard = b""
                with trio.move_on_after(120 if answer else 0.5):
                    heard = await line.receive_some()
                assert heard == answer
        nursery.cancel_scope.cancel()
    return batches


RESET = encode_frame(ShortFrame(0x40, 240))
ACK = encode_frame(Ack())


@pytest.mark.parametrize("vector", ["push-amis", "push-amis-mode-5"])
async def test_a_meter_that_pushes_is_acknowledged_and_read(vector: str) -> None:
    row = VECTORS[vector]
    batches = await pushed(row.get("key"), [RESET, bytes.fromhex(row["hex"])], [ACK, ACK])
    shown = [(str(each.obis), str(each.value), each.received_at) for batch in batches for each in batch]
    assert shown == [(obis, value, CLOCK) for _, obis, value, *_ in row["readings"]]


async def test_a_push_is_acknowledged_only_when_the_next_is_asked_for(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(bytes.fromhex(VECTORS["push-amis"]["hex"]))
    profile = MeterProfile(device="FSAM0170000051", protocol="mbus", link="serial:///dev/x", push=True)
    assert MBUS.push is not None
    batches = MBUS.push([profile], LmnStores()).listen(ours, CLOCK.timestamp)
    async with aclosing(batches), trio.open_nursery() as nursery:
        assert numbers(await anext(batches))
        with trio.move_on_after(1):
            pytest.fail(f"acknowledged before it was durable: {await theirs.receive_some()!r}")
        nursery.start_soon(anext, batches, None)
        assert await theirs.receive_some() == ACK
        nursery.cancel_scope.cancel()


async def test_what_is_damaged_or_for_others_is_not_acknowledged() -> None:
    whole = bytes.fromhex(VECTORS["push-amis"]["hex"])
    damaged = bytearray(whole)
    damaged[30] ^= 4
    command = encode_frame(LongFrame(0x53, 240, 0x51, b"\x01\x7a\x05"))
    other = encode_frame(ShortFrame(0x40, 5))
    batches = await pushed(None, [bytes(damaged), command, other, RESET], [b"", b"", b"", ACK])
    assert {type(item) for batch in batches for item in batch} == {RemoteProtocolError}


async def test_a_push_in_the_clear_is_refused_where_a_key_is_known() -> None:
    row = VECTORS["push-amis"]
    batches = await pushed("00" * 16, [bytes.fromhex(row["hex"])], [ACK])
    assert [item.reason for batch in batches for item in batch] == ["not_secured"]
