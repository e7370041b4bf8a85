"""
Web servers on anycorn and trio, where the fault of one connection costs that connection and nothing else.

anycorn runs all connections in one nursery and lets some of their errors out of it, and with them the whole process:

- a TLS record that does not authenticate, after the handshake, is an `ssl.SSLError` that it does not expect;
- a TLS 1.3 key update that asks for one in return makes the reading side write while the writing side waits for a
  client that does not read: `anyio.BusyResourceError`;
- no descriptor left for the next connection is an error of the listener, which ends it.

And a TLS connection that the server closes waits for the client's close_notify, for ever if none comes.

Anybody who reaches the port can cause each of them.  anycorn has no hook for a connection's handler and anyio none for
its listener, so both are wrapped here, once a process.  The same place counts connections where a server has a limit.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anycorn
import anycorn.run
import anyio
import trio
from anycorn.config import Sockets
from anyio._backends._trio import TCPSocketListener
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSStream

from protocol.errors import StromkreisError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.peer_addresses import peer_network

log = logging.getLogger(__name__)
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED})
_EXHAUSTED_S = 0.1  # until the next try: connections end meanwhile
_CLOSE_S = 2.0  # for the client's close_notify
# Lowering it drops slow clients (they connect again), raising it delays the end of the process.
STALL_S = 5.0

_server: Any = anycorn.run  # neither module exports what is wrapped
_listener: Any = TCPSocketListener
_handler_of = _server.tcp_server_handler
_accept = TCPSocketListener.accept


_lines = LogLimiter(PEER_LINE_S, trio.current_time)


def _report(text: str) -> None:
    if _lines.is_due(text):
        log.warning(text)


class ServerConfig(anycorn.Config):
    """
    anycorn's settings with a TLS context of ours (its own has no way to choose curves or to ask for certificates).

    Accepted sockets inherit TCP_USER_TIMEOUT (Linux): a client that takes nothing is cut.  Access is not logged, and
    the server's name is not told.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.context = context
        self.alpn_protocols = ["http/1.1"]
        self.accesslog = None
        self.loglevel = "WARNING"
        self.include_server_header = False
        self.graceful_timeout = 0.5  # event streams never end by themselves: waiting for them is waiting in vain
        self.shutdown_timeout = 1.0
        self.ssl_handshake_timeout = 10.0

    def create_ssl_context(self) -> ssl.SSLContext | None:
        """The context given."""
        return self.context

    @property
    def ssl_enabled(self) -> bool:
        """Whether there is one."""
        return self.context is not None

    def create_sockets(self) -> Sockets:
        """Raises StromkreisError where an address is taken; none is bound then."""
        own = "https" if self.ssl_enabled else "http"
        listeners: list[socket.socket] = []
        try:  # by ourselves: anycorn leaves a socket open that it cannot bind
            for scheme, address in [
                *((own, each) for each in self.bind),
                *(("http", each) for each in self.insecure_bind),
            ]:
                listeners.append(_listen(scheme, address))
        except StromkreisError:
            for each in listeners:
                each.close()
            raise
        bound = [f"fd://{each.detach()}" for each in listeners]
        self.bind, self.insecure_bind = bound[: len(self.bind)], bound[len(self.bind) :]
        sockets = super().create_sockets()
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            for listener in (*sockets.secure_sockets, *sockets.insecure_sockets):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_S * 1000))
        return sockets


