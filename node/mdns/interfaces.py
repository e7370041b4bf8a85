"""The addresses of a network interface (Linux)."""

from __future__ import annotations

import fcntl
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Final

_SIOCGIFADDR: Final = 0x8915
_SIOCGIFNETMASK: Final = 0x891B
_TENTATIVE: Final = 0x40
_IF_INET6: Final = Path("/proc/net/if_inet6")


@dataclass(frozen=True, slots=True)
class Interface:
    """Its number, and its addresses with their networks."""

    name: str
    index: int
    ipv4: tuple[IPv4Interface, ...]
    ipv6: tuple[IPv6Interface, ...]


def read_interface(name: str) -> Interface:
    """The interface as it is now.  Raises OSError where there is none of this name."""
    index = socket.if_nametoindex(name)
    return Interface(name, index, _ipv4(name), _ipv6(name))


def _ipv4(name: str) -> tuple[IPv4Interface, ...]:
    request = struct.pack("256s", name.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            address, mask = (
                socket.inet_ntoa(fcntl.ioctl(asked, each, request)[20:24]) for each in (_SIOCGIFADDR, _SIOCGIFNETMASK)
            )
        except OSError:
            return ()
    return (IPv4Interface(f"{address}/{mask}"),)


def _ipv6(name: str) -> tuple[IPv6Interface, ...]:
    found = []
    for line in _IF_INET6.read_text(encoding="ascii").splitlines() if _IF_INET6.exists() else ():
        address, _, length, _, flags, owner = line.split()
        if owner == name and not int(flags, 16) & _TENTATIVE:
            found.append(IPv6Interface((int(address, 16), int(length, 16))))
    return tuple(found)
