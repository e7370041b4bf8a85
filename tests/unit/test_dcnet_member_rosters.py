"""
Rules 3 and 4 of protocol.md, section 7: what must be confirmed before a reveal, and which sets and heads count.

The member sits at position 0 of a ring of six; its neighbours are 1, 2, 4 and 5, and 3 is none.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from loadtest.lying_head import SMALL, LyingHead, kinds, refuses
from loadtest.ring import ready
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.machines.member_attempt import Resume
from protocol.dcnet.machines.member_states import State
from protocol.errors import RemoteProtocolError

SUITE = CheapSuite()


@pytest.fixture
def liar() -> LyingHead:
    return LyingHead(SUITE)


# --- rule 3: nothing is revealed before t_c neighbours confirmed the very same ----------------------------------

PART = (0, 2, 3, 4, 5)  # a roster that leaves three of our neighbours


def test_rule_3_as_many_confirmations_as_the_threshold_are_enough(liar: LyingHead) -> None:
    liar.confirm()
    (reveal,) = liar.say(liar.confirmed({1, 2, 4}))
    label = liar.label()
    seed = prf.mask_seed(liar.secrets[0].evaluate(label), label)
    assert reveal == wire.Reveal(liar.view.epoch, liar.view.ring, 0, 0, seed)


@pytest.mark.parametrize("makers", [(), (1,), (2, 5)])
def test_rule_3_fewer_confirmations_than_the_threshold(liar: LyingHead, makers: tuple[int, ...]) -> None:
    liar.confirm()
    refuses(liar, liar.confirmed(makers), "too_few_confirmations")


@pytest.mark.parametrize(
    "other",
    [
        {"roster": PART},
        {"expected": PART},
        {"attempt": 1},
        {"round_": 1},
        {"term": 1},
        {"named": 1},
        {"named": 0},
    ],
    ids=str,
)
def test_rule_3_a_confirmation_of_anything_else_does_not_count(liar: LyingHead, other: dict[str, Any]) -> None:
    """Two neighbours confirmed what we did, the third something else: another U, E, attempt, round, head, maker."""
    liar.confirm()
    refuses(liar, liar.confirmed({1, 2, 4}, macs={2: liar.mac(2, **other)}), "too_few_confirmations")
    assert kinds(liar.say(liar.confirmed({1, 2, 4, 5}, macs={2: liar.mac(2, **other)}))) == [wire.Reveal]


def test_rule_3_our_own_mac_cannot_be_handed_back_to_us(liar: LyingHead) -> None:
    liar.share()
    (confirm,) = liar.say(liar.roster())
    assert isinstance(confirm, wire.Confirm)
    own = {other: confirm.macs[16 * i : 16 * i + 16] for i, other in enumerate((1, 2, 4, 5))}
    refuses(liar, liar.confirmed(macs=own), "too_few_confirmations")


def test_rule_3_one_neighbour_does_not_count_for_another(liar: LyingHead) -> None:
    liar.confirm()
    refuses(liar, liar.confirmed({1, 2, 4}, macs={4: liar.mac(1), 2: liar.mac(1)}), "too_few_confirmations")


@pytest.mark.parametrize("makers", [(0, 1, 2), (1, 2, 3), (0, 1, 2, 4, 5)])
def test_rule_3_only_neighbours_count(liar: LyingHead, makers: tuple[int, ...]) -> None:
    liar.confirm()
    refuses(liar, liar.confirmed(makers, macs={0: bytes(16)}), "bad_confirmations")


def test_rule_3_only_neighbours_in_the_roster_count(liar: LyingHead) -> None:
    """Neighbour 1 would vouch for our roster, but it is not in it: it may have been shown another one."""
    liar.confirm(PART)
    refuses(liar, liar.confirmed({1, 2, 4}, PART), "bad_confirmations")


@pytest.mark.parametrize("extra", [-16, 16])
def test_rule_3_as_many_macs_as_makers(liar: LyingHead, extra: int) -> None:
    liar.confirm()
    whole = liar.confirmed()
    refuses(liar, replace(whole, macs=(whole.macs + bytes(16))[: 64 + extra]), "bad_confirmations")


def test_rule_3_nobody_is_helped_before(liar: LyingHead) -> None:
    liar.share()
    assert liar.say(liar.recover({1})) == []
    liar.say(liar.roster())
    assert liar.say(liar.recover({1})) == []
    assert liar.member.state is State.CONFIRMED
    with pytest.raises(RemoteProtocolError):
        liar.say(liar.confirmed({1, 2}))
    assert liar.say(liar.recover({1})) == []


def test_rule_3_a_restarted_member_is_silent_in_the_old_attempt(liar: LyingHead) -> None:
    for lead in (liar.confirm, liar.serve):
        lead()
        liar.boot()
        liar.offer()
        assert liar.say(liar.roster(), liar.confirmed(), liar.recover({1})) == []
        liar.durable = Resume()
        liar.boot()


# --- rule 4: one E and one U for an attempt, large enough, from the appointed head, attempts only up -------------


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ((1, 2, 3, 4, 5), "not_included"),
        ((0, 1, 3, 4), "too_few_neighbours"),
        ((0, 2, 3, 5), "too_few_neighbours"),
        ((0, 1, 2), "too_few_members"),
        ((), "not_included"),
    ],
)
def test_rule_4_what_is_no_e_is_no_u_either(liar: LyingHead, members: Collection[int], reason: str) -> None:
    liar.offer()
    refuses(liar, liar.open(expected=members), reason)
    liar.say(liar.open())
    refuses(liar, liar.roster(members), reason)


def test_rule_4_below_n_min_although_the_neighbours_are_there() -> None:
    liar = LyingHead(SUITE, replace(SMALL, n_min=5))
    liar.offer()
    refuses(liar, liar.open(expected=(0, 1, 2, 4)), "too_few_members")
    liar.say(liar.open())
    refuses(liar, liar.roster((0, 1, 2, 4)), "too_few_members")
    assert kinds(liar.say(liar.roster((0, 1, 2, 4, 5)))) == [wire.Confirm]


def test_rule_4_the_smallest_sets_that_are_allowed(liar: LyingHead) -> None:
    liar.share(expected=(0, 1, 2, 4))
    assert kinds(liar.say(liar.roster((0, 1, 2, 4)))) == [wire.Confirm]


def test_rule_4_no_roster_beyond_e(liar: LyingHead) -> None:
    liar.share(expected=PART)
    refuses(liar, liar.roster(), "not_within")


def test_rule_4_positions_that_do_not_exist(liar: LyingHead) -> None:
    liar.offer()
    for bits in (b"\x7f", b"\xff", b"\x3f\x00", b""):
        refuses(liar, replace(liar.open(), expected=bits), "bad_bitmap")
    liar.say(liar.open())
    refuses(liar, replace(liar.roster(), roster=b"\xff"), "bad_bitmap")
    liar.say(liar.roster())
    refuses(liar, replace(liar.confirmed(), makers=b"\x7f"), "bad_bitmap")
    liar.say(liar.confirmed())
    refuses(liar, replace(liar.recover({1}), silent=b"\x7f"), "bad_bitmap")


def test_rule_4_one_roster_for_one_attempt(liar: LyingHead) -> None:
    liar.confirm(PART)
    refuses(liar, liar.roster((0, 2, 4, 5)), "second_roster")
    refuses(liar, liar.roster(), "second_roster")


def test_rule_4_one_e_for_one_attempt(liar: LyingHead) -> None:
    liar.share()
    refuses(liar, liar.open(expected=PART), "stale_attempt")
    refuses(liar, liar.open(), "stale_attempt")


def test_rule_4_one_e_for_one_attempt_after_a_failed_write(liar: LyingHead) -> None:
    liar.share()
    liar.make()
    liar.offer()
    refuses(liar, liar.open(expected=PART), "stale_attempt")
    assert kinds(liar.say(liar.open(1, PART))) == [wire.MaskedInput]


def test_rule_4_attempts_only_go_up(liar: LyingHead) -> None:
    liar.share(attempt=1)
    refuses(liar, liar.open(0), "stale_attempt")
    refuses(liar, liar.open(1), "stale_attempt")
    assert kinds(liar.say(liar.open(2))) == [wire.MaskedInput]


def test_rule_4_rounds_only_go_up(liar: LyingHead) -> None:
    liar.offer(3)
    liar.say(liar.open(round_=3), liar.result(3))
    refuses(liar, liar.open(2, round_=2), "stale_attempt")


@pytest.mark.parametrize("term", [0, 2, 6])
def test_rule_4_no_deputy_out_of_turn(liar: LyingHead, term: int) -> None:
    liar.carry_out(liar.member.appointed(1, 0.0))
    liar.offer()
    refuses(liar, liar.open(term=term), "head_out_of_turn")
    assert kinds(liar.say(liar.open(term=1))) == [wire.MaskedInput]


def test_rule_4_terms_only_go_up(liar: LyingHead) -> None:
    assert liar.carry_out(liar.member.appointed(2, 0.0)) == [ready(liar.view, 0, 2)]
    assert liar.member.appointed(1, 0.0) == []
    liar.offer()
    refuses(liar, liar.open(term=1), "head_out_of_turn")


def test_rule_4_an_attempt_belongs_to_the_head_that_opened_it(liar: LyingHead) -> None:
    """The MACs name the head whose E it was, also where the next one is appointed in between."""
    liar.share()
    liar.carry_out(liar.member.appointed(1, 0.0))
    liar.say(liar.roster())
    liar.term = 1
    refuses(liar, liar.confirmed(), "too_few_confirmations")
    liar.term = 0
    assert kinds(liar.say(liar.confirmed())) == [wire.Reveal]


def test_rule_4_what_a_former_head_opened_is_not_answered_late(liar: LyingHead) -> None:
    """An OPEN that was held for want of a reading dies with its head; the next head may open the same attempt."""
    assert liar.say(liar.open(expected=PART)) == []
    liar.term = 1
    liar.carry_out(liar.member.appointed(1, 0.0))
    assert liar.offer() == []
    assert kinds(liar.say(liar.open())) == [wire.MaskedInput]


def test_rule_4_no_round_beyond_the_epoch(liar: LyingHead) -> None:
    refuses(liar, liar.open(round_=8), "no_such_round")
    assert liar.say(liar.open(round_=7)) == []
