"""Deliveries over real TLS: each once, in order, to whom the signed profile says, in the form that it says."""

from __future__ import annotations

import csv
import io
import json
import logging
import sqlite3
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import pytest
import trio
from cryptography import x509
from prometheus_client import CollectorRegistry, generate_latest

from coordinator.config import CoordinatorConfig, DeliveriesConfig, Role
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.enrolment import Directory
from coordinator.gwa.participants import certified_key
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.deliveries import DeliveryState
from coordinator.web.app import make_app
from coordinator.web.delivery_servers import DeliveryServers
from loadtest.households import households
from loadtest.network import Network, started
from loadtest.ports import free_port
from node.config import PolicyConfig
from node.fleet import run as run_node
from node.metering.entries import LoggedReading
from node.metering.log import MeteringLog
from node.metrics import NodeMetrics
from node.profiles.checking import text_of
from node.profiles.gateway_profiles import GatewayProfiles
from node.storage.errors import StoreError
from node.storage.repositories.metering_log import MeteringLogRepository
from node.storage.repositories.use_cases import UseCaseRepository
from node.taf.use_cases import UseCases
from node.wan.administration import Administration
from node.wan.deliveries import Deliveries, DeliveryServices
from node.wan.tls_session import Answer, Session
from protocol import cms, pki
from protocol.cms.structures import AUTH_ENVELOPED_DATA
from protocol.cosem.delivery import Delivery, canonical_name
from protocol.errors import RemoteProtocolError
from protocol.link.tls import client_context
from protocol.logs.events import Event
from protocol.metering.interval import RegistrationGrid
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from tests.integration.gwa_world import ONE, POINT, SHA256, TWO, World, client_of, document, world_in

IMPORT = Obis(1, 0, 1, 8, 0, 255)
OCTOBER_S = 1_790_805_600  # 2026-10-01 00:00 by German legal time
COUNT = 96
FIRST = 98_765_432_100  # a register that nothing else could say
DAY = {"id": "d", "switches": [{"at": "00:00", "stage": 1}, {"at": "06:00", "stage": 2}, {"at": "22:00", "stage": 1}]}
CALENDAR = {"day_profiles": [DAY], "seasons": [{"begins": "01-01", "weekdays": ["d"] * 7}]}
CASES: dict[str, dict[str, Any]] = {
    "t1": {"taf": 1}, "t2": {"taf": 2, "calendar": CALENDAR}, "t6": {"taf": 6, "days": 1}, "t7": {"taf": 7},
}  # fmt: skip
DIRECT = {"participant": "emp", "communication": "w1", "delivery": "direct"}
PSEUDONYMOUS = {"participant": "grid", "communication": "w1", "delivery": "pseudonymous"}
AGGREGATED = {"participant": "ring", "communication": "w1", "delivery": "aggregated"}


def truth(days: int = 1) -> list[int]:
    """The meter's register at quarter hours of some days and the next one, Wh."""
    return [FIRST + index * 137 + (index * 7_919) % 101 for index in range(days * COUNT + 2)]


