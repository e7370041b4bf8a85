"""Range proofs at the coordinator: drawn with the round's end, asked until they come, owed where they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import trio
from prometheus_client import CollectorRegistry

from coordinator.emp.billing import Billing
from coordinator.epoch_config import EpochConfig
from coordinator.events import Event, MessagesReady
from coordinator.metrics import CoordinatorMetrics
from coordinator.rings.areas import SETTLE_S
from coordinator.rings.epochs import Phase
from coordinator.rings.range_checks import RangeChecks, draw
from coordinator.rings.round_writer import PendingRoundResult, RoundWriter
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.irrevocable import FILE_NAME, IrrevocableLog
from coordinator.storage.range_checks import RangeCheck
from coordinator.storage.store import Store
from loadtest.coordination import lay_out, make_areas
from protocol import wire
from protocol.dcnet.billing.tariff import Tariff
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.range_proof import prove_range
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Ended, RoundEnded
from protocol.dcnet.machines.range_draw import range_text
from protocol.dcnet.setup.rings import bitmap
from protocol.dcnet.setup.schema import VERIFIED_SCHEMA, WORD_MODULUS
from protocol.wire import Outcome

NOW_S = 1_700_000_000.0
SUITE = StandardSuite()
PEDERSEN = Pedersen(SUITE.group)


class Running:
    """A verified ring of sixteen, its ends written to a real store, and all that gateways were sent."""

    draws: list[int]

    def __init__(self, store: Store, directory: Path, below: Callable[[int], int]) -> None:
        self.now_s = NOW_S
        self.store = store
        self.sent: list[tuple[str, wire.Message]] = []
        self.registry = CollectorRegistry()
        metrics = CoordinatorMetrics(self.registry)
        config = EpochConfig(ring_size=16, corrupt=0.0, dropout=0.1, verified=True)
        self.areas = areas = make_areas(config, schema=VERIFIED_SCHEMA)
        for index in range(16):
            areas.arrive(areas.areas["north"], f"ESTK{index:010}", NOW_S)
        ((area, self.epoch),) = areas.call_due(NOW_S + SETTLE_S)
        lay_out(self.epoch, sorted(area.present), NOW_S)
        (self.ring,) = self.epoch.rings
        self.ring.deals.update(dict.fromkeys(range(16), wire.Deal(0, (), (), bytes(64))))
        self.epoch.on_timer(self.epoch.next_timer_s())
        self.view = self.ring.view
        self.call = self.epoch.call
        row = EpochRecord(0, "north", VERIFIED_SCHEMA, self.call.rounds, self.call.interval_start_s, 900)
        if not store.epochs.all():
            store.epochs.add(row, [RingLayout(0, 0, tuple(self.ring.positions))])
        self.here: set[str] = set(self.ring.positions)
        self.values = {
            (position, slot): (100 * position + slot, 1000 + position) for position in range(16) for slot in (1, 2)
        }
        self.checks = RangeChecks(
            store.range_checks, PEDERSEN, areas, metrics, lambda: self.here, self._emit, lambda: self.now_s
        )
        irrevocable = IrrevocableLog(directory / FILE_NAME)
        self.writer = RoundWriter(
            store.rounds, irrevocable, dict, self._emit, self.checks.drawn, lambda ending: draw(ending, below)
        )  # fmt: skip

    def _emit(self, event: Event) -> None:
        if isinstance(event, MessagesReady):
            self.sent += [(each.identity, each.message) for each in event.messages]

    def end(self, round_: int = 0, *, verified: bool = True) -> None:
        roster = self.view.everybody
        sums = [sum(self.values[position, slot][0] for position in range(16)) % WORD_MODULUS for slot in (1, 2)]
        ended = Ended(
            0, 0, round_, Outcome.OPENED, 0, 0, roster, roster, (16, *sums, 0), verified, "", NOW_S, NOW_S + 1
        )
        commitments = b"".join(PEDERSEN.commit(*self.values[key]) for key in sorted(self.values))
        self.writer.add(PendingRoundResult(RoundEnded(ended, commitments if verified else b""), self.ring, self.epoch))

    def asked(self) -> list[tuple[str, wire.RangeRequest]]:
        return [(name, message) for name, message in self.sent if isinstance(message, wire.RangeRequest)]

    def proofs(self, request: wire.RangeRequest, position: int | None = None) -> wire.RangeProof:
        """Those of an honest member; of another one where a position is named."""
        proofs = []
        for slot, bits in zip((1, 2), self.view.bits, strict=True):
            value, blinding = self.values[request.position if position is None else position, slot]
            commitment = PEDERSEN.commit(value, blinding)
            text = range_text(request.epoch_digest, 0, request.round, request.position, slot, commitment, bits)
            proofs.append(prove_range(PEDERSEN, value, blinding, bits, text, Random(slot).randbytes))
        return wire.RangeProof(0, 0, request.round, request.position, tuple(proofs))

    def answer(self, change: Callable[[wire.RangeProof], wire.RangeProof] = lambda same: same) -> None:
        for name, request in self.asked():
            self.checks.receive(name, change(self.proofs(request)))

    def outcomes(self) -> dict[str, float]:
        names = ("drawn", "proved", "overdue", "refused", "wrong")
        found = {
            name: self.registry.get_sample_value("stromkreis_range_checks_total", {"outcome": name}) for name in names
        }
        return {name: value for name, value in found.items() if value}

    def left_out(self) -> list[bytes]:
        """What every member heard, in this order."""
        heard = {
            name: [m.members for to, m in self.sent if to == name and isinstance(m, wire.LeftOut)]
            for name in self.ring.positions
        }
        (first, *others) = heard.values()
        assert all(each == first for each in others)
        return first

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(120):
            while not condition():
                await trio.sleep(0.01)


@pytest.fixture
async def running(
    any_store: Store, tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> Running:  # fmt: skip
    monkeypatch.setattr("coordinator.rings.range_checks._TICK_S", 0.02)
    draws = [4]
    made = Running(any_store, tmp_path, lambda _count: draws[-1])
    made.draws = draws
    made.epoch.phase = Phase.RUNNING
    nursery.start_soon(made.writer.run)
    nursery.start_soon(made.checks.run)
    return made


async def test_a_drawn_member_is_asked_once_the_rounds_end_is_durable(running: Running) -> None:
    running.end()
    await running.until(lambda: bool(running.asked()))
    ((name, request),) = running.asked()
    assert name == running.view.members[4].identity
    (check,) = running.store.range_checks.all()
    assert request == wire.RangeRequest(0, 0, 0, 4, running.view.digest, running.call.interval_start_s, 900, 63)
    assert [each.commitment for each in check.slots] == [PEDERSEN.commit(*running.values[4, slot]) for slot in (1, 2)]
    running.answer()
    await running.until(lambda: running.outcomes() == {"drawn": 1, "proved": 1})
    assert running.store.range_checks.all() == []


async def test_a_negative_total_draws_all_and_the_polluter_alone_owes(running: Running) -> None:
    running.values[9, 1] = (-50_000, 77)
    running.end()
    await running.until(lambda: len(running.asked()) == 16)
    for name, request in running.asked():
        if request.position == 9:  # another's proof, as it has none of its own
            running.checks.receive(name, running.proofs(request, position=3))
        else:
            running.checks.receive(name, running.proofs(request))
    await running.until(lambda: running.outcomes() == {"drawn": 16, "proved": 15, "wrong": 1})
    assert running.store.range_checks.owing_positions([(0, 0, 0)]) == {(0, 0, 0): [9]}
    start_s = running.call.interval_start_s
    assert running.store.range_checks.unranged_rings(start_s, start_s + 1) == {start_s: 1}
    assert running.store.range_checks.unranged_rings(start_s, start_s + 1, area="south") == {}
    await running.until(lambda: running.left_out() == [running.view.to_wire(bitmap([9]))])


@pytest.mark.parametrize("how", ["overdue", "refused", "wrong"])
async def test_who_does_not_prove_is_left_out_until_it_has(running: Running, how: str) -> None:
    running.end()
    await running.until(lambda: bool(running.asked()))
    ((name, request),) = running.asked()
    if how == "refused":
        running.checks.receive(name, wire.RangeProof(0, 0, 0, 4, ()))
    elif how == "wrong":
        good = running.proofs(request).proofs
        running.checks.receive(name, wire.RangeProof(0, 0, 0, 4, good[::-1]))
    else:
        running.now_s += running.view.timing.period_s
    mine = running.view.to_wire(bitmap([4]))
    await running.until(lambda: running.left_out() == [mine])
    assert running.outcomes() == {"drawn": 1, how: 1}
    assert wire.LeftOut(0, 0, mine) in [to.message for to in running.epoch.invite(running.view.members[6].identity)]
    running.now_s += 60.0  # it is asked again
    await running.until(lambda: len(running.asked()) >= 2)
    running.answer()
    await running.until(lambda: running.left_out()[-1] == running.view.to_wire(0))
    assert running.store.range_checks.all() == []


async def test_wrong_proofs_without_end_are_checked_once_a_request_and_told_once(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Each cost a thread some 7 ms a slot, a write and a line in the log, as fast as a gateway could send them."""
    checked: list[object] = []
    verify = running.checks._verify
    running.checks._verify = lambda *how: checked.append(how) or verify(*how)  # type: ignore[method-assign]
    running.end()
    await running.until(lambda: bool(running.asked()))
    ((name, request),) = running.asked()
    wrong = wire.RangeProof(0, 0, 0, 4, running.proofs(request).proofs[::-1])
    for asked in (1, 2, 3):
        for _ in range(20):
            running.checks.receive(name, wrong)
            await running.until(lambda: not running.checks._answers)
        await running.until(lambda count=asked: len(checked) >= count)  # type: ignore[misc]
        running.now_s += 60.0
        await running.until(lambda count=asked: len(running.asked()) > count)  # type: ignore[misc]
    assert len(checked) == 3
    assert running.outcomes() == {"drawn": 1, "wrong": 1}
    assert caplog.text.count("is unranged") == 1


