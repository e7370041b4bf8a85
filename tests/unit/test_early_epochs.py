"""Epochs that are called before the one that runs ends: when, why, at what cost, and what becomes of the old one."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from coordinator.epoch_config import EarlyEpochConfig, EpochConfig
from coordinator.metrics import CoordinatorMetrics
from coordinator.rings.early import EarlyCalls, core
from coordinator.rings.epochs import AreaEpoch, EpochRing, Phase
from coordinator.rings.scheduler import Scheduler
from loadtest.coordination import lay_out, make_areas, reveal_all
from protocol import wire
from protocol.dcnet.machines.effects import Ended, Persist
from protocol.dcnet.setup.calendar import CalendarPolicy, NewestEpoch, check_start
from protocol.dcnet.setup.rings import bitmap

PERIOD_S = 900.0
START_S = 1_772_002_800.0  # a full hour
NAMES = [f"ESTK{index:010}" for index in range(60)]


class Hood:
    """An area, its coordinator's clock, and who is there; a ring opens where enough of its members are."""

    def __init__(self, names: Iterable[str] = NAMES, **early: Any) -> None:
        self.config = EpochConfig(corrupt=0.01, dropout=0.05, early=EarlyEpochConfig(**early))
        self.areas = make_areas(self.config)
        self.area = self.areas.areas["north"]
        self.metrics = CoordinatorMetrics(CollectorRegistry())
        self.here = set(names)
        self.enrolled = len(self.here)
        self.withholds = False
        self.seatless: set[str] = set()
        self.slow: set[str] = set()  # connected, and join nothing in time
        self.ended: list[Ended] = []
        self.called: list[AreaEpoch] = []
        self.now_s = START_S
        early_calls = EarlyCalls(self.areas, self.config, lambda: {"north": self.enrolled}, self.metrics)
        writer = SimpleNamespace(waiting_epochs=set)
        keeper = SimpleNamespace(holds=lambda _: False, keep=self._keep, drop=lambda *_: None)
        rounds = SimpleNamespace(writer=writer, carry_out=self._carry_out)
        self.scheduler = Scheduler(
            self.areas, cast("Any", keeper), cast("Any", rounds), self.metrics, lambda _: None, lambda: self.now_s,
            early_calls,
        )  # fmt: skip

    def _keep(self, epoch: AreaEpoch, _: object) -> None:
        if epoch in self.called:
            return
        self.called.append(epoch)
        if self.withholds:
            return
        joining = sorted(self.here - self.slow)
        lay_out(epoch, joining, self.now_s)
        if epoch.phase is Phase.CALLED:
            epoch.on_timer(epoch.next_timer_s())  # who has left joins no more: the window closes
            if epoch.phase is Phase.CALLED:
                reveal_all(epoch, [each for each in joining if each in epoch.part_for(each).joined], self.now_s)
        if epoch.phase is Phase.DEALING:
            epoch.on_timer(epoch.next_timer_s())

    def _carry_out(self, epoch: AreaEpoch, ring: EpochRing, effects: Iterable[object]) -> None:
        self.ended += [each.record.ended for each in effects if isinstance(each, Persist)]

    def _open_rounds(self) -> None:
        for epoch, ring in self.areas.rings():
            ledger, view = ring.ledger, ring.view
            round_ = view.timing.round_at(self.now_s)
            if ledger is None or not 0 <= round_ < epoch.rounds or round_ in ledger.ended:
                continue
            there = [at for each, at in ring.positions.items() if each in self.here - self.seatless]
            if len(there) >= view.n_min:
                roster = view.to_wire(bitmap(there))
                total = len(there).to_bytes(8, "little") + bytes(8 * (view.word_count - 1))
                message = wire.RingTotal(
                    view.epoch, view.ring, round_, 0, ledger.term, roster, roster, total, b"", b"", b""
                )
                self._carry_out(epoch, ring, ledger.receive(view.head_of(ledger.term), message, self.now_s))

    def pass_s(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s = min(until_s, self.now_s + 20)
            for each in self.here:
                self.areas.arrive(self.area, each, self.now_s)
                if self.area.epochs:
                    newest = max(epoch.call.epoch for epoch in self.area.epochs)
                    self.area.known[each] = -1 if each in self.seatless else newest
            self._open_rounds()
            self.scheduler._on_time(self.now_s)

    def pass_rounds(self, count: float) -> None:
        self.pass_s(count * PERIOD_S)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def called_early(self, reason: str) -> float | None:
        return self.metric("stromkreis_epochs_called_early_total", reason=reason)

    def outcomes(self, epoch: int) -> list[tuple[int, str]]:
        return sorted((each.round, each.outcome.name.lower()) for each in self.ended if each.epoch == epoch)


@pytest.fixture
def hood() -> Hood:
    made = Hood()
    made.pass_rounds(2.5)  # called, dealt, and in its second round
    assert [each.phase for each in made.area.epochs] == [Phase.RUNNING]
    return made


def start_of(epoch: AreaEpoch) -> float:
    return epoch.call.start_ms / 1000


def test_an_area_that_lost_a_third_opens_again_after_sixteen_rounds(hood: Hood) -> None:
    hood.here -= set(NAMES[:22])
    hood.pass_rounds(32)
    first, second = hood.called[:2]
    assert start_of(second) == start_of(first) + 16 * PERIOD_S
    assert hood.called_early("void_rounds") == 1
    assert second.members == frozenset(NAMES[22:])
    outcomes = hood.outcomes(0)
    assert [round_ for round_, _ in outcomes] == list(range(16)), "every round once, none that is the next epoch's"
    assert {outcome for _, outcome in outcomes[2:]} == {"void"}
    assert {outcome for _, outcome in hood.outcomes(1)} == {"opened"}
    assert hood.outcomes(1)[0][0] == 0
    assert first not in hood.area.epochs


def test_without_early_epochs_the_area_opens_nothing_until_the_epoch_ends() -> None:
    hood = Hood(void_rounds=0, waiting=1, hold_rounds=100)
    hood.pass_rounds(2.5)
    hood.here -= set(NAMES[:22])
    hood.pass_rounds(34)
    assert len(hood.outcomes(0)) == 32
    assert [outcome for _, outcome in hood.outcomes(0)[2:]] == ["void"] * 30
    assert start_of(hood.called[1]) == start_of(hood.called[0]) + 32 * PERIOD_S


def test_too_few_connected_members_have_the_next_epoch_called(hood: Hood, caplog: pytest.LogCaptureFixture) -> None:
    hood.pass_rounds(18)
    assert len(hood.called) == 1
    hood.here -= set(NAMES[:22])
    hood.pass_s(60)
    assert hood.metric("stromkreis_rings_short") == 1
    assert 40 >= (hood.metric("stromkreis_ring_members_missing") or 0) >= 40 - 38
    assert len(hood.called) == 1, "a restart is over by then"
    hood.pass_rounds(1.1)
    assert hood.called_early("too_few_connected") == 1
    assert "1 of 1 rings cannot open: ring 0 has 38 members connected" in caplog.text
    hood.pass_rounds(2)
    assert start_of(hood.called[1]) < start_of(hood.called[0]) + 24 * PERIOD_S
    assert {outcome for _, outcome in hood.outcomes(1)} == {"opened"}
    assert hood.metric("stromkreis_rings_short") == 0


def test_gateways_that_come_late_are_let_in_early() -> None:
    hood = Hood(NAMES[:50])
    hood.pass_rounds(20)
    hood.here |= set(NAMES)
    hood.enrolled = 60
    hood.pass_rounds(3)
    assert hood.metric("stromkreis_gateways_waiting") == 10
    assert len(hood.called) == 1, "10 of 60 are no fifth"
    more = {f"ESTK1{index:09}" for index in range(6)}
    hood.here |= more
    hood.enrolled = 66
    hood.pass_rounds(3)
    assert hood.called_early("many_waiting") == 1
    assert hood.called[1].members == frozenset(NAMES) | more
    assert hood.metric("stromkreis_gateways_waiting") == 0


def test_who_missed_the_window_is_called_once_more_and_no_oftener() -> None:
    hood = Hood()
    hood.slow = set(NAMES[:20])
    hood.pass_rounds(8)
    small = hood.called[-1]
    assert (small.phase, len(small.members), hood.called_early("many_waiting")) == (Phase.RUNNING, 40, 0.0)
    hood.pass_rounds(16)
    again = hood.called[-1]
    assert (again.phase, len(again.members), hood.called_early("many_waiting")) == (Phase.RUNNING, 40, 1.0)
    assert start_of(again) == start_of(small) + 16 * PERIOD_S
    hood.pass_rounds(15)
    assert hood.called[-1] is again  # they missed two in a row: another call will not help


def test_members_that_were_started_without_their_keys_wait_and_open_nothing(hood: Hood) -> None:
    hood.seatless = set(NAMES[:15])
    hood.pass_s(120)
    assert hood.metric("stromkreis_gateways_waiting") == 15
    assert hood.metric("stromkreis_rings_short") == 1
    hood.pass_rounds(16)
    assert len(hood.called) == 2


def test_a_ring_that_opens_again_spends_no_epoch(hood: Hood) -> None:
    hood.here -= set(NAMES[:22])
    hood.pass_rounds(6)
    hood.here |= set(NAMES)
    hood.pass_rounds(20)
    assert {outcome for _, outcome in hood.outcomes(0)[-8:]} == {"opened"}
    assert len(hood.called) == 1
    assert hood.called_early("void_rounds") == 0


def test_no_call_is_earlier_than_gateways_take_it(hood: Hood) -> None:
    for lost in (22, 34):  # again and again
        hood.here -= set(NAMES[:lost])
        hood.pass_rounds(17)
    policy = CalendarPolicy()
    for before, call in zip(hood.called, hood.called[1:], strict=False):
        newest = NewestEpoch(before.call.epoch, before.call.interval_start_s)
        check_start(call.call, policy, newest)
    assert len(hood.called) >= 2


def test_epochs_end_early_while_three_values_of_the_day_are_left() -> None:
    hood = Hood()
    hood.pass_rounds(2)
    names = list(NAMES)
    for index in range(8):  # the same number goes and others come: half of the area turns over every few hours
        names = [*names[20:], *(f"ESTK{index}{each:09}" for each in range(100, 120))]
        hood.here = set(names)
        hood.pass_rounds(16.2)
    starts = [start_of(each) for each in hood.called]
    for each in starts:
        assert sum(each - 86_400 < other <= each for other in starts) <= 6


def test_what_cannot_form_rings_is_not_called_and_said_once(hood: Hood, caplog: pytest.LogCaptureFixture) -> None:
    hood.here = set(NAMES[:3])
    hood.pass_rounds(20)
    assert len(hood.called) == 1
    assert caplog.text.count("the next epoch is not called early: 3 gateways are connected, which cannot form") == 1


def test_a_call_that_comes_to_nothing_is_made_again_some_rounds_later(hood: Hood) -> None:
    hood.pass_rounds(16)
    hood.here -= set(NAMES[:22])
    hood.withholds = True  # as where gateways find that their area has shrunk
    hood.pass_rounds(9)
    assert 2 <= len(hood.called) - 1 <= 3
    assert {each.phase for each in hood.called[1:-1]} == {Phase.REFUSED}
    assert [each.rounds for each in hood.area.epochs[:1]] == [32], "the old one goes on"
    hood.withholds = False
    hood.pass_rounds(5)
    assert hood.called[-1].phase is Phase.RUNNING


def test_rounds_of_an_outage_of_the_coordinator_do_not_count(hood: Hood) -> None:
    epoch = hood.area.epochs[0]
    restarted = AreaEpoch.from_state(
        epoch._suite, epoch.to_state(), hood.ended, hood.now_s + 8 * PERIOD_S, lambda _: bytes(64)
    )
    hood.area.epochs[:] = [restarted]
    hood.now_s += 8 * PERIOD_S
    hood.pass_rounds(1)
    assert [outcome for _, outcome in hood.outcomes(0)].count("void") >= 7
    hood.pass_rounds(10)
    assert len(hood.called) == 1


def test_a_clock_that_is_set_back_leaves_the_watch_alive(hood: Hood) -> None:
    hood.pass_rounds(18)
    hood.now_s -= 7200
    hood.here -= set(NAMES[:22])
    hood.pass_rounds(13)
    assert len(hood.called) == 2


def test_rounds_of_the_next_epoch_are_not_closed_however_late_it_is(hood: Hood) -> None:
    hood.here -= set(NAMES[:22])
    hood.pass_rounds(14)
    assert len(hood.area.epochs) == 2
    hood.now_s = start_of(hood.called[1]) + 3 * PERIOD_S  # the process was stopped
    hood.pass_s(10)
    assert max(round_ for round_, _ in hood.outcomes(0)) == 15


def test_the_core_is_what_is_left_of_members_with_enough_neighbours(hood: Hood) -> None:
    view = hood.area.epochs[0].rings[0].view
    assert core(view, view.everybody) == view.everybody
    assert core(view, 0) == 0
    lonely = 1 << 30
    far = view.everybody & ~view.neighbourhoods[30]
    assert core(view, far) & lonely == 0
