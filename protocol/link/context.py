"""
One per process: the ZeroMQ context, the tasks that watch its sockets and its deadlines, and the ZAP authenticator.

libzmq looks for the ZAP handler inside the context of the listening socket, so there is one of each, and whoever wants
a link gets it here.
"""

from __future__ import annotations

import random
import resource
from types import TracebackType

import trio
import zmq

from protocol.errors import LocalProtocolError, StromkreisError
from protocol.link.connection import Connection
from protocol.link.deadlines import DeadlineQueue
from protocol.link.edge import EdgeSocket, Poller
from protocol.link.inbox import Event, Inbox, Message
from protocol.link.keys import Keypair
from protocol.link.limits import CURVE_OVERHEAD_BYTES, LinkLimits
from protocol.link.listener import Authorise, Listener
from protocol.link.zap import ENDPOINT, ZapAuthenticator

DEFAULT_LIMITS = LinkLimits()
KEEPALIVE_PROBES = 4
"""Questions without an answer before a silent peer is gone."""

ZERO_COPY_RECV = 10
"""ZMQ_ZERO_COPY_RECV of zmq.h, a context option that pyzmq has no name for."""


class LinkError(StromkreisError):
    """The operating system or libzmq refused an endpoint or a socket: the address is taken, descriptors ran out."""