async def test_who_owes_and_is_in_a_total_all_the_same_is_drawn_again(running: Running) -> None:
    running.end()
    await running.until(lambda: bool(running.asked()))
    running.now_s += running.view.timing.period_s
    await running.until(lambda: len(running.left_out()) == 1)
    running.draws.append(2)
    running.end(1)
    await running.until(lambda: {each.position for _, each in running.asked() if each.round == 1} == {2, 4})


async def test_a_proof_too_few_or_of_nobody_that_was_drawn_has_no_effect(running: Running) -> None:
    running.end()
    await running.until(lambda: bool(running.asked()))
    ((name, request),) = running.asked()
    good = running.proofs(request)
    running.checks.receive(running.view.members[5].identity, good)
    running.checks.receive(name, replace(good, position=5))
    running.checks.receive(name, replace(good, round=1))
    errors = running.registry.get_sample_value("stromkreis_peer_errors_total", {"reason": "unasked_range_proof"})
    assert errors == 3
    running.checks.receive(name, replace(good, proofs=good.proofs[:1]))
    await running.until(lambda: running.outcomes() == {"drawn": 1, "wrong": 1})


async def test_nothing_is_drawn_of_an_unverified_total(running: Running) -> None:
    running.end(verified=False)
    await running.until(lambda: running.writer.queued == 0)
    await trio.sleep(0.1)
    assert (running.asked(), running.store.range_checks.all()) == ([], [])


