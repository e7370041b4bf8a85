"""Orders for tunnels: who may order what, what a gateway believes and how often, what is told and kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry

from coordinator.gwa.enrolment import Directory
from coordinator.gwa.participants import administrator_keys, certified_key
from coordinator.gwa.revocation import RevocationPublisher
from coordinator.gwa.tunnel_orders import EXPIRED, KEPT_OF_ONE_MAX, ORDERS_OF_ONE_MAX, WAITING, TunnelOrders
from coordinator.metrics import CoordinatorMetrics
from coordinator.web.app import make_app
from coordinator.web.tunnel_orders import ORDER_PATH, make_order_app
from node.profiles.gateway_profiles import GatewayProfiles
from node.wan.administration import Administration
from node.wan.tunnel_orders import OrderTaker
from node.wan.wakeup import WakeUpListener
from protocol import pki
from protocol.errors import RemoteProtocolError
from protocol.profiles.tunnel_order import ORDER_VALID_S, TunnelOrder
from tests.integration.cls_world import system_document
from tests.integration.gwa_world import NOW, ONE, SHA256, TOKEN, TWO, World, client_of, world_in


@dataclass
class Orders:
    """A coordinator with orders, a participant, and a gateway that writes down what it would open."""

    world: World
    opened: list[tuple[str, str, int]] = field(default_factory=list)
    outcome: str = "connected"

    def __post_init__(self) -> None:
        world, folder = self.world, self.world.path / "pki"
        made = certified_key(folder, "emt-tls", world.authority, pki.Role.PARTICIPANT_TLS, world.now)
        self.certificate = made.certificate
        self.pem = made.certificate.public_bytes(Encoding.PEM).decode()
        self.participant = made.certificate.fingerprint(SHA256).hex()
        publisher = RevocationPublisher(folder, world.authority, world.coordinator.certificates)
        self.orders = TunnelOrders(
            world.rollout, world.coordinator.audit, world.authority.root, world.authority.sub_ca, publisher.lists,
            lambda: world.now,
        )  # fmt: skip
        self.metrics = CoordinatorMetrics(CollectorRegistry())
        world.app = make_app(
            world.coordinator, Any, self.metrics, profiles=world.rollout, orders=self.orders, operator_token=TOKEN,  # type: ignore[arg-type]
            clock=lambda: world.now,
        )  # fmt: skip
        self.profiles = world.profiles(ONE)

    def document(self, version: int = 1, **changed: Any) -> dict[str, Any]:
        proxy = {
            "server_name": "emp.example", "address": "127.0.0.1:1", "initiators": ["participant"],
            "cls_address": "127.0.0.1:2", "participant_certificate": self.participant, "duration_max_s": 3_600,
        }  # fmt: skip
        return system_document(self.world, version, proxy | changed)

    def place(self, gateway: str = ONE, proxy: str = "x1", participant: str | None = None) -> str:
        return self.orders.place(participant or self.participant, gateway, proxy, None, "192.0.2.1").order.id

    def now_s(self) -> float:
        return self.world.now.timestamp()

    def audited(self) -> list[tuple[str, str]]:
        entries = [each for each, _ in self.world.coordinator.audit.page(0, 100)]
        return [(each.account, each.role) for each in entries if each.action == "order_tunnel"]

    async def open(self, gateway: str, proxy: str, duration_s: int) -> str:
        self.opened.append((gateway, proxy, duration_s))
        return self.outcome

    @asynccontextmanager
    async def node(self, client: httpx.AsyncClient) -> AsyncIterator[tuple[OrderTaker, Administration]]:
        taker = OrderTaker(client, self.open, self.now_s)
        administration = Administration(client, lambda: [self.profiles], 3_600, taker.take)
        async with trio.open_nursery() as nursery:
            await nursery.start(taker.run)
            yield taker, administration
            nursery.cancel_scope.cancel()


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Orders]:
    with trio.fail_after(120):
        async with world_in(tmp_path) as world:
            found = Orders(world)
            async with client_of(world) as client:
                await world.roll_out(client, found.document())
            yield found


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.01)


def refusal(work: Callable[[], Any]) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        work()
    return caught.value.reason


async def test_an_order_comes_with_the_profile_that_it_is_for_and_once(made: Orders) -> None:
    order = made.place()
    async with client_of(made.world) as client, made.node(client) as (_, administration):
        await administration.look()
        await until(lambda: made.orders.state(made.participant, order).outcome == "connected")
        assert made.profiles.version == 1
        await administration.look()
        second = made.place()
        made.orders._orders[order].outcome = WAITING  # as if the gateway's word had been lost
        await administration.look()
        await until(lambda: made.orders.state(made.participant, second).outcome == "connected")
    assert made.opened == [(ONE, "x1", 3_600)] * 2


async def test_a_wake_up_message_leaves_at_once_and_again(made: Orders) -> None:
    world, counts = made.world, list[str]()
    async with client_of(world) as client, made.node(client) as (_, administration), trio.open_nursery() as nursery:
        woken: list[str] = []
        listener = WakeUpListener(administration.administrator_of, woken.append, made.now_s, counts.append)
        administration.wake_up_port = await nursery.start(listener.serve, "127.0.0.1", 0)
        await administration.look()
        order = made.place()
        await until(lambda: woken == [ONE])
        world.now += timedelta(seconds=1)
        assert made.orders.state(made.participant, order).outcome == WAITING
        world.now += timedelta(seconds=5)  # the datagram may have been lost
        made.orders.state(made.participant, order)
        await until(lambda: woken == [ONE, ONE])
        nursery.cancel_scope.cancel()
    assert counts == ["taken", "taken"]


async def test_a_reverse_proxy_is_sent_no_wake_up_message(made: Orders) -> None:
    made.orders._proxies_before = (ip_network("192.0.2.0/24"), ip_network("2001:db8::1"))
    for host in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"):
        made.orders.heard_from([ONE], (host, 53))
    assert made.orders._addresses == {}
    made.orders.heard_from([ONE], ("2001:db8::2", 7385))
    assert made.orders._addresses == {ONE: ("2001:db8::2", 7385)}


async def test_only_what_a_profile_names_can_be_ordered(made: Orders) -> None:
    assert refusal(partial(made.place, participant="11" * 32)) == "no_proxy_profile"
    assert refusal(partial(made.place, proxy="x2")) == "no_proxy_profile"
    assert refusal(partial(made.place, gateway=TWO)) == "no_proxy_profile"
    assert refusal(partial(made.place, gateway="ESTK0100000009")) == "gateway_unknown"
    changes: list[dict[str, Any]] = [{"initiators": ["cls"]}, {"valid_to": "2020-01-02T00:00:00Z"}]
    async with client_of(made.world) as client:
        for version, changed in enumerate(changes, 2):
            await made.world.roll_out(client, made.document(version, **changed))
            assert refusal(made.place) == "no_proxy_profile"
    Directory(made.world.coordinator.gateways).revoke(ONE, NOW)
    assert refusal(made.place) == "gateway_revoked"
    assert made.audited() == []


async def test_orders_are_few_expire_and_are_in_the_audit_log(made: Orders) -> None:
    first = made.place()
    for _ in range(ORDERS_OF_ONE_MAX - 1):
        made.place()
    assert refusal(made.place) == "too_many_orders"
    assert made.audited() == [("Stadtwerke", "participant")] * ORDERS_OF_ONE_MAX
    assert refusal(lambda: made.orders.state("11" * 32, first)) == "order_unknown"
    made.world.now += timedelta(seconds=ORDER_VALID_S + 1)
    assert made.orders.state(made.participant, first).outcome == EXPIRED
    assert made.orders.waiting([ONE]) == []
    made.place()
    made.world.now += timedelta(seconds=ORDER_VALID_S)
    made.place()
    assert refusal(lambda: made.orders.state(made.participant, first)) == "order_unknown"


async def test_orders_that_were_refused_at_once_fill_nothing_that_others_need(made: Orders) -> None:
    for _ in range(KEPT_OF_ONE_MAX):
        made.orders.answer(ONE, made.place(), "no_profile")
    assert refusal(made.place) == "too_many_orders"
    made.world.now += timedelta(seconds=2 * ORDER_VALID_S + 1)
    made.place()


async def test_two_profiles_that_a_participant_cannot_tell_apart_are_refused(made: Orders) -> None:
    named = {"wan_server_name": "x2.emp.example"}
    async with client_of(made.world) as client:
        for version, (changed, expected) in enumerate([({}, "ambiguous_profile"), (named, "")], 2):
            document = made.document(version)
            document["proxy"].append(document["proxy"][0] | {"id": "x2", "initiators": ["cls"]} | changed)
            await made.world.roll_out(client, document)
            if expected:
                assert refusal(made.place) == expected
    made.place()


async def test_an_order_that_no_log_takes_is_handed_to_nobody(made: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(made.world.coordinator.audit, "append", fails)
    with pytest.raises(OSError, match="disk full"):
        made.place()
    assert made.orders.waiting([ONE]) == []


async def test_a_revoked_participant_orders_nothing(made: Orders) -> None:
    assert made.orders.participant(made.pem) == made.participant
    world = made.world
    lists = pki.RevocationLists()
    bundle = RevocationPublisher(world.path / "pki", world.authority, world.coordinator.certificates).bundle(NOW)
    lists.take(pki.load_revocation_bundle(bundle, world.authority.root, NOW))
    listed = pki.issue_revocation_list(
        world.authority.sub_ca, world.authority.sub_ca_key, [(made.certificate.serial_number, NOW)],
        number=2**62, this_update=NOW, next_update=NOW + timedelta(days=7),
    )  # fmt: skip
    lists.take(pki.load_revocation_lists(listed.public_bytes(Encoding.PEM), [world.authority.sub_ca]))
    made.orders._lists = lambda _now: lists
    assert refusal(lambda: made.orders.participant(made.pem)) == "certificate_revoked"
    gateway = made.world.modules[ONE].certificates[2]
    shown = pki.load_certificate(gateway).public_bytes(Encoding.PEM).decode()
    assert refusal(lambda: made.orders.participant(shown)) in {"certificate_name", "key_usage"}


async def test_participants_order_over_mutual_tls_alone(made: Orders) -> None:
    app = make_order_app(made.orders, made.metrics, bytes)
    wanted = {"gateway": ONE, "proxy": "x1", "duration_s": 60}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://gwa") as client:
        answer = await client.post(ORDER_PATH, json=wanted)
        assert (answer.status_code, answer.json()["reason"]) == (403, "https_required")
        assert (await client.post(ORDER_PATH, json=wanted | {"gateway": "x"})).status_code == 422


def order_of(made: Orders, **changed: Any) -> TunnelOrder:
    given: dict[str, Any] = {
        "id": "ab" * 16, "gateway": ONE, "proxy": "x1", "duration_s": 60,
        "issued_ms": int(made.world.now.timestamp() * 1000),
    }  # fmt: skip
    return TunnelOrder(**given | changed)


async def test_a_gateway_believes_its_administrators_fresh_orders_alone(
    made: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    world = made.world
    keys = administrator_keys(world.path / "pki", world.authority, NOW).signature
    chain = [pki.to_der(keys.certificate), pki.to_der(world.authority.sub_ca)]
    early = int((NOW - timedelta(seconds=1)).timestamp() * 1000)
    async with client_of(world) as client, made.node(client) as (taker, _):
        take = partial(taker.take, made.profiles)
        take(order_of(made).sign(world.participant.signature), chain)  # signed by somebody else
        take(order_of(made).sign(world.participant.signature), [pki.to_der(world.participant.signature.certificate)])
        take(order_of(made, gateway=TWO).sign(keys), chain)
        take(order_of(made, issued_ms=early).sign(keys), chain)  # from before the start
        take(order_of(made).sign(keys), [])
        take(b"\x30\x00", chain)
        world.now += timedelta(seconds=ORDER_VALID_S + 1)
        take(order_of(made, issued_ms=int(NOW.timestamp() * 1000)).sign(keys), chain)  # too old by now
        await trio.testing.wait_all_tasks_blocked()
        assert made.opened == []
        take(order_of(made).sign(keys), chain)
        take(order_of(made).sign(keys), chain)  # the same one again
        await until(lambda: len(made.opened) == 1)
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert made.opened == [(ONE, "x1", 60)]
    assert "is for another gateway" in caplog.text


async def test_only_the_gateway_itself_says_what_became_of_an_order(made: Orders) -> None:
    order = made.place()
    other: GatewayProfiles = made.world.profiles(TWO)
    async with client_of(made.world) as client:
        for gateway, profiles, status in ((ONE, other, 403), (TWO, other, 404), (ONE, made.profiles, 204)):
            answer = await client.post(
                f"/api/v1/tunnel-orders/{gateway}/{order}", json={"outcome": "cls_no_answer"},
                headers={"X-Gateway-Proof": profiles.query_proof()},
            )  # fmt: skip
            assert answer.status_code == status, answer.text
    assert made.orders.state(made.participant, order).outcome == "cls_no_answer"
