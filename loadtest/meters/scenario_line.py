"""A meter's line under a scenario: silence in either direction, and an SML meter whose id and status word change."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import trio

from loadtest.meters.scenario import Timeline
from loadtest.meters.sml import SmlMeter
from loadtest.meters.sml_server import serve_stream
from node.lmn.sml.readings import server_id

_SLEEP_S_MAX = 60.0  # bounds the harm of a clock that is set


class SilencedStream(trio.abc.Stream):
    """A meter's end of its line; while `is_silent` says so nothing goes through, in either direction."""

    def __init__(self, stream: trio.abc.Stream, is_silent: Callable[[], bool]) -> None:
        self._stream = stream
        self._is_silent = is_silent

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or swallow."""
        if self._is_silent():
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Of the line itself."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """What comes while the meter hears."""
        while True:
            data = await self._stream.receive_some(max_bytes)
            if not data or not self._is_silent():
                return data

    async def aclose(self) -> None:
        """Close the line."""
        await self._stream.aclose()


def meter_time(timeline: Timeline) -> datetime:
    """What the meter's clock shows."""
    now_s = time.time()
    return datetime.fromtimestamp(now_s, UTC) + timedelta(seconds=timeline.offset_s(now_s))


async def serve_sml(timeline: Timeline, meter: SmlMeter, now: Callable[[], datetime], stream: trio.abc.Stream) -> None:
    """Be an SML meter that changes with its timeline."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, timeline, meter)
        await serve_stream([meter], now, stream)
        nursery.cancel_scope.cancel()


async def follow(timeline: Timeline, meter: SmlMeter) -> None:
    """
    Change the meter as its timeline says, from now on.

    A manipulation is shown once: a gateway may reset it before it ends.
    """
    shown = 0
    while True:
        now_s = time.time()
        meter.device = timeline.shown_id(now_s)
        meter.server_id = server_id(meter.device)
        begun, shown = timeline.status(now_s) & ~shown, timeline.status(now_s)
        meter.status = (meter.status | begun) & shown
        next_s = timeline.next_change_s(now_s)
        await trio.sleep(min(_SLEEP_S_MAX, max(0.0, next_s - time.time())))
