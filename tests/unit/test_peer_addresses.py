"""What quotas count under, and who called a coordinator that stands behind reverse proxies."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_network
from typing import Any

import httpx
import pytest
from anyio.abc import SocketAttribute
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from coordinator.config import WebConfig
from coordinator.web.forwarded import ForwardedClient
from node.cls.admission import Quota
from protocol.link.web_server import ConnectionLimit
from protocol.peer_addresses import is_among, peer_network

PROXIES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::1"))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_all_addresses_of_one_ipv6_network_count_as_one(network: int, one: int, other: int) -> None:
    first, second = (str(IPv6Address(network << 64 | host)) for host in (one, other))
    if network:  # the network 0 holds IPv4 within IPv6
        assert peer_network(first) == peer_network(second)
        assert peer_network(first) != peer_network(str(IPv6Address((network ^ 1) << 64 | one)))


def test_ipv4_counts_by_address_also_within_ipv6() -> None:
    assert peer_network("192.0.2.1") == peer_network("::ffff:192.0.2.1") == "192.0.2.1"
    assert peer_network("::ffff:192.0.2.1") != peer_network("::ffff:192.0.2.2")
    assert peer_network("fe80::1%eth0") == peer_network("fe80::2")
    assert peer_network("localhost") == "localhost"


def test_an_address_is_among_networks_or_not() -> None:
    assert is_among("192.0.2.7", PROXIES)
    assert is_among("::ffff:192.0.2.7", PROXIES)
    assert not is_among("2001:db8::2", PROXIES)
    assert not is_among("unknown", PROXIES)


class Stream:
    """What the limit sees of a connection."""

    def __init__(self, address: str) -> None:
        self._address = address

    def extra(self, attribute: Any) -> tuple[str, int]:
        assert attribute is SocketAttribute.remote_address
        return self._address, 40_000

    async def aclose(self) -> None:
        return


async def test_many_addresses_of_one_network_share_its_connections() -> None:
    limit = ConnectionLimit(64, 16)
    taken = [each for each in (Stream(f"2001:db8::{number:x}") for number in range(64)) if limit.admit(each)]
    assert len(taken) == 16
    assert limit.admit(Stream("2001:db8:0:1::1"))
    await taken[0].aclose()
    assert limit.admit(Stream("2001:db8::ffff"))
    assert limit.count == 17


def test_a_quota_by_network_leaves_the_others_their_places() -> None:
    quota = Quota(1, 2)
    with quota.place(peer_network("2001:db8::1")) as first, quota.place(peer_network("2001:db8::2")) as second:
        assert (first, second) == (True, False)
        with quota.place(peer_network("2001:db8:0:1::1")) as third:
            assert third


async def caller(peer: str, *forwarded: str) -> str:
    async def shown(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.client.host if request.client else "")

    app = Starlette(routes=[Route("/", shown)])
    app.add_middleware(ForwardedClient, proxies=PROXIES)
    headers: Sequence[tuple[str, str]] = [("X-Forwarded-For", each) for each in forwarded]
    transport = httpx.ASGITransport(app, client=(peer, 40_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://coordinator") as client:
        return (await client.get("/", headers=headers)).text


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", ["198.51.100.7"], "198.51.100.7"),
        ("192.0.2.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("192.0.2.1", ["203.0.113.9", "198.51.100.7, 192.0.2.2"], "198.51.100.7"),
        ("2001:db8::1", ["2001:db8:7::9"], "2001:db8:7::9"),
        ("192.0.2.1", ["[2001:db8:7::9]:4711"], "2001:db8:7::9"),
        ("192.0.2.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("192.0.2.1", ["fe80::7%eth0\x1b[2K"], "fe80::7"),
    ],
)
async def test_behind_proxies_the_last_address_that_is_none_called(
    peer: str, forwarded: list[str], expected: str
) -> None:
    assert await caller(peer, *forwarded) == expected


@pytest.mark.parametrize(
    ("peer", "forwarded"),
    [
        ("198.51.100.7", ["192.0.2.9"]),
        ("192.0.2.1", []),
        ("192.0.2.1", ["unknown"]),
        ("192.0.2.1", ["203.0.113.9, "]),
        ("192.0.2.1", ["203.0.113.9, _hidden"]),
    ],
)
async def test_who_is_no_proxy_or_says_no_address_counts_itself(peer: str, forwarded: list[str]) -> None:
    assert await caller(peer, *forwarded) == peer


def test_a_mapped_network_of_proxies_is_a_wrong_configuration() -> None:
    networks = "192.0.2.0/24", "2001:db8::/32"
    assert tuple(map(str, WebConfig.model_validate({"proxies": networks}).proxies)) == networks
    with pytest.raises(ValidationError, match="the network in the form of IPv4"):
        WebConfig.model_validate({"proxies": ["::ffff:192.0.2.0/120"]})
