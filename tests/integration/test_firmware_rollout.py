"""Firmware from the administrator's file to a running node: ordered, checked, fetched, tried, confirmed or undone."""

from __future__ import annotations

import base64
import json
import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from coordinator.storage.firmware import OrderState
from coordinator.storage.store import Store
from loadtest.children import config_file, process
from loadtest.network import Network
from loadtest.ports import free_port
from node.firmware.image import unpack
from node.firmware.slots import FirmwareDirectory
from node.metrics import NodeMetrics
from node.profiles.gateway_profiles import GatewayProfiles
from node.wan.administration import Administration
from node.wan.firmware import PART_SIZE, FirmwareServices, FirmwareTaker, is_quiet
from protocol import cms
from protocol.cms.structures import DATA
from protocol.logs.events import Event
from protocol.profiles.base import canonical_json
from protocol.profiles.firmware import FirmwareReceipt, FirmwareState, pack
from stromkreis.__main__ import build
from tests.integration.gwa_world import HEADERS, ONE, TWO, World, client_of, world_in
from tests.unit.firmware_wheels import PUBLISHERS, manifest_of, order_of, own_wheel, small_wheel


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as made:
        yield made


class OneGateway:
    """A gateway as its node's firmware sees it."""

    is_in_round = is_delivering = False
    epoch: int | None = None

    def __init__(self, world: World, identity: str) -> None:
        self.identity = identity
        self.profiles: GatewayProfiles = world.profiles(identity)
        self.noted: list[tuple[Event, dict[str, Any]]] = []

    def note(self, event: Event, **parameters: Any) -> None:
        self.noted.append((event, parameters))


class Node:
    """One that runs 0.1.0 under a supervisor, with gateway ONE."""

    def __init__(self, world: World, client: httpx.AsyncClient, version: str = "0.1.0") -> None:
        self.gateway = OneGateway(world, ONE)
        self.gateways = [self.gateway]
        self.directory = FirmwareDirectory(world.path / "firmware")
        self.restarts = 0
        self.was_due = False
        self.is_ready = True
        self.taker = FirmwareTaker(
            client,
            FirmwareServices(
                directory=self.directory, hardware="generic", publishers=PUBLISHERS, version=version,
                clock=world.now.timestamp,
                gateways=lambda: self.gateways, restart=self._restart, metrics=NodeMetrics(CollectorRegistry()),
                checks=lambda: {"enrolled": None if self.is_ready else "not yet", "seated": "waits for an epoch"},
            ),
        )  # fmt: skip
        profiles = [self.gateway.profiles]
        self.administration = Administration(client, lambda: profiles, 60, None, self.taker.take)

    def _restart(self) -> None:
        self.restarts += 1
        self.was_due = self.directory.read().is_due

    async def until(self, condition: Callable[[], object]) -> None:
        """Ask again and again, as a node does, until something is so."""
        with trio.fail_after(120):
            while not condition():
                await self.administration.look()
                await trio.sleep(0.1)


async def keep(client: httpx.AsyncClient, image: Path, version: str, **changed: Any) -> httpx.Response:
    document = pack(manifest_of(image, version, **changed), image.read_bytes())
    return await client.post("/api/v1/firmware", content=document, headers=HEADERS)


async def order(client: httpx.AsyncClient, version: str, *gateways: str, activate: str = "now") -> httpx.Response:
    body = {"gateways": gateways or (ONE,), "activate": activate}
    return await client.post(f"/api/v1/firmware/{version}/orders", json=body, headers=HEADERS)


async def state(client: httpx.AsyncClient, gateway: str = ONE) -> tuple[str, str]:
    (found,) = (await client.get(f"/api/v1/firmware/orders?gateway={gateway}", headers=HEADERS)).json()["items"]
    return found["state"], found["reason"]


def new_state(world: World) -> OrderState:
    return world.coordinator.firmware.orders([ONE])[ONE].state