@dataclass
class Field:
    """One gateway, its node's services, and the coordinator's delivery servers."""

    world: World
    ports: tuple[int, int]
    profiles: GatewayProfiles
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    coordinator_registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.repository = UseCaseRepository(self.world.store)
        self.metering = MeteringLog(MeteringLogRepository(self.world.store), ONE, lambda: float(OCTOBER_S))
        self.metrics = NodeMetrics(self.registry)
        config = CoordinatorConfig(
            data_dir=self.world.path, database=f"sqlite:///{self.world.path / 'coordinator.sqlite'}",
            deliveries=DeliveriesConfig(
                inbox=f"https://127.0.0.1:{self.ports[0]}", relay=f"https://127.0.0.1:{self.ports[1]}"
            ),
        )  # fmt: skip
        self.servers = DeliveryServers(
            config, self.world.coordinator, self.world.authority, CoordinatorMetrics(self.coordinator_registry),
            datetime.now(UTC),
        )  # fmt: skip
        assert self.servers.inbox is not None
        self.inbox = self.servers.inbox

    @property
    def deliveries(self) -> Deliveries:
        services = DeliveryServices(
            repository=self.repository, trust=self.world.trust, metrics=self.metrics,
            tls_context=partial(client_context, self.world.path / "pki" / "root.pem"),
        )  # fmt: skip
        return Deliveries(services, self.world.modules[ONE], self.profiles, self.note, Random(1))

    def note(self, event: Event, **parameters: Any) -> None:
        self.world.noted.append((event, parameters))

    def document(self, version: int, recipients: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
        made = self.world.document(ONE, version) | {"issued_at": "2026-10-01T12:00:00+02:00"}
        (processing,), (wan,) = made["processing"], made["wan"]
        made["processing"] = [
            processing | {
                "id": name, "use_case": case, "recipients": recipients,
                "billing_period": {"begins": "2026-10-01T00:00:00+02:00", "days": 1},
            } | changed
            for name, case in CASES.items()
        ]  # fmt: skip
        made["wan"] = [
            wan | {"uri": f"https://127.0.0.1:{port}/cosem/deliveries", "id": name, "role": role,
                   "tls_certificate": self.fingerprint(f"{stem}-tls")}
            for port, name, role, stem in (
                (self.ports[0], "w1", "participant", "emt"), (self.ports[1], "w2", "administrator", "gwa"),
            )
        ]  # fmt: skip
        return made

    def fingerprint(self, stem: str) -> str:
        role = pki.Role.PARTICIPANT_TLS if stem.startswith("emt") else pki.Role.ADMINISTRATOR_TLS
        pair = certified_key(self.world.path / "pki", stem, self.world.authority, role, datetime.now(UTC))
        return pair.certificate.fingerprint(SHA256).hex()

    async def roll_out(self, made: dict[str, Any]) -> None:
        async with client_of(self.world) as client:
            answer = await self.world.roll_out(client, made)
            assert answer.status_code == 202, answer.text
            await Administration(client, lambda: [self.profiles], 60).look()
        assert self.world.state(ONE)[1:] == ("taken", "")

    async def measure(self, days: int = 1, *, but: int = -1) -> None:
        for index, value in enumerate(truth(days)):
            if index == but:
                continue
            at_s = OCTOBER_S + index * 900
            await self.metering.append(
                [LoggedReading(f"{ONE}/0", IMPORT, value, 0, 30, None, at_s * 1000, at_s * 1000, at_s, 0, True,
                               Quality.VALID)]
            )  # fmt: skip

    async def close(self, days: int = 1) -> None:
        now_s = OCTOBER_S + (days + 1) * 86_400 + 900
        cases = UseCases(
            self.metering, self.profiles, self.repository, self.world.modules[ONE], lambda: now_s, lambda: now_s,
            lambda: None,
        )  # fmt: skip
        await cases.close_due()

    def exported(self) -> list[dict[str, str]]:
        text = b"".join(self.inbox.export_csv(0, 2**40)).decode()
        return list(csv.DictReader(io.StringIO(text)))


@asynccontextmanager
async def field_in(path: Path) -> AsyncIterator[Field]:
    async with world_in(path, datetime.now(UTC)) as world:
        yield Field(world, (free_port(), free_port()), world.profiles(ONE))


@asynccontextmanager
async def serving(made: Field) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await made.servers.start(nursery)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Field]:
    async with field_in(tmp_path) as found:
        yield found


async def test_each_recipient_has_every_value_once_and_exactly(made: Field) -> None:
    await made.roll_out(made.document(1, [DIRECT, PSEUDONYMOUS, AGGREGATED]))
    await made.measure()
    await made.close()
    assert len(made.repository.waiting(ONE)) == 2 * len(CASES)
    async with serving(made):
        assert await made.deliveries.send_waiting()
        while made.inbox.open_new():
            pass
        assert await made.deliveries.send_waiting()
    assert made.repository.waiting(ONE) == []
    registers = np.array(truth())
    rows = made.exported()
    for sender, profiles in ((f"{ONE.lower()}.sm", [*CASES]), (None, [""])):
        mine = [each for each in rows if (each["sender"] == sender if sender else each["profile"] == "")]
        values = {(each["profile"], each["taf"], each["obis"], each["kind"], each["time"]): each for each in mine}
        assert len(values) == len(mine)
        load = [int(each["value"]) for each in mine if each["taf"] == "7" and each["kind"] == "value"]
        assert load == [int(each) for each in registers[: COUNT + 1]]
        energies, hours = np.diff(registers)[:COUNT], np.arange(COUNT) // 4
        day = (hours >= 6) & (hours < 22)
        stages = {each["obis"]: int(each["value"]) for each in mine if each["taf"] == "2"}
        assert stages == {
            "1-0:1.8.0*255": int(energies.sum()), "1-0:1.8.1*255": int(energies[~day].sum()),
            "1-0:1.8.2*255": int(energies[day].sum()), "1-0:1.8.63*255": 0,
        }  # fmt: skip
        assert {each["profile"] for each in mine} == set(profiles)
        assert {each["metering_point"] for each in mine} == ({POINT} if sender else {""})
    assert made.inbox.missing_periods() == []
    assert [event for event, _ in made.world.noted].count(Event.DELIVERED) == 2 * len(CASES)


