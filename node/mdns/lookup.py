"""
Names and services of the home network, asked for by multicast DNS (chapter 12.3 of BSI TR-03109-1, details).

A socket for each interface and IP version, open while somebody asks, one cache for each interface.  What comes from
outside of the interface's networks is not looked at.  Multicast DNS proves nothing: whoever connects compares a
certificate.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address
from random import Random
from typing import Final, NamedTuple, TypeVar

import trio

from node.mdns.interfaces import Interface, read_interface
from node.mdns.sockets import GROUPS, open_socket
from protocol.errors import RemoteProtocolError
from protocol.mdns.cache import Cache
from protocol.mdns.messages import AAAA, SIZE_MAX, SRV, A, Name, name_of, read_message
from protocol.mdns.querier import Querier
from protocol.mdns.records import address_of, place_of
from protocol.mdns.responder import PORT, Budget

log = logging.getLogger(__name__)
ANSWER_S: Final = 5.0
LABEL_SIZE_MAX: Final = 63
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_Found = TypeVar("_Found")


class NotFoundError(OSError):
    """Nobody has answered."""


class _Link(NamedTuple):
    """One interface, and what was heard on it."""

    name: str
    cache: Cache


class Lookup:
    """
    Asks on some interfaces; `budget` is the responder's, where there is one beside it.

    Any number of tasks may ask at once.
    """

    def __init__(self, interfaces: Sequence[str], rng: Random, budget: Budget | None = None) -> None:
        self._links = [_Link(each, Cache()) for each in interfaces]
        self._rng = rng
        self._budget = budget or Budget()
        self._heard = trio.Event()

    async def addresses(self, host: str) -> list[str]:
        """
        The addresses of a host such as `smgw.local`, a link-local one with its interface behind a `%`.

        Raises NotFoundError where none is heard of within `ANSWER_S`, OSError where no interface can be used.
        """
        name = name_of(host.lower())
        if not all(1 <= len(each) <= LABEL_SIZE_MAX for each in name):
            raise NotFoundError(f"{host}: expected labels of 1 to {LABEL_SIZE_MAX} octets")
        return await self._wait([(name, A), (name, AAAA)], lambda link: self._addresses(link, name), host)

    async def service(self, instance: str, kind: str) -> tuple[int, list[str]]:
        """Port and addresses of a service's instance, as `SMGW ESTK0100000001` of `_socks._tcp`; raises the same."""
        name = (instance.encode(), *name_of(f"{kind}.local"))

        def placed(link: _Link) -> list[tuple[int, Name]]:
            found = [place_of(each) for each in link.cache.find(name, SRV, trio.current_time())]
            return [each for each in found if each[0]]

        port, host = (await self._wait([(name, SRV)], placed, instance))[0]
        text = b".".join(host).decode(errors="replace")
        return port, await self._wait([(host, A), (host, AAAA)], lambda link: self._addresses(link, host), text)

    async def connect(self, host: str, port: int) -> trio.SocketStream:
        """TCP to a host, one that ends in `.local` by multicast DNS.  Raises OSError."""
        if not host.lower().rstrip(".").endswith(".local"):
            return await trio.open_tcp_stream(host, port)
        return await connect_first(await self.addresses(host), port)

    def _addresses(self, link: _Link, name: Name) -> list[str]:
        found = []
        for kind in (A, AAAA):
            for each in link.cache.find(name, kind, trio.current_time()):
                address = address_of(each)
                is_scoped = isinstance(address, IPv6Address) and address.is_link_local
                found += [] if address is None else [f"{address}%{link.name}" if is_scoped else str(address)]
        return found

    async def _wait(
        self, questions: list[tuple[Name, int]], look: Callable[[_Link], list[_Found]], what: str
    ) -> list[_Found]:
        """What `look` finds, once there is something; asked for until then."""

        def looked() -> list[_Found]:
            return [each for link in self._links for each in look(link)]

        if found := looked():
            return found
        with trio.move_on_after(ANSWER_S):
            async with trio.open_nursery() as nursery:
                for link in self._links:
                    nursery.start_soon(self._ask_on, link, questions)
                while not (found := looked()):
                    heard = self._heard
                    await heard.wait()
                nursery.cancel_scope.cancel()
        if not found:
            raise NotFoundError(f"nobody at home answers for {what} within {ANSWER_S:g} s")
        return found

    async def _ask_on(self, link: _Link, questions: list[tuple[Name, int]]) -> None:
        try:
            interface = read_interface(link.name)
        except OSError as error:
            log.warning("%s: no question by multicast DNS: %s", link.name, error)
            return
        async with trio.open_nursery() as nursery:
            for family in _FAMILIES:
                if interface.ipv4 if family == socket.AF_INET else interface.ipv6:
                    nursery.start_soon(self._ask, link, interface, family, questions)

    async def _ask(
        self, link: _Link, interface: Interface, family: socket.AddressFamily, questions: list[tuple[Name, int]]
    ) -> None:
        own = {*(str(each.ip) for each in interface.ipv4), *(str(each.ip) for each in interface.ipv6)}
        querier = Querier(self._rng.uniform, self._budget, link.cache, own)
        for each in questions:
            querier.ask(*each, trio.current_time())
        try:
            with open_socket(interface, family) as bound:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._receive, bound, querier, interface, family)
                    while True:
                        for content in querier.advance(trio.current_time()):
                            await _send(bound, content, interface, family)
                        await trio.sleep_until(querier.next_s)
        except OSError as error:
            log.warning("%s: no question by multicast DNS: %s", link.name, error)

    async def _receive(
        self, bound: trio.socket.SocketType, querier: Querier, interface: Interface, family: socket.AddressFamily
    ) -> None:
        networks = [each.network for each in (interface.ipv4 if family == socket.AF_INET else interface.ipv6)]
        while True:
            try:
                data, source = await bound.recvfrom(SIZE_MAX + 1)
                if any(ip_address(source[0].partition("%")[0]) in each for each in networks):
                    querier.receive(read_message(data), (source[0].partition("%")[0], source[1]), trio.current_time())
            except (OSError, RemoteProtocolError) as error:  # its datagram, or an ICMP error of another one
                log.debug("mdns: %s", error)
                continue
            self._heard.set()
            self._heard = trio.Event()


async def connect_first(addresses: Sequence[str], port: int) -> trio.SocketStream:
    """TCP to the first address that answers.  Raises OSError, that of the last one."""
    failure: OSError = NotFoundError("no address")
    for each in addresses:
        try:
            return await trio.open_tcp_stream(each, port)
        except OSError as error:
            failure = error
    raise failure


async def _send(
    bound: trio.socket.SocketType, content: bytes, interface: Interface, family: socket.AddressFamily
) -> None:
    group = GROUPS[family]
    try:
        await bound.sendto(
            content, (group, PORT) if family == socket.AF_INET else (group, PORT, 0, interface.index)
        )  # fmt: skip
    except OSError as error:  # the interface is down
        log.debug("mdns: %s", error)
