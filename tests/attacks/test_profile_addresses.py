"""A profile set names addresses that nobody can be reached at: it is refused, and no connection ends the process."""

from __future__ import annotations

import json
import ssl
from typing import Any

import pytest
import trio

from protocol.errors import RemoteProtocolError
from protocol.link.pinned_tls import open_pinned
from protocol.profiles.base import read_json
from protocol.profiles.communication import ProxyProfile, WanProfile

TIMED = {"valid_from": "2026-01-01T00:00:00Z"}
NOBODY = "00" * 32
WAN = TIMED | {
    "id": "w1", "role": "participant", "uri": "https://emp.example:443/x", "tls_certificate": NOBODY,
    "encryption_certificate": NOBODY, "signature_certificate": NOBODY,
}  # fmt: skip
PROXY = TIMED | {
    "id": "p1", "cls": "heat-pump", "participant": "emp", "address": "emp.example:443", "server_name": "emp",
    "participant_certificate": NOBODY, "initiators": ["cls"],
}  # fmt: skip
LONG = "a" * 64 + ".example"


def read(kind: Any, document: dict[str, Any]) -> Any:
    return read_json(kind, json.dumps(document).encode(), 10_000)


@pytest.mark.parametrize(
    "uri",
    [
        "https://emp..example/", f"https://{LONG}/", "https://emp.example:99999/", "https://emp.example:0/",
        "https://emp.example:port/", "https://[emp/", "https://:443/",
    ],
)  # fmt: skip
def test_a_uri_that_leads_nowhere_is_refused_with_the_set(uri: str) -> None:
    assert read(WanProfile, WAN).uri == WAN["uri"]
    with pytest.raises(RemoteProtocolError, match="uri") as refused:
        read(WanProfile, WAN | {"uri": uri})
    assert uri not in str(refused.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"address": "emp..example:443"}, {"address": f"{LONG}:443"}, {"address": "emp.example:65536"},
        {"address": "emp.example:0"}, {"wan_server_name": ".emp"}, {"wan_server_name": LONG},
        {"cls_address": "10.0.0.5:99999"},
    ],
)  # fmt: skip
def test_a_proxy_to_nowhere_is_refused_with_the_set(changed: dict[str, str]) -> None:
    good = PROXY | {"address": "[fe80::1]:443", "wan_server_name": "emp.example.", "cls_address": "10.0.0.5:65535"}
    assert read(ProxyProfile, good).endpoint == ("fe80::1", 443)
    with pytest.raises(RemoteProtocolError, match=next(iter(changed))):
        read(ProxyProfile, good | changed)


@pytest.mark.parametrize("name", ["emp..example", ".", "a" * 64])
async def test_a_name_that_is_none_costs_its_own_connection(name: str) -> None:
    async def connect(_host: str, _port: int) -> trio.SocketStream:
        raise AssertionError("nobody is called by such a name")

    with pytest.raises(RemoteProtocolError) as refused:
        async with open_pinned(
            "127.0.0.1",
            443,
            ssl.create_default_context(),
            NOBODY,
            connect_s=1,
            close_s=1,
            server_name=name,
            connect=connect,
        ):
            pass  # fmt: skip
    assert refused.value.reason == "bad_name"