async def test_a_coordinator_that_was_restarted_asks_for_what_its_predecessor_drew(
    running: Running, any_store: Store, tmp_path: Path, nursery: trio.Nursery
) -> None:
    running.here.clear()  # killed before a request could leave
    running.end()
    await running.until(lambda: bool(any_store.range_checks.all()))
    again = Running(any_store, tmp_path, lambda _count: 7)
    nursery.start_soon(again.checks.run)
    await again.until(lambda: bool(again.asked()))
    ((_, request),) = again.asked()
    assert (request.round, request.position) == (0, 4)  # no other draw
    again.answer()
    await again.until(lambda: any_store.range_checks.all() == [])


async def test_the_operator_excuses_a_gateway_that_has_lost_its_store(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.rings.range_checks._LOOK_S", 0.05)
    running.end()
    await running.until(lambda: bool(running.asked()))
    running.now_s += running.view.timing.period_s
    await running.until(lambda: len(running.left_out()) == 1)
    assert running.store.range_checks.excuse(running.view.members[4].identity) == 1
    await running.until(lambda: running.left_out()[-1] == running.view.to_wire(0))


async def test_who_owes_a_proof_is_not_billed_and_its_neighbours_are(running: Running) -> None:
    running.end()
    await running.until(lambda: bool(running.asked()))
    running.now_s += running.view.timing.period_s
    await running.until(lambda: len(running.left_out()) == 1)
    start_s = running.call.interval_start_s
    billing = Billing(running.store, PEDERSEN)
    tariff = Tariff("Flat", "1-0:1.8.0*255", "Wh", "ct", -5, start_s, 900, (3000,))
    digest = billing.publish(tariff, b"", b"", 0).digest
    asked = billing.ask("north", start_s, start_s + 900, digest, 0)
    assert (asked.bills, asked.unranged) == (15, 1)
    owing = running.view.members[4].identity
    assert owing not in {gateway for gateway, _ in billing.bills.outstanding()}


def test_old_checks_go_with_the_commitments_that_they_are_about(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    try:
        running = Running(store, tmp_path, lambda _count: 4)
        roster, start_s = running.view.everybody, running.call.interval_start_s
        for round_ in (0, 3):
            ended = Ended(0, 0, round_, Outcome.OPENED, 0, 0, roster, roster, (16, 1, 1, 1), True, "", 0.0, 1.0)
            check = RangeCheck(0, 0, round_, 4, "ESTK0000000004", start_s + 900 * round_, 900, 63, bytes(32), ())
            store.rounds.record_many([ended], {(0, 0, round_): b"C" * 32}, range_checks=[check])
        store.rounds.forget_commitments(2 * 900)
        assert [each.round for each in store.range_checks.all()] == [3]
    finally:
        store.close()
