"""The wired driver against simulated meters over real TCP and over pseudo-terminals."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from loadtest.meters.mbus import MBusMeter, serve, serve_stream
from loadtest.meters.serial_bus import serial_bus
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.driver import Bus, Timing, read_meter, search
from node.lmn.mbus.procedures import SecondaryAddress
from node.lmn.serial_link import open_serial
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

IMPORT, EXPORT, POWER = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255), Obis(1, 0, 1, 7, 0, 255)
CLOCK = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
FAST = Timing(baudrate=38400, latency_s=0.02)


def device(number: int) -> DeviceAddress:
    return DeviceAddress.from_text(f"1ISK01{number:08d}", 2)


def meter(number: int, primary: int = 0, **how: Any) -> MBusMeter:
    registers = [(IMPORT, number, -1, 30), (EXPORT, 2 * number, -1, 30), (POWER, -431, 0, 27)]
    return MBusMeter(device(number), lambda _: registers, lambda: CLOCK, primary=primary, **how)


def values(readings: Iterable[Reading]) -> dict[Obis, Any]:
    return {r.obis: r.value for r in readings if r.obis is not None}


async def test_several_meters_on_one_tcp_converter() -> None:
    meters = [meter(11111111, 1), meter(22222222, 2, deaf_count=1, records_size_max=12), meter(33333333, 3)]
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve, meters)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            bus = Bus(stream, FAST, now=lambda: CLOCK)
            first = await bus.read_meter(1)
            assert values(first) == {IMPORT: 11111111, EXPORT: 22222222, POWER: -431}
            assert {r.device for r in first} == {"1ISK0111111111"}
            assert {r.received_at for r in first} == {CLOCK}
            together: list[Any] = []

            async def read(address: Any) -> None:
                together.append(values(await bus.read_meter(address))[IMPORT])

            async with trio.open_nursery() as readers:  # the lock keeps questions and answers apart
                readers.start_soon(read, 2)
                readers.start_soon(read, device(33333333))
                readers.start_soon(read, SecondaryAddress("1111FFFF"))
            assert sorted(together) == [11111111, 22222222, 33333333]
            with pytest.raises(RemoteProtocolError, match="no_answer"):
                await bus.read_meter(9)
            with pytest.raises(RemoteProtocolError):
                await bus.read_meter(254)  # all of them answer
            assert values(await bus.read_meter(3))[IMPORT] == 33333333  # the collision's rest is no answer
        nursery.cancel_scope.cancel()


async def test_reading_and_searching_on_a_serial_bus() -> None:
    async with serial_bus(3) as (here, there, further), trio.open_nursery() as nursery:
        for path, number in ((there, 11111111), (further, 22222222)):
            line = open_serial(path, 38400, 8, "E", 1)
            nursery.start_soon(partial(serve_stream, line, [meter(number, number % 7)]))
        async with open_serial(here, 38400, 8, "E", 1) as stream:
            assert values(await read_meter(stream, device(22222222), FAST))[IMPORT] == 22222222
            assert values(await read_meter(stream, 11111111 % 7, FAST))[IMPORT] == 11111111
            found = await Bus(stream, FAST).search(SecondaryAddress("1FFFFFFF"))
            assert found.meters == (device(11111111),)
        nursery.cancel_scope.cancel()


async def test_search_over_a_stream(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    numbers = (12345678, 12345679, 555, 98765432)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, theirs, [meter(number) for number in numbers])
        found = await Bus(ours, Timing(2400)).search(thorough=True)
        assert {d.number for d in found.meters} == {f"{number:08d}" for number in numbers}
        assert found.collisions == ()
        assert (await search(ours)).meters
        nursery.cancel_scope.cancel()


async def test_a_silent_bus_takes_as_long_as_the_standard_says(autojump_clock: MockClock) -> None:
    ours, _theirs = memory_stream_pair()
    with pytest.raises(RemoteProtocolError, match="no_answer"):
        await Bus(ours, Timing(2400, 0.0)).read_meter(1)
    per_question_s = 330 / 2400 + 0.05 + 5 * 11 / 2400
    assert trio.current_time() == pytest.approx(4 * per_question_s)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"\x68\x1f\x1f\x68\x08\x02", "frame_truncated"), (b"\xff\x00\xff", "not_a_frame"), (b"\xe5", "unexpected_ack")],
)
async def test_what_is_no_answer_is_named(autojump_clock: MockClock, answer: bytes, reason: str) -> None:
    ours, theirs = memory_stream_pair()

    async def noise() -> None:
        while await theirs.receive_some():
            await theirs.send_all(answer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(noise)
        with pytest.raises(RemoteProtocolError) as caught:
            await Bus(ours).read_meter(1)
        assert caught.value.reason == reason
        nursery.cancel_scope.cancel()


async def test_a_converter_that_hangs_up_and_one_that_echoes() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.aclose()
    with pytest.raises((RemoteProtocolError, trio.BrokenResourceError)):
        await Bus(ours).read_meter(1)
    ours, theirs = memory_stream_pair()
    ours_of_meter, theirs_of_meter = memory_stream_pair()

    async def echoing() -> None:
        async for data in theirs:
            await theirs.send_all(data)
            await ours_of_meter.send_all(data)
            await theirs.send_all(await ours_of_meter.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echoing)
        nursery.start_soon(serve_stream, theirs_of_meter, [meter(1, 1)])
        assert values(await Bus(ours, FAST).read_meter(1))[IMPORT] == 1
        nursery.cancel_scope.cancel()