def _listen(scheme: str, address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        listener = socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise StromkreisError(f"cannot listen on {scheme}://{address}: {error.strerror}") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class ConnectionLimit:
    """
    At most so many connections of one server at once, and of them so many of one address, of IPv6 of one /64 network;
    more are closed.

    They are accepted `pause_s` apart at least: a handshake costs milliseconds, and whoever makes them without end must
    not have the process to itself.
    """

    def __init__(self, total: int, per_address: int, pause_s: float = 0.0) -> None:
        self._pause_s = pause_s
        self._next_s = 0.0
        self._total = total
        self._per_address = per_address
        self._open: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """Connections that are open."""
        return self._open.total()

    async def wait(self) -> None:
        """Return when the next connection may be accepted."""
        await trio.sleep_until(max(self._next_s, trio.current_time()))

    def admit(self, stream: Any) -> bool:
        """Count a connection until it is closed; no where it is one too many."""
        self._next_s = trio.current_time() + self._pause_s
        address = peer_network(str(stream.extra(SocketAttribute.remote_address)[0]))  # noqa: S610 - anyio's, no Django
        if self.count >= self._total or self._open[address] >= self._per_address:
            return False
        self._open[address] += 1
        close = stream.aclose
        is_open = True

        async def aclose() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self._open[address] -= 1
                if not self._open[address]:
                    del self._open[address]
            await close()

        stream.aclose = aclose
        return True


_limits: dict[Any, ConnectionLimit] = {}  # by the address that a listener is bound to


class HandshakeLines(logging.Filter):
    """
    One line for TLS handshakes that failed, now and then, in place of a traceback each: anybody can make them fail.

    anyio's listener logs them and offers no hook of its own; its log record is where they can be shortened.
    """

    def __init__(self) -> None:
        super().__init__()
        self._limiter = LogLimiter(PEER_LINE_S, trio.current_time)
        self._kept_back = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record, or drop it."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        if not self._limiter.is_due("handshake"):
            self._kept_back += 1
            return False
        others = f", and {self._kept_back} others since the last line" if self._kept_back else ""
        self._kept_back = 0
        record.msg = "a TLS handshake failed (%s)%s"
        record.args = (getattr(error.__cause__ or error, "reason", None) or type(error).__name__, others)
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = None
        return True


def _contained(*arguments: Any) -> Callable[[Any], Awaitable[None]]:
    handle = _handler_of(*arguments)

    is_limited = getattr(arguments[1], "connection_limit", None) is not None

    async def connection(stream: Any) -> None:
        if isinstance(stream, TLSStream):
            _bound_close(stream)
        try:
            with anyio.CancelScope() as scope:
                if is_limited:
                    _end_with_the_client(stream, scope)
                await handle(stream)
        except* Exception as group:  # noqa: BLE001 - whatever it is, it is this connection's; a cancellation passes
            fault: BaseException = group
            while isinstance(fault, BaseExceptionGroup):
                fault = fault.exceptions[0]
            _report(f"a web connection ended by an error ({type(fault).__name__})")

    return connection


def _end_with_the_client(stream: Any, scope: anyio.CancelScope) -> None:
    """
    End a connection as soon as the client has: anycorn keeps it for as long as an idle one.

    A client that comes anew for each request would otherwise fill the server's limit by itself.
    """
    take = stream.receive

    async def receive(size: int = 65536) -> bytes:
        try:
            return bytes(await take(size))
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            scope.cancel()
            raise

    stream.receive = receive


def _bound_close(stream: Any) -> None:
    close = stream.aclose

    async def aclose() -> None:
        with anyio.move_on_after(_CLOSE_S):
            await close()

    stream.aclose = aclose


async def _patient_accept(listener: TCPSocketListener) -> Any:
    limit = _limits.get(listener.extra(SocketAttribute.raw_socket).getsockname())  # noqa: S610 - as above
    while True:
        try:
            if limit is not None:
                await limit.wait()
            stream = await _accept(listener)
            if limit is None or limit.admit(stream):
                return stream
            _report(
                "a web connection is closed at once: there are as many as this server takes, or as one address may have"
            )
            await stream.aclose()
        except anyio.TypedAttributeLookupError:  # it has gone already
            await anyio.aclose_forcefully(stream)
        except anyio.BrokenResourceError as error:
            if getattr(error.__cause__, "errno", None) not in _EXHAUSTED:
                raise
            _report("a web connection is not accepted: no descriptor is left; raise the limit of open files")
            await trio.sleep(_EXHAUSTED_S)


async def serve_asgi(app: Any, config: anycorn.Config, task_status: Any, limit: ConnectionLimit | None = None) -> None:
    """
    Serve an ASGI application until cancelled; `task_status` gets the addresses bound, as anycorn has them.

    Raises what `config.create_sockets` raises.
    """
    _server.tcp_server_handler = _contained
    _listener.accept = _patient_accept
    bound: list[Any] = []
    create = config.create_sockets

    def create_sockets() -> Any:
        sockets = create()
        for each in (*sockets.secure_sockets, *sockets.insecure_sockets):
            if limit is not None:
                bound.append(each.getsockname())
                _limits[bound[-1]] = limit
        return sockets

    setattr(config, "connection_limit", limit)  # noqa: B010 - as below
    setattr(config, "create_sockets", create_sockets)  # noqa: B010 - mypy takes no assignment to a method
    try:
        await anycorn.serve(app, config, mode="asgi", task_status=task_status)
    finally:
        for each in bound:
            del _limits[each]