async def test_the_participant_learns_no_sender_and_the_administrator_no_value(made: Field) -> None:
    await made.roll_out(made.document(1, [PSEUDONYMOUS]))
    await made.measure()
    await made.close()
    async with serving(made):
        assert await made.deliveries.send_waiting()
    (first, *_) = found = made.world.coordinator.deliveries.new(99)
    assert {each.gateway_id for each in found} == {None}
    administrator = made.world.rollout._keys.signature.certificate
    cms.verify(first.message, AUTH_ENVELOPED_DATA, [administrator], cms.Limits())
    signer = made.world.modules[ONE].signature_key.certificate
    with pytest.raises(RemoteProtocolError, match="cms_signer"):
        cms.verify(first.message, AUTH_ENVELOPED_DATA, [signer], cms.Limits())
    keys = made.world.rollout._keys
    with pytest.raises(RemoteProtocolError):
        cms.unprotect(first.message, keys.encryption, [administrator])
    while made.inbox.open_new():
        pass
    records = [made.world.coordinator.deliveries.get(each.delivery_id) for each in found]
    senders = [each.sender for each in records if each is not None]
    assert len(set(senders)) == len(CASES)
    told = repr([dict(each.items()) for each in made.exported()])
    assert ONE.lower() not in told.lower()
    assert POINT not in told


