"""
The proxy of one gateway for controllable systems (CLS): SOCKS-TLS server at home, TLS client on the WAN (chapter 11.3).

Who connects shows the certificate of a HAN profile and names a proxy profile; the gateway opens a TLS session with that
profile's participant, and passes octets on between the two sessions until one side or a limit of the profile ends it.
Scenario HKS3 of BSI TR-03109-1: the controllable system begins.

Everything that a hostile home could widen is bounded: connections, time before the request, octets a second, entries in
the log.  What fails here costs its connection; where the proxy cannot be served, meters are read and rings go on.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import trio

from node.cls.admission import CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, TUNNELS_PER_SYSTEM_MAX, Quota
from node.cls.destinations import proxy_of, system_of
from node.cls.participant import UnreachableError, connect
from node.cls.relay import End, RateLimit, Traffic, relay
from node.cls.stream import SocksTlsStream
from node.cls.tunnel_log import Note, TunnelLog
from node.metrics import NodeMetrics
from node.profiles.checking import der_of
from node.profiles.gateway_profiles import GatewayProfiles
from node.security.home_certificate import HanKey, Secrets, han_key, trust
from node.security.module import SecurityModule
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.profiles.communication import ProxyProfile
from protocol.socks_tls import Authenticated, Closed, Destination, Reply, Requested, SocksTlsServer

log = logging.getLogger(__name__)
REQUEST_S: Final = 10.0
"""For greeting, handshake and request together."""
ACCEPT_PAUSE_S: Final = 0.02
"""Between two connections: a handshake costs a millisecond of the process that reads meters."""
HOLD_S: Final = 5.0
"""For which a participant that was not reached is not tried again: no client may try sooner (ConnectRequest.80)."""
_VALIDITY_LOOK_S: Final = 60.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED})
_EXHAUSTED_S: Final = 0.1

Stream = SocksTlsStream[SocksTlsServer]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClsServices:
    """
    What all gateways of a process share for their controllable systems.

    `tls_context` makes a client's context that trusts the SM-PKI root alone; `listen` is HOST:PORT, by gateway.
    """

    secrets: Secrets
    metrics: NodeMetrics
    tls_context: Callable[[], ssl.SSLContext]
    listen: dict[str, str] = field(default_factory=dict)


class ClsProxy:
    """One gateway's; `clock` is real time (Unix, s), `rate` what its tunnels may move together."""

    def __init__(
        self, services: ClsServices, module: SecurityModule, profiles: GatewayProfiles, note: Note,
        clock: Callable[[], float], rate: RateLimit | None = None,
    ) -> None:  # fmt: skip
        self._services = services
        self._module = module
        self._profiles = profiles
        self._clock = clock
        self._rate = rate or RateLimit()
        self._tunnels = TunnelLog(note)
        self._connections = Quota(CONNECTIONS_PER_ADDRESS_MAX, CONNECTIONS_MAX)
        self._systems = Quota(TUNNELS_PER_SYSTEM_MAX)
        self._held: dict[str, tuple[float, UnreachableError]] = {}
        self._lines = LogLimiter(PEER_LINE_S, trio.current_time)

    async def run(self, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED) -> None:
        """
        Serve until cancelled; reports the address bound.

        Raises StoreError, SealError where the key cannot be read or kept, StromkreisError where the address is taken.
        """
        module = self._module
        key = await han_key(
            module.identity, self._services.secrets, module.random, module.ephemeral_key, self._clock()
        )  # fmt: skip
        self._context = self._context_of(key)
        host, _, port = self._services.listen[module.identity].rpartition(":")
        try:
            listeners = await trio.open_tcp_listeners(int(port), host=host.strip("[]"))
        except OSError as error:
            raise StromkreisError(f"cls.listen: cannot listen on {host}:{port} ({error.strerror})") from error
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_profiles, key)
            nursery.start_soon(self._tunnels.run)
            for each in listeners:
                nursery.start_soon(self._accept, each, nursery)
            bound = listeners[0].socket.getsockname()
            log.info("gateway %s serves controllable systems at %s:%d", module.identity, bound[0], bound[1])
            task_status.started((bound[0], bound[1]))

    # --- connections --------------------------------------------------------------------------------------------------

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        async with listener:
            while True:
                try:
                    transport = await listener.accept()
                except OSError as error:
                    if error.errno not in _EXHAUSTED:
                        raise
                    await trio.sleep(_EXHAUSTED_S)
                    continue
                nursery.start_soon(self._connection, transport)
                await trio.sleep(ACCEPT_PAUSE_S)

    async def _connection(self, transport: trio.SocketStream) -> None:
        try:
            address = str(transport.socket.getpeername()[0])
        except OSError:  # it has gone already
            await trio.aclose_forcefully(transport)
            return
        with self._connections.place(address) as is_free:
            if not is_free:
                self._refused("-", "too_many", f"as many connections as there may be, or as {address} may have")
                await trio.aclose_forcefully(transport)
                return
            stream = Stream(transport, SocksTlsServer(self._context))
            try:
                await self._serve(stream)
            except RemoteProtocolError as error:
                self._refused("-", error.reason, str(error))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._services.metrics.cls_connection("gone")
            finally:
                await stream.aclose()

    async def _serve(self, stream: Stream) -> None:
        with trio.move_on_after(REQUEST_S) as limit:
            asked = await self._request(stream)
        if limit.cancelled_caught:
            raise RemoteProtocolError("too_slow", f"no request within {REQUEST_S:g} s")
        if asked is None:
            self._services.metrics.cls_connection("gone")
            return
        fingerprint, destination = asked
        system = system_of(self._profiles.current, fingerprint, self._now())
        proxy = None if system is None else proxy_of(self._profiles.current, system, destination, self._now())
        if proxy is None:
            await self._refuse(stream, Reply.NOT_ALLOWED, system or "-", "no_profile")
            return
        with self._systems.place(proxy.cls) as is_free:
            if is_free:
                await self._tunnel(stream, proxy, fingerprint)
            else:
                await self._refuse(stream, Reply.GENERAL_FAILURE, proxy.cls, "too_many")

    async def _request(self, stream: Stream) -> tuple[str, Destination] | None:
        """The fingerprint of who asks, and for what; None where the connection ended before."""
        fingerprint = ""
        while True:
            event = await stream.next_event()
            if isinstance(event, Authenticated):
                fingerprint = hashlib.sha256(event.certificate).hexdigest()
            elif isinstance(event, Requested):
                return fingerprint, event.destination
            elif isinstance(event, Closed):
                return None

    async def _tunnel(self, stream: Stream, proxy: ProxyProfile, fingerprint: str) -> None:
        async with AsyncExitStack() as stack:
            try:
                remote = await self._connect(proxy, stack)
            except UnreachableError as error:
                await self._refuse(stream, error.reply, proxy.cls, error.reason)
                return
            metrics, traffic, end = self._services.metrics, Traffic(), End.PROFILE
            stream.push_back(stream.core.reply(Reply.SUCCEEDED))
            await stream.flush()
            metrics.cls_connection("connected")
            metrics.cls_tunnels(1)
            self._tunnels.opened(proxy)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._end_with_profile, proxy, fingerprint, nursery.cancel_scope)
                    end = await relay(
                        stream, remote, self._rate, traffic, idle_s=proxy.idle_timeout_s,
                        duration_s=proxy.duration_max_s,
                    )  # fmt: skip
                    nursery.cancel_scope.cancel()
            finally:
                metrics.cls_tunnels(-1)
                metrics.cls_bytes(traffic.sent, traffic.received)
                self._tunnels.ended(proxy, end, traffic)
                await stream.aclose()  # the system need not wait for the participant's end

    async def _connect(self, proxy: ProxyProfile, stack: AsyncExitStack) -> trio.SSLStream[trio.SocketStream]:
        """Raises UnreachableError, the last one again for a while after a failure."""
        until_s, failure = self._held.get(proxy.id, (0.0, None))
        if failure is not None and trio.current_time() < until_s:
            raise UnreachableError(failure.reply, failure.reason)
        try:
            remote = await connect(proxy, self._client_context, stack)
        except UnreachableError as error:
            self._held[proxy.id] = (trio.current_time() + HOLD_S, error)
            raise
        self._held.pop(proxy.id, None)
        return remote

    async def _refuse(self, stream: Stream, reply: Reply, system: str, reason: str) -> None:
        self._refused(system, reason, f"reply {reply:#04x}")
        stream.core.reply(reply)
        await stream.flush()

    def _refused(self, system: str, reason: str, detail: str) -> None:
        self._services.metrics.cls_connection(reason)
        self._tunnels.refused(system, reason)
        if self._lines.is_due(reason):
            log.warning("gateway %s refuses a controllable system: %s (%s)", self._module.identity, reason, detail)

    # --- profiles -----------------------------------------------------------------------------------------------------

    async def _follow_profiles(self, key: HanKey) -> None:
        """Trust the certificates of the set in force, and those alone."""
        while True:
            changed = self._profiles.changed
            self._context = self._context_of(key)
            self._held.clear()
            await changed.wait()

    async def _end_with_profile(self, proxy: ProxyProfile, fingerprint: str, scope: trio.CancelScope) -> None:
        """End a tunnel whose profiles are not in force any more, as they were."""
        while True:
            with trio.move_on_after(_VALIDITY_LOOK_S):
                await self._profiles.changed.wait()
            current, now = self._profiles.current, self._now()
            is_in_force = current is not None and proxy in current.proxy and proxy.is_valid_at(now)
            if not is_in_force or system_of(current, fingerprint, now) != proxy.cls:
                scope.cancel()
                return

    def _context_of(self, key: HanKey) -> ssl.SSLContext:
        context = key.context(is_certificate_required=True)
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0  # a session is for one connection (ConnectRequest.10)
        current = self._profiles.current
        wanted = set() if current is None else {each.certificate for each in current.han if each.role == "cls"}
        for text in () if current is None else current.certificates:
            with suppress(RemoteProtocolError, ssl.SSLError):
                der = der_of(text)
                if hashlib.sha256(der).hexdigest() in wanted:
                    trust(context, der)
        return context

    def _client_context(self) -> ssl.SSLContext:
        context = self._services.tls_context()
        context.check_hostname = False  # the profile names the certificate itself
        self._module.load_tls(context)
        return context

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)
