"""
The back end `proxy`: TCP relays that delay, limit, stall and reset; no privileges, any system.

A relay stands for the path from a source endpoint to a destination: the source's line up, then the destination's line
down, and the reverse for the answers.  It cannot lose what TCP has accepted: loss shows as the wait for the
retransmission, as it does to every program above TCP.

Memory is bounded by back-pressure: a direction holds what its lines would hold (rate times delay and queue), then the
relay stops reading, TCP's window closes, and the sender waits.  Order is kept, and every byte that was accepted is
delivered or the connection is reset.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import Random

import trio

from netem.delay import SEGMENT_BYTES, StreamLine
from netem.errors import InvalidDataError
from netem.network import Address, Endpoint, Network, Relay
from netem.scenario import NetworkState
from netem.stream import transfer

log = logging.getLogger(__name__)

_CONNECTIONS_MAX = 10_000
_SOCKET_BUFFER_BYTES = 1 << 16
"""Of the relay's own sockets: the kernel's default grows to megabytes, which would be a queue that no profile has."""
_RESET = struct.pack("ii", 1, 0)
_CONNECT_TIMEOUT_S = 10.0


class _Changes:
    """Wakes those that wait for the next state."""

    def __init__(self) -> None:
        self._changed = trio.Event()

    def notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self) -> None:
        await self._changed.wait()


class ProxyEmulation:
    """Relays that run; see `emulate`."""

    def __init__(self, network: Network, state: NetworkState, rng: Random) -> None:
        self._network = network
        self._endpoints = {endpoint.name: endpoint for endpoint in network.endpoints}
        self._rng = rng
        self._state = state
        self._changes = _Changes()
        self._shared: dict[str, tuple[StreamLine, StreamLine]] = {
            name: self._new_lines(endpoint) for name, endpoint in self._endpoints.items() if endpoint.lines == 1
        }
        self._own: dict[str, set[tuple[StreamLine, StreamLine]]] = {name: set() for name in self._endpoints}
        self._cut_scopes: dict[Relay, set[trio.CancelScope]] = {relay: set() for relay in network.relays}
        self._totals = dict.fromkeys(
            ("connections", "refused_connections", "reset_connections", "relayed_bytes", "segments", "retransmissions"),
            0,
        )
        self._unreached: set[Relay] = set()  # whose target was told of, and answers nobody since
        self.addresses: dict[Relay, Address] = {}
        """Where each relay listens, with the port that the system chose."""

    def command(self, _endpoint: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """How a command is started at an endpoint."""
        return arguments

    async def apply(self, state: NetworkState) -> None:
        """Put a state into effect for what arrives from now on; a cut holds back what is in flight as well."""
        await trio.lowlevel.checkpoint()
        self._state = state
        for name, lines in self._shared.items():
            self._set(lines, name)
        for name, all_lines in self._own.items():
            for lines in all_lines:
                self._set(lines, name)
        self._changes.notify()
        for relay, scopes in self._cut_scopes.items():
            if relay.when_cut == "reset" and not self._is_open(relay):
                self._totals["reset_connections"] += len(scopes)
                for scope in scopes:
                    scope.cancel()

    def counters(self) -> dict[str, int]:
        """Connections, bytes, segments, and segments that waited for a retransmission, since the start."""
        live = [*self._shared.values(), *(lines for each in self._own.values() for lines in each)]
        totals = dict(self._totals)
        for lines in live:
            for line in lines:
                totals["segments"] += line.segment_count
                totals["retransmissions"] += line.retransmission_count
        return totals

    def _new_lines(self, endpoint: Endpoint) -> tuple[StreamLine, StreamLine]:
        profile = self._state[endpoint.name].profile
        return StreamLine(profile.up, self._rng), StreamLine(profile.down, self._rng)

    def _set(self, lines: tuple[StreamLine, StreamLine], name: str) -> None:
        lines[0].direction, lines[1].direction = self._state[name].profile.up, self._state[name].profile.down

    def _is_open(self, relay: Relay) -> bool:
        return self._state[relay.source].reaches(self._state[relay.destination])

    @asynccontextmanager
    async def _lines(self, name: str) -> AsyncIterator[tuple[StreamLine, StreamLine]]:
        """The endpoint's lines: shared, or the connection's own where the endpoint stands for many."""
        if name in self._shared:
            yield self._shared[name]
            return
        lines = self._new_lines(self._endpoints[name])
        self._own[name].add(lines)
        try:
            yield lines
        finally:
            self._own[name].discard(lines)
            for line in lines:
                self._totals["segments"] += line.segment_count
                self._totals["retransmissions"] += line.retransmission_count

    async def listen(self) -> list[tuple[Relay, trio.SocketListener]]:
        """Open every relay's port.  Raises InvalidDataError where one cannot be opened."""
        opened: list[tuple[Relay, trio.SocketListener]] = []
        for relay in self._network.relays:
            family = socket.AF_INET6 if ":" in relay.listen.host else socket.AF_INET
            listening = trio.socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _shrink(listening)
            try:
                await listening.bind((relay.listen.host, relay.listen.port))
                listening.listen(socket.SOMAXCONN)
            except OSError as error:
                listening.close()
                for _, listener in opened:
                    listener.socket.close()
                what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be opened: {error.strerror}"
                raise InvalidDataError(
                    f"relay of {relay.source}: {relay.listen} {what}; port 0 takes a free one"
                ) from None
            host, port = listening.getsockname()[:2]
            self.addresses[relay] = Address(host=host, port=port)
            opened.append((relay, trio.SocketListener(listening)))
        return opened

    async def serve(self, relay: Relay, client: trio.SocketStream) -> None:
        """Carry one connection until both directions are closed; a failure of one side resets the other."""
        if len(self._cut_scopes[relay]) >= _CONNECTIONS_MAX or (relay.when_cut == "reset" and not self._is_open(relay)):
            self._totals["refused_connections"] += 1
            await _reset(client)
            return
        self._totals["connections"] += 1
        with trio.CancelScope() as scope:
            self._cut_scopes[relay].add(scope)
            try:
                await self._relay(relay, client)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                log.info("a connection ended early", extra={"relay": relay.source, "error": str(error)})
            finally:
                self._cut_scopes[relay].discard(scope)
                await _reset(client)  # where it was closed in order, this does nothing

    async def _relay(self, relay: Relay, client: trio.SocketStream) -> None:
        async def wait_open() -> None:
            while not self._is_open(relay):
                await self._changes.wait()

        async with self._lines(relay.source) as source, self._lines(relay.destination) as destination:
            there, back = (source[0], destination[1]), (destination[0], source[1])
            # The relay has accepted already; the client's first byte still comes a round trip later, as after a SYN.
            await trio.sleep(sum(line.direction.delay_s for line in (*there, *back)))
            await wait_open()
            target = await self._connect(relay)
            if target is None:
                self._totals["refused_connections"] += 1
                return
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(transfer, client, target, there, wait_open, self._count)
                    nursery.start_soon(transfer, target, client, back, wait_open, self._count)
                await client.aclose()
                await target.aclose()
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as group:
                log.info("a connection broke", extra={"relay": relay.source, "errors": len(group.exceptions)})
            finally:
                await _reset(target)

    async def _connect(self, relay: Relay) -> trio.SocketStream | None:
        # By hand: open_tcp_stream offers no socket options before connect, and SO_RCVBUF sets the window's scale there.
        connecting: trio.socket.SocketType | None = None
        try:
            with trio.fail_after(_CONNECT_TIMEOUT_S):
                found = await trio.socket.getaddrinfo(relay.target.host, relay.target.port, type=socket.SOCK_STREAM)
                family, kind, protocol, _, address = found[0]
                connecting = trio.socket.socket(family, kind, protocol)
                _shrink(connecting)
                await connecting.connect(address)
        except (OSError, trio.TooSlowError) as error:
            if connecting is not None:
                connecting.close()
            if relay not in self._unreached:
                self._unreached.add(relay)
                log.warning(
                    "%s: connections are reset: %s cannot be reached (%s)",
                    self.addresses[relay], relay.target, str(error) or f"no answer in {_CONNECT_TIMEOUT_S:g} s",
                )  # fmt: skip
            return None
        self._unreached.discard(relay)
        return trio.SocketStream(connecting)

    def _count(self, size_bytes: int) -> None:
        self._totals["relayed_bytes"] += size_bytes


