"""A coordinator's administrator and gateways that it has enrolled, for tests of profiles and deliveries."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from prometheus_client import CollectorRegistry

from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.enrolment import Directory, Enrolment
from coordinator.gwa.participants import administrator_keys, participant_keys
from coordinator.gwa.profiles import ProfileRollout
from coordinator.gwa.revocation import RevocationPublisher
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.profile_sets import ProfileSetState
from coordinator.storage.store import Store as CoordinatorStore
from coordinator.web.app import make_app
from coordinator.web.forwarded import Networks
from node.profiles.checking import text_of
from node.profiles.gateway_profiles import GatewayProfiles
from node.security.module import GatewaySecurityModule, KeyDirectory
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.trust import TrustStore
from node.wan.certificates import package_body, read_triple
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.link.entropy import SystemEntropy
from protocol.logs.events import Event

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ONE, TWO = "ESTK0100000001", "ESTK0100000002"
SHA256 = hashes.SHA256()
POINT = "DE0001234567890123456789012345678"
TOKEN = "stk_op_token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def document(gateway: str, version: int = 1, delivery: str = "direct", **changed: Any) -> dict[str, Any]:
    timed = {"valid_from": "2026-01-01T00:00:00Z"}
    return {
        "gateway": gateway, "version": version, "issued_at": "2026-11-01T12:00:00Z",
        "meters": [timed | {"id": "m1", "device": f"{gateway}/0", "protocol": "sml", "registers": ["1-0:1.8.0*255"]}],
        "processing": [timed | {
            "id": "p1", "metering_point": POINT, "obis": "1-0:1.8.0*255", "meters": [{"meter": "m1"}],
            "use_case": {"taf": 7}, "billing_period": {"begins": "2026-01-01T00:00:00+01:00", "months": 1},
            "recipients": [{"participant": "emp", "communication": "w1", "delivery": delivery}],
        }],
        "wan": [timed | {
            "id": "w1", "role": "participant", "uri": "https://localhost:7", "tls_certificate": "00" * 32,
            "encryption_certificate": "00" * 32, "signature_certificate": "00" * 32,
        }],
    } | changed  # fmt: skip


@dataclass
class World:
    """A coordinator, two enrolled gateways, each with its own store, and what they noted."""

    path: Path
    now: datetime = NOW
    is_down: bool = False
    proxies: Networks = ()
    modules: dict[str, GatewaySecurityModule] = field(default_factory=dict)
    noted: list[tuple[Event, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.coordinator = CoordinatorStore(f"sqlite:///{self.path / 'coordinator.sqlite'}")
        self.authority = CertificateAuthority.create(self.path / "pki", self.now)
        publisher = RevocationPublisher(self.path / "pki", self.authority, self.coordinator.certificates)
        enrolment = Enrolment(
            self.coordinator.gateways, self.authority, publisher, coordinator_curve_key=b"c" * 32,
            list_key=b"l" * 32, log_key=b"k" * 32,
            endpoint="tcp://127.0.0.1:1",
        )  # fmt: skip
        self.participant = participant_keys(self.path / "pki", self.authority, self.now)
        self.rollout = self.rollout_of(self.authority)
        metrics = CoordinatorMetrics(CollectorRegistry())
        self.app = make_app(
            self.coordinator, Any, metrics, enrolment=enrolment, profiles=self.rollout, operator_token=TOKEN,  # type: ignore[arg-type]
            proxies=self.proxies, clock=lambda: self.now,
        )  # fmt: skip
        self.keys = KeyDirectory(self.path / "keys", StandardSuite())
        self.trust = TrustStore(self.authority.root, self.now.timestamp)
        self.store = Store(self.path / "node.sqlite", StorageCipher(bytes(32)))

    def rollout_of(self, authority: CertificateAuthority, folder: str = "pki") -> ProfileRollout:
        return ProfileRollout(
            self.coordinator.gateways, self.coordinator.certificates, self.coordinator.profile_sets,
            administrator_keys(self.path / folder, authority, self.now), authority.sub_ca, SystemEntropy(),
        )  # fmt: skip

    def document(self, gateway: str, version: int = 1, **changed: Any) -> dict[str, Any]:
        made = document(gateway, version, **changed)
        certificate = self.participant.encryption.certificate
        made["certificates"] = [text_of(certificate)]
        made["wan"][0]["encryption_certificate"] = certificate.fingerprint(SHA256).hex()
        return made

    def profiles(self, gateway: str) -> GatewayProfiles:
        return GatewayProfiles(
            ProfileSetRepository(self.store), self.modules[gateway], self.trust, {f"{gateway}/0": f"{gateway}/0"},
            lambda event, **parameters: self.noted.append((event, parameters)), self.now.timestamp,
        )  # fmt: skip

    async def enrol(self, client: httpx.AsyncClient, name: str) -> None:
        module = self.keys.open(name)
        token = Directory(self.coordinator.gateways).create_token(self.now)
        body = package_body(module) | {
            "token": token, "gateway": name, "area": "Nord", "curve_public_key": module.curve.public.hex(),
        }  # fmt: skip
        response = await client.post("/api/v1/enrol", json=body)
        module.install(*read_triple(response.json(), name, self.authority.root, self.now))
        self.modules[name] = module

    async def roll_out(self, client: httpx.AsyncClient, made: dict[str, Any]) -> httpx.Response:
        return await client.post("/api/v1/profile-sets", content=json.dumps(made), headers=HEADERS)

    def state(self, gateway: str) -> tuple[int, ProfileSetState, str]:
        newest = self.coordinator.profile_sets.newest(gateway)
        assert newest is not None
        return newest.version, newest.state, newest.reason


@asynccontextmanager
async def world_in(path: Path, now: datetime = NOW, proxies: Networks = ()) -> AsyncIterator[World]:
    """Two gateways enrolled, their store written while the block runs."""
    made = World(path, now, proxies=proxies)
    try:
        async with client_of(made) as client, made.store.writing():
            for name in (ONE, TWO):
                await made.enrol(client, name)
            yield made
    finally:
        made.keys.close()
        made.store.close()
        made.coordinator.close()


@asynccontextmanager
async def client_of(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async def answer(request: httpx.Request) -> httpx.Response:
        if world.is_down and not request.url.path.endswith("message"):
            raise httpx.ConnectError("away")
        return await inner.handle_async_request(request)

    inner = httpx.ASGITransport(world.app)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="https://coordinator") as client:
        yield client
