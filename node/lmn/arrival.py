"""
When what is read from a line can have arrived there at the earliest.

A process that was stopped, or was busy, reads octets that have waited in the kernel, and the clock says nothing of how
long.  What it can know is when the line was last seen empty: whatever is read later came later.  This is looked at
before each read, after one that took all there was, and at each border between two registration times, where it counts:
a line that is empty then holds nothing of the time before.
"""

from __future__ import annotations

import math
import select
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

_DOUBTS_MAX: Final = 8  # reads across a border that are remembered; a bus delivers what it reads before it reads on


@dataclass(slots=True)
class _Doubt:
    """What was read from `read_s` to `end_s` may be as old as `empty_s`, before a border."""

    empty_s: float
    read_s: float
    end_s: float = math.inf


class ArrivalStream(trio.abc.Stream):
    """
    A line whose reads are watched.

    `clock` is real time; `next_border(now_s)` the next moment at which readings begin to count for another time.  A
    stream without a file descriptor counts as empty whenever it is looked at.
    """

    def __init__(
        self, stream: trio.abc.Stream, clock: Callable[[], float], next_border: Callable[[float], float]
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._next_border = next_border
        self._empty_s = clock()
        self._doubts: deque[_Doubt] = deque(maxlen=_DOUBTS_MAX)
        self._poll: select.poll | None = None
        descriptor = stream.socket if isinstance(stream, trio.SocketStream) else stream
        if hasattr(descriptor, "fileno"):
            self._poll = select.poll()
            self._poll.register(descriptor.fileno(), select.POLLIN)

    def look(self) -> None:
        """A border has come: see whether the line is empty."""
        if self._poll is None or not self._poll.poll(0):
            self._empty_s = self._clock()

    def earliest_s(self, received_s: float) -> float:
        """When a telegram whose first octet was read at `received_s` can have arrived at the earliest."""
        for each in self._doubts:
            if each.read_s <= received_s < each.end_s:
                return each.empty_s
        return received_s

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As the line does."""
        self.look()
        data = await self._stream.receive_some(max_bytes)
        read_s = self._clock()
        if self._doubts:
            self._doubts[-1].end_s = min(self._doubts[-1].end_s, read_s)
        if self._next_border(self._empty_s) <= read_s:
            self._doubts.append(_Doubt(self._empty_s, read_s))
        if max_bytes is None or len(data) < max_bytes:  # that was all there was
            self._empty_s = read_s
        return bytes(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As the line does."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As the line does."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the line."""
        self._poll = None
        await self._stream.aclose()