def _shrink(tcp: trio.socket.SocketType) -> None:
    # One of loopback's segments of 64 KiB would fill such a buffer, and each would wait for a delayed acknowledgement.
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)


async def _reset(stream: trio.SocketStream) -> None:
    """Close with a reset: nobody may take a part of a stream for the whole."""
    with suppress(OSError):
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with trio.CancelScope(shield=True):
        await stream.aclose()


@asynccontextmanager
async def emulate(network: Network, state: NetworkState, *, rng: Random) -> AsyncIterator[ProxyEmulation]:
    """Relays of the network in the given state.  Raises InvalidDataError: no relay, or a port that is taken."""
    if not network.relays:
        raise InvalidDataError("the network has no relays: give --relay LISTEN=TARGET, or [[relays]] in its file")
    emulation = ProxyEmulation(network, state, rng)
    async with trio.open_nursery() as nursery:
        for relay, listener in await emulation.listen():
            handler = _handler(emulation, relay)
            nursery.start_soon(trio.serve_listeners, handler, [listener])
        yield emulation
        nursery.cancel_scope.cancel()


def _handler(emulation: ProxyEmulation, relay: Relay) -> Callable[[trio.SocketStream], Awaitable[None]]:
    async def handle(stream: trio.SocketStream) -> None:
        await emulation.serve(relay, stream)

    return handle
