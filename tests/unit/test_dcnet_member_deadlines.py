"""
Rule 6 of docs/explanation/protocol.md, section 7: every wait of a member has a deadline.

The member sits at position 0 of a ring of six; its neighbours are 1, 2, 4 and 5, and 3 is none.
"""

import pytest

from loadtest.lying_head import LyingHead, kinds
from loadtest.ring import ready
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines import member
from protocol.dcnet.machines.member_attempt import Resume

SUITE = CheapSuite()
SILENT_S = 2.5  # of the ring's period of 10 s


@pytest.fixture
def liar() -> LyingHead:
    return LyingHead(SUITE)


def test_rule_6_every_wait_within_a_round_ends(liar: LyingHead) -> None:
    now_s = 1.0
    liar.offer()
    for message in (liar.open(), liar.roster(), liar.confirmed(), liar.recover({1})):
        liar.say(message, now_s=now_s)
        assert liar.member.next_timer_s() == now_s + SILENT_S
        now_s += 1.0
    liar.say(liar.result(), now_s=now_s)
    assert liar.member.next_timer_s() == 10.0 + SILENT_S


def test_rule_6_a_held_opening_and_an_open_question_are_waits_too(liar: LyingHead) -> None:
    liar.say(liar.open(), now_s=1.0)
    assert liar.member.next_timer_s() == 1.0 + SILENT_S
    liar.offer()
    liar.boot()
    assert liar.member.next_timer_s() == SILENT_S


def test_rule_6_a_late_offer_renews_the_wait(liar: LyingHead) -> None:
    liar.say(liar.open(), now_s=1.0)
    liar.carry_out(liar.member.offer(0, liar.vector(), 3.0))
    assert liar.member.next_timer_s() == 3.0 + SILENT_S


def test_rule_6_only_the_newest_opening_is_held(liar: LyingHead) -> None:
    for round_ in range(6):
        assert liar.say(liar.open(round_=round_)) == []
    assert liar.offer(3) == []
    assert kinds(liar.offer(5)) == [wire.MaskedInput]


@pytest.mark.parametrize(("round_", "due_s"), [(-1, SILENT_S), (0, SILENT_S), (3, 30.0 + SILENT_S)])
def test_before_a_head_is_appointed_it_waits_for_the_round_it_knows_of(
    liar: LyingHead, round_: int, due_s: float
) -> None:
    fresh = member.Member(SUITE, liar.view, liar.secrets[0], liar.masks, Resume(round=round_))
    assert fresh.next_timer_s() == due_s
    assert fresh.on_timer(1e9) == []
    assert fresh.next_timer_s() == float("inf")


def test_the_timer_is_patient(liar: LyingHead) -> None:
    liar.share()
    due_s = liar.member.next_timer_s()
    assert liar.member.on_timer(due_s - 0.001) == []
    assert liar.member.next_timer_s() == due_s


def test_a_silent_head_is_reported_once_a_round_and_asked_again(liar: LyingHead) -> None:
    view = liar.view
    ask, again = wire.RoundStatusRequest(view.epoch, view.ring, 0), ready(view, 0, attempt=1)
    silent = wire.HeadSilent(view.epoch, view.ring, 0, 0)
    liar.share()
    assert liar.carry_out(liar.member.on_timer(SILENT_S)) == [ask, silent, again]
    assert liar.member.next_timer_s() == 2 * SILENT_S
    assert liar.carry_out(liar.member.on_timer(2 * SILENT_S)) == [ask, again]
    assert liar.carry_out(liar.member.on_timer(10.0)) == [ask, wire.HeadSilent(view.epoch, view.ring, 0, 1), again]
    liar.carry_out(liar.member.appointed(1, 10.0))
    assert wire.HeadSilent(view.epoch, view.ring, 1, 1) in liar.carry_out(liar.member.on_timer(20.0 - 0.1))


def test_a_head_that_never_opened_is_reported(liar: LyingHead) -> None:
    assert liar.member.next_timer_s() == 10.0 + SILENT_S
    sent = liar.carry_out(liar.member.on_timer(10.0 + SILENT_S))
    assert kinds(sent) == [wire.HeadSilent, wire.Ready]


def test_our_own_missing_reading_is_not_the_heads_fault(liar: LyingHead) -> None:
    liar.say(liar.open(), now_s=0.5)
    assert kinds(liar.carry_out(liar.member.on_timer(0.5 + SILENT_S))) == [wire.Ready]


def test_after_the_last_round_only_the_open_question_keeps_it_awake(liar: LyingHead) -> None:
    liar.offer(7)
    liar.say(liar.open(round_=7), now_s=70.0)
    assert kinds(liar.carry_out(liar.member.on_timer(90.0))) == [wire.RoundStatusRequest]
    assert liar.member.next_timer_s() == 90.0 + SILENT_S
    liar.say(liar.result(7), now_s=91.0)
    assert liar.member.next_timer_s() == float("inf")


def test_after_the_last_round_a_wait_for_a_round_ends_for_good(liar: LyingHead) -> None:
    liar.say(liar.open(), now_s=0.0)  # held for a reading that never comes
    assert liar.member.on_timer(90.0) == []
    assert liar.member.next_timer_s() == float("inf")


def test_before_the_first_round_nobody_is_late() -> None:
    liar = LyingHead(SUITE)
    liar.share()
    liar.boot()
    liar.carry_out(liar.member.appointed(0, -30.0))
    assert kinds(liar.carry_out(liar.member.on_timer(-20.0))) == [wire.RoundStatusRequest]


def test_the_wait_after_a_message_in_mid_epoch_is_for_the_round_after(liar: LyingHead) -> None:
    liar.say(liar.result(4), now_s=43.0)
    assert liar.member.next_timer_s() == 50.0 + SILENT_S