async def test_an_order_is_fetched_staged_confirmed_and_reported(world: World) -> None:
    """In parts, over a restart of the node in the middle, and the new release says that it runs."""
    image = small_wheel(world.path / "x.whl", "0.2.0", big=bytes(range(256)) * 10, more=_noise(PART_SIZE))
    async with client_of(world) as client:
        assert (await keep(client, image, "0.2.0")).status_code == 201
        assert (await order(client, "0.2.0")).json()["items"][0]["state"] == "waiting"
        manifest = manifest_of(image, "0.2.0")
        before = FirmwareDirectory(world.path / "firmware")
        before.append(manifest, image.read_bytes()[: PART_SIZE + 7])  # where the last process ended
        old = Node(world, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.taker.run)
            await old.until(lambda: old.restarts)
            nursery.cancel_scope.cancel()
        assert await state(client) == ("staged", "")
        assert old.directory.read().is_due
        old.directory.begin_trial()
        new = Node(world, client, "0.2.0")
        new.is_ready = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(new.taker.run)
            for _ in range(3):
                await new.administration.look()
            assert new.directory.read().trial == "a"
            new.is_ready = True
            await new.until(lambda: new.directory.read().current)
            await new.until(lambda: new.gateway.noted)
            await new.until(lambda: new_state(world) == OrderState.RUNNING)
            nursery.cancel_scope.cancel()
        digest = manifest.sha256
        assert old.gateway.noted == [(Event.FIRMWARE_STAGED, {"version": "0.2.0", "digest": digest})]
        assert new.gateway.noted == [(Event.FIRMWARE_RUNNING, {"version": "0.2.0", "digest": digest})]
        again = await order(client, "0.2.0")
        assert again.json()["items"][0]["state"] == "running"


async def test_one_that_was_rolled_back_is_tried_again_by_a_new_order_only(world: World) -> None:
    image = small_wheel(world.path / "x.whl", "0.2.0")
    async with client_of(world) as client:
        await keep(client, image, "0.2.0")
        await order(client, "0.2.0")
        node = Node(world, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.taker.run)
            await node.until(lambda: node.restarts)
            nursery.cancel_scope.cancel()
        node.directory.begin_trial()
        node.directory.roll_back("ended")
        node = Node(world, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.taker.run)
            await node.until(lambda: new_state(world) == OrderState.ROLLED_BACK)
            assert await state(client) == ("rolled_back", "ended")
            await node.until(lambda: node.gateway.noted)
            assert node.gateway.noted == [(Event.FIRMWARE_ROLLED_BACK, {"version": "0.2.0", "reason": "ended"})]
            assert node.directory.read().staged is None
            await order(client, "0.2.0", activate="restart")
            await node.until(lambda: node.directory.read().staged)
            nursery.cancel_scope.cancel()
        assert node.restarts == 0  # that is for the next start


async def test_a_node_ends_for_no_release_that_is_still_unpacked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Its supervisor would find nothing that is due, and end with it."""
    go_on, unpacks = threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def slow(image: Path, directory: Path) -> None:
        trio.from_thread.run_sync(unpacks.set, trio_token=token)
        assert go_on.wait(120)
        unpack(image, directory)

    async with client_of(world) as client:
        node = Node(world, client)
        node.gateway.is_in_round = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.taker.run)
            for version in ("0.2.0", "0.3.0"):
                await keep(client, small_wheel(world.path / f"{version}.whl", version), version)
            await order(client, "0.2.0")
            await node.until(lambda: node.directory.read().staged)
            monkeypatch.setattr("node.firmware.slots.unpack", slow)
            await order(client, "0.3.0")
            await node.until(unpacks.is_set)
            node.gateway.is_in_round = False
            with trio.move_on_after(3):
                while not node.restarts:
                    await trio.sleep(0.1)
            go_on.set()
            await node.until(lambda: node.restarts)
            nursery.cancel_scope.cancel()
        status = node.directory.read()
        record = status.record(status.staged)
        assert record is not None
        assert (record.version, node.was_due, status.is_due, node.restarts) == ("0.3.0", True, True, 1)


async def test_of_two_gateways_orders_the_later_one_stays_staged(world: World) -> None:
    """Otherwise each offer would fetch the other's release anew, until the node changes over."""
    earlier, later = (small_wheel(world.path / f"{version}.whl", version) for version in ("0.2.0", "0.3.0"))
    told = order_of(later, "0.3.0", 9)
    async with client_of(world) as client:
        node = Node(world, client)
        node.directory.append(told.manifest, later.read_bytes())
        node.directory.stage(told)
        assert await node.taker._carry_out(order_of(earlier, "0.2.0", 8), node.gateway) is None
        assert node.directory.read().slots["a"].version == "0.3.0"


async def test_a_release_that_does_not_run_is_not_confirmed(world: World) -> None:
    """Where the supervisor could not count the start of a trial, the one before runs while it is marked as tried."""
    image = small_wheel(world.path / "x.whl", "0.2.0")
    directory, marked = FirmwareDirectory(world.path / "firmware"), order_of(image, "0.2.0")
    directory.append(marked.manifest, image.read_bytes())
    directory.stage(marked)
    directory.begin_trial()
    async with client_of(world) as client:
        for version, current in (("0.1.0", None), ("0.2.0", "a")):
            node = Node(world, client, version)
            await node.administration.look()
            with trio.fail_after(120):
                await node.taker._confirm()
            assert directory.read().current == current


