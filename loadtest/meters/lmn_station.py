"""
A meter on the wired LMN: introduces itself, takes its address, and answers LKS1 (TLS) on it.

The secondary station as a byte stream, so that TLS and whatever speaks inside it (SML, an echo in tests) need not
know that they may only talk when polled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from node.lmn.hdlc.frame import Frame, FrameReader
from node.lmn.hdlc.lmn import PARAMETERS, ParticipantStation, Selector, station
from node.lmn.hdlc.secondary import SecondaryStation
from node.lmn.hdlc.station import Connected, Delivered, Disconnected, Transmit
from node.lmn.hdlc.tls import split_records
from protocol.errors import RemoteProtocolError

_UNIT_COUNT_MAX = 64


class SecondaryStream(trio.abc.Stream):
    """One connection as seen from the meter; ends (b"") when the gateway disconnects."""

    def __init__(self, secondary: SecondaryStation) -> None:
        self._secondary = secondary
        self.deliver, self._units = trio.open_memory_channel[bytes](_UNIT_COUNT_MAX)
        self._rest = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Queue records; they go out when the gateway polls."""
        await trio.lowlevel.checkpoint()
        if not self._secondary.connected:
            raise trio.BrokenResourceError
        for record in split_records(bytes(data)):
            self._secondary.send(record)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What the gateway sent."""
        if not self._rest:
            try:
                self._rest = await self._units.receive()
            except trio.EndOfChannel:
                return b""
        size = len(self._rest) if max_bytes is None else max_bytes
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    async def wait_send_all_might_not_block(self) -> None:
        """The queue is the meter's own memory."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Nothing more is taken."""
        self._units.close()
        await trio.lowlevel.checkpoint()


class LmnMeter:
    """
    One participant on a bus.

    `serve` gets a stream for each connection of the gateway (LKS1); `pair` answers a SYM message (LKS1.PSK), or
    raises RemoteProtocolError where it gets none.  `draw(n)` gives a slot below n.
    """

    def __init__(
        self,
        sensor_id: str,
        serve: Callable[[trio.abc.Stream], Awaitable[None]],
        pair: Callable[[bytes], bytes],
        draw: Callable[[int], int],
    ) -> None:
        self.participant = ParticipantStation(sensor_id)
        self._serve = serve
        self._pair = pair
        self._draw = draw
        self._stations: dict[Selector, SecondaryStation] = {}
        self._stream: SecondaryStream | None = None

    async def run(self, line: trio.abc.Stream) -> None:
        """Live on the bus until the line closes."""
        reader = FrameReader()
        async with trio.open_nursery() as nursery:
            while data := await line.receive_some():
                for item in reader.feed(bytes(data)):
                    if isinstance(item, Frame):
                        await self._frame(item, line, nursery)
            nursery.cancel_scope.cancel()

    async def _frame(self, frame: Frame, line: trio.abc.Stream, nursery: trio.Nursery) -> None:
        before = self.participant.me.address
        try:
            answer = self.participant.receive(frame, self._draw)
        except RemoteProtocolError:
            return
        if self.participant.me.address != before:
            self._stations = {
                selector: SecondaryStation(station(self.participant.me.address, selector), PARAMETERS)
                for selector in (Selector.LKS1, Selector.LKS1_PSK)
            }
        if answer is not None:
            delay_s, reply = answer
            await trio.sleep(delay_s)
            await line.send_all(reply.to_bytes())
            return
        for selector, secondary in self._stations.items():
            for event in secondary.receive(frame):
                if selector is Selector.LKS1_PSK and isinstance(event, Delivered):
                    self._answer_pairing(secondary, event.data)
                elif selector is Selector.LKS1:
                    self._follow(event, secondary, nursery)
            for out in secondary.respond():
                if isinstance(out, Transmit):
                    await line.send_all(out.data)

    async def _serve_until_end(self, stream: SecondaryStream, secondary: SecondaryStation) -> None:
        await self._serve(stream)
        if self._stream is stream:
            secondary.connected = False  # the next poll hears DM instead of waiting for what never comes
            self._stream = None

    def _answer_pairing(self, secondary: SecondaryStation, message: bytes) -> None:
        try:
            secondary.send(self._pair(message))
        except RemoteProtocolError:
            return

    def _follow(self, event: object, secondary: SecondaryStation, nursery: trio.Nursery) -> None:
        if isinstance(event, Connected | Disconnected) and self._stream is not None:
            self._stream.deliver.close()
            self._stream = None
        if isinstance(event, Connected):
            self._stream = SecondaryStream(secondary)
            nursery.start_soon(self._serve_until_end, self._stream, secondary)
        if isinstance(event, Delivered) and self._stream is not None:
            try:
                self._stream.deliver.send_nowait(event.data)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._stream.deliver.close()
                self._stream = None
