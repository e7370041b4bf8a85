"""A node's certificates over their life, against the coordinator's real web application and database."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry

from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.enrolment import Directory, Enrolment
from coordinator.gwa.revocation import RevocationPublisher
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.store import Store
from coordinator.web.app import make_app
from node.security.module import GatewaySecurityModule, KeyDirectory
from node.trust import TrustStore
from node.wan.certificates import CertificateKeeper, package_body, read_triple
from protocol import pki
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.errors import RemoteProtocolError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE, TWO = "ESTK0100000001", "ESTK0100000002"


@dataclass
class World:
    """A coordinator, two enrolled gateways of one node, and a clock that the test sets."""

    path: Path
    store: Store
    now: datetime = NOW
    modules: list[GatewaySecurityModule] = field(default_factory=list)
    status: int | None = None  # what a proxy answers instead
    body: str = "not today"

    def __post_init__(self) -> None:
        self.authority = CertificateAuthority.create(self.path / "pki", NOW)
        self.publisher = RevocationPublisher(self.path / "pki", self.authority, self.store.certificates)
        enrolment = Enrolment(
            self.store.gateways, self.authority, self.publisher, coordinator_curve_key=b"c" * 32,
            list_key=b"l" * 32, log_key=b"k" * 32,
            endpoint="tcp://127.0.0.1:1",
        )  # fmt: skip
        metrics = CoordinatorMetrics(CollectorRegistry())
        self.app = make_app(self.store, Any, metrics, enrolment=enrolment, clock=lambda: self.now)  # type: ignore[arg-type]
        self.keys = KeyDirectory(self.path / "keys", StandardSuite())
        self.revocations = pki.RevocationLists()
        self.trust = TrustStore(self.authority.root, self.clock, self.revocations)
        self.renewed: list[int] = []

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async def answer(request: httpx.Request) -> httpx.Response:
            if self.status is not None:
                return httpx.Response(self.status, text=self.body)
            return await inner.handle_async_request(request)

        inner = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="https://coordinator") as client:
            yield client

    async def enrol(self, client: httpx.AsyncClient, name: str) -> GatewaySecurityModule:
        module = self.keys.open(name)
        token = Directory(self.store.gateways).create_token(self.now)
        body = package_body(module) | {
            "token": token, "gateway": name, "area": "Nord", "curve_public_key": module.curve.public.hex(),
        }  # fmt: skip
        response = await client.post("/api/v1/enrol", json=body)
        assert response.status_code == 201, response.text
        module.install(*read_triple(response.json(), name, self.authority.root, self.now))
        self.modules.append(module)
        return module

    def keeper(self, client: httpx.AsyncClient) -> CertificateKeeper:
        return CertificateKeeper(
            client, self.authority.root, self.path, self.trust, self.revocations, renew_before=timedelta(days=60),
            clock=self.clock, renewed=lambda modules: self.renewed.append(len(modules)),
        )  # fmt: skip

    def clock(self) -> float:
        return self.now.timestamp()

    def check(self, module: GatewaySecurityModule) -> None:
        signature, certificate = module.sign(b"text"), module.certificate or b""
        self.trust.check(module.identity, b"text", signature, certificate, module.intermediates)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}"))
    yield made
    made.keys.close()
    made.store.close()


async def test_a_neighbour_is_believed_with_current_lists_only(world: World) -> None:
    async with world.client() as client:
        module = await world.enrol(client, ONE)
        with pytest.raises(RemoteProtocolError, match="revocation_unknown"):
            world.check(module)
        keeper = world.keeper(client)
        await keeper.look([])
        world.check(module)
        world.now = NOW + timedelta(days=8)
        with pytest.raises(RemoteProtocolError, match="revocation_stale"):
            world.check(module)
        await keeper.look([])
        world.check(module)


async def test_a_revoked_neighbour_is_refused_after_the_next_look(world: World) -> None:
    async with world.client() as client:
        first, second = await world.enrol(client, ONE), await world.enrol(client, TWO)
        keeper = world.keeper(client)
        await keeper.look([])
        world.check(first)
        assert Directory(world.store.gateways).revoke(ONE, world.now)
        world.now += timedelta(seconds=1)
        await keeper.look([])
        with pytest.raises(RemoteProtocolError, match="certificate_revoked"):
            world.check(first)
        world.check(second)


async def test_lists_survive_a_restart_and_an_older_bundle_counts_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.client() as client:
        module = await world.enrol(client, ONE)
        before = world.publisher.bundle(world.now)
        assert Directory(world.store.gateways).revoke(ONE, world.now)
        world.now += timedelta(seconds=1)
        keeper = world.keeper(client)
        keeper.load()
        await keeper.look([])
        # A coordinator, or somebody between, that plays the older bundle back.
        monkeypatch.setattr(world.publisher, "bundle", lambda _now: before)
        await keeper.look([])
        world.revocations = pki.RevocationLists()
        world.trust = TrustStore(world.authority.root, world.clock, world.revocations)
        world.status = 502
        restarted = world.keeper(client)
        restarted.load()
        with pytest.raises(RemoteProtocolError, match="certificate_revoked"):
            world.check(module)


async def test_certificates_are_renewed_before_their_end(world: World) -> None:
    async with world.client() as client:
        module = await world.enrol(client, ONE)
        keeper = world.keeper(client)
        await keeper.look(world.modules)
        before = module.certificates
        world.now = NOW + timedelta(days=669)
        await keeper.look(world.modules)
        assert module.certificates == before
        world.now = NOW + timedelta(days=671)
        await keeper.look(world.modules)
        assert not set(before) & set(module.certificates)
        assert world.renewed == [1]
        world.check(module)
        for certificate in module.certificates:
            assert pki.load_certificate(certificate).not_valid_after_utc > world.now + timedelta(days=700)
        directory = world.store.gateways.some([ONE])[ONE]
        assert directory.certificate == module.certificate
        await keeper.look(world.modules)
        assert world.renewed == [1]


async def test_a_renewal_that_fails_is_told_once_and_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.client() as client:
        module = await world.enrol(client, ONE)
        keeper = world.keeper(client)
        await keeper.look(world.modules)
        world.now = NOW + timedelta(days=700)
        world.status = 503
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                await keeper.look(world.modules)
        assert [record.levelname for record in caplog.records if "renewal" in record.message] == ["WARNING"]
        assert "503: not today" in caplog.text
        world.status = None
        with caplog.at_level(logging.INFO):
            await keeper.look(world.modules)
        assert f"renewal of {ONE} works again" in caplog.text
        assert world.renewed == [1]
        world.check(module)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "5",
        "null",
        '"text"',
        '{"certificate_chain": 5}',
        '{"certificate_chain": []}',
        "[" * 100_000,
        '{"a": {}}',
    ],
)
async def test_an_answer_of_another_shape_costs_one_try(world: World, body: str) -> None:
    """Whatever stands where the coordinator should: the node reports it, tries again and goes on."""
    async with world.client() as client:
        module = await world.enrol(client, ONE)
        keeper = world.keeper(client)
        await keeper.look(world.modules)
        before = module.certificates
        world.now, world.status, world.body = NOW + timedelta(days=700), 201, body
        await keeper.look(world.modules)
        assert (module.certificates, world.renewed) == (before, [])
        world.status = None
        await keeper.look(world.modules)
        assert world.renewed == [1]


async def test_an_answer_that_was_lost_is_given_again(world: World) -> None:
    """The coordinator has renewed and the gateway does not know: the same keys, signed by the key before."""
    async with world.client() as client:
        module = await world.enrol(client, ONE)
        world.now = NOW + timedelta(days=700)
        body = package_body(module)
        body.pop("seal_chain")
        lost = await client.post("/api/v1/renew", json=body | {"gateway": ONE})
        assert lost.status_code == 201
        restarted = world.keys.open(ONE)
        await world.keeper(client).look([restarted])
        expected = x509.load_pem_x509_certificates(lost.json()["certificate_chain"].encode())[0]
        assert restarted.certificate == pki.to_der(expected)


async def test_a_gateway_of_another_pki_is_not_taken_in(world: World, tmp_path: Path) -> None:
    stranger = CertificateAuthority.create(tmp_path / "stranger", NOW)
    async with world.client() as client:
        module = world.keys.open(TWO)
        triple = stranger.issue_triple(pki.check_package(module.request_package()), NOW)
        answer = {
            "certificate_chain": stranger.chain_pem(triple[0]),
            "encryption_certificate": triple[1].public_bytes(Encoding.PEM).decode(),
            "tls_certificate": triple[2].public_bytes(Encoding.PEM).decode(),
        }
        with pytest.raises(RemoteProtocolError, match="unknown_issuer"):
            read_triple(answer, TWO, world.authority.root, NOW)
        with pytest.raises(RemoteProtocolError, match="wrong_certificate"):
            read_triple(answer, ONE, stranger.root, NOW)
        swapped = answer | {"encryption_certificate": answer["tls_certificate"]}
        with pytest.raises(RemoteProtocolError, match="key_usage"):
            read_triple(swapped, TWO, stranger.root, NOW)
        assert (await client.get("/api/v1/revocation-lists")).status_code == 200
