"""When what is read from a line can have arrived: after the line was last seen empty."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import memory_stream_pair

from node.lmn.arrival import ArrivalStream


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def next_ten(now_s: float) -> float:
    return (now_s // 10 + 1) * 10


@asynccontextmanager
async def line(clock: Clock) -> AsyncIterator[tuple[ArrivalStream, trio.SocketStream]]:
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in socket.socketpair())
    async with ArrivalStream(ours, clock, next_ten) as watched, theirs:
        yield watched, theirs


async def test_what_waited_in_the_kernel_over_a_border_may_be_old() -> None:
    clock = Clock()
    async with line(clock) as (watched, theirs):
        clock.now_s = 8.0
        watched.look()
        await theirs.send_all(b"old")
        clock.now_s = 10.1
        watched.look()  # at the border: it is not empty
        clock.now_s = 11.0
        assert await watched.receive_some(2) == b"ol"
        assert watched.earliest_s(11.0) == 8.0
        clock.now_s = 12.0
        assert await watched.receive_some(2) == b"d"
        assert watched.earliest_s(12.0) == 8.0
        assert watched.earliest_s(11.5) == 8.0
        clock.now_s = 13.0
        await theirs.send_all(b"new")
        assert await watched.receive_some(9) == b"new"
        assert watched.earliest_s(13.0) == 13.0  # the read before had left nothing


async def test_what_comes_after_the_line_was_empty_at_the_border_is_new() -> None:
    clock = Clock()
    async with line(clock) as (watched, theirs), trio.open_nursery() as nursery:
        clock.now_s = 8.0
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await watched.receive_some(9))

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        clock.now_s = 10.0
        watched.look()
        clock.now_s = 10.5
        await theirs.send_all(b"new")
        await trio.testing.wait_all_tasks_blocked()
        assert received == [b"new"]
        assert watched.earliest_s(10.5) == 10.5


async def test_without_a_border_in_between_the_time_of_reading_counts() -> None:
    clock = Clock()
    async with line(clock) as (watched, theirs):
        await theirs.send_all(b"x")
        clock.now_s = 9.9
        assert await watched.receive_some(9) == b"x"
        assert watched.earliest_s(9.9) == 9.9


async def test_a_line_without_a_descriptor_counts_as_empty_when_it_is_looked_at() -> None:
    clock = Clock()
    ours, theirs = memory_stream_pair()
    async with ArrivalStream(ours, clock, next_ten) as watched:
        await theirs.send_all(b"x")
        clock.now_s = 10.5
        assert await watched.receive_some(9) == b"x"
        assert watched.earliest_s(10.5) == 10.5
        await watched.send_all(b"y")
        assert await theirs.receive_some(9) == b"y"
