"""The market participant's bills on real databases: who is asked for what, and which answers count."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from hashlib import sha512

import pytest

from coordinator.emp.billing import Asked, Billing
from coordinator.storage.bills import BillStatus
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.store import Store
from protocol import wire
from protocol.dcnet.billing.answers import answer_stages
from protocol.dcnet.billing.tariff import Tariff, read_tariff, unpack_intervals
from protocol.dcnet.crypto.commitments import Pedersen, blinding_of
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.rings import positions_of
from protocol.dcnet.setup.schema import VERIFIED_SCHEMA
from protocol.errors import RemoteProtocolError

START = 1_772_582_400
IMPORT, EXPORT = (str(VERIFIED_SCHEMA.slots[index].obis) for index in VERIFIED_SCHEMA.committed)
A, B, C, D, E, F = NAMES = [f"ESTK00{number:08d}" for number in range(6)]
PEDERSEN = Pedersen(Edwards25519())
NORTH = EpochRecord(1, "north", VERIFIED_SCHEMA, rounds=4, interval_start_s=START, interval_s=900)
LATER = replace(NORTH, epoch=2, interval_start_s=START + 3600)
SOUTH = replace(NORTH, epoch=3, area="south")
TARIFF = Tariff("Dynamic", IMPORT, "Wh", "ct", -5, START, 900, (3000, -12, 0, 2500, 3100, 2900, 7, 2800))
END = START + 8 * 900


def value(name: str, obis: str, interval_s: int) -> int:
    """What a gateway's register moved by."""
    return (int(name[-2:]) * 131 + interval_s // 900 * 17 + len(obis) * (obis == EXPORT)) % 977


def blinding(name: str, obis: str, interval_s: int) -> int:
    return blinding_of(PEDERSEN.group, uniform=sha512(f"{name} {obis} {interval_s}".encode()).digest())


def record(store: Store, epoch: EpochRecord, ring: int, round_: int, roster: int, *, verified: bool = True) -> None:
    members = store.epochs.layout(epoch.epoch)[ring].members
    interval_s = epoch.interval_of(round_)
    ended = Ended(
        epoch.epoch, ring, round_, wire.Outcome.OPENED, 0, 0, roster, roster, (roster.bit_count(), 0, 0, 0), verified,
        "", 0.0, 1.0,
    )  # fmt: skip
    commitments = b"".join(
        PEDERSEN.commit(value(members[position], obis, interval_s), blinding(members[position], obis, interval_s))
        for position in positions_of(roster)
        for obis in (IMPORT, EXPORT)
    )
    kept = {(epoch.epoch, ring, round_): commitments} if verified else {}
    assert store.rounds.record_many([ended], kept) == [True]
    assert store.rounds.record_many([ended], {(epoch.epoch, ring, round_): bytes(32)}) == [False]  # what stands, stands


@pytest.fixture
def store(any_store: Store) -> Store:
    """Gateway A is in ring 0 first and in ring 1 later; B misses round 1; round 2 of ring 1 is not verified."""
    any_store.epochs.add(NORTH, [RingLayout(1, 0, (A, B)), RingLayout(1, 1, (C, D))])
    any_store.epochs.add(LATER, [RingLayout(2, 0, (D, C)), RingLayout(2, 1, (B, A))])
    any_store.epochs.add(SOUTH, [RingLayout(3, 0, (E, F))])
    for round_ in range(4):
        record(any_store, NORTH, 0, round_, 0b01 if round_ == 1 else 0b11)
        record(any_store, NORTH, 1, round_, 0b11, verified=round_ != 2)
        for ring in (0, 1):
            record(any_store, LATER, ring, round_, 0b11)
        record(any_store, SOUTH, 0, round_, 0b11)
    return any_store


@pytest.fixture
def billing(store: Store) -> Billing:
    return Billing(store, PEDERSEN)


def published(billing: Billing, tariff: Tariff = TARIFF) -> bytes:
    return billing.publish(tariff, bytes(70), b"certificate", 5).digest


def answer(billing: Billing, name: str, request: bytes) -> wire.Bill:
    """What an honest gateway says."""
    message = billing.message(name, request, [b"intermediate"])
    assert message is not None
    tariff = read_tariff(message.tariff)
    indices = unpack_intervals(message.intervals, len(tariff.prices))
    times = [tariff.interval_s_of(index) for index in indices]
    made = answer_stages(
        PEDERSEN, [tariff.prices[index] for index in indices], [value(name, tariff.obis, time) for time in times],
        [blinding(name, tariff.obis, time) for time in times],
    )  # fmt: skip
    return made.to_wire(request)


@pytest.mark.parametrize("obis", [IMPORT, EXPORT])
def test_each_gateway_is_asked_for_its_verified_intervals_wherever_it_sat(billing: Billing, obis: str) -> None:
    digest = published(billing, replace(TARIFF, obis=obis))
    assert billing.ask("north", START, END, digest, 7) == Asked(4, 8 + 7 + 7 + 7, 0)
    for name, request in billing.bills.outstanding():
        assert billing.judge(name, answer(billing, name, request), 9) is BillStatus.VERIFIED
    found = {bill.gateway: bill for bill in billing.bills.page(limit=10)}
    missing = {A: (), B: (1,), C: (2,), D: (2,)}
    for name, left_out in missing.items():
        amount = sum(
            price * value(name, obis, START + 900 * index)
            for index, price in enumerate(TARIFF.prices)
            if index not in left_out
        )
        assert found[name].amount == Decimal(amount).scaleb(-6)
        assert (found[name].status, found[name].ended_ms) == (BillStatus.VERIFIED, 9)
    assert billing.bills.counts() == {"asked": 0, "verified": 4, "refused": 0, "declined": 0}
    assert billing.bills.counts(area="south")["verified"] == 0


def test_a_bill_is_judged_once(billing: Billing) -> None:
    billing.ask("south", START, START + 3600, published(billing), 7)
    (_, request), *_ = billing.bills.outstanding()
    good = answer(billing, E, request)
    wrong = replace(good, sums=(*good.sums[:-1], bytes(16)))
    assert billing.judge(A, wrong, 8) is None  # it was not asked
    assert billing.judge(E, wrong, 8) is BillStatus.REFUSED
    assert billing.judge(E, good, 9) is None
    assert not billing.decline(E, wire.BillDeclined(request, "interval_billed_before"), 9)
    (bill,) = billing.bills.page(limit=9, gateway=E)
    assert (bill.status, bill.amount, bill.ended_ms) == (BillStatus.REFUSED, None, 8)
    assert billing.ask("south", START, START + 3600, published(billing), 10) == Asked(0, 0, 2)


def test_no_interval_is_billed_twice_and_a_declined_one_may_be_asked(billing: Billing) -> None:
    digest, dearer = published(billing), published(billing, replace(TARIFF, prices=(9000,) * 8))
    assert billing.ask("south", START, START + 1800, digest, 7) == Asked(2, 4, 0)
    assert billing.ask("south", START, START + 3600, dearer, 7) == Asked(2, 4, 0)  # the other two intervals
    other_grid = published(billing, replace(TARIFF, start_s=START - 900))
    assert billing.ask("south", START, START + 3600, other_grid, 7) == Asked(0, 0, 2)
    first = next(bill for bill in billing.bills.page(limit=9, gateway=E) if bill.tariff == digest)
    assert billing.decline(E, wire.BillDeclined(first.request, "too_few_priced_intervals"), 8)
    assert billing.message(E, first.request, []) is None
    assert billing.ask("south", START, START + 1800, digest, 9) == Asked(1, 2, 1)
    again = next(bill for bill in billing.bills.page(limit=9, gateway=E) if bill.tariff == digest)
    assert (again.request, again.status, again.reason, again.asked_ms) == (first.request, BillStatus.ASKED, "", 9)


@pytest.mark.parametrize(
    ("tariff", "area", "to_s", "reason"),
    [
        (TARIFF, "north", END + 900, "period_not_over"),
        (TARIFF, "west", END, "period_not_over"),
        (replace(TARIFF, interval_s=1800), "north", END, "tariff_grid"),
        (replace(TARIFF, start_s=START + 1), "north", END, "tariff_grid"),
        (replace(TARIFF, prices=TARIFF.prices[:7]), "north", END, "tariff_grid"),
        (replace(TARIFF, obis="1-0:16.7.0*255"), "north", END, "tariff_register"),
        (replace(TARIFF, unit="kWh"), "north", END, "tariff_register"),
    ],
)
def test_periods_that_cannot_be_billed(billing: Billing, tariff: Tariff, area: str, to_s: int, reason: str) -> None:
    digest = published(billing, tariff)
    with pytest.raises(RemoteProtocolError) as caught:
        billing.ask(area, START, to_s, digest, 7)
    assert caught.value.reason == reason
    assert billing.bills.outstanding() == []


def test_tariffs_are_published_once_and_found(billing: Billing) -> None:
    first = billing.publish(TARIFF, b"one", b"certificate", 5)
    assert billing.publish(TARIFF, b"two", b"newer", 6).digest == first.digest
    kept = billing.tariffs.get(first.digest)
    assert (kept.tariff, kept.signature, kept.certificate, kept.published_ms) == (TARIFF, b"two", b"newer", 5)
    assert billing.tariffs.all() == [kept]
    for wrong in (lambda: billing.tariffs.get(bytes(32)), lambda: billing.ask("north", START, END, bytes(32), 7)):
        with pytest.raises(RemoteProtocolError) as caught:
            wrong()
        assert caught.value.reason == "tariff_unknown"


def test_commitments_are_kept_for_so_long(billing: Billing) -> None:
    billing.ask("south", START, START + 3600, published(billing), 7)
    requests = dict(billing.bills.outstanding())
    answers = {name: answer(billing, name, request) for name, request in requests.items()}
    assert billing.forget(8 * 900) == 0
    assert billing.judge(E, answers[E], 9) is BillStatus.VERIFIED
    assert billing.forget(4 * 900) == 8  # rounds 0 to 2 of three rings, of which one was not verified
    assert billing.judge(F, answers[F], 9) is BillStatus.REFUSED
    assert "not kept any more" in billing.bills.page(limit=9, gateway=F)[0].reason


def test_bills_by_page(billing: Billing) -> None:
    digest = published(billing)
    billing.ask("north", START, START + 1800, digest, 7)
    billing.ask("north", START + 1800, START + 3600, digest, 8)
    seen, after = [], None
    while page := billing.bills.page(limit=3, after=after, tariff=digest, status=BillStatus.ASKED):
        seen += [(bill.gateway, bill.request) for bill in page]
        after = seen[-1]
    assert seen == sorted(seen)
    assert len(seen) == len(set(seen)) == 8
    assert billing.bills.page(limit=9, tariff=bytes(32)) == []


def test_tiers_are_paid_by_the_bills_energy(billing: Billing) -> None:
    """TAF 4: the sum of the stages is the bill's consumption, and the tiers come on top of the intervals' prices."""
    tariff = replace(TARIFF, tiers=((5, 700), (None, 100)), use_case=4)
    billing.ask("south", START, START + 3600, published(billing, tariff), 7)
    for name, request in billing.bills.outstanding():
        assert billing.judge(name, answer(billing, name, request), 8) is BillStatus.VERIFIED
    for bill in billing.bills.page(limit=9, area="south"):
        moved = [value(bill.gateway, IMPORT, START + 900 * index) for index in range(4)]
        energy = sum(moved)
        assert energy > 50
        amount = sum(price * each for price, each in zip(TARIFF.prices, moved, strict=False))
        amount += 50 * 700 + (energy - 50) * 100
        assert (bill.amount, bill.energy) == (Decimal(amount).scaleb(-6), Decimal(energy).scaleb(-1))
        assert (bill.rounded_to, bill.averaged) == (None, 0)