async def test_an_answer_that_was_lost_makes_no_second_delivery(made: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    await made.roll_out(made.document(1, [DIRECT, PSEUDONYMOUS]))
    await made.measure()
    await made.close()
    write = made.world.store.write

    async def lost(statements: Any) -> None:
        if any("waiting_delivery" in each.sql for each in statements):
            raise StoreError("the process was killed here")
        await write(statements)

    async with serving(made):
        monkeypatch.setattr(made.world.store, "write", lost)
        with pytest.raises(StoreError):
            await made.deliveries.send_waiting()
        monkeypatch.setattr(made.world.store, "write", write)
        waiting = {each.id for each in made.repository.waiting(ONE)}
        assert len(waiting) == 2 * len(CASES)
        assert await made.deliveries.send_waiting()
    while made.inbox.open_new():
        pass
    page = made.world.coordinator.deliveries.page(limit=99)
    assert {each.delivery_id for each in page} == waiting
    assert {each.state for each in page} == {DeliveryState.STORED}


async def test_a_participant_that_is_away_gets_all_in_order_later(
    made: Field, caplog: pytest.LogCaptureFixture
) -> None:
    await made.roll_out(made.document(1, [DIRECT]))
    await made.measure(days=2)
    await made.close(days=2)
    wanted = [each.id for each in made.repository.waiting(ONE)]
    assert len(wanted) == 2 * len(CASES)
    for _ in range(3):
        assert not await made.deliveries.send_waiting()
    assert [each.id for each in made.repository.waiting(ONE)] == wanted
    async with serving(made):
        assert await made.deliveries.send_waiting()
    delivered = [parameters["start"] for event, parameters in made.world.noted if event is Event.DELIVERED]
    assert len(delivered) == len(wanted)
    received = sorted(made.world.coordinator.deliveries.page(limit=99), key=lambda each: each.received_ms)
    for name in CASES:
        mine = [each.start_s for each in received if each.profile == name]
        assert mine == [OCTOBER_S, OCTOBER_S + 86_400]
    assert "cannot deliver to w1" in caplog.text


async def test_an_aggregated_profile_sends_no_single_reading(made: Field) -> None:
    await made.roll_out(made.document(1, [AGGREGATED]))
    await made.measure()
    await made.close()
    assert made.repository.closed(ONE, "t7") == [OCTOBER_S]
    assert made.repository.waiting(ONE) == []
    async with serving(made):
        assert await made.deliveries.send_waiting()
    assert made.world.coordinator.deliveries.page(limit=9) == []


async def test_what_a_newer_profile_does_not_allow_any_more_is_withheld(made: Field) -> None:
    await made.roll_out(made.document(1, [DIRECT]))
    await made.measure()
    await made.close()
    await made.roll_out(made.document(2, [AGGREGATED | {"participant": "emp"}]))
    async with serving(made):
        assert await made.deliveries.send_waiting()
    assert made.world.coordinator.deliveries.page(limit=9) == []
    withheld = [parameters["reason"] for event, parameters in made.world.noted if event is Event.DELIVERY_WITHHELD]
    assert withheld == ["profile_changed"] * len(CASES)


async def test_a_server_with_another_certificate_hears_nothing(made: Field) -> None:
    document = made.document(1, [DIRECT])
    document["wan"][0]["tls_certificate"] = made.fingerprint("gwa-tls")
    await made.roll_out(document)
    await made.measure()
    await made.close()
    async with serving(made):
        assert not await made.deliveries.send_waiting()
    assert len(made.repository.waiting(ONE)) == len(CASES)
    assert made.world.coordinator.deliveries.page(limit=9) == []
    assert b'stromkreis_node_deliveries_total{outcome="failed"} 1.0' in generate_latest(made.registry)


async def test_a_revoked_gateway_and_one_without_certificate_are_refused(made: Field, tmp_path: Path) -> None:
    await made.roll_out(made.document(1, [DIRECT]))
    await made.measure()
    await made.close()
    async with serving(made):
        context = client_context(made.world.path / "pki" / "root.pem")
        context.check_hostname = False
        stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", made.ports[0]), context)
        with pytest.raises((trio.BrokenResourceError, ssl.SSLError)):  # at the latest when it reads
            await _ask(stream)
        await trio.aclose_forcefully(stream)
        assert Directory(made.world.coordinator.gateways).revoke(ONE, datetime.now(UTC))
        assert not await made.deliveries.send_waiting()
        assert made.world.coordinator.deliveries.page(limit=9) == []
    assert len(made.repository.waiting(ONE)) == len(CASES)


async def _ask(stream: trio.SSLStream[trio.SocketStream]) -> None:
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    await stream.receive_some(1)


async def test_a_gateway_speaks_for_itself_only(made: Field) -> None:
    await made.roll_out(made.document(1, [DIRECT]))
    await made.measure()
    await made.close()
    result = made.repository.result(ONE, "t7", OCTOBER_S)
    assert result is not None

    module = made.world.modules[TWO]

    def message(sender: str, name: str) -> bytes:
        document = Delivery(name, sender, result).to_xml()
        recipient = made.world.participant.encryption.certificate
        return cms.protect(document, recipient, module.signature_key, entropy=module)

    signers = [module.signature_key.certificate]
    with pytest.raises(RemoteProtocolError, match="not the gateway that signed"):
        made.inbox.receive(TWO, signers, "ab" * 16, message(canonical_name(ONE), "ab" * 16), 0)
    with pytest.raises(RemoteProtocolError, match="another delivery's"):
        made.inbox.receive(TWO, signers, "cd" * 16, message(canonical_name(TWO), "ab" * 16), 0)
    assert made.inbox.receive(TWO, signers, "ab" * 16, message(canonical_name(TWO), "ab" * 16), 0)
    with pytest.raises(RemoteProtocolError, match="delivery_known"):
        made.inbox.receive(ONE, signers, "ab" * 16, message(canonical_name(TWO), "ab" * 16), 0)


async def test_a_period_that_never_came_is_reported(made: Field) -> None:
    await made.roll_out(made.document(1, [DIRECT]))
    await made.measure(days=3)
    await made.close(days=3)
    middle = [each for each in made.repository.waiting(ONE) if each.start_s == OCTOBER_S + 86_400]
    await made.world.store.write([made.repository.delivered(ONE, each.id) for each in middle])
    async with serving(made):
        assert await made.deliveries.send_waiting()
    holes = made.inbox.missing_periods()
    assert [(each.gateway, each.profile, each.start_s, each.end_s) for each in holes] == [
        (ONE, name, OCTOBER_S + 86_400, OCTOBER_S + 2 * 86_400) for name in CASES
    ]


# --- measured privacy -------------------------------------------------------------------------------------------------


def planted(days: int = 1) -> Iterator[bytes]:
    """Forms in which a register of the day could lie anywhere: text, integers of both byte orders."""
    for value in truth(days):
        yield str(value).encode()
        yield value.to_bytes(5, "big")
        yield value.to_bytes(5, "little")


@pytest.mark.parametrize("recipient", [DIRECT, PSEUDONYMOUS, AGGREGATED], ids=lambda each: str(each["delivery"]))
async def test_planted_values_are_found_where_the_profile_put_them_only(
    made: Field, recipient: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await made.roll_out(made.document(1, [recipient]))
    await made.measure()
    await made.close()
    async with serving(made):
        assert await made.deliveries.send_waiting()
        while made.inbox.open_new():
            pass
    forms = set(planted())
    haystacks = {
        str(path): path.read_bytes() for path in made.world.path.rglob("*") if path.is_file()
    } | {
        "log": caplog.text.encode(), "node's metrics": generate_latest(made.registry),
        "coordinator's metrics": generate_latest(made.coordinator_registry),
        "events": repr(made.world.noted).encode(),
    }  # fmt: skip
    assert len(haystacks) > 20
    for name, content in haystacks.items():
        assert not [form for form in forms if form in content], name
    exported = b"".join(made.inbox.export_csv(0, 2**40))
    values = [str(each).encode() for each in truth()[: COUNT + 1]]
    is_single = recipient["delivery"] != "aggregated"
    assert all((each in exported) is is_single for each in values)
    assert (POINT.encode() in exported) is (recipient["delivery"] == "direct")


def test_the_relay_passes_on_to_its_own_participant_only(tmp_path: Path) -> None:
    async def run() -> None:
        async with field_in(tmp_path) as made:
            module = made.world.modules[ONE]
            stranger = CertificateAuthority.create(tmp_path / "other", datetime.now(UTC))
            foreign = certified_key(
                tmp_path / "other", "emt-encryption", stranger, pki.Role.PARTICIPANT_ENCRYPTION, datetime.now(UTC)
            ).certificate
            relay = made.servers._relay
            assert relay is not None
            signers = [module.signature_key.certificate]
            other = cms.protect(b"x", foreign, module.signature_key, entropy=module)
            with pytest.raises(RemoteProtocolError, match="participant_unknown"):
                relay.receive(ONE, signers, "ab" * 16, other, 0)
            own = made.world.participant.encryption.certificate
            unsigned = cms.protect(b"x", own, made.world.modules[TWO].signature_key, entropy=module)
            with pytest.raises(RemoteProtocolError, match="cms_signer"):
                relay.receive(ONE, signers, "ab" * 16, unsigned, 0)
            garbage = cms.protect(b"<no xml", own, module.signature_key, entropy=module)
            assert relay.receive(ONE, signers, "ab" * 16, garbage, 0)
            assert not relay.receive(ONE, signers, "ab" * 16, garbage, 0)
            assert not made.inbox.open_new()
            record = made.world.coordinator.deliveries.get("ab" * 16)
            assert record is not None
            assert (record.state, record.reason) == (DeliveryState.REFUSED, "bad_cosem")

    trio.run(run)


async def test_the_operators_routes_show_periods_and_export_values(made: Field) -> None:
    await made.roll_out(made.document(1, [DIRECT]))
    await made.measure()
    await made.close()
    async with serving(made):
        assert await made.deliveries.send_waiting()
    metrics = CoordinatorMetrics(CollectorRegistry())
    app = make_app(
        made.world.coordinator, None, metrics, role=Role.EMP, inbox=made.inbox, operator_token="secret",
    )  # fmt: skip
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://coordinator") as client:
        for path in ("", "/missing", "/values.csv?from=2026-01-01T00:00:00Z&to=2027-01-01T00:00:00Z"):
            assert (await client.get(f"/api/v1/deliveries{path}")).status_code == 401
        client.headers["Authorization"] = "Bearer secret"
        page = (await client.get("/api/v1/deliveries", params={"limit": 3})).json()
        rest = (await client.get("/api/v1/deliveries", params={"after": page["next"]})).json()
        items = page["items"] + rest["items"]
        assert sorted(each["profile"] for each in items) == sorted(CASES)
        assert {(each["state"], each["missing"], each["is_complete"]) for each in items} == {("stored", 0, True)}
        assert (await client.get("/api/v1/deliveries/missing")).json() == {"periods": [], "incomplete": []}
        query = {"from": "2026-09-01T00:00:00Z", "to": "2026-10-01T00:00:00+02:00"}
        assert len((await client.get("/api/v1/deliveries/values.csv", params=query)).text.splitlines()) == 1
        query["to"] = "2026-10-02T00:00:00Z"
        lines = (await client.get("/api/v1/deliveries/values.csv", params=query)).text.splitlines()
    assert len(lines) == 1 + (1 + 2) + (2 + 2) + 2 + (COUNT + 1)  # head, TAF 1, 2, 6 and 7


async def test_a_running_node_measures_derives_and_delivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter hour a second, midnight after eight: coordinator, node and meter as they run, equal to the meter."""
    ports = free_port(), free_port()
    origin_s, start_s = float(int(time.time()) + 2), OCTOBER_S + 86_400 - 8 * 900
    monkeypatch.setattr("node.gateway.QUARTER_HOURS", RegistrationGrid(int(origin_s * 1000), 1_000, start_s, 900))
    network = Network(
        tmp_path, gateways=1, origin_unix_s=origin_s, policy=PolicyConfig(),
        deliveries=DeliveriesConfig(inbox=f"https://127.0.0.1:{ports[0]}", relay=f"https://127.0.0.1:{ports[1]}"),
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        assert network.coordinator_config is not None
        data = network.coordinator_config.data_dir
        node = network.node_config(0, 1, "node").model_copy(update={"profile_poll_s": 0.5})
        monitoring = await started(nursery, partial(run_node, node))
        certificates = {
            stem: x509.load_pem_x509_certificates((data / "pki" / f"{stem}.pem").read_bytes())[0]
            for stem in ("emt-tls", "emt-encryption", "gwa-tls")
        }
        made = running_document(ports, certificates)
        headers = {"Authorization": f"Bearer {(data / 'operator.token').read_text().strip()}"}
        verify = client_context(data / "pki" / "root.pem")
        async with httpx.AsyncClient(base_url=network.web[0], verify=verify, headers=headers) as client:
            answer = await client.post("/api/v1/profile-sets", content=json.dumps(made))
            assert answer.status_code == 202, answer.text
            with trio.fail_after(120):
                while True:
                    items = (await client.get("/api/v1/deliveries")).json()["items"]
                    if len([each for each in items if each["state"] == "stored"]) == 2:
                        break
                    await trio.sleep(0.5)
            query = {"from": "2026-09-30T00:00:00Z", "to": "2026-10-02T00:00:00Z"}
            rows = list(
                csv.DictReader((await client.get("/api/v1/deliveries/values.csv", params=query)).text.splitlines())
            )
            wanted = ('profile_sets_total{outcome="taken"} 1.0', 'deliveries_total{outcome="delivered"} 2.0')
            with trio.fail_after(120):  # counted once the answer is durable
                while True:
                    counted = (await client.get(f"{monitoring}/metrics", headers={"Authorization": ""})).text
                    if all(f"stromkreis_node_{each}" in counted for each in wanted):
                        break
                    await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    (home,) = households(network.meters_config())
    senders = Counter(each["sender"] for each in rows if each["kind"] == "value")
    assert len(senders) == 2
    assert f"{made['gateway'].lower()}.sm" in senders
    for each in rows:
        q = (int(datetime.fromisoformat(each["time"]).timestamp()) - start_s) // 900
        if each["kind"] == "value":
            assert int(Decimal(each["value"]) * 10) == home.registers(q).import_tenth_wh
    assert min(senders.values()) >= 3


def running_document(ports: tuple[int, int], certificates: dict[str, x509.Certificate]) -> dict[str, Any]:
    made = document("ESTK0000000000") | {"issued_at": "2026-10-01T12:00:00+02:00"}
    (processing,), (wan,) = made["processing"], made["wan"]
    processing |= {
        "scaler": -1, "recipients": [DIRECT, PSEUDONYMOUS],
        "billing_period": {"begins": "2026-10-01T00:00:00+02:00", "days": 1},
    }  # fmt: skip
    made["wan"] = [
        wan | {"uri": f"https://127.0.0.1:{port}/cosem/deliveries", "id": name, "role": role,
               "tls_certificate": certificates[stem].fingerprint(SHA256).hex(),
               "encryption_certificate": certificates["emt-encryption"].fingerprint(SHA256).hex()}
        for port, name, role, stem in (
            (ports[0], "w1", "participant", "emt-tls"), (ports[1], "w2", "administrator", "gwa-tls"),
        )
    ]  # fmt: skip
    made["certificates"] = [text_of(certificates["emt-encryption"])]
    return made


async def test_a_damaged_row_costs_its_own_delivery_only(made: Field, caplog: pytest.LogCaptureFixture) -> None:
    await made.roll_out(made.document(1, [DIRECT]))
    await made.measure()
    await made.close()
    first, second, *_ = made.repository.waiting(ONE)
    with closing(sqlite3.connect(made.world.path / "node.sqlite")) as file, file:
        file.execute("UPDATE waiting_delivery SET sealed = zeroblob(40) WHERE id = ?", (first.id,))
        file.execute("UPDATE derived_period SET sealed = zeroblob(40) WHERE profile = ?", (second.profile,))
    async with serving(made):
        assert await made.deliveries.send_waiting()
    delivered = {each.profile for each in made.world.coordinator.deliveries.page(limit=9)}
    assert delivered == set(CASES) - {first.profile, second.profile}
    assert "a delivery that waits is lost" in caplog.text
    assert "a result that is to be delivered is lost" in caplog.text


async def test_a_value_that_no_meter_can_show_is_left_out(made: Field) -> None:
    await made.roll_out(made.document(1, [DIRECT]))
    await made.measure(but=1)
    huge = LoggedReading(
        f"{ONE}/0", IMPORT, 2**62, 9, 30, None, OCTOBER_S * 1000, OCTOBER_S * 1000, OCTOBER_S + 900, 0, True,
        Quality.VALID,
    )  # fmt: skip
    await made.metering.append([huge])
    await made.close()
    async with serving(made):
        assert await made.deliveries.send_waiting()
    assert made.repository.waiting(ONE) == []
    page = made.world.coordinator.deliveries.page(limit=9)
    assert {each.profile: each.missing for each in page} == dict.fromkeys(CASES, 0) | {"t7": 1}


async def test_a_delivery_out_of_bounds_keeps_no_other_back(made: Field) -> None:
    await made.roll_out(made.document(1, [PSEUDONYMOUS]))
    await made.measure()
    await made.close()
    result = made.repository.result(ONE, "t7", OCTOBER_S)
    relay, module = made.servers._relay, made.world.modules[ONE]
    assert result is not None
    assert relay is not None
    bad = [
        replace(result, metering_point="", profile="x" * 65), replace(result, metering_point="", end_s=2**36),
        replace(result, metering_point="", rows=result.rows[::-1]), replace(result, profile=""),
        replace(result, metering_point="", registers=((IMPORT, 1), (IMPORT, 2))),
    ]  # fmt: skip
    for number, each in enumerate(bad):
        name = f"{number:032x}"
        document_ = Delivery(name, "ab" * 16, each).to_xml()
        message = cms.protect(
            document_, made.world.participant.encryption.certificate, module.signature_key, entropy=module
        )
        assert relay.receive(ONE, [module.signature_key.certificate], name, message, 0)
    async with serving(made):
        assert await made.deliveries.send_waiting()
    while made.inbox.open_new():
        pass
    states = Counter(each.state for each in made.world.coordinator.deliveries.page(limit=99))
    assert states == {DeliveryState.REFUSED: len(bad), DeliveryState.STORED: len(CASES)}


@pytest.mark.parametrize(
    ("status", "is_done", "left"), [(200, True, 0), (204, True, 0), (422, True, 0), (409, True, 0), (307, False, 4),
                                    (403, False, 4), (404, False, 4), (500, False, 4), (503, False, 4)],
)  # fmt: skip
async def test_a_status_decides_what_becomes_of_a_delivery(
    made: Field, monkeypatch: pytest.MonkeyPatch, status: int, is_done: bool, left: int
) -> None:
    await made.roll_out(made.document(1, [DIRECT]))
    await made.measure()
    await made.close()

    async def answer(_session: Session, *_: Any) -> Answer:
        return Answer(status, b"")

    monkeypatch.setattr(Session, "post", answer)
    async with serving(made):
        assert await made.deliveries.send_waiting() is is_done
    assert len(made.repository.waiting(ONE)) == left
    withheld = [parameters["reason"] for event, parameters in made.world.noted if event is Event.DELIVERY_WITHHELD]
    assert withheld == ([f"refused_{status}"] * 4 if status in {409, 422} else [])
    assert made.repository.result(ONE, "t7", OCTOBER_S) is not None
