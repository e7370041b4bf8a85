"""
Borders of the member machine: each of these was once a mutant that nothing noticed.

The member sits at position 0 of a ring of six; its neighbours are 1, 2, 4 and 5, and 3 is none.
"""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from loadtest.lying_head import SMALL, LyingHead, kinds, refuses
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.machines.effects import Settled
from protocol.dcnet.machines.masks import MaskSchedule, self_mask, words_from_bytes
from protocol.dcnet.machines.member_states import State
from protocol.errors import LocalProtocolError

SUITE = CheapSuite()
SILENT_S = 2.5  # of the ring's period of 10 s


@pytest.fixture
def liar() -> LyingHead:
    return LyingHead(SUITE)


def test_the_same_head_named_again_changes_nothing(liar: LyingHead) -> None:
    liar.say(liar.open())
    liar.carry_out(liar.member.appointed(0, 1.0))
    assert kinds(liar.offer()) == [wire.MaskedInput]


def test_an_opening_that_is_held_with_an_expelled_member_in_its_e_is_dropped(liar: LyingHead) -> None:
    liar.member.expelled(1 << 5, 0.0)
    liar.say(liar.open())
    liar.member.expelled(1 << 5 | 1 << 3, 0.0)
    assert liar.offer() == []
    assert kinds(liar.say(liar.open(1, liar.everybody(3, 5)))) == [wire.MaskedInput]


@pytest.mark.parametrize("expelled", [3, 5])
def test_an_opening_that_is_held_without_the_expelled_member_is_answered(liar: LyingHead, expelled: int) -> None:
    liar.say(liar.open(expected=liar.everybody(expelled)))
    liar.member.expelled(1 << expelled, 0.0)
    assert kinds(liar.offer()) == [wire.MaskedInput]


def test_the_same_round_may_be_offered_again(liar: LyingHead) -> None:
    assert liar.offer() == liar.offer() == []
    for words in (3, 5):
        with pytest.raises(LocalProtocolError, match="4 words"):
            liar.member.offer(0, np.ones(words, dtype=np.uint64), 0.0)
    with pytest.raises(LocalProtocolError, match="counts one gateway"):
        liar.member.offer(0, np.zeros(4, dtype=np.uint64), 0.0)


def test_an_earlier_epochs_message(liar: LyingHead) -> None:
    refuses(liar, replace(liar.open(), epoch=0), "wrong_ring")


def test_after_the_second_attempt_comes_the_third(liar: LyingHead) -> None:
    liar.share(attempt=1)
    assert liar.member.next_attempt == (0, 2)


def test_a_head_heard_at_the_very_opening_is_not_silent(liar: LyingHead) -> None:
    liar.say(liar.open(), now_s=0.0)
    assert kinds(liar.carry_out(liar.member.on_timer(SILENT_S))) == [wire.Ready]
    assert liar.member.next_timer_s() == 2 * SILENT_S


def test_the_round_behind_the_last_one_is_none(liar: LyingHead) -> None:
    liar.say(liar.open(round_=7), now_s=70.0)
    assert liar.member.on_timer(85.0) == []
    assert liar.member.next_timer_s() == float("inf")
    refuses(liar, liar.open(round_=9), "no_such_round")
    liar.say(liar.result(7), now_s=75.0)
    assert liar.member.next_timer_s() == float("inf")


def test_rule_4_an_old_result_does_not_turn_the_rounds_back(liar: LyingHead) -> None:
    liar.say(liar.result(3), liar.result(1))
    refuses(liar, liar.open(round_=2), "stale_attempt")


def test_what_was_held_for_a_round_before_the_one_that_ended_is_dropped(liar: LyingHead) -> None:
    liar.say(liar.open(round_=1), liar.result(3))
    assert liar.offer(1) == []


@pytest.mark.parametrize(("round_", "now_s", "due_s"), [(5, 3.0, 60.0), (0, 53.0, 60.0)])
def test_the_next_wait_is_for_the_round_after(liar: LyingHead, round_: int, now_s: float, due_s: float) -> None:
    liar.say(liar.result(round_), now_s=now_s)
    assert liar.member.next_timer_s() == due_s + SILENT_S


