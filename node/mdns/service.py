"""
The responders of one gateway on their sockets: one for each interface and IP version, bound to it.

What comes from outside of the interface's networks is not looked at (RFC 6762, section 11).  An interface that is not
there, has other addresses than before, or on which somebody else has the gateway's name, is looked at again a while
later; what fails here costs names at home and nothing else.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random
from typing import Any, Final

import trio

from node.mdns.interfaces import Interface, read_interface
from node.mdns.lookup import Lookup
from node.mdns.sockets import GROUPS, open_socket
from protocol.errors import RemoteProtocolError
from protocol.log_limit import PEER_LINE_S, LogLimiter
from protocol.mdns.messages import SIZE_MAX, read_message
from protocol.mdns.records import Service, records_of
from protocol.mdns.responder import PORT, Budget, Outgoing, Responder, State

log = logging.getLogger(__name__)
_LOOK_S: Final = 10.0
_CONFLICT_S: Final = 60.0


class MdnsService:
    """One gateway's; `run` serves until cancelled, and `lookup` asks beside it, on one budget of multicasts."""

    def __init__(self, identity: str, services: Sequence[Service], interfaces: Sequence[str], rng: Random) -> None:
        self._identity = identity
        self._services = tuple(services)
        self._interfaces = tuple(interfaces)
        self._rng = rng
        self._budget = Budget()
        self.lookup = Lookup(interfaces, rng, self._budget)
        self._own: set[bytes] = set()
        self._lines = LogLimiter(PEER_LINE_S * 30, trio.current_time)

    async def run(self) -> None:
        """Serve on every interface."""
        async with trio.open_nursery() as nursery:
            for name in self._interfaces:
                nursery.start_soon(self._follow, name)

    async def _follow(self, name: str) -> None:
        """Serve on an interface with the addresses that it has, anew when they change."""
        while True:
            try:
                interface = read_interface(name)
                await self._serve(interface)
            except* OSError as group:
                self._report(name, group)
            await trio.sleep(_LOOK_S)

    def _report(self, name: str, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if self._lines.is_due(name):
            log.warning("gateway %s is not announced on %s: %s", self._identity, name, error)

    async def _serve(self, interface: Interface) -> None:
        addresses: list[IPv4Address | IPv6Address] = [
            *(each.ip for each in interface.ipv4),
            *(each.ip for each in interface.ipv6),
        ]
        self._own |= {each.packed for each in addresses}
        records = records_of(self._identity, self._services, addresses)
        async with trio.open_nursery() as nursery:
            if interface.ipv4:
                nursery.start_soon(self._respond, interface, socket.AF_INET, records)
            if interface.ipv6:
                nursery.start_soon(self._respond, interface, socket.AF_INET6, records)
            while read_interface(interface.name) == interface:
                await trio.sleep(_LOOK_S)
            nursery.cancel_scope.cancel()

    async def _respond(self, interface: Interface, family: socket.AddressFamily, records: Sequence[Any]) -> None:
        with open_socket(interface, family) as bound:
            while True:
                responder = Responder(records, self._rng.uniform, self._budget, trio.current_time(), self._own)
                await _Session(bound, responder, interface, family).run()
                log.error(
                    "gateway %s: somebody else on %s has its name; it is not announced there", self._identity,
                    interface.name,
                )  # fmt: skip
                await trio.sleep(_CONFLICT_S)


class _Session:
    """One responder on its socket, until it has found a conflict."""

    def __init__(
        self, bound: trio.socket.SocketType, responder: Responder, interface: Interface, family: socket.AddressFamily
    ) -> None:
        self._socket = bound
        self._responder = responder
        self._networks = [each.network for each in (interface.ipv4 if family == socket.AF_INET else interface.ipv6)]
        self._index = interface.index
        self._family = family
        self._changed = trio.Event()

    async def run(self) -> None:
        """Serve; says goodbye where it is cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive)
                while self._responder.state is not State.CONFLICT:
                    self._changed = trio.Event()
                    await self._send(self._responder.advance(trio.current_time()))
                    with trio.move_on_at(self._responder.next_s):
                        await self._changed.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(1, shield=True):
                await self._send(self._responder.goodbye(trio.current_time()))

    async def _receive(self) -> None:
        while True:
            try:
                data, source = await self._socket.recvfrom(SIZE_MAX + 1)
            except OSError as error:  # an ICMP error of another datagram
                log.debug("mdns: %s", error)
                continue
            address = ip_address(source[0].partition("%")[0])
            if not any(address in each for each in self._networks):
                continue
            try:
                message = read_message(data)
            except RemoteProtocolError as error:
                log.debug("mdns: %s", error)
                continue
            await self._send(self._responder.receive(message, (source[0], source[1]), trio.current_time()))
            self._changed.set()

    async def _send(self, messages: Sequence[Outgoing]) -> None:
        for each in messages:
            host, port = each.to or (GROUPS[self._family], PORT)
            address = (host, port) if self._family == socket.AF_INET else (host.partition("%")[0], port, 0, self._index)
            try:
                await self._socket.sendto(each.content, address)
            except OSError as error:  # the interface is down, or the asker has gone
                log.debug("mdns: %s", error)
