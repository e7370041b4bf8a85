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
from contextlib import AsyncExitStack, suppress
from typing import Final

import trio

from node.cls.admission import CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, Quota
from node.cls.destinations import proxy_of, system_of
from node.cls.participant import UnreachableError
from node.cls.stream import SocksTlsStream
from node.cls.tunnels import Tunnels
from node.profiles.checking import der_of
from node.security.home_certificate import HanKey, trust
from protocol.errors import RemoteProtocolError, StromkreisError
from protocol.peer_addresses import peer_network
from protocol.profiles.communication import ProxyProfile
from protocol.socks_tls import Authenticated, Closed, Destination, Reply, Requested, SocksTlsServer

log = logging.getLogger(__name__)
REQUEST_S: Final = 10.0
"""For greeting, handshake and request together."""
ACCEPT_PAUSE_S: Final = 0.02
"""Between two connections: a handshake costs a millisecond of the process that reads meters."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED})
_EXHAUSTED_S: Final = 0.1

Stream = SocksTlsStream[SocksTlsServer]


class ClsProxy:
    """One gateway's, on its `tunnels`."""

    def __init__(self, tunnels: Tunnels) -> None:
        self._tunnels = tunnels
        self._services = tunnels.services
        self._module = tunnels.module
        self._profiles = tunnels.profiles
        self._connections = Quota(CONNECTIONS_PER_ADDRESS_MAX, CONNECTIONS_MAX)

    async def run(self, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED) -> None:
        """
        Serve until cancelled; reports the address bound.

        Raises StoreError, SealError where the key cannot be read or kept, StromkreisError where the address is taken.
        """
        key = await self._tunnels.home_key()
        self._context = self._context_of(key)
        host, _, port = self._services.listen[self._module.identity].rpartition(":")
        try:
            listeners = await trio.open_tcp_listeners(int(port), host=host.strip("[]"))
        except OSError as error:
            raise StromkreisError(f"cls.listen: cannot listen on {host}:{port} ({error.strerror})") from error
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_profiles, key)
            for each in listeners:
                nursery.start_soon(self._accept, each, nursery)
            bound = listeners[0].socket.getsockname()
            log.info("gateway %s serves controllable systems at %s:%d", self._module.identity, bound[0], bound[1])
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
            address = peer_network(str(transport.socket.getpeername()[0]))
        except OSError:  # it has gone already
            await trio.aclose_forcefully(transport)
            return
        with self._connections.place(address) as is_free:
            if not is_free:
                self._tunnels.refused("-", "too_many", f"as many connections as there may be, or as {address} may have")
                await trio.aclose_forcefully(transport)
                return
            stream = Stream(transport, SocksTlsServer(self._context))
            try:
                await self._serve(stream)
            except RemoteProtocolError as error:
                self._tunnels.refused("-", error.reason, str(error))
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
        system = system_of(self._profiles.current, fingerprint, self._tunnels.now())
        proxy = None if system is None else proxy_of(self._profiles.current, system, destination, self._tunnels.now())
        if proxy is None:
            await self._refuse(stream, Reply.NOT_ALLOWED, system or "-", "no_profile")
            return
        with self._tunnels.systems.place(proxy.cls) as is_free:
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
                remote = await self._tunnels.reach(proxy, stack)
            except UnreachableError as error:
                await self._refuse(stream, error.reply, proxy.cls, error.reason)
                return
            stream.push_back(stream.core.reply(Reply.SUCCEEDED))
            await stream.flush()
            try:
                await self._tunnels.carry(proxy, fingerprint, stream, remote, proxy.duration_max_s)
            finally:
                await stream.aclose()  # the system need not wait for the participant's end

    async def _refuse(self, stream: Stream, reply: Reply, system: str, reason: str) -> None:
        self._tunnels.refused(system, reason, f"reply {reply:#04x}")
        stream.core.reply(reply)
        await stream.flush()

    # --- profiles -----------------------------------------------------------------------------------------------------

    async def _follow_profiles(self, key: HanKey) -> None:
        """Trust the certificates of the set in force, and those alone."""
        while True:
            changed = self._profiles.changed
            self._context = self._context_of(key)
            await changed.wait()

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
