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

from protocol.link.edge import NOBLOCK, POLLOUT, EdgeSocket
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

    __slots__ = ("_limits", "counters", "edge")

    def __init__(self, edge: EdgeSocket, limits: LinkLimits) -> None:
        self.counters = ConnectionCounters()
        self.edge = edge
        self._limits = limits

    @property
    def is_connected(self) -> bool:
        """
        Whether the listener is there and takes messages.

        A peer that vanished without a word is there until `LinkLimits.keepalive_s` and `peer_gone_s` have passed.
        """
        return not self.edge.closed and bool(self.edge.refresh() & POLLOUT)

    async def send(self, data: bytes) -> None:
        """
        Queue `data`; wait while the queue is full or the listener is not there.

        Cancelled means not sent.  Returned does not mean delivered.  Raises `LocalProtocolError` for a payload that is
        empty or over the limit, `trio.ClosedResourceError` once closed.
        """
        check_payload(data, self._limits)
        socket = self.edge.socket
        await self.edge.send(lambda: socket.send(data, NOBLOCK))
        self.counters.messages_sent += 1
        self.counters.bytes_sent += len(data)

    def send_nowait(self, data: bytes) -> bool:
        """
        Queue `data` at once; False where `send` would have to wait.

        Raises as `send` does.
        """
        check_payload(data, self._limits)
        socket = self.edge.socket
        if self.edge.closed:
            raise trio.ClosedResourceError("this connection was closed")
        try:
            socket.send(data, NOBLOCK)
        except zmq.Again:
            return False
        finally:
            self.edge.after_call()
        self.counters.messages_sent += 1
        self.counters.bytes_sent += len(data)
        return True

    async def receive(self) -> bytes:
        """
        Return the next payload.

        Several tasks may wait.  Cancelling takes no message.  Raises `trio.ClosedResourceError` once closed.
        """
        while True:
            data = await self.edge.receive(self.take)
            if data is not None:
                return data

    async def aclose(self) -> None:
        """Close; what was sent is flushed in the background for `linger_s`.  Idempotent."""
        self.edge.close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def take(self) -> bytes | None:
        """For `Inbox`: take one message off the socket; None if it was a hello or had to be dropped."""
        socket, counters = self.edge.socket, self.counters
        self.edge.readable = False
        data = socket.recv(NOBLOCK)
        if socket.getsockopt(zmq.RCVMORE):
            while socket.getsockopt(zmq.RCVMORE):
                socket.recv(NOBLOCK)
            counters.dropped_malformed += 1
            return None
        if not data:
            counters.connects += 1
            return None
        counters.messages_received += 1
        counters.bytes_received += len(data)
        return data
