"""
Whether the coordinator's names resolve: libzmq looks them up by itself, and tells nobody where that fails.

A node whose link is gone for want of a name looks like one whose coordinator is down; this tells them apart.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

import trio

LOOK_S = 30.0  # between two looks: as long as clusters keep an answer
_PATIENCE_S = 20.0


def names_of(addresses: Iterable[str]) -> list[str]:
    """The names in URLs and ZeroMQ endpoints that are no addresses already."""
    hosts = {urlsplit(each).hostname or "" for each in addresses}
    return sorted(host for host in hosts if host and not _is_address(host))


async def watch_names(names: Sequence[str], looked_up: Callable[[bool], None]) -> None:
    """Look all names up again and again until cancelled; `looked_up` hears of each whether it has an address."""
    while True:
        for name in names:
            looked_up(await _resolves(name))
        await trio.sleep(LOOK_S)


async def _resolves(name: str) -> bool:
    with trio.move_on_after(_PATIENCE_S):
        try:
            return bool(await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
        except OSError:
            return False
    return False


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
