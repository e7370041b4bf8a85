"""A gateway's interface to its home on a real port: enrolled keys, a store with two days of readings, accounts."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import trio

from coordinator.gwa.ca import CertificateAuthority
from node.han.accounts import Account, Contract, Role
from node.han.digest import Verifier, make_verifier
from node.han.facts import GatewayFacts, HanServices, MeterFacts, NetworkFacts, RingFacts
from node.han.server import HanServer
from node.logs.gateway_log import GatewayLog
from node.metering.entries import LoggedReading
from node.metering.log import MeteringLog
from node.profiles.gateway_profiles import GatewayProfiles
from node.security.module import KeyDirectory
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.reader import StoreReader
from node.storage.repositories.gateway_logs import GatewayLogRepository
from node.storage.repositories.han import HanSecretRepository
from node.storage.repositories.metering_log import MeteringLogRepository
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.storage.repositories.use_cases import UseCaseRepository
from node.trust import TrustStore
from protocol import pki
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.metering.interval import QUARTER_HOURS
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality

GATEWAY = "ESTK0100000001"
REALM = GATEWAY.lower()
NOW_S = 1_796_040_000 + 300  # 2026-11-30 10:40 UTC and five minutes
QUARTER_S = 900
IMPORT, EXPORT = Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255)
ANNA, BEN = ("anna", "correct horse 1"), ("ben", "battery staple 2")
POINT, OTHER_POINT = "DE0001234567890123456789012345678", "DE0001234567890123456789012345679"
METERS = ("1emh0012345678", "1itr0087654321")


def consumer(user: str, password: str, *meters: int, only: str | None = None) -> Account:
    verifier: Verifier = make_verifier(user, REALM, password)
    return Account(
        user, Role.CONSUMER, tuple(f"{GATEWAY}/{place}" for place in meters), (Contract(user, ()),), frozenset(),
        {each: text for each, text in verifier.items() if only in (None, each.value)},
    )  # fmt: skip


@dataclass
class Home:
    """What runs, and its clock."""

    path: Path
    accounts: tuple[Account, ...]
    now_s: float = NOW_S
    certificates: tuple[bytes, ...] = ()
    profiles_document: dict[str, Any] | None = None
    address: str = ""
    services: HanServices | None = None
    server: HanServer | None = None
    facts: GatewayFacts | None = None
    metering: MeteringLog | None = None
    log: GatewayLog | None = None
    noted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = datetime.fromtimestamp(self.now_s, UTC)
        self.authority = CertificateAuthority.create(self.path / "pki", self.now)
        self.keys = KeyDirectory(self.path / "keys", StandardSuite())
        self.module = self.keys.open(GATEWAY)
        triple = self.authority.issue_triple(pki.check_package(self.module.request_package()), self.now)
        self.module.install(tuple(map(pki.to_der, triple)), (pki.to_der(self.authority.sub_ca),))

    @asynccontextmanager
    async def serving(self, *, days: int = 2) -> AsyncIterator[Home]:
        """The server on a free port; readings of the last days before."""
        self.store = store = Store(self.path / "registers.sqlite", StorageCipher(bytes(32)))
        self.use_cases = UseCaseRepository(store)
        trust = TrustStore(self.authority.root, lambda: self.now_s)
        reader = StoreReader(store)
        async with store.writing(), trio.open_nursery() as nursery:
            repository = MeteringLogRepository(store)
            self.metering = MeteringLog(repository, GATEWAY, lambda: self.now_s)
            self.log = GatewayLog(GatewayLogRepository(store), GATEWAY, lambda: self.now_s, self.module.sign)
            self.log.serve_in(nursery)
            await self.fill(days)
            sets = ProfileSetRepository(store)
            if self.profiles_document is not None and not sets.newest_version(GATEWAY):
                document = json.dumps(self.profiles_document).encode()
                await store.write(sets.add(GATEWAY, self.profiles_document["version"], document))
            names = {f"{GATEWAY}/{place}": f"{GATEWAY}/{place}" for place in range(2)}
            profiles = GatewayProfiles(sets, self.module, trust, names, self.log.note, lambda: self.now_s)
            self.services = HanServices(
                secrets=HanSecretRepository(store), reader=reader,
                network=NetworkFacts(coordinator="https://127.0.0.1:1", link="direct", time_server=None),
                accounts={GATEWAY: self.accounts}, certificates={GATEWAY: self.certificates},
                listen={GATEWAY: "https://127.0.0.1:0"},
            )  # fmt: skip
            self.facts = GatewayFacts(
                module=self.module, profiles=profiles, version="1.2.3", clock=lambda: self.now_s,
                meters=[MeterFacts(f"{GATEWAY}/{place}", name, "sml") for place, name in enumerate(METERS)],
                is_time_good=lambda: True, grid=lambda: QUARTER_HOURS, note=self.log.note,
                ring=lambda: RingFacts("Nord", True, False, 30, ("1-0:1.8.0*255", "1-0:2.8.0*255")),
            )  # fmt: skip
            self.server = HanServer(self.facts, self.services)
            self.address = await nursery.start(self.server.run)
            yield self
            nursery.cancel_scope.cancel()
        reader.close()
        store.close()

    async def fill(self, days: int) -> None:
        """Readings at every quarter hour: the second meter has ten times the first one's."""
        assert self.metering is not None
        newest = int(self.now_s) // QUARTER_S * QUARTER_S
        for place in range(2):
            for index, at_s in enumerate(range(newest - days * 86_400, newest + 1, QUARTER_S)):
                value = (1_000_000 + 50 * index) * (10 if place else 1)
                rows = [
                    LoggedReading(
                        f"{GATEWAY}/{place}", obis, number, -1, 30, 0x8, at_s * 1000 + 40, at_s * 1000 + 90, at_s, 40,
                        True, Quality.VALID,
                    )
                    for obis, number in ((IMPORT, value), (EXPORT, value // 7))
                ]  # fmt: skip
                await self.metering.append(rows)

    def client(self, login: tuple[str, str] | None = ANNA, **more: Any) -> httpx.AsyncClient:
        """Of somebody at home, who compares the certificate by hand."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if chain := more.pop("chain", None):
            context.load_cert_chain(chain)
        auth = httpx.DigestAuth(*login) if login else None
        return httpx.AsyncClient(verify=context, base_url=self.address, auth=auth, timeout=120, **more)
