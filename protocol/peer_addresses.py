"""Addresses of peers: what quotas and delays count under, and whether one is among configured networks."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_IPV6_PREFIX: Final = 64
"""Whoever has a link has its whole /64, and takes another address of it as often as it likes (RFC 4862, RFC 8981)."""


def peer_network(address: str) -> str:
    """
    What a quota or a delay of a peer counts under: its IPv4 address, of IPv6 its /64 network.

    IPv4 within IPv6 (RFC 4291, 2.5.5.2) is IPv4.  A text that is no address counts under itself.
    """
    found = parse_address(address)
    if isinstance(found, IPv6Address):
        return str(ip_network((found, _IPV6_PREFIX), strict=False))
    return address if found is None else str(found)


def is_among(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether an address lies in one of the networks; a text that is no address does not."""
    found = parse_address(address)
    return found is not None and any(found in each for each in networks)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address without its zone, IPv4 within IPv6 as IPv4; None of a text that is none."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
