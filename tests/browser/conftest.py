"""A browser; and a coordinator's web server with the traces of a plausible day behind it, on a real port."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from playwright.sync_api import Browser, sync_playwright
from prometheus_client import CollectorRegistry

from coordinator.emp.billing import Billing
from coordinator.emp.billing_service import BillingService
from coordinator.events import MISBEHAVIOURS
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.participants import TariffSigner
from coordinator.metrics import CoordinatorMetrics
from coordinator.status import Member, RingStatus, Status
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.misbehaviour import StoredReport
from coordinator.storage.store import Store
from coordinator.storage.tables import bills, tariffs
from coordinator.web.app import make_app
from coordinator.web.serve import serve
from protocol.dcnet.billing.tariff import Tariff
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, Schema
from protocol.wire import Outcome
from tests.browser.chromium import CHROMIUM, FLAGS

DAY_START_S = 1_772_582_400  # 2026-03-04 00:00 UTC
AREAS = {"Nordring": (24, 24), "Hafenviertel": (22, 21), "Südhang": (17,)}


@dataclass
class Neighbourhood:
    """Rings of three areas; `play` ends rounds as a day in March would, the same on every run."""

    store: Store
    layout: list[tuple[EpochRecord, RingLayout]] = field(default_factory=list)
    schema: Schema = DEFAULT_SCHEMA
    rounds: int = 0
    revision: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(7))
    last: dict[tuple[int, int], Ended] = field(default_factory=dict)
    enrolled: dict[str, int] = field(default_factory=dict)
    turned: trio.Event = field(default_factory=trio.Event)

    def settle(self) -> None:
        """Form the rings."""
        number = 0
        for epoch_number, (area, sizes) in enumerate(AREAS.items(), 1):
            epoch = EpochRecord(epoch_number, area, self.schema, 192, DAY_START_S, 900)
            rings = []
            for index, size in enumerate(sizes):
                rings.append(RingLayout(epoch_number, index, tuple(f"ESTK01{number + n:08d}" for n in range(size))))
                number += size
            self.store.epochs.add(epoch, rings)
            self.layout += [(epoch, ring) for ring in rings]

    def play(self, rounds: int) -> None:
        """End the next rounds of every ring."""
        for round_ in range(self.rounds, self.rounds + rounds):
            batch = [self._end(ring, round_) for _, ring in self.layout]
            assert all(self.store.rounds.record_many(batch, enrolled=self.enrolled))
            self.last.update({(ended.epoch, ended.ring): ended for ended in batch})
        self.rounds += rounds

    def add_bills(self, counts: dict[str, int]) -> None:
        """Bills of the first area, so many of each status."""
        tariff = Tariff("Dynamic", "1-0:1.8.0*255", "Wh", "ct", -5, DAY_START_S, 900, (3000,) * 96)
        with self.store.database.write() as connection:
            connection.execute(
                tariffs.insert().values(
                    digest=bytes(32), document=tariff.to_bytes(), signature=b"", certificate=b"", published_ms=0
                )
            )
            names = iter(range(10**6))
            rows = [
                {
                    "gateway_id": f"ESTK02{next(names):08d}", "request": bytes(32), "area": "Nordring",
                    "tariff": bytes(32), "obis": tariff.obis, "first_s": DAY_START_S, "last_s": DAY_START_S,
                    "intervals": b"\1", "interval_count": 1, "scaler": -6, "status": status, "reason": "",
                    "asked_ms": 0,
                }
                for status, count in counts.items()
                for _ in range(count)
            ]  # fmt: skip
            connection.execute(bills.insert(), rows)

    def accuse(self, count: int) -> None:
        """So many reports, ten minutes apart, all over the rings."""
        start_ms = (DAY_START_S + 64_000) * 1000
        said = []
        for index in range(count):
            epoch, ring = self.layout[index % len(self.layout)]
            last_ms = start_ms + index * 600_000
            said.append(
                StoredReport(
                    ring.members[index % 3], ring.members[5 + index % 10], MISBEHAVIOURS[index % 3], epoch.area,
                    index + 1, epoch.epoch, ring.ring, 60 + index, start_ms, last_ms,
                )
            )  # fmt: skip
        self.store.misbehaviour.write(said, start_ms)

    def _end(self, ring: RingLayout, round_: int) -> Ended:
        draw, size = self.random, len(ring.members)
        hour = round_ / 4 % 24
        started = DAY_START_S + 900.0 * (round_ + 1)
        if round_ in (33, 34) and (ring.epoch, ring.ring) == (2, 1):
            return Ended(
                ring.epoch, ring.ring, round_, Outcome.VOID, 0, 1, 0, 0, (), False, "no total in time", started,
                started + 9,
            )  # fmt: skip
        outage = 6 if 70 <= round_ <= 73 and ring.epoch == 1 else 0
        away = draw.sample(range(size), outage + (draw.random() < 0.35) + (draw.random() < 0.1))
        roster = (1 << size) - 1 - sum(1 << position for position in away)
        households = roster.bit_count()
        morning, evening = math.exp(-((hour - 7.5) ** 2) / 3), math.exp(-((hour - 19.5) ** 2) / 6)
        load_w = households * (170 + 260 * morning + 480 * evening + draw.uniform(-25, 25))
        sun_w = 1800 * max(0.0, math.sin((hour - 6.5) / 11.5 * math.pi)) * (1 - 0.25 * draw.random())
        solar_w = households * 0.3 * (sun_w if 6.5 < hour < 18 else 0)
        imported, exported = max(load_w - 0.6 * solar_w, 0.1 * load_w), 0.55 * solar_w
        total = (households, round(imported * 2.5), round(exported * 2.5), round(imported - exported) % 2**64)
        latency_s = 0.021 + 0.0004 * size + draw.expovariate(120) + (0.12 if away and draw.random() < 0.3 else 0)
        return Ended(
            ring.epoch, ring.ring, round_, Outcome.OPENED, int(bool(away) and draw.random() < 0.2), 1,
            (1 << size) - 1, roster, total, False, "", started, started + latency_s,
        )  # fmt: skip

    # --- the side that the web server looks at: coordinator.status.StatusSource ----------------------------------

    def status(self) -> Status:
        members = sum(len(ring.members) for _, ring in self.layout)
        return Status(self.revision, tuple(self._ring(*each) for each in self.layout), members, max(0, members - 2))

    def _ring(self, epoch: EpochRecord, ring: RingLayout) -> RingStatus:
        members = ring.members
        status = RingStatus(
            epoch=epoch.epoch, ring=ring.ring, area=epoch.area, size=len(members), honest_min=30, members=members,
            missing=(), head=Member(position=1, gateway=members[1]),
        )  # fmt: skip
        ended = self.last.get((epoch.epoch, ring.ring))
        if ended is None:
            return status
        missing = [p for p in range(len(members)) if not ended.roster >> p & 1]
        changes = {
            "missing": tuple(Member(position=p, gateway=members[p]) for p in missing),
            "last_round": ended.round, "last_outcome": ended.outcome.name.lower(),
            "last_latency_ms": (ended.ended_s - ended.opened_s) * 1000,
        }  # fmt: skip
        return status.model_copy(update=changes)

    async def changed(self, revision: int) -> None:
        while self.revision == revision:
            await self.turned.wait()

    def described(self) -> str | None:
        return None

    def not_ready(self) -> str | None:
        return None

    def announce(self) -> None:
        """On the trio thread: there is something new."""
        self.revision += 1
        self.turned.set()
        self.turned = trio.Event()


@dataclass
class Site:
    """A running web server."""

    address: str
    neighbourhood: Neighbourhood
    on_trio: Callable[[Callable[[], None]], None]

    def go_on(self, rounds: int = 1) -> None:
        """Let rounds end and say so."""
        self.neighbourhood.play(rounds)
        self.on_trio(self.neighbourhood.announce)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The real application on a free port of loopback, in a thread with a trio run of its own."""
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    neighbourhood = Neighbourhood(store)
    up = threading.Event()
    running: dict[str, Any] = {}

    async def main() -> None:
        metrics = CoordinatorMetrics(CollectorRegistry())
        now = datetime.now(UTC)
        signer = TariffSigner(tmp_path / "pki", CertificateAuthority.create(tmp_path / "pki", now), now)
        billing_service = BillingService(Billing(store, Pedersen(Edwards25519())), signer, metrics)
        app = make_app(store, neighbourhood, metrics, billing_service=billing_service, operator_token="not used here")
        async with trio.open_nursery() as nursery:
            running["address"] = (await nursery.start(serve, app, ["http://127.0.0.1:0"]))[0]
            running["token"], running["scope"] = trio.lowlevel.current_trio_token(), nursery.cancel_scope
            up.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert up.wait(20)

    def on_trio(call: Callable[[], None]) -> None:
        trio.from_thread.run_sync(call, trio_token=running["token"])

    try:
        yield Site(str(running["address"]), neighbourhood, on_trio)
    finally:
        on_trio(running["scope"].cancel)
        thread.join(20)
        assert not thread.is_alive(), "the web server does not stop"
        store.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()