async def test_a_release_that_does_not_fit_is_refused_with_the_reason(world: World) -> None:
    version, changed, reason = "0.2.0", {"hardware": ("m7",)}, "wrong_hardware"
    image = small_wheel(world.path / "x.whl", version)
    async with client_of(world) as client:
        await keep(client, image, version, **changed)
        await order(client, version)
        node = Node(world, client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.taker.run)
            await node.until(lambda: new_state(world) != OrderState.WAITING)
            nursery.cancel_scope.cancel()
        said, why = await state(client)
    assert (said, why.partition(":")[0]) == ("refused", reason)
    assert node.directory.read().staged is None
    assert node.gateway.noted == [(Event.FIRMWARE_REFUSED, {"version": version, "reason": reason})]


async def test_only_the_administrators_order_for_this_gateway_counts(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    image = small_wheel(world.path / "x.whl", "0.2.0")
    async with client_of(world) as client:
        node = Node(world, client)
        await node.administration.look()
        chain = node.administration._chain
        mine = order_of(image, "0.2.0").model_copy(update={"gateway": TWO})
        for message in (
            cms.sign(canonical_json(order_of(image, "0.2.0")), DATA, world.participant.signature),
            mine.sign(world.rollout._keys.signature),
            b"no message",
        ):
            node.taker.take(node.gateway.profiles, message, chain)
            assert node.taker._orders == {}
        assert "for another gateway" in caplog.text
        good = order_of(image, "0.2.0").sign(world.rollout._keys.signature)
        node.taker.take(node.gateway.profiles, good, chain)
        assert list(node.taker._orders) == [ONE]


async def test_the_image_and_the_word_on_it_want_the_gateways_key(world: World) -> None:
    image = small_wheel(world.path / "x.whl", "0.2.0")
    async with client_of(world) as client:
        await keep(client, image, "0.2.0")
        await order(client, "0.2.0")
        one, two = (world.profiles(each).query_proof() for each in (ONE, TWO))
        path = "/api/v1/firmware/{}/0.2.0/image"
        answers = [
            (await client.get(path.format(name), headers={"X-Gateway-Proof": proof})).status_code
            for name, proof in ((ONE, one), (ONE, two), (TWO, two))
        ]
        assert answers == [200, 403, 404]  # and who has no order gets no image
        said = FirmwareReceipt.of(order_of(image, "0.2.0"), FirmwareState.RUNNING, 2**50)
        forged = base64.b64encode(said.sign(world.modules[TWO].signature_key)).decode()
        answer = await client.post(f"/api/v1/firmware/{ONE}/receipt", json={"receipt": forged})
        assert (answer.status_code, await state(client)) == (403, ("waiting", ""))
        stale = base64.b64encode(said.sign(world.modules[ONE].signature_key)).decode()
        answer = await client.post(f"/api/v1/firmware/{ONE}/receipt", json={"receipt": stale})
        assert (answer.status_code, await state(client)) == (200, ("waiting", ""))  # of another order


async def test_a_version_is_one_release_and_keeping_one_wants_an_administrator(world: World) -> None:
    image, other = small_wheel(world.path / "x.whl", "0.2.0"), small_wheel(world.path / "y.whl", "0.2.0", "pass")
    async with client_of(world) as client:
        assert [(await keep(client, image, "0.2.0")).status_code for _ in range(2)] == [201, 201]
        answer = await keep(client, other, "0.2.0")
        assert (answer.status_code, answer.json()["reason"]) == (409, "firmware_version")
        assert (await client.post("/api/v1/firmware", content=b"x")).status_code == 401
        body = {"name": "olaf", "role": "operator", "password": "correct horse battery"}
        await client.post("/api/v1/accounts", json=body, headers=HEADERS)
        session = (await client.post("/api/v1/sessions", json={k: body[k] for k in ("name", "password")})).json()
        olaf = {"Authorization": f"Bearer {session['token']}"}
        answer = await client.post("/api/v1/firmware", content=b"x", headers=olaf)
        assert answer.json()["reason"] == "role_too_low"
        orders = "/api/v1/firmware/0.2.0/orders"
        answer = await client.post(orders, json={"gateways": [ONE, "ESTK0100000009"]}, headers=olaf)
        assert ([each["gateway"] for each in answer.json()["items"]], answer.json()["not_active"]) == (
            [ONE], ["ESTK0100000009"],
        )  # fmt: skip
        removed = await client.delete("/api/v1/firmware/0.2.0", headers=HEADERS)
        assert (removed.status_code, removed.json()["reason"]) == (409, "firmware_in_use")


def test_a_node_changes_over_between_rounds_and_at_borders_only(tmp_path: Path) -> None:
    class Gateway:
        identity, is_in_round, is_delivering, epoch = ONE, False, False, 7
        profiles: Any = None

        def note(self, event: Event, **parameters: Any) -> None: ...

    gateway: Any = Gateway()
    now = order_of(small_wheel(tmp_path / "x.whl", "0.2.0"), "0.2.0")
    border = now.model_copy(update={"activate": "epoch"})
    assert is_quiet([gateway], now, {ONE: 7})
    assert not is_quiet([gateway], border, {ONE: 7})
    assert is_quiet([gateway], border, {ONE: 6})
    for busy in ("is_in_round", "is_delivering"):
        setattr(gateway, busy, True)
        assert not is_quiet([gateway], now, {ONE: 6})
        setattr(gateway, busy, False)
    gateway.epoch = None
    assert is_quiet([gateway], border, {ONE: 7})


async def test_a_node_updates_itself_and_goes_back_from_what_does_not_start(network: Network, tmp_path: Path) -> None:
    """
    Real processes: the installed program, then 0.2.0, which runs.

    `make acceptance-firmware` goes on with 0.3.0, which ends at once, and 0.2.0 again.
    """
    network.gateways, network.ring_size, network.profile_poll_s = 1, 8, 0.5
    monitoring = f"http://127.0.0.1:{free_port()}"
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        assert network.coordinator_config is not None
        data = network.coordinator_config.data_dir
        options = ["--coordinator", network.web[0], "--root", str(data / "pki/root.pem"),
                   "--token-file", str(data / "operator.token")]  # fmt: skip
        config = config_file(network, 0, 1, "node")
        key = tmp_path / "publisher.key"
        made = CliRunner().invoke(build(["gwa"]), ["gwa", "firmware", "key", str(key)])
        assert (made.exit_code, key.stat().st_mode & 0o077) == (0, 0), made.output
        text = config.read_text().replace("http://127.0.0.1:0", monitoring)
        config.write_text(text.replace("publishers = []", made.output.splitlines()[-1]))

        def run(*arguments: str) -> Any:
            return CliRunner().invoke(build(["gwa"]), ["gwa", *options, "firmware", *arguments])

        async def rolled_out(version: str, changed: dict[str, bytes]) -> Any:
            image = own_wheel(tmp_path / f"{version}.whl", version, changed)
            made = await trio.to_thread.run_sync(run, "build", str(image), "--key", str(key))
            assert made.exit_code == 0, made.output
            source = str(tmp_path / f"stromkreis-{version}.firmware")
            return await trio.to_thread.run_sync(run, "roll-out", source, "--activate", "now", "--wait", "300")

        async def version() -> str:
            async with httpx.AsyncClient(timeout=120) as client:
                text = (await client.get(f"{monitoring}/metrics")).text
            return text.partition('stromkreis_build_info{version="')[2].partition('"')[0]

        arguments = ("-m", "stromkreis", "node", "--config", str(config), "--firmware-dir", str(tmp_path / "firmware"))
        with process(network, *arguments):
            await _enrolled(network)
            good = await rolled_out("0.2.0", {})
            assert good.exit_code == 0, good.output
            assert await version() == "0.2.0"
            if is_acceptance := os.environ.get("STROMKREIS_EVERY_UPDATE") == "1":
                bad = await rolled_out("0.3.0", {"node/fleet.py": b"raise SystemExit(1)\n"})
                assert (bad.exit_code, "1 rolled_back" in bad.output) == (1, True), bad.output
                assert await version() == "0.2.0"
        nursery.cancel_scope.cancel()
    state_file = json.loads((tmp_path / "firmware/state.json").read_text())
    ended = "rolled_back" if is_acceptance else "running"
    assert (state_file["outcome"]["state"], state_file["newest"]) == (ended, "0.2.0")


async def _enrolled(network: Network) -> None:
    """Orders are for gateways that are enrolled."""
    assert network.coordinator_config is not None
    url = network.coordinator_config.database_url

    def found() -> bool:
        store = Store(url)
        try:
            return bool(store.gateways.some(["ESTK0000000000"]))
        finally:
            store.close()

    await network.wait_until(found)


def _noise(size: int) -> bytes:
    """What does not compress."""
    return random.Random(1).randbytes(size)
