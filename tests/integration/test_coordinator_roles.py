"""Administrator, market participant and ring service as processes of their own, over one database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from pydantic import SecretStr, ValidationError

from coordinator.config import CoordinatorConfig, Role, WebConfig
from coordinator.epoch_config import EpochConfig
from coordinator.gwa.enrolment import Directory
from coordinator.gwa.log_writer import LOG_KEY_FILE
from coordinator.process import CURVE_KEY_FILE, LIST_KEY_FILE, OPERATOR_TOKEN_FILE, run
from coordinator.storage.store import Store
from loadtest.network import Network, Program, started
from loadtest.ports import free_port
from node.aggregation.bills import BillingRules
from node.security.module import KeyDirectory
from node.wan.enrolment import Enroller, RingService
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.errors import StromkreisError
from protocol.link.tls import client_context
from protocol.wire import Outcome

TARIFF = {
    "name": "Flat", "obis": "1-0:1.8.0*255", "unit": "Wh", "currency": "ct", "price_scaler": -5, "interval_s": 900,
}  # fmt: skip


def config_of(network: Network, role: Role, database: str | None = None) -> CoordinatorConfig:
    made = network.coordinator_config
    if made is None:
        made = network.coordinator_config = CoordinatorConfig(
            role=Role.RINGS, listen=f"tcp://127.0.0.1:{free_port()}", web=WebConfig(listen=("https://127.0.0.1:0",)),
            data_dir=network.directory / "coordinator", areas=(network.area,), database=database,
            epoch=EpochConfig(
                rounds=200, period_s=1.0, origin_unix_s=network.origin_unix_s, ring_size=8, corrupt=0.05, dropout=0.1,
                power=False, verified=True,
            ),
        )  # fmt: skip
    return made.model_copy(update={"role": role})


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_the_roles_work_as_processes_of_their_own(
    network: Network, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kind: str
) -> None:
    monkeypatch.setattr("coordinator.emp.billing_service._NEW_S", 0.5)
    database = request.getfixturevalue("postgresql") if kind == "postgresql" else None
    few_hours = BillingRules(span_min_s=900, hiding_min=1, listed_only=False)
    monkeypatch.setattr("node.fleet.billing_rules", lambda _: few_hours)
    network.verified = True
    web: dict[Role, str] = {}
    async with trio.open_nursery() as nursery:

        async def start(role: Role) -> Program:
            program = Program()
            (web[role],) = await started(nursery, partial(run, config_of(network, role, database)), program)
            return program

        async def get(role: Role, path: str, status: int = 200) -> Any:
            answer = await client.get(f"{web[role]}/api/v1{path}")
            assert answer.status_code == status, answer.text
            return answer.json()

        await network.start_meters(nursery)
        gwa = await start(Role.GWA)
        config = config_of(network, Role.RINGS)
        await start(Role.RINGS)
        emp = await start(Role.EMP)
        store = Store(config.database_url)
        network.token = SecretStr(Directory(store.gateways).create_token(datetime.now(UTC), uses=8))
        network.web = [web[Role.GWA]]
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: len([e for e in network.ended() if e.verified]) >= 12)
        token = (config.data_dir / OPERATOR_TOKEN_FILE).read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(
            verify=client_context(config.pki_path / "root.pem"), headers=headers, timeout=120
        ) as client:
            assert len((await get(Role.GWA, "/gateways"))["items"]) == 8
            rings = (await get(Role.RINGS, "/rings"))["items"]  # of two epochs where the next one was called early
            assert {ring["size"] for ring in rings} == {8}
            for role, path in ((Role.GWA, "/rings"), (Role.EMP, "/gateways"), (Role.RINGS, "/rounds")):
                await get(role, path, 404)
            for role in (Role.GWA, Role.EMP, Role.RINGS):
                assert (await client.get(f"{web[role]}/readyz")).status_code == 200
            totals = (await get(Role.EMP, "/totals?from=1970-01-01T00:00:00Z&to=2099-01-01T00:00:00Z"))["items"]
            assert totals[0]["gateways"]["present"] == 8
            start_s = int(datetime.fromisoformat(totals[0]["interval_start"]).timestamp())
            first = f"{datetime.fromtimestamp(start_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
            last = totals[-1]["interval_start"]
            document = TARIFF | {"start": first, "prices": [3000] * 200}
            published = await client.post(f"{web[Role.EMP]}/api/v1/tariffs", json=document)
            body = {"area": network.area, "from": first, "to": last, "tariff": published.json()["digest"]}
            asked = await client.post(f"{web[Role.EMP]}/api/v1/bills", json=body)
            assert asked.json()["bills"] == 8, asked.text
            with trio.fail_after(120):
                while (await get(Role.EMP, "/bills?status=verified"))["items"][7:] == []:
                    await trio.sleep(0.1)
        gwa.cancel()
        emp.cancel()
        seen = len(network.ended())
        await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.outcome is Outcome.OPENED][2:])
        with pytest.raises(StromkreisError, match="another process is the ring service of this database"):
            await run(config_of(network, Role.RINGS))
        store.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("role", "file"), [(Role.RINGS, "root.pem"), (Role.EMP, "root.pem")])
async def test_a_role_without_its_files_says_who_makes_them(tmp_path: Path, role: Role, file: str) -> None:
    config = CoordinatorConfig(role=role, data_dir=tmp_path, web=WebConfig(listen=("http://127.0.0.1:0",)))
    with pytest.raises(StromkreisError, match=rf"{file}: no such file; .* role gwa"):
        await run(config)


async def test_each_role_opens_the_keys_of_its_own_only(network: Network, nursery: trio.Nursery) -> None:
    """Without the sub-CA's key two roles start, and without the key for tariffs the ring service."""
    program = Program()
    await started(nursery, partial(run, config_of(network, Role.GWA)), program)
    await program.stop()
    config = config_of(network, Role.RINGS)
    for name in ("root.key", "sub-ca.key"):
        (config.pki_path / name).unlink()
    for role in (Role.EMP, Role.RINGS):
        program = Program()
        await started(nursery, partial(run, config_of(network, role)), program)
        await program.stop()
        (config.pki_path / "tariff.key").unlink(missing_ok=True)


