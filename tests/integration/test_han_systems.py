"""What a controllable system finds at `/smgw/cls/v1/` by its certificate, and what it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from cryptography.hazmat.primitives import hashes

from node.profiles.checking import text_of
from protocol.pki.han import HanRole
from tests.integration.han_home import ANNA, METERS, Home
from tests.integration.han_profiles import profile_document
from tests.unit.socks_tls_pair import SYSTEM, credentials

CLS = "/smgw/cls/v1"


def document() -> dict[str, Any]:
    timed = {"valid_from": "2020-01-01T00:00:00Z"}
    made = profile_document()
    certificate = credentials(HanRole.CLS, SYSTEM)[1]
    other = "11" * 32
    for user, shown in (("heat-pump", certificate.fingerprint(hashes.SHA256()).hex()), ("wallbox", other)):
        made["han"].append(timed | {"id": f"h-{user}", "role": "cls", "user": user, "certificate": shown})
    profile = {
        "participant": "Stadtwerke", "server_name": "emp.example", "address": "192.0.2.1:443", "initiators": ["cls"],
        "participant_certificate": "22" * 32,
    }  # fmt: skip
    ended = {"valid_from": "2019-01-01T00:00:00Z", "valid_to": "2020-01-01T00:00:00Z"}
    made["proxy"] = [
        timed | profile | {"id": "x1", "cls": "heat-pump"}, timed | profile | {"id": "x2", "cls": "wallbox"},
        profile | ended | {"id": "x3", "cls": "heat-pump"},
    ]  # fmt: skip
    made["certificates"] = [text_of(certificate)]
    return made


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path, (), profiles_document=document())
    with trio.fail_after(120):
        async with made.serving(days=1):
            yield made
    made.keys.close()


@pytest.fixture
async def system(home: Home, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    file = tmp_path / "cls.pem"
    file.write_bytes(credentials(HanRole.CLS, SYSTEM)[0])
    async with home.client(None, chain=file) as client:
        yield client


async def test_a_system_finds_its_own_proxy_profiles_and_nothing_else(home: Home, system: httpx.AsyncClient) -> None:
    assert (await system.get("/smgw/")).json() == [f"{CLS}/"]
    assert (await system.get(f"{CLS}/")).json() == [f"{CLS}/{each}/" for each in ("rts", "fas", "exp")]
    assert (await system.get(f"{CLS}/rts/")).json() == [f"{CLS}/rts/Proxy/"]
    assert (await system.get(f"{CLS}/exp/")).json() == (await system.get(f"{CLS}/fas/")).json() == []
    assert (await system.get(f"{CLS}/rts/Proxy/")).json() == [f"{CLS}/rts/Proxy/{each}" for each in ("x1", "x3")]
    assert (await system.get(f"{CLS}/rts/Proxy/x1")).json() == {
        "id": "x1", "participant": "Stadtwerke", "server_name": "emp.example", "address": "192.0.2.1:443",
        "initiators": ["cls"], "cls_address": None, "idle_timeout_s": 600, "duration_max_s": 172_800,
        "valid_from": "2020-01-01T00:00:00Z", "valid_to": None, "is_valid": True, "open_tunnels": 0,
    }  # fmt: skip
    assert (await system.get(f"{CLS}/rts/Proxy/x3")).json()["is_valid"] is False
    for path, status in (
        (f"{CLS}/rts/Proxy/x2", 404), (f"{CLS}/rts/Reading/{METERS[0]}", 404), (f"{CLS}/rts/Device/x", 404),
        (f"/smgw/con/v1/rts/Reading/{METERS[0]}", 403), ("/smgw/srv/v1/exp/SystemLog/", 403),
    ):  # fmt: skip
        assert (await system.get(path)).status_code == status, path
    assert (await system.put(f"{CLS}/rts/Proxy/x1", json={})).status_code == 405
    async with home.client(ANNA) as consumer:
        assert (await consumer.get(f"{CLS}/rts/Proxy/x1")).status_code == 403


async def test_open_tunnels_are_counted_by_profile(home: Home, system: httpx.AsyncClient) -> None:
    assert home.server is not None
    view = home.server._view
    assert view is not None
    view.facts = replace(view.facts, open_tunnels={"x1": 2, "x3": 0}.__getitem__)
    assert (await system.get(f"{CLS}/rts/Proxy/x1")).json()["open_tunnels"] == 2
