"""Borders of the round ledger: each of these was once a mutant that nothing noticed."""

from dataclasses import replace

import pytest

from loadtest.ring import LocalRing, RingSize, ledger_secrets
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines.effects import Ended, LedgerEffect, Misbehaviour, Note, ToMember, ToRing
from protocol.dcnet.machines.ledger import HISTORY_MAX, RoundLedger

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
