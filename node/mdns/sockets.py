"""Sockets of multicast DNS: one for each interface and IP version, at port 5353 and bound to the interface (Linux)."""

from __future__ import annotations

import socket
import sys
from typing import Final

import trio

from node.mdns.interfaces import Interface
from protocol.mdns.responder import PORT

GROUPS: Final = {socket.AF_INET: "224.0.0.251", socket.AF_INET6: "ff02::fb"}
_HOPS: Final = 255
_SO_BINDTODEVICE: Final = 25


def open_socket(interface: Interface, family: socket.AddressFamily) -> trio.socket.SocketType:
    """A socket at port 5353 of one interface, in its group.  Raises OSError."""
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, interface.name.encode())
        group = socket.inet_pton(family, GROUPS[family])
        if family == socket.AF_INET:
            member = group + socket.inet_aton("0.0.0.0") + interface.index.to_bytes(4, sys.byteorder)  # noqa: S104 - any
            made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, member)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, _HOPS)
            made.bind(("", PORT))
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + interface.index.to_bytes(4, sys.byteorder)
            )
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, _HOPS)
            made.bind(("::", PORT))
        made.setblocking(False)
        return trio.socket.from_stdlib_socket(made)
    except OSError:
        made.close()
        raise
