"""
The calling end: a DEALER socket to one listener whose public key is known.

ZMQ_IMMEDIATE is set.  Without it libzmq queues for a peer that is not there and delivers whenever it comes: the share
of a round that was given up an hour ago.  With it, `send` waits while there is no connection (the same back-pressure
as a full queue), and what was queued on a connection that breaks is gone with it: delivery is at most once, repeating
is the protocol's business.  It also makes libzmq build the pipe anew, so that every reconnect says its hello.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

import trio
import zmq

from protocol.link.edge import EdgeSocket
from protocol.link.limits import LinkLimits
from protocol.link.listener import check_payload


@dataclass(slots=True)
class ConnectionCounters:
    """Since the connection was made.  `connects` counts the listener's hellos, seen while somebody receives."""

    messages_received: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    bytes_sent: int = 0
    connects: int = 0
    dropped_malformed: int = 0


class Connection:
    """Made by `LinkContext.connect`."""

    __slots__ = ("_edge", "_limits", "counters")

    def __init__(self, edge: EdgeSocket, limits: LinkLimits) -> None:
        self.counters = ConnectionCounters()
        self._edge = edge
        self._limits = limits

    async def send(self, data: bytes) -> None:
        """
        Queue `data`; wait while the queue is full or the listener is not there.

        Cancelled means not sent.  Returned does not mean delivered.  Raises `LocalProtocolError` for a payload that is
        empty or over the limit, `trio.ClosedResourceError` once closed.
        """
        check_payload(data, self._limits)
        socket = self._edge.socket
        await self._edge.send(lambda: socket.send(data, zmq.NOBLOCK))
        self.counters.messages_sent += 1
        self.counters.bytes_sent += len(data)

    def send_nowait(self, data: bytes) -> bool:
        """
        Queue `data` at once; False where `send` would have to wait.

        Raises as `send` does.
        """
        check_payload(data, self._limits)
        socket = self._edge.socket
        if socket.closed:
            raise trio.ClosedResourceError("this connection was closed")
        try:
            socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            self._edge.touched()
        self.counters.messages_sent += 1
        self.counters.bytes_sent += len(data)
        return True

    async def receive(self) -> bytes:
        """
        Return the next payload.

        Several tasks may wait.  Cancelling takes no message.  Raises `trio.ClosedResourceError` once closed.
        """
        while True:
            data = await self._edge.receive(self._take)
            if data:
                self.counters.messages_received += 1
                self.counters.bytes_received += len(data)
                return data

    async def aclose(self) -> None:
        """Close; what was sent is flushed in the background for `linger_s`.  Idempotent."""
        self._edge.close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _take(self) -> bytes:
        """Take one message off the socket; empty if it was a hello or had to be dropped."""
        socket = self._edge.socket
        data = socket.recv(zmq.NOBLOCK)
        if socket.getsockopt(zmq.RCVMORE):
            while socket.getsockopt(zmq.RCVMORE):
                socket.recv(zmq.NOBLOCK)
            self.counters.dropped_malformed += 1
            return b""
        if not data:
            self.counters.connects += 1
        return data
