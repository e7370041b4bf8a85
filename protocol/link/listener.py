"""
The listening end: a ROUTER socket that knows its visitors by the key they proved.

A peer's name is what `authorise` said about its CURVE key during the handshake.  libzmq stamps the key's User-Id on
every message of that connection, and we look the name up for every message: nothing that a peer writes, a routing id of
its own choice included, can change who it is.

To send, a ROUTER needs the routing id of the peer's present connection, which is new after every reconnect.  Both ends
therefore send an empty message when a connection is made (ZMQ_PROBE_ROUTER), and the listener moves the peer's route to
the connection that the latest hello came from.  One route per name: the table is as large as the list of enrolled
peers, never larger.  Of two connections with one key the newest stays: what comes over another is dropped, whether a
network let it hang or a second copy of the peer runs somewhere.

Known limit of libzmq: ZMQ_MAXMSGSIZE bounds a frame, not the number of frames of one message, which libzmq collects
until the last.  An *enrolled* peer with a client of its own making can make us hold an endless message.  Only a memory
limit on the process (cgroup) contains that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass
from types import TracebackType

import trio
import zmq

from protocol.errors import LocalProtocolError
from protocol.link.edge import NOBLOCK, EdgeSocket
from protocol.link.limits import LinkLimits

_MORE = int(zmq.SNDMORE) | NOBLOCK

Authorise = Callable[[bytes], "Hashable | Awaitable[Hashable | None] | None"]
"""Given a public key (32 bytes): the peer's name, None to refuse it, or an awaitable of either."""


@dataclass(slots=True)
class ListenerCounters:
    """Since the listener was made.  `connects` counts hellos: first connections and reconnections together."""

    messages_received: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    bytes_sent: int = 0
    connects: int = 0
    handshakes_admitted: int = 0
    handshakes_refused: int = 0
    dropped_queue_full: int = 0
    dropped_peer_gone: int = 0
    dropped_malformed: int = 0
    dropped_disconnected: int = 0
    dropped_superseded: int = 0


@dataclass(slots=True)
class _Peer:
    name: Hashable
    user_id: str
    route: bytes | None = None
    refused: bool = False


class Listener:
    """Made by `LinkContext.listen`.  `endpoint` is the bound one, `counters` are plain numbers for the metrics."""

    def __init__(
        self,
        edge: EdgeSocket,
        endpoint: str,
        authorise: Authorise,
        limits: LinkLimits,
        on_close: Callable[[], None],
    ) -> None:
        self.endpoint = endpoint
        self.counters = ListenerCounters()
        self.edge = edge
        self._authorise = authorise
        self._limits = limits
        self._on_close = on_close
        self._by_user_id: dict[str, _Peer] = {}
        self._by_name: dict[Hashable, _Peer] = {}

    async def receive(self) -> tuple[Hashable, bytes]:
        """
        Return the next message as (peer's name, payload).

        Several tasks may wait.  Cancelling takes no message.  Raises `trio.ClosedResourceError` once closed.
        """
        while True:
            message = await self.edge.receive(self.take)
            if message is not None:
                return message

    def send(self, peer: Hashable, data: bytes) -> bool:
        """
        Queue `data` for `peer`, at once; False, and counted, if the peer is gone or its queue is full.

        True promises no delivery: the connection may still break.  Raises `LocalProtocolError` for a payload that is
        empty or over the limit, `trio.ClosedResourceError` once closed.
        """
        check_payload(data, self._limits)
        if self.edge.closed:
            raise trio.ClosedResourceError("this listener was closed")
        entry = self._by_name.get(peer)
        if entry is None or entry.route is None or entry.refused:
            self.counters.dropped_peer_gone += 1
            return False
        socket = self.edge.socket
        try:
            # Both refusals come with the first frame; once it is in, libzmq takes the second without a condition.
            socket.send(entry.route, _MORE)
            socket.send(data, NOBLOCK)
        except zmq.Again:
            self.counters.dropped_queue_full += 1
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            entry.route = None
            self.counters.dropped_peer_gone += 1
            return False
        finally:
            self.edge.after_call()
        self.counters.messages_sent += 1
        self.counters.bytes_sent += len(data)
        return True

    def disconnect(self, peer: Hashable) -> None:
        """
        Take nothing more from the peer's present connection and send nothing to it; a new connection starts afresh.

        For one that broke the protocol.  To keep it out for good, let `authorise` return None for its key as well.
        """
        entry = self._by_name.get(peer)
        if entry is not None:
            entry.refused = True

    def peers(self) -> Iterator[Hashable]:
        """The names that `send` would try; one that has just gone is among them until a send finds out."""
        return (peer.name for peer in self._by_name.values() if peer.route is not None and not peer.refused)

    async def aclose(self) -> None:
        """Close.  Idempotent; the port is free when the `LinkContext` is closed, or a moment later."""
        self.edge.close()
        self._on_close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def admit(self, public_key: bytes) -> tuple[str | None, float]:
        """For ZAP: the User-Id of `public_key` (32 bytes), or None, and how long to hold a refusal, in s."""
        name = self._authorise(public_key)
        if isinstance(name, Awaitable):
            name = await name
        if name is None:
            self.counters.handshakes_refused += 1
            return None, self._limits.refusal_delay_s
        self.counters.handshakes_admitted += 1
        user_id = public_key.hex()
        known = self._by_user_id.get(user_id)
        if known is None or known.name != name:
            # A name that got a new key, or a key that got a new name: what the old pairing still sends is dropped.
            if known is not None:
                self._by_name.pop(known.name, None)
            replaced = self._by_name.get(name)
            if replaced is not None:
                del self._by_user_id[replaced.user_id]
            self._by_user_id[user_id] = self._by_name[name] = _Peer(name, user_id)
        return user_id, 0.0

    def take(self) -> tuple[Hashable, bytes] | None:
        """For `Inbox`: take one message off the socket; None if it was a hello or had to be dropped."""
        socket = self.edge.socket
        self.edge.readable = False
        route = socket.recv(NOBLOCK)
        frame = socket.recv(NOBLOCK, copy=False)
        counters = self.counters
        if frame.more:
            while socket.getsockopt(zmq.RCVMORE):
                socket.recv(NOBLOCK)
            counters.dropped_malformed += 1
            return None
        peer = self._by_user_id.get(str(frame.get("User-Id")))
        if peer is None:
            counters.dropped_disconnected += 1
            return None
        data = frame.bytes
        if not data:
            if route != peer.route:
                peer.route = route
                peer.refused = False
                counters.connects += 1
            return None
        if peer.refused:
            counters.dropped_disconnected += 1
            return None
        if route != peer.route:
            counters.dropped_superseded += 1
            return None
        if len(data) > self._limits.message_bytes_max:
            counters.dropped_malformed += 1
            return None
        counters.messages_received += 1
        counters.bytes_received += len(data)
        return peer.name, data


def check_payload(data: bytes, limits: LinkLimits) -> None:
    """Raise `LocalProtocolError` for a payload that no link carries: not bytes, empty, or over the limit."""
    if not isinstance(data, bytes) or not data:
        raise LocalProtocolError("a link carries bytes, and at least one: the empty message is its hello")
    if len(data) > limits.message_bytes_max:
        raise LocalProtocolError(
            f"a payload of {len(data)} bytes is over the link's limit of {limits.message_bytes_max}"
        )
