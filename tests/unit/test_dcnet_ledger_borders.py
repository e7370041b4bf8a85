"""Borders of the round ledger: each of these was once a mutant that nothing noticed."""

from dataclasses import replace

import pytest

from loadtest.ring import LocalRing, RingSize, ledger_secrets
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines.effects import Ended, LedgerEffect, Misbehaviour, Note, ToMember, ToRing
from protocol.dcnet.machines.ledger import HISTORY_MAX, RoundLedger
from protocol.dcnet.setup.rings import positions_of

SUITE = CheapSuite()
VIEW = LocalRing(SUITE, RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=4, rounds=4)).view
SECRETS = ledger_secrets(SUITE, bytes(32))
VOID = wire.Outcome.VOID
REPLACED = Note("head_replaced")


@pytest.fixture
def ledger() -> RoundLedger:
    return RoundLedger(SUITE, VIEW, SECRETS, 0.0)


def appoint(term: int) -> LedgerEffect:
    return ToRing(wire.Appoint(1, 0, term))


def silent(term: int) -> wire.HeadSilent:
    return wire.HeadSilent(1, 0, term, 0)


def void(round_: int) -> Ended:
    return Ended(1, 0, round_, VOID, 0, 0, 0, 0, (), False, "", 0.0, 0.0)


def test_rounds_that_passed_before_a_head_came_are_not_its_fault(ledger: RoundLedger) -> None:
    ledger.expel(0b1, 17.0)
    assert REPLACED not in ledger.on_timer(18.2), "rounds 0 and 1 were the last head's"
    due_s = 17.0 + VIEW.timing.void_s
    assert ledger.on_timer(due_s - 0.1) == []
    assert ledger.on_timer(due_s)[-2:] == [REPLACED, appoint(2)]


def test_a_timer_that_is_called_early_leaves_no_event(ledger: RoundLedger) -> None:
    ledger.on_timer(8.1)
    assert ledger.events.added == 0
    ledger.on_timer(8.2)
    assert ledger.events.added == 1


def test_enough_complaints_of_a_new_head_wait_for_its_first_words(ledger: RoundLedger) -> None:
    ledger.expel(0b1, 3.0)
    due_s = 3.0 + VIEW.timing.silent_s
    for position in (2, 3, 4, 5):
        assert ledger.receive(position, silent(1), due_s - 0.1) == []
    assert ledger.receive(6, silent(1), due_s) == [REPLACED, appoint(2)]


def test_who_asks_for_ends_again_is_told_after_a_quarter_of_a_reveal(ledger: RoundLedger) -> None:
    ledger.on_timer(8.2)
    due_s = 9.0 + VIEW.timing.reveal_s / 4
    request = wire.HistoryRequest(1, 0, 0)
    assert [len(ledger.receive(3, request, at_s)) for at_s in (9.0, due_s - 0.01, due_s)] == [1, 0, 1]


def test_the_ends_that_are_told_begin_at_the_round_that_was_asked_for() -> None:
    view = replace(VIEW, rounds=3 * HISTORY_MAX)
    ledger = RoundLedger(SUITE, view, SECRETS, 0.0, {round_: void(round_) for round_ in range(2 * HISTORY_MAX)})
    told = [
        each.message for each in ledger.receive(3, wire.HistoryRequest(1, 0, 40), 1.0) if isinstance(each, ToMember)
    ]
    assert [each.round for each in told if isinstance(each, wire.Result)] == list(range(40, 40 + HISTORY_MAX))


def test_where_nobody_would_be_left_only_the_revoked_are_head_no_more(ledger: RoundLedger) -> None:
    ledger.inquiries.named.update(dict.fromkeys(range(7), Misbehaviour.CORRUPT_SUM))
    assert REPLACED not in ledger.on_timer(8.2)
    assert ledger.expel(0b10, 9.0) == []
    assert ledger.expel(0b01, 9.0)[:2] == [REPLACED, appoint(2)]


def left_out(effects: list[LedgerEffect]) -> list[tuple[int, list[int]]]:
    """Which head is told to leave out whom."""
    return [
        (each.position, positions_of(VIEW.from_wire(each.message.members)))
        for each in effects
        if isinstance(each, ToMember) and isinstance(each.message, wire.LeftOut)
    ]


@pytest.mark.parametrize("round_", range(4))
def test_who_was_silent_is_out_for_the_next_round_alone(round_: int) -> None:
    view = replace(VIEW, rounds=8)
    timing = view.timing
    at_s = timing.open_at_s(round_) + 1
    ledger = RoundLedger(SUITE, view, SECRETS, at_s, {each: void(each) for each in range(round_)})
    ledger.receive(0, wire.RingVoid(1, 0, round_, 0, "silent", view.to_wire(1 << 3)), at_s)
    assert left_out(ledger.on_timer(at_s + timing.silent_s)) == [(0, [3])]
    assert left_out(ledger.expel(0b1, at_s + timing.silent_s)) == [(1, [3])], "its deputy is told as well"
    assert left_out(ledger.on_timer(timing.open_at_s(round_ + 1) + timing.void_s)) == [(1, [])]
    assert left_out(ledger.expel(0b10, timing.open_at_s(round_ + 2))) == [(2, [])]


def test_an_opened_pair_is_of_the_round_of_now_within_the_epoch(ledger: RoundLedger) -> None:
    rounds: list[int] = []

    def opening(_position: int, _message: wire.PairOpening, round_: int) -> list[LedgerEffect]:
        rounds.append(round_)
        return []

    ledger.inquiries.opening = opening  # type: ignore[method-assign, assignment]
    for at_s in (-15.0, 15.0, 1e5):
        ledger.receive(3, wire.PairOpening(1, 0, 4, bytes(96)), at_s)
    assert rounds == [0, 1, 3]


def test_a_ledger_keeps_six_events_for_each_member(ledger: RoundLedger) -> None:
    for _ in range(100):
        ledger.expel(1 << 6, 1.0)
    assert len(ledger.bug_report()["events"]) == 42
