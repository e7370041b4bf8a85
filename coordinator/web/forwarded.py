"""
Whose request a reverse proxy hands on: the last address in `X-Forwarded-For` that is no configured proxy's.

Each proxy appends the peer that has called it, so what stands further to the left was written by that peer and is worth
nothing: believed, it would let anybody choose under which address failed log-ins are counted, what the audit log says,
and where wake-up messages go.  From whoever is no configured proxy the header is not read at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from protocol.peer_addresses import is_among, parse_address

Networks = Sequence[IPv4Network | IPv6Network]
_HEADER = b"x-forwarded-for"


class ForwardedClient:
    """ASGI middleware: `client` of a request's scope is whoever called the outermost of `proxies`."""

    def __init__(self, app: ASGIApp, proxies: Networks) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        peer = scope.get("client")
        if peer is not None and is_among(peer[0], self._proxies):
            found = client_of(peer[0], _forwarded(scope["headers"]), self._proxies)
            scope = {**scope, "client": (found, peer[1] if found == peer[0] else 0)}
        await self._app(scope, receive, send)


def client_of(peer: str, forwarded: Sequence[str], proxies: Networks) -> str:
    """
    Who called, where `peer` is a proxy and `forwarded` the addresses that the proxies have noted, in their order.

    That is the proxy itself where it has noted nothing, or something that is no address.
    """
    client = peer
    for each in reversed(forwarded):
        found = parse_address(each)
        if found is None:
            return client
        client = str(found)
        if not is_among(client, proxies):
            return client
    return client


def _forwarded(headers: Sequence[tuple[Any, Any]]) -> list[str]:
    """Of all fields in their order; ports, which some proxies add, are left out."""
    lines = [value.decode("latin-1") for name, value in headers if name.lower() == _HEADER]
    return [_without_port(each.strip()) for line in lines for each in line.split(",")]


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