def test_our_place_in_the_total_elsewhere_than_at_position_0() -> None:
    liar = LyingHead(SUITE, position=4)
    liar.share()
    liar.say(liar.result())
    assert liar.records[-1] == Settled(0, included=True)


def test_a_large_ring_with_long_vectors() -> None:
    liar = LyingHead(SUITE, replace(SMALL, n=20, k=18, t=10, t_c=10, k_min=10, n_min=11, words=300))
    liar.confirm()
    assert liar.say(liar.roster()) == []
    assert kinds(liar.say(liar.confirmed())) == [wire.Reveal]


def test_the_seed_is_made_with_the_reading_and_not_again_at_the_opening(
    liar: LyingHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []
    evaluate = liar.secrets[0].evaluate
    monkeypatch.setattr(liar.secrets[0], "evaluate", lambda label: made.append(label) or evaluate(label))
    labels = [liar.label(attempt=attempt) for attempt in range(3)]
    liar.offer()
    assert made == labels[:1]
    liar.say(liar.open())
    assert made == labels[:1]
    liar.make()
    liar.offer()
    assert made == labels[:2]
    liar.say(liar.open(1))
    assert made == labels[:2]
    liar.say(liar.open(2))
    assert made == labels


def test_an_opening_leaves_nothing_but_additions(liar: LyingHead, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every keystream that the answer takes was made when the reading came."""
    liar.offer()
    monkeypatch.setattr(SUITE, "keystream", lambda *_: pytest.fail("a keystream is made at the opening"))
    (share,) = liar.say(liar.open())
    monkeypatch.undo()
    assert isinstance(share, wire.MaskedInput)
    label = liar.label()
    seed = prf.mask_seed(liar.secrets[0].evaluate(label), label)
    bare = words_from_bytes(share.vector) - liar.masks.words(0, 0, liar.view.everybody) - self_mask(SUITE, seed, 4)
    assert bare.tolist() == liar.vector().tolist()


def test_who_copies_a_member_gets_the_same_share_from_either(liar: LyingHead) -> None:
    """The mask that was made ahead is in both: a share is a new array, and the mask stays as it was."""
    liar.offer()
    twin = copy(liar.member)
    twin._place = replace(twin._place, masks=MaskSchedule(SUITE, liar.view, liar.secrets[0]))
    assert twin.receive(liar.open(), 0.0) == liar.member.receive(liar.open(), 0.0)
    assert twin.receive(liar.open(1), 0.0) == liar.member.receive(liar.open(1), 0.0)
    liar.offer()
    assert liar.member._self_masks._prepared is not None
    with pytest.raises(ValueError, match="read-only"):
        liar.member._self_masks._prepared[2][0] = 1


def test_just_before_the_first_round_nobody_is_late(liar: LyingHead) -> None:
    liar.share()
    assert kinds(liar.carry_out(liar.boot().on_timer(-5.0))) == []
    liar.carry_out(liar.member.appointed(0, -30.0))
    assert kinds(liar.carry_out(liar.member.on_timer(-5.0))) == [wire.RoundStatusRequest]


def test_a_late_round_is_settled_and_tried_again_by_its_number() -> None:
    liar = LyingHead(SUITE, replace(SMALL, rounds=2000))
    liar.offer(int("1000"))
    liar.say(liar.open(round_=int("1000")))
    liar.make()
    liar.offer(int("1000"))
    assert kinds(liar.say(liar.open(1, round_=int("1000")))) == [wire.MaskedInput]
    liar.say(liar.result(int("1000")))
    assert liar.member.state is State.WAITING


def test_before_the_first_round_the_wait_is_for_the_first(liar: LyingHead) -> None:
    liar.carry_out(liar.member.appointed(0, -30.0))
    assert liar.member.next_timer_s() == SILENT_S
