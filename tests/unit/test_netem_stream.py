"""A stream over two lines, on memory streams and an injected clock: time, order, back-pressure, cuts, ends."""

from random import Random

import pytest
import trio
from trio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    MockClock,
    memory_stream_one_way_pair,
    memory_stream_pair,
)

from netem.delay import StreamLine
from netem.profiles import Direction
from netem.stream import Lines, limit_bytes, transfer


async def always_open() -> None:
    await trio.lowlevel.checkpoint()


def lines_of(first: Direction, second: Direction | None = None) -> Lines:
    rng = Random(5)
    return StreamLine(first, rng), StreamLine(second or Direction(), rng)


async def everything(stream: trio.abc.ReceiveStream) -> list[tuple[float, bytes]]:
    return [(trio.current_time(), bytes(chunk)) async for chunk in stream]


async def test_bytes_arrive_after_both_delays_and_in_order(autojump_clock: MockClock) -> None:
    source_send, source = memory_stream_one_way_pair()
    sink, sink_receive = memory_stream_pair()
    lines = lines_of(Direction(delay_s=0.3, jitter_s=0.1), Direction(delay_s=0.2, jitter_s=0.1, loss=0.2))
    data = bytes(Random(1).randbytes(40_000))
    got: list[tuple[float, bytes]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfer, source, sink, lines, always_open, lambda _: None)

        async def take() -> None:
            got.extend(await everything(sink_receive))

        nursery.start_soon(take)
        started_s = trio.current_time()
        for start in range(0, len(data), 1_000):
            await source_send.send_all(data[start : start + 1_000])
            await trio.sleep(0.02)
        await source_send.aclose()
    assert b"".join(chunk for _, chunk in got) == data
    assert got[0][0] - started_s >= 0.5 - 2 * 0.3
    assert lines[1].retransmission_count > 0


async def test_a_rate_is_kept_over_many_bytes(autojump_clock: MockClock) -> None:
    source_send, source = memory_stream_one_way_pair()
    sink, sink_receive = memory_stream_pair()
    lines = lines_of(Direction(delay_s=0.05, rate_bit_s=1_000_000))
    delivered: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfer, source, sink, lines, always_open, delivered.append)
        nursery.start_soon(everything, sink_receive)
        started_s = trio.current_time()
        await source_send.send_all(bytes(1_448_000))
        await source_send.aclose()
    seconds = trio.current_time() - started_s
    assert sum(delivered) == 1_448_000
    assert seconds == pytest.approx(1_000 * 1_514 * 8 / 1_000_000 + 0.05, rel=0.01)


class EndlessSource(trio.abc.ReceiveStream):
    """Always has bytes, and counts how many were taken."""

    def __init__(self) -> None:
        self.taken = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        assert max_bytes is not None
        self.taken += max_bytes
        return bytes(max_bytes)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class StuckSink(trio.abc.HalfCloseableStream):
    """Takes nothing, ever: a reader whose window is closed."""

    async def send_all(self, data: object) -> None:
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.sleep_forever()

    async def send_eof(self) -> None:
        await trio.sleep_forever()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("rate_bit_s", [100_000, 10_000_000, 1_000_000_000, None])
async def test_a_stuck_receiver_stops_the_reading(autojump_clock: MockClock, rate_bit_s: int | None) -> None:
    source = EndlessSource()
    lines = lines_of(Direction(delay_s=0.05, rate_bit_s=rate_bit_s))
    with trio.move_on_after(1_000):
        await transfer(source, StuckSink(), lines, always_open, lambda _: None)
    assert source.taken <= limit_bytes(lines) + (1 << 16)


async def test_a_fast_source_waits_for_a_slow_line(autojump_clock: MockClock) -> None:
    source = EndlessSource()
    sink, sink_receive = memory_stream_pair()
    lines = lines_of(Direction(), Direction(rate_bit_s=100_000, queue_s=0.5))
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(everything, sink_receive)
            nursery.start_soon(transfer, source, sink, lines, always_open, lambda _: None)
    # 10 s and half a second of queue at 100 kbit/s, and what the line without a rate holds before it.
    assert source.taken <= 100_000 / 8 * 10.5 + (1 << 20) + (1 << 16)


async def test_a_cut_holds_back_what_is_due_until_it_heals(autojump_clock: MockClock) -> None:
    source_send, source = memory_stream_one_way_pair()
    sink, sink_receive = memory_stream_pair()
    healed = trio.Event()
    got: list[tuple[float, bytes]] = []

    async def take() -> None:
        got.extend(await everything(sink_receive))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfer, source, sink, lines_of(Direction(delay_s=0.1)), healed.wait, lambda _: None)
        nursery.start_soon(take)
        started_s = trio.current_time()
        await source_send.send_all(b"held back")
        await source_send.aclose()
        await trio.sleep(60)
        assert got == []
        healed.set()
    ((when_s, chunk),) = got
    assert chunk == b"held back"
    assert when_s - started_s == pytest.approx(60)


async def test_the_end_of_a_stream_is_passed_on_after_its_last_byte(autojump_clock: MockClock) -> None:
    source_send, source = memory_stream_one_way_pair()
    sink, sink_receive = memory_stream_pair()
    assert isinstance(source_send, MemorySendStream)
    assert isinstance(source, MemoryReceiveStream)
    started_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfer, source, sink, lines_of(Direction(delay_s=1)), always_open, lambda _: None)
        await source_send.send_all(b"last")
        await source_send.aclose()
        assert [chunk for _, chunk in await everything(sink_receive)] == [b"last"]
        assert trio.current_time() - started_s >= 1
        await sink_receive.send_all(b"the other direction is still open")
