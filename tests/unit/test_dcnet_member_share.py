"""
A member's share: its masks, its commitments, and the same rules wherever it sits.

The member sits at position 0 of a ring of six; its neighbours are 1, 2, 4 and 5, and 3 is none.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest

from loadtest.lying_head import SMALL, LyingHead, kinds, refuses
from loadtest.ring import ready
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.crypto.commitments import Pedersen, decode_blinding_vector, subtract_blinding_vectors
from protocol.dcnet.machines.effects import Settled
from protocol.dcnet.machines.masks import seed_commitment, self_blinding, self_mask, words_from_bytes
from protocol.dcnet.machines.member_states import State
from protocol.dcnet.setup.rings import bitmap
from protocol.dcnet.setup.statements import AttemptContext, text_of_input
from protocol.errors import LocalProtocolError

SUITE = CheapSuite()
PART = (0, 2, 3, 4, 5)  # a roster that leaves three of our neighbours
SILENT_S = 2.5  # of the ring's period of 10 s


@pytest.fixture
def liar() -> LyingHead:
    return LyingHead(SUITE)


# --- the share itself ----------------------------------------------------------------------------------------------


def is_signed(
    liar: LyingHead, share: wire.MaskedInput, attempt: int = 0, expected: Collection[int] | None = None
) -> bool:
    members = liar.view.everybody if expected is None else bitmap(list(expected))
    context = AttemptContext(0, attempt, 0, members, liar.terms(expected).digest)
    text = text_of_input(liar.view, 0, context, share)
    return SUITE.verify(liar.view.members[0].verify_key, text, share.signature)


@pytest.mark.parametrize("expected", [None, PART, (0, 1, 2, 4)])
@pytest.mark.parametrize("attempt", [0, 1])
def test_a_share_is_the_reading_under_both_kinds_of_masks(
    liar: LyingHead, expected: Collection[int] | None, attempt: int
) -> None:
    liar.offer()
    (share,) = liar.say(liar.open(attempt, expected))
    assert isinstance(share, wire.MaskedInput)
    label = liar.label(attempt=attempt)
    seed = prf.mask_seed(liar.secrets[0].evaluate(label), label)
    others = liar.view.everybody if expected is None else bitmap(list(expected))
    masked = words_from_bytes(share.vector) - liar.masks.words(0, attempt, others) - self_mask(SUITE, seed, 4)
    assert masked.tolist() == liar.vector().tolist()
    assert (share.commitments, share.blinding) == (b"", b"")
    assert is_signed(liar, share, attempt, expected)


@pytest.mark.parametrize("attempt", [0, 1])
def test_a_share_is_bound_to_the_seed_that_is_revealed(liar: LyingHead, attempt: int) -> None:
    liar.offer()
    shares = [liar.say(liar.open(each))[0] for each in range(attempt + 1)]
    liar.say(liar.roster(attempt=attempt))
    (reveal,) = liar.say(liar.confirmed(attempt=attempt))
    assert isinstance(reveal, wire.Reveal)
    bindings = [each.seed_commitment for each in shares if isinstance(each, wire.MaskedInput)]
    assert bindings[-1] == seed_commitment(reveal.seed)
    assert len(set(bindings)) == attempt + 1
    assert len(bindings[0]) == 32


def test_ready_says_which_attempt_is_next(liar: LyingHead) -> None:
    view = liar.view
    liar.share()
    again = ready(view, 0, 3, attempt=1)
    assert liar.carry_out(liar.member.appointed(3, 0.0)) == [again]
    assert again in liar.carry_out(liar.member.on_timer(9.0))
    liar.say(liar.result(0, roster=(1, 2, 3, 4, 5)))
    assert liar.sent[-1] == ready(view, 0, 3, round_=1, history=liar.member.history)


def test_a_share_with_committed_slots() -> None:
    liar = LyingHead(SUITE, replace(SMALL, committed=(1, 3)))
    vector = np.array([1, 5, 6, 2**64 - 7], dtype=np.uint64)
    liar.carry_out(liar.member.offer(0, vector, 0.0, (11, 12)))
    (share,) = liar.say(liar.open())
    assert isinstance(share, wire.MaskedInput)
    pedersen = Pedersen(SUITE.group)
    assert share.commitments == pedersen.commit(5, 11) + pedersen.commit(-7, 12)
    assert is_signed(liar, share)
    label = liar.label()
    seed = prf.mask_seed(liar.secrets[0].evaluate(label), label)
    blinding_vector = decode_blinding_vector(SUITE.group, share.blinding, 2)
    masks = liar.masks.blindings(0, 0, liar.view.everybody)
    assert subtract_blinding_vectors(SUITE.group, blinding_vector, masks, self_blinding(SUITE, seed, 2)) == (11, 12)
    (confirm,) = liar.say(liar.roster(PART))
    assert isinstance(confirm, wire.Confirm)
    assert decode_blinding_vector(SUITE.group, confirm.dropped_blinding, 2) == liar.masks.blindings(0, 0, 1 << 1)
    (again,) = liar.say(liar.open(1))
    assert isinstance(again, wire.MaskedInput)
    assert again.commitments == share.commitments
    assert is_signed(liar, again, attempt=1)
    assert not is_signed(liar, replace(again, signature=share.signature), attempt=1)


def test_the_driver_keeps_to_its_contract(liar: LyingHead) -> None:
    now_s = 0.0
    with pytest.raises(LocalProtocolError, match="4 words"):
        liar.member.offer(0, liar.vector()[:3], now_s)
    with pytest.raises(LocalProtocolError, match="counts one gateway"):
        liar.member.offer(0, liar.vector() * np.uint64(2), now_s)
    with pytest.raises(LocalProtocolError, match="0 blindings"):
        liar.member.offer(0, liar.vector(), now_s, (1,))
    liar.offer(2)
    with pytest.raises(LocalProtocolError, match="order of their rounds"):
        liar.offer(1)


def test_an_offer_for_another_round_than_the_held_one_waits(liar: LyingHead) -> None:
    liar.say(liar.open(round_=1))
    assert liar.offer(0) == []
    assert liar.offer(2) == []
    assert kinds(liar.say(liar.open(round_=2))) == [wire.MaskedInput]


# --- positions, rounds and terms as they come in the field ---------------------------------------------------------


def test_the_rules_do_not_depend_on_where_one_sits() -> None:
    """Position 4 of six, whose neighbours are 2, 3, 5 and 0; 1 is none."""
    liar = LyingHead(SUITE, position=4)
    liar.offer()
    refuses(liar, liar.open(expected=(0, 1, 2, 3, 5)), "not_included")
    refuses(liar, liar.open(expected=(0, 1, 2, 4)), "too_few_neighbours")
    liar.say(liar.open())
    refuses(liar, liar.roster((0, 1, 2, 3, 5)), "not_included")
    (confirm,) = liar.say(liar.roster((0, 1, 2, 4, 5)))
    assert isinstance(confirm, wire.Confirm)
    assert confirm.dropped == liar.masks.words(0, 0, 1 << 3).tobytes()
    refuses(liar, liar.confirmed({0, 1, 2}, (0, 1, 2, 4, 5)), "bad_confirmations")
    assert kinds(liar.say(liar.confirmed(roster=(0, 1, 2, 4, 5)))) == [wire.Reveal]
    refuses(liar, liar.recover({4}), "not_in_roster")
    refuses(liar, liar.recover({3}), "not_in_roster")
    parts = liar.say(liar.recover({0, 1, 5}))
    assert [part.silent for part in parts if isinstance(part, wire.Partial)] == [0, 5]
    liar.say(liar.result(roster=(0, 1, 2, 5)))
    assert liar.records[-1] == Settled(0, included=False)


def test_a_round_far_into_a_long_epoch_with_the_hundredth_deputy() -> None:
    liar = LyingHead(SUITE, replace(SMALL, rounds=2000))
    liar.term = int("1000")
    liar.boot()
    for late in ("1000", "1500"):  # numbers as they come from the wire, each an object of its own
        for before in range(liar.member.history.settled, int(late)):
            liar.member.history.add(liar.result(before, wire.Outcome.VOID))
        liar.offer(int(late))
        round_ = int(late)
        liar.say(liar.open(round_=int(late), term=int("1000")))
        refuses(liar, liar.open(round_=int(late), term=int("1001")), "head_out_of_turn")
        liar.say(liar.roster(round_=int(late)), liar.confirmed(round_=int(late)))
        assert liar.member.state is State.SERVED
        refuses(liar, liar.open(1, round_=int(late)), "already_served")
        refuses(liar, liar.open(2, round_=int(late) - 1), "stale_attempt")
        assert liar.member.next_attempt == (round_, 1)
        liar.boot()
        liar.offer(int(late))
        refuses(liar, liar.open(round_=int(late) + 1), "old_history")
        assert kinds(liar.say(liar.open(round_=int(late) + 1, settled=int(late) + 1))) == [wire.Ready]
        liar.say(liar.result(int(late)))
        assert liar.records[-1] == Settled(round_, included=True)
        assert liar.member.unsettled is None


def test_a_result_precomputed_mask_of_the_clock_is_waited_beyond(liar: LyingHead) -> None:
    liar.say(liar.result(4), now_s=3.0)
    assert liar.member.next_timer_s() == 50.0 + SILENT_S


def test_a_blinding_for_each_committed_slot() -> None:
    liar = LyingHead(SUITE, replace(SMALL, committed=(1, 3)))
    for blindings in ((), (1,), (1, 2, 3)):
        with pytest.raises(LocalProtocolError, match="2 blindings"):
            liar.member.offer(0, liar.vector(), 0.0, blindings)
