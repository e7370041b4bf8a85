"""The service that asks for bills: again until there is an answer, through a failing database, no answer unasked."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import OperationalError
from trio.testing import MockClock

from coordinator.emp.billing import Billing
from coordinator.emp.billing_service import BillCollection, BillingService
from coordinator.events import Event, MessagesReady, StatusChanged, StoreFailed, To
from coordinator.gwa.ca import CertificateAuthority
from coordinator.gwa.participants import TariffSigner
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.bills import BillStatus
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.store import Store
from protocol import wire
from protocol.dcnet.billing.answers import answer_stages
from protocol.dcnet.billing.tariff import Tariff
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import VERIFIED_SCHEMA
from protocol.errors import RemoteProtocolError

START = 1_772_582_400
NAMES = ("ESTK0000000001", "ESTK0000000002")
PEDERSEN = Pedersen(Edwards25519())
TARIFF = Tariff("Dynamic", "1-0:1.8.0*255", "Wh", "ct", -5, START, 900, (3000, -12, 250))
READINGS, BLINDINGS = [70, 80, 90], [11, 12, 13]
PERIOD = (datetime.fromtimestamp(START, UTC), datetime.fromtimestamp(START + 2700, UTC))


class BillingParts:
    """A service over a real database with three verified rounds of two gateways, who all have the same readings."""

    def __init__(self, path: Path) -> None:
        self.store = Store(f"sqlite:///{path / 'coordinator.sqlite'}")
        self.store.epochs.add(EpochRecord(1, "north", VERIFIED_SCHEMA, 3, START, 900), [RingLayout(1, 0, NAMES)])
        for round_, (reading, blinding) in enumerate(zip(READINGS, BLINDINGS, strict=True)):
            ended = Ended(1, 0, round_, wire.Outcome.OPENED, 0, 0, 3, 3, (2, 0, 0, 0), True, "", 0.0, 1.0)
            row = PEDERSEN.commit(reading, blinding) + PEDERSEN.commit(0, 1)
            self.store.rounds.record_many([ended], {(1, 0, round_): row * 2})
        self.metrics = CoordinatorMetrics(CollectorRegistry())
        self.billing = Billing(self.store, PEDERSEN)
        now = datetime.now(UTC)
        signer = TariffSigner(path / "pki", CertificateAuthority.create(path / "pki", now), now)
        self.present = {NAMES[0]}
        self.collection = BillCollection(
            self.billing, [], self.metrics, lambda: self.present, self._emit, keep_s=10**6, clock=trio.current_time
        )
        self.service = BillingService(
            self.billing, signer, self.metrics, made=self.collection.wake, clock=trio.current_time
        )
        self.failed: list[StoreFailed] = []
        self._sent, self.sent = trio.open_memory_channel[tuple[float, str, wire.BillRequest]](100)
        self._changed, self.changed = trio.open_memory_channel[None](100)

    async def open(self, nursery: trio.Nursery) -> None:
        """Run the service; it has no bills yet."""
        nursery.start_soon(self.collection.run)
        await self.changed.receive()

    def _emit(self, event: Event) -> None:
        match event:
            case MessagesReady([To(gateway, wire.BillRequest() as message)]):
                self._sent.send_nowait((trio.current_time(), gateway, message))
            case StatusChanged():
                self._changed.send_nowait(None)
            case StoreFailed():
                self.failed.append(event)
            case _:
                raise AssertionError(event)

    def ask(self) -> None:
        self.service.ask("north", PERIOD, self.service.publish(TARIFF).digest)

    def good(self, request: bytes) -> wire.Bill:
        return answer_stages(PEDERSEN, TARIFF.prices, READINGS, BLINDINGS).to_wire(request)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def until(self, *counts: int) -> None:
        """Return as soon as so many bills are asked, verified, refused, declined."""
        while tuple(self.billing.bills.counts().values()) != counts:
            await self.changed.receive()


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BillingParts]:
    monkeypatch.setattr("coordinator.emp.billing_service._PACE_S", 0.0)  # the clock stands still between two jumps
    made = BillingParts(tmp_path)
    yield made
    made.store.close()


async def test_a_bill_is_asked_for_again_and_again_but_not_too_often(
    parts: BillingParts, mock_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        await parts.open(nursery)
        parts.ask()
        first, gateway, message = await parts.sent.receive()
        times, again = [first], gateway
        for _ in range(2):
            for elapsed_s in (28.0, 4.0):
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(elapsed_s)
            at, again, _ = await parts.sent.receive()
            times.append(at)
        parts.present = set(NAMES)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3.0)
        _, other, _ = await parts.sent.receive()
        nursery.cancel_scope.cancel()
    assert (gateway, again, other) == (NAMES[0], NAMES[0], NAMES[1])
    assert message.tariff == TARIFF.to_bytes()
    assert [at - first for at in times] == [0.0, 32.0, 64.0]


async def test_answers_are_judged_and_what_nobody_asked_for_is_not(parts: BillingParts, mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        await parts.open(nursery)
        parts.ask()
        await parts.sent.receive()
        ((_, request), _) = parts.billing.bills.outstanding()
        parts.collection.receive(NAMES[0], parts.good(bytes(32)))
        parts.collection.receive("ESTK0000000009", parts.good(request))
        assert parts.count("stromkreis_peer_errors_total", reason="unasked_bill") == 2
        parts.collection.receive(NAMES[1], wire.BillDeclined(request, "interval_not_contributed"))
        parts.collection.receive(NAMES[0], parts.good(request))
        await parts.until(0, 1, 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        parts.collection.receive(NAMES[0], parts.good(request))  # it was asked twice, and answers twice
        assert parts.count("stromkreis_peer_errors_total", reason="unasked_bill") == 3
        nursery.cancel_scope.cancel()
    assert parts.count("stromkreis_bills_total", outcome="asked") == 2
    assert parts.count("stromkreis_bills_total", outcome="verified") == 1
    assert parts.count("stromkreis_bills_total", outcome="declined") == 1


async def test_a_wrong_bill_is_refused_once_and_for_good(
    parts: BillingParts, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        await parts.open(nursery)
        parts.ask()
        await parts.sent.receive()
        ((_, request), _) = parts.billing.bills.outstanding()
        parts.collection.receive(NAMES[0], replace(parts.good(request), sums=(bytes(16),) * 3))
        await parts.until(1, 0, 1, 0)
        assert parts.billing.judge(NAMES[0], parts.good(request), 0) is None
        nursery.cancel_scope.cancel()
    (bill,) = parts.billing.bills.page(limit=9, gateway=NAMES[0])
    assert bill.status is BillStatus.REFUSED
    assert f"the bill of gateway {NAMES[0]} is refused" in caplog.text


async def test_a_bill_that_cannot_be_judged_costs_no_other_and_not_the_service(
    parts: BillingParts, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    judge = parts.billing.judge

    def judging(gateway: str, *about: Any) -> object:
        if gateway == NAMES[0]:
            raise RemoteProtocolError("bad_layout", "an epoch of the bill committed to nothing")
        return judge(gateway, *about)

    monkeypatch.setattr(parts.billing, "judge", judging)
    parts.present = set(NAMES)
    async with trio.open_nursery() as nursery:
        await parts.open(nursery)
        parts.ask()
        for _ in NAMES:
            await parts.sent.receive()
        requests = dict(parts.billing.bills.outstanding())
        for gateway in NAMES:
            parts.collection.receive(gateway, parts.good(requests[gateway]))
        await parts.until(1, 1, 0, 0)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(32.0)
        _, again, _ = await parts.sent.receive()
        nursery.cancel_scope.cancel()
    assert again == NAMES[0]
    assert f"the bill of gateway {NAMES[0]} cannot be judged" in caplog.text


async def test_a_database_that_fails_costs_nothing_but_time(
    parts: BillingParts,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken: set[str] = set()

    def failing(owner: object, name: str) -> Callable[..., object]:
        real = getattr(owner, name)

        def call(*arguments: object) -> object:
            if name in broken:
                raise OperationalError("SELECT", {}, Exception("disk full"))
            return real(*arguments)

        return call

    async def pass_time(elapsed_s: float, failures: int) -> None:
        """Once the service has noticed so many failures and waits."""
        while len(parts.failed) < failures:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        broken.clear()
        mock_clock.jump(elapsed_s)

    places = (
        (parts.billing.bills, "outstanding"),
        (parts.billing, "message"),
        (parts.billing, "judge"),
    )
    for owner, name in places:
        monkeypatch.setattr(owner, name, failing(owner, name))
    async with trio.open_nursery() as nursery:
        await parts.open(nursery)
        broken.add("outstanding")
        parts.ask()
        await pass_time(3.0, failures=1)
        await parts.sent.receive()
        ((_, request), _) = parts.billing.bills.outstanding()
        broken.add("judge")
        parts.collection.receive(NAMES[0], parts.good(request))
        await pass_time(31.0, failures=2)
        assert parts.billing.bills.counts()["asked"] == 2
        await parts.sent.receive()  # asked again
        broken.add("message")
        parts.present = set(NAMES)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3.0)
        await pass_time(3.0, failures=3)
        _, gateway, _ = await parts.sent.receive()
        assert gateway == NAMES[1]
        parts.collection.receive(NAMES[0], parts.good(request))
        await parts.until(1, 1, 0, 0)
        nursery.cancel_scope.cancel()
    assert [each.fault for each in parts.failed] == ["disk full"] * 3
    assert "SELECT" not in caplog.text