class LinkContext:
    """
    Async context manager that owns the process's links.

    `max_sockets`: connections plus listeners it may hold (libzmq's default is 1023, its ceiling 65535).  Each socket
        takes one file descriptor for its mailbox, and one per TCP connection: the process's limit of open files is
        raised to what the system allows it (`ulimit -Hn`), since many start it with 1,024.
    `io_threads`: threads that do TCP and CURVE.  One is enough until it fills a core (about 100,000 small messages
        a second); more cost a thread and an allocator arena each.
    """

    def __init__(self, *, max_sockets: int = 16384, io_threads: int = 1) -> None:
        self._max_sockets = max_sockets
        self._io_threads = io_threads
        self._opened = False
        self._listeners = 0

    async def __aenter__(self) -> LinkContext:
        if self._opened:
            raise LocalProtocolError("a LinkContext is entered once")
        self._opened = True
        _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # Both only count before the first socket is made.
        self._context.set(zmq.MAX_SOCKETS, self._max_sockets)
        self._context.set(zmq.IO_THREADS, self._io_threads)
        # With it every small message that waits in a queue pins the 8 KB buffer it was read into, and a peer's full
        # queue would hold 2 MB.  Without it a connection costs 4 KB less, a message 10 % less CPU (loadtest.bench).
        self._context.set(ZERO_COPY_RECV, 0)
        self._poller = Poller()
        self._alarms = DeadlineQueue()
        zap = self._context.socket(zmq.ROUTER)
        zap.linger = 0
        zap.bind(ENDPOINT)
        self._doorman = ZapAuthenticator(self._poller.adopt(zap))
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        self._nursery.start_soon(self._poller.run)
        self._nursery.start_soon(self._alarms.run)
        self._nursery.start_soon(self._doorman.run)
        self._nursery.start_soon(self._doorman.run_refusals)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The nursery is only for our own tasks: what the body raised is not its business, and must come out of the
        # `async with` as it is, not wrapped into a group.
        self._nursery.cancel_scope.cancel()
        try:
            await self._nursery_manager.__aexit__(None, None, None)
        finally:
            self._poller.close()
            with trio.CancelScope(shield=True):
                # Blocks until every socket is flushed, at most for its linger time.
                await trio.to_thread.run_sync(self._context.term)

    def listen(
        self,
        endpoint: str,
        keys: Keypair,
        authorise: Authorise,
        *,
        limits: LinkLimits = DEFAULT_LIMITS,
    ) -> Listener:
        """
        Bind `endpoint` and admit the keys that `authorise` names.

        "tcp://127.0.0.1:*" takes a free port, "tcp://127.0.0.1:7400-7499" one of these.

        `authorise(public_key)` gets 32 bytes and returns the peer's name, or None to refuse it; or an awaitable of
        either, where that wants a look elsewhere: then other handshakes and everything else go on meanwhile.  It is
        called once per handshake, and must not raise.
        Raises `LinkError` if the endpoint cannot be bound.
        """
        socket = self._socket(zmq.ROUTER, endpoint, keys, limits)
        domain = b"listener-%d" % self._listeners
        self._listeners += 1
        socket.curve_server = 1
        socket.setsockopt(zmq.ZAP_DOMAIN, domain)
        socket.setsockopt(zmq.BACKLOG, limits.backlog)
        # Without it a ROUTER drops what it cannot route, silently, and a full queue looks like a sent message.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            _bind(socket, endpoint)
        except zmq.ZMQError as error:
            socket.close()
            raise LinkError(f"cannot listen on {endpoint}: {error.strerror}") from error
        bound = socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        listener = Listener(self._adopt(socket), bound, authorise, limits, lambda: self._doorman.close(domain))
        self._doorman.open(domain, listener.admit)
        return listener

    def connect(
        self, endpoint: str, server_public: bytes, keys: Keypair, *, limits: LinkLimits = DEFAULT_LIMITS
    ) -> Connection:
        """
        Call the listener at `endpoint` whose CURVE public key is `server_public` (32 bytes).

        Returns at once; libzmq connects, and reconnects, in the background.  Raises `LinkError` for an endpoint that is
        malformed or when sockets or file descriptors ran out, and for every transport but TCP: addresses come from
        peers, and `inproc` leads to the ZAP authenticator of this very process.
        """
        if not endpoint.startswith("tcp://"):
            raise LinkError(f"cannot connect to {endpoint}: expected tcp://HOST:PORT")
        socket = self._socket(zmq.DEALER, endpoint, keys, limits)
        jitter = 1 + random.random()
        socket.setsockopt(zmq.CURVE_SERVERKEY, server_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, _ms(limits.reconnect_s * jitter))
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _ms(limits.reconnect_s_max * jitter))
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close()
            raise LinkError(f"cannot connect to {endpoint}: {error.strerror}") from error
        return Connection(self._adopt(socket), limits)

    def inbox(self, size: int) -> Inbox[Event, Message]:
        """Make the inbox of a task that waits for posted events (at most `size`), a link and deadlines together."""
        return Inbox(self._alarms, size)

    def _socket(self, kind: int, endpoint: str, keys: Keypair, limits: LinkLimits) -> zmq.Socket[bytes]:
        try:
            socket = self._context.socket(kind)
        except zmq.ZMQError as error:
            raise LinkError(f"no socket for {endpoint}: {error.strerror} (max_sockets, ulimit -n)") from error
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        socket.setsockopt(zmq.PROBE_ROUTER, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, limits.message_bytes_max + CURVE_OVERHEAD_BYTES)
        socket.setsockopt(zmq.SNDHWM, limits.queue_messages)
        socket.setsockopt(zmq.RCVHWM, limits.queue_messages)
        socket.setsockopt(zmq.HANDSHAKE_IVL, _ms(limits.handshake_s))
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, limits.keepalive_s)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, max(1, int(limits.peer_gone_s / KEEPALIVE_PROBES)))
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES)
        # Linux calls it TCP_USER_TIMEOUT.  On an idle link it runs from the last sign of life and overrules the number
        # of questions: without `keepalive_s` in it one lost answer would end the link.
        socket.setsockopt(zmq.TCP_MAXRT, _ms(limits.keepalive_s + limits.peer_gone_s))
        socket.setsockopt(zmq.LINGER, _ms(limits.linger_s))
        return socket

    def _adopt(self, socket: zmq.Socket[bytes]) -> EdgeSocket:
        return self._poller.adopt(socket)


def _bind(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Bind to the first of the endpoint's ports that is free.  Raises zmq.ZMQError."""
    host, _, ports = endpoint.rpartition(":")
    first, is_range, last = ports.partition("-")
    if not is_range:
        socket.bind(endpoint)
        return
    for port in range(int(first), int(last)):
        try:
            socket.bind(f"{host}:{port}")
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
        else:
            return
    socket.bind(f"{host}:{last}")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
