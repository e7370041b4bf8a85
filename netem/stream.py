"""
A byte stream over two lines, one behind the other: read, hold for as long as the lines take, deliver.

Memory is bounded by back-pressure: what the two lines hold at full rate (`Direction.in_flight_bytes`) is in flight at
most, then nothing is read until something is delivered.  Order is kept, and nothing that was read is left out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from netem.delay import SEGMENT_BYTES, StreamLine

_CHUNK_TIME_S = 0.005
"""A read takes at most what the line sends in this time, so that rates look smooth; never less than a segment."""
_CHUNK_BYTES_MAX = 1 << 16
_IN_FLIGHT_BYTES_MAX = 1 << 24

Lines = tuple[StreamLine, StreamLine]


class _Queue:
    """Chunks that are on one line, with the moments at which they leave it; in order."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._last_s = -math.inf
        self._added = trio.Event()

    def add(self, departure_s: float, chunk: bytes) -> None:
        """Append a chunk; an empty one is the end of the stream."""
        self._last_s = max(self._last_s, departure_s)
        self._chunks.append((self._last_s, chunk))
        self._added.set()

    async def pop(self) -> tuple[float, bytes]:
        """The chunk that leaves next, as soon as there is one."""
        while not self._chunks:
            self._added = trio.Event()
            await self._added.wait()
        return self._chunks.popleft()


class _InFlight:
    """How many bytes have been read and not delivered yet."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._less = trio.Event()

    def delivered(self, size_bytes: int) -> None:
        self.size_bytes -= size_bytes
        self._less.set()

    async def wait_below(self, limit_bytes: Callable[[], int]) -> None:
        while self.size_bytes >= limit_bytes():
            self._less = trio.Event()
            await self._less.wait()


async def transfer(
    source: trio.abc.ReceiveStream,
    sink: trio.abc.HalfCloseableStream,
    lines: Lines,
    wait_open: Callable[[], Awaitable[None]],
    delivered: Callable[[int], None],
) -> None:
    """
    Transfer `source` to its end, then end `sink`; `wait_open` holds back what is due while the path is cut.

    `delivered` is called with the size of each chunk in bytes.  Raises trio.BrokenResourceError where a side breaks.
    """
    in_flight, first, second = _InFlight(), _Queue(), _Queue()

    async def deliver() -> None:
        while True:
            departure_s, chunk = await second.pop()
            await trio.sleep_until(departure_s)
            await wait_open()
            if not chunk:
                with suppress(trio.BrokenResourceError):  # it is closed already
                    await sink.send_eof()
                return
            await sink.send_all(chunk)
            in_flight.delivered(len(chunk))
            delivered(len(chunk))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_on, first, lines[1], second)
        nursery.start_soon(deliver)
        while True:
            await in_flight.wait_below(lambda: limit_bytes(lines))
            await trio.sleep(lines[0].queue_wait_s(trio.current_time()))
            chunk = bytes(await source.receive_some(_chunk_bytes(lines)))
            in_flight.size_bytes += len(chunk)
            now_s = trio.current_time()
            first.add(lines[0].departure_s(now_s, len(chunk)) if chunk else now_s, chunk)
            if not chunk:
                return


async def _pass_on(queue: _Queue, line: StreamLine, to: _Queue) -> None:
    """A chunk enters its second line when it leaves the first, so that nothing slow before it blocks that line."""
    while True:
        departure_s, chunk = await queue.pop()
        enters_s = departure_s + line.queue_wait_s(departure_s)
        await trio.sleep_until(enters_s)
        to.add(line.departure_s(enters_s, len(chunk)) if chunk else enters_s, chunk)
        if not chunk:
            return


def limit_bytes(lines: Lines) -> int:
    """How many bytes are in flight at most before reading stops (one chunk more may have been read by then)."""
    return min(_IN_FLIGHT_BYTES_MAX, sum(line.direction.in_flight_bytes() for line in lines))


def _chunk_bytes(lines: Lines) -> int:
    rates = [line.direction.rate_bit_s for line in lines if line.direction.rate_bit_s is not None]
    smooth = int(min(rates) / 8 * _CHUNK_TIME_S) if rates else _CHUNK_BYTES_MAX
    return max(SEGMENT_BYTES, min(_CHUNK_BYTES_MAX, smooth))