async def test_the_administrator_hands_out_the_ring_services_key(network: Network, nursery: trio.Nursery) -> None:
    await network.start_meters(nursery)
    here = config_of(network, Role.GWA)
    elsewhere = here.model_copy(
        update={"ring_curve_key": "ab" * 32, "ring_list_key": "cd" * 32, "public_endpoint": "tcp://rings.example:7300"}
    )
    handed = []
    for index, config in enumerate((here, elsewhere)):
        network.web = await started(nursery, partial(run, config))
        store = Store(config.database_url)
        network.token = SecretStr(Directory(store.gateways).create_token(datetime.now(UTC)))
        store.close()
        node = network.node_config(index, 1, f"node{index}")
        keys = KeyDirectory(node.data_dir / "keys", StandardSuite())
        async with Enroller(node) as enroller:
            handed.append(await enroller.enrol(keys.open(node.gateways[0].id), node.all_gateways()[0]))
        keys.close()
    nursery.cancel_scope.cancel()
    kept = [
        bytes.fromhex(json.loads((here.data_dir / name).read_text())["public"])
        for name in (CURVE_KEY_FILE, LIST_KEY_FILE, LOG_KEY_FILE)
    ]
    expected = RingService("tcp://rings.example:7300", b"\xab" * 32, b"\xcd" * 32, kept[2])
    assert handed == [RingService(here.listen, *kept), expected]


def test_an_administrator_needs_an_address_to_hand_out() -> None:
    with pytest.raises(ValidationError, match="public_endpoint, because role gwa"):
        CoordinatorConfig(role=Role.GWA, listen="tcp://127.0.0.1:0")
