"""
HDLC on trio: a bus that several connections share, and a connection as something to send and receive units on.

Only one station may talk on RS-485, so the bus has one lock, held for a turn (question and answer) and free between
turns: a slow meter's polls do not keep its neighbours waiting.  Nothing runs in the background on the primary side;
whoever waits for a unit also drives the line.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import trio

from node.lmn.hdlc.frame import Address, Frame, FrameReader
from node.lmn.hdlc.primary import PrimaryStation, State, Timing
from node.lmn.hdlc.secondary import SecondaryStation
from node.lmn.hdlc.station import Connected, Delivered, Disconnected, Instruction, Parameters, Transmit
from protocol.errors import LocalProtocolError, RemoteProtocolError

PAUSE_WITHIN_FRAME_S: Final = 0.2
"""The inter-octet time-out of IEC 62056-46 (25 ms) plus what USB converters and schedulers add to it."""


class HdlcBus:
    """The line, from the primary's end: any byte stream.  `error_counts` has the broken frames by reason."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.turn = trio.Lock()
        self.error_counts: Counter[str] = Counter()
        self._reader = FrameReader()

    async def frames(self, deadline: float) -> list[Frame]:
        """
        Frames that have come until `deadline` on trio's clock: as soon as there is one, none when it passes.

        A frame under way may end after the deadline: a long one on a slow line takes longer than any answer may
        take to begin.  It is lost only when the line pauses within it.
        """
        latest = deadline
        while True:
            data = b""
            with trio.move_on_at(latest) as scope:
                try:
                    data = bytes(await self.stream.receive_some())
                except trio.BrokenResourceError:
                    data = b""
            if scope.cancelled_caught:
                self._reader.reset()
                return []
            if not data:
                raise RemoteProtocolError("link_closed", "the line was closed")
            found = self._reader.feed(data)
            self.error_counts.update(item.reason for item in found if isinstance(item, RemoteProtocolError))
            frames = [item for item in found if isinstance(item, Frame)]
            if frames:
                return frames
            latest = deadline
            if self._reader.pending:
                latest = max(deadline, trio.current_time() + PAUSE_WITHIN_FRAME_S)

    async def transmit(self, data: bytes) -> None:
        """Raises RemoteProtocolError where the line is gone."""
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise RemoteProtocolError("link_closed", "the line was closed") from error


class HdlcLink:
    """
    A connection of the primary to one secondary.

    Every method may raise RemoteProtocolError (`hdlc_timeout`, `hdlc_refused`, `link_closed` ...); after that the
    link is down and wants a new `connect`.  A cancelled call leaves it down as well.
    """

    def __init__(
        self,
        bus: HdlcBus,
        local: Address,
        remote: Address,
        parameters: Parameters | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._bus = bus
        self._settings = (local, remote, parameters, timing)
        self._station = PrimaryStation(*self._settings)
        self._driving = trio.Lock()
        self._units: deque[bytes] = deque()
        self.parameters = Parameters()

    async def connect(self) -> Parameters:
        """Set normal response mode; returns the parameters agreed upon."""
        self._station = PrimaryStation(*self._settings)
        self._units.clear()
        await self._drive(self._station.connect, lambda: self._station.state is State.CONNECTED)
        return self.parameters

    async def send(self, unit: bytes) -> None:
        """Returns when the other side has acknowledged the unit."""
        await self._drive(
            lambda now: self._station.send(unit, now, expect_answer=False), lambda: not self._station.unacknowledged
        )

    async def receive(self) -> bytes:
        """The next unit, polled for until it comes: put a deadline around it."""
        if not self._units:
            await self._drive(self._station.poll, lambda: bool(self._units))
        return self._units.popleft()

    async def exchange(self, unit: bytes) -> bytes:
        """Send one unit and wait for the one that answers it."""
        self._units.clear()
        await self._drive(lambda now: self._station.send(unit, now), lambda: bool(self._units))
        return self._units.popleft()

    async def disconnect(self) -> None:
        """Take leave if there is a connection; errors no longer matter."""
        if self._station.state is State.CONNECTED:
            try:
                await self._drive(self._station.disconnect, lambda: self._station.state is State.DISCONNECTED)
            except RemoteProtocolError:
                return

    async def _drive(self, start: Callable[[float], list[Instruction]], done: Callable[[], bool]) -> None:
        async with self._driving:
            station = self._station
            completed = False
            try:
                instructions = start(trio.current_time())
                while True:
                    async with self._bus.turn:
                        await self._carry_out(instructions)
                        while (timer := station.next_timer_s()) is not None and station.awaiting:
                            frames = await self._bus.frames(timer)
                            for frame in frames:
                                await self._carry_out(station.receive(frame, trio.current_time()))
                            await self._carry_out(station.timer(trio.current_time()))
                    if done():
                        break
                    if timer is None:
                        raise LocalProtocolError("nothing is under way that could complete this")
                    await trio.sleep_until(timer)
                    instructions = station.timer(trio.current_time())
                completed = True
            finally:
                if not completed:
                    self._station = PrimaryStation(*self._settings)

    async def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Transmit):
                await self._bus.transmit(instruction.data)
            elif isinstance(instruction, Connected):
                self.parameters = instruction.parameters
            elif isinstance(instruction, Delivered):
                self._units.append(instruction.data)
            elif isinstance(instruction, Disconnected) and instruction.reason != "requested":
                reason = instruction.reason.removeprefix("hdlc_")
                local, remote = self._settings[:2]
                ends = f"station {remote.upper}/{remote.lower}, asked by {local.upper}"
                what = "no answer from" if reason == "timeout" else "the connection has ended to"
                raise RemoteProtocolError(f"hdlc_{reason}", f"{what} {ends}")


async def serve_secondary(
    stream: trio.abc.Stream, station: SecondaryStation, handle: Callable[[Instruction], None]
) -> None:
    """
    Run a secondary station until the line closes.

    `handle` sees what each frame meant, and may call `station.send` so that its answer goes out in the same turn.
    """
    reader = FrameReader()
    while data := await stream.receive_some():
        for item in reader.feed(bytes(data)):
            if isinstance(item, Frame):
                for instruction in station.receive(item):
                    handle(instruction)
                for answer in station.respond():
                    if isinstance(answer, Transmit):
                        await stream.send_all(answer.data)
