"""A whole run with planted readings and keys: outside of the gateways there is nothing but totals."""

from __future__ import annotations

import base64
import json
import logging
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from zmq.utils import z85

from loadtest.account import accounts_of
from loadtest.households import Household, Registers
from loadtest.network import Network
from protocol.dcnet.setup.ranges import FUSE_A_MAX
from protocol.link.connection import Connection
from protocol.link.listener import Listener
from protocol.link.tls import client_context

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger

_START, _STEP, _POWER = 61_803_398_874_989, 27_182_818, 1_414_213  # within what the largest fuse carries


def planted(meter: Household, q: int) -> Registers:
    """Registers whose values, differences and power are recognisable wherever they turn up; one falls."""
    number, q = int(meter.meter_id[6:]), max(q, 0)
    falls = 5 if number == 1 and q >= 4 else 0
    return Registers(
        _START * (number + 1) + (q - falls) * (_STEP + 7 * number), 3 * _START + number, _POWER + 1_000 * number + q
    )


def forms(value: int) -> list[bytes]:
    """How an integer may be written: decimal (also in Wh), hexadecimal, 8 bytes, base64 of them."""
    word = value % 2**64
    eight = [word.to_bytes(8, order) for order in ("little", "big")]
    found = [
        str(value).encode(), str(value // 10).encode(), f"{word:x}".encode(), *eight,
        *(base64.b64encode(each)[:10] for each in eight),
    ]  # fmt: skip
    return [each for each in found if len(each) >= 7]  # shorter ones turn up by chance


def key_forms(key: bytes) -> list[bytes]:
    out = [key, key.hex().encode(), base64.b64encode(key), base64.urlsafe_b64encode(key).rstrip(b"=")]
    return [*out, z85.encode(key)] if len(key) % 4 == 0 else out


def private_keys(directory: Path) -> list[bytes]:
    found = []
    for path in sorted(directory.glob("*.json")):
        stored = json.loads(path.read_text())
        found.append(bytes.fromhex(stored["curve_secret"]))
        triple = stored["current"]
        pems = [triple["signature_key"].encode(), triple["encryption_key"].encode(), bytes.fromhex(triple["tls_key"])]
        for pem in pems:
            key = serialization.load_pem_private_key(pem, None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            found.append(key.private_numbers().private_value.to_bytes(32, "big"))
    return found


@pytest.mark.parametrize("relay", [False, True])
async def test_nothing_but_totals_leaves_the_gateways(
    network: Network, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, relay: bool
) -> None:
    network.rounds, network.relay, network.fuse_a = 10, relay, FUSE_A_MAX
    network.origin_unix_s += 5
    caplog.set_level(logging.DEBUG)
    on_links: list[bytes] = []
    seeds: set[bytes] = set()
    node_metrics: list[str] = []

    def heard(kind: Any) -> None:
        take = kind.take

        def noted(mine: Any) -> Any:
            got = take(mine)
            if got is not None:
                on_links.append(got if isinstance(got, bytes) else got[1])
            return got

        monkeypatch.setattr(kind, "take", noted)

    heard(Connection)
    heard(Listener)
    monkeypatch.setattr(Household, "registers", planted)
    keys = network.directory / "node" / "keys"
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node", node_metrics.append)
        full = 0xFF
        await network.wait_until(lambda: [e for e in network.ended() if e.roster == full])
        await network.wait_until(lambda: "has fallen" in caplog.text)
        connection = sqlite3.connect(f"file:{keys / 'epochs.sqlite'}?mode=ro", uri=True)
        seeds.update(row[0] for row in connection.execute("SELECT seed FROM seed"))
        connection.close()
        await network.wait_until(lambda: [e for e in network.ended() if e.epoch == 1 and e.total])
        assert network.coordinator_config is not None
        answers = []
        context = client_context(network.coordinator_config.pki_path / "root.pem")
        async with httpx.AsyncClient(base_url=network.web[0], verify=context) as client:
            span = "?from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
            for path in ("/", "/metrics", *(f"/api/v1/{n}" for n in ("rounds", "rings", "gateways", f"totals{span}"))):
                answer = await client.get(path)
                assert answer.status_code == 200, path
                answers.append(answer.content)
            answers.append((await client.get(f"{node_metrics[0]}/metrics")).content)
        nursery.cancel_scope.cancel()
    coordinator = [path for path in (network.directory / "coordinator").rglob("*") if path.is_file()]
    outside = b"\n".join([caplog.text.encode(), *answers, *on_links, *(path.read_bytes() for path in coordinator)])

    opened = ledger.check(network)
    totals = {word for each in opened for word in each.total}
    assert any(form in outside for form in forms(max(totals, key=lambda word: word % 2**63)))  # the search can find
    readings = {word for vector in ledger.contributed.values() for word in vector if word > 10**6} - totals
    for account in accounts_of(network.directory / "node").values():
        readings.update(
            word for word in (*account.first[1:], *(each.contributed for each in account.energies[1:])) if word > 10**6
        )
    assert len(readings) > 24  # both registers and the steps of eight gateways, at least
    assert [value for value in readings for form in forms(value) if form in outside] == []
    planted_keys = [*private_keys(keys), *seeds]
    assert len(planted_keys) >= 24
    assert [place for place, key in enumerate(planted_keys) for form in key_forms(key) if form in outside] == []
    assert len(on_links) > 200
