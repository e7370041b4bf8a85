"""
A gateway among liars: every rule of aggregation.md, section 6, attacked on the real member machine.

The member sits at position 0 of a ring of six; its neighbours are 1, 2, 4 and 5, and 3 is none.  Whatever the liar
says is well formed and carries genuine MACs, so only the rule that a test names can stop it.
"""

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from copy import copy
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from loadtest.lying_head import SMALL, LyingHead
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.crypto.commitments import Pedersen, decode_blinding_vector, subtract_blinding_vectors
from protocol.dcnet.machines import member
from protocol.dcnet.machines.effects import Attempted, Note, Persist, Progress, Settled, ToHead
from protocol.dcnet.machines.masks import seed_commitment, self_blinding, self_mask, words_from_bytes
from protocol.dcnet.machines.member import TRANSITIONS, Resume, State
from protocol.dcnet.setup.attestation import attestation_text
from protocol.dcnet.setup.rings import bitmap, result_text
from protocol.dcnet.setup.secrets import mask_label
from protocol.errors import InvariantError, LocalProtocolError, RemoteProtocolError

SUITE = CheapSuite()
VOID = wire.Outcome.VOID
SILENT_S = 2.5  # of the ring's period of 10 s


@pytest.fixture
def liar() -> LyingHead:
    return LyingHead(SUITE)


def refuses(liar: LyingHead, message: wire.RingMessage, reason: str) -> None:
    """The member answers with the peer's fault, gives nothing away and stays where it was."""
    before = snapshot(liar.member)
    with pytest.raises(RemoteProtocolError) as caught:
        liar.say(message)
    assert caught.value.reason == reason
    assert snapshot(liar.member) == before


def snapshot(machine: member.Member) -> dict[str, Any]:
    """All that the machine remembers, as plain values."""
    return {name: repr(value) for name, value in vars(machine).items() if name != "events"}


def kinds(messages: list[wire.Message]) -> list[type[wire.Message]]:
    return [type(each) for each in messages]


# --- rule 1: never serves two attempts of a round --------------------------------------------------------------


def test_rule_1_after_a_reveal_no_later_attempt(liar: LyingHead) -> None:
    liar.serve()
    refuses(liar, liar.open(1), "already_served")
    refuses(liar, liar.open(2), "already_served")


def test_rule_1_after_a_reveal_and_a_restart_no_later_attempt(liar: LyingHead) -> None:
    liar.serve()
    liar.boot()
    liar.offer()
    refuses(liar, liar.open(1), "already_served")


def test_rule_1_having_shared_in_the_next_attempt_it_does_not_reveal_in_the_earlier(liar: LyingHead) -> None:
    liar.confirm()
    assert kinds(liar.say(liar.open(1))) == [wire.MaskedInput]
    before = len(liar.sent)
    liar.say(liar.confirmed(), liar.roster(), liar.recover({1}))
    liar.say(liar.roster(attempt=1))
    liar.say(liar.confirmed(), liar.recover({1}))
    assert kinds(liar.sent[before:]) == [wire.Confirm]
    assert liar.member.state is State.CONFIRMED


def test_rule_1_having_served_the_later_attempt_it_does_not_help_in_the_earlier(liar: LyingHead) -> None:
    liar.confirm()
    liar.say(liar.open(1), liar.roster(attempt=1), liar.confirmed(attempt=1))
    assert liar.say(liar.recover({1}), liar.confirmed(), liar.roster()) == []
    assert kinds(liar.say(liar.recover({1}, attempt=1))) == [wire.Partial]


@pytest.mark.parametrize("outcome", list(wire.Outcome))
@pytest.mark.parametrize("roster", [(0, 1, 2, 3, 4, 5), (1, 2, 3, 4, 5)], ids=["with us", "without us"])
@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
def test_rule_1_no_attempt_of_a_round_that_has_ended(
    liar: LyingHead, outcome: wire.Outcome, roster: tuple[int, ...], *, restart: bool
) -> None:
    """It had only shared, and its neighbours opened the sum by recovering it: another attempt would be a second one."""
    liar.share()
    liar.say(liar.result(0, outcome, roster))
    if restart:
        liar.boot()
        liar.offer()
    refuses(liar, liar.open(1), "already_served")


def test_rule_1_no_attempt_of_a_round_that_it_knows_to_have_ended_without_it(liar: LyingHead) -> None:
    liar.say(liar.open())  # held for want of a reading
    liar.say(liar.result(roster=(1, 2, 3, 4, 5)))
    assert liar.offer() == []
    refuses(liar, liar.open(1), "already_served")


def test_an_opening_of_a_later_round_outlives_the_result_of_an_earlier_one(liar: LyingHead) -> None:
    liar.say(liar.open(round_=2), liar.result(1))
    assert kinds(liar.offer(2)) == [wire.MaskedInput]


def test_what_a_deputy_opens_first(liar: LyingHead) -> None:
    assert liar.member.next_attempt == (0, 0)
    liar.share()
    assert liar.member.next_attempt == (0, 1)
    liar.say(liar.open(2))
    assert liar.member.next_attempt == (1, 0)  # there is no fourth attempt
    liar.say(liar.result(0, VOID))
    assert liar.member.next_attempt == (1, 0)
    liar.say(liar.result(4, VOID))
    assert liar.member.next_attempt == (5, 0)


def test_rule_1_the_next_round_is_another_matter(liar: LyingHead) -> None:
    liar.serve()
    liar.say(liar.result())
    liar.offer(1)
    assert kinds(liar.say(liar.open(round_=1))) == [wire.MaskedInput]


# --- rule 2: mask words only towards those outside the one roster, recovery only inside -------------------------


@pytest.mark.parametrize("gone", [(), (1,), (5,), (3,), (3, 5)])
def test_rule_2_confirm_gives_the_words_towards_the_dropped_neighbours_and_no_other(
    liar: LyingHead, gone: tuple[int, ...]
) -> None:
    liar.share()
    (confirm,) = liar.say(liar.roster(liar.everybody(*gone)))
    assert isinstance(confirm, wire.Confirm)
    neighbours = [i for i in gone if i != 3]
    expected = liar.masks.words(0, 0, bitmap(neighbours)).tobytes() if neighbours else b""
    assert confirm.dropped == expected
    assert len(confirm.macs) == 16 * (4 - len(neighbours))


def test_rule_2_nobody_outside_e_counts_as_dropped(liar: LyingHead) -> None:
    """Somebody who was not in E was never masked against: its words stay secret."""
    liar.share(expected=liar.everybody(1))
    (confirm,) = liar.say(liar.roster(liar.everybody(1)))
    assert isinstance(confirm, wire.Confirm)
    assert confirm.dropped == b""


def test_rule_2_no_words_towards_somebody_whom_it_confirmed(liar: LyingHead) -> None:
    liar.confirm()
    refuses(liar, liar.roster(liar.everybody(1)), "second_roster")


def test_rule_2_the_words_go_out_once(liar: LyingHead) -> None:
    liar.confirm(liar.everybody(1))
    assert liar.say(liar.roster(liar.everybody(1))) == []


def test_rule_2_no_recovery_of_somebody_outside_the_confirmed_roster(liar: LyingHead) -> None:
    liar.serve(liar.everybody(1))
    refuses(liar, liar.recover({1}), "not_in_roster")
    refuses(liar, liar.recover({1, 2}), "not_in_roster")
    refuses(liar, liar.recover({3, 1}), "not_in_roster")


def test_rule_2_no_recovery_of_itself(liar: LyingHead) -> None:
    liar.serve()
    refuses(liar, liar.recover({0}), "not_in_roster")
    refuses(liar, liar.recover({0, 1}), "not_in_roster")


def test_recovery_gives_one_provable_part_for_each_neighbour_once(liar: LyingHead) -> None:
    liar.serve()
    parts = liar.say(liar.recover({1, 3, 4}))  # 3 is no neighbour: there is no share of it to help with
    label = mask_label(liar.view, 0, 0)
    assert [p.silent for p in parts if isinstance(p, wire.Partial)] == [1, 4]
    for part in parts:
        assert isinstance(part, wire.Partial)
        assert (part.element, part.proof) == liar.secrets[0].partial(part.silent, label)
    assert liar.say(liar.recover({1, 4})) == []
    assert [p.silent for p in liar.say(liar.recover({4, 5})) if isinstance(p, wire.Partial)] == [5]


def test_a_dealer_that_never_dealt_is_named_when_it_needs_help(liar: LyingHead) -> None:
    del liar.secrets[0]._received[1]
    liar.serve()
    bad_deal = wire.BadDeal(liar.view.epoch, liar.view.ring, 1)
    answer = liar.say(liar.recover({1, 2}))
    assert answer[0] == bad_deal
    assert kinds(answer[1:]) == [wire.Partial]


def test_a_dealer_that_cheated_is_named_when_its_recovery_has_failed(liar: LyingHead) -> None:
    """A bad share gives a wrong part; whether it was bad is looked up once a round that needed it is void."""
    deals = liar.secrets[0]._received
    deals[1] = replace(deals[1], share=7)
    liar.serve()
    assert kinds(liar.say(liar.recover({1, 2}))) == [wire.Partial, wire.Partial]
    assert liar.say(liar.result(0, VOID)) == [wire.BadDeal(liar.view.epoch, liar.view.ring, 1)]
    assert liar.say(liar.result(0, VOID)) == []


def test_nobody_is_accused_after_a_round_that_opened(liar: LyingHead) -> None:
    deals = liar.secrets[0]._received
    deals[1] = replace(deals[1], share=7)
    liar.serve()
    liar.say(liar.recover({1, 2}))
    assert liar.say(liar.result()) == []


# --- rule 3: nothing is revealed before t_c neighbours confirmed the very same ----------------------------------

PART = (0, 2, 3, 4, 5)  # a roster that leaves three of our neighbours


def test_rule_3_as_many_confirmations_as_the_threshold_are_enough(liar: LyingHead) -> None:
    liar.confirm()
    (reveal,) = liar.say(liar.confirmed({1, 2, 4}))
    label = mask_label(liar.view, 0, 0)
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


def test_rule_3_a_restarted_member_neither_reveals_nor_helps_in_the_old_attempt(liar: LyingHead) -> None:
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


def test_rule_4_one_e_for_one_attempt_after_a_restart(liar: LyingHead) -> None:
    liar.share()
    liar.boot()
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
    assert liar.carry_out(liar.member.appointed(2, 0.0)) == [wire.Ready(liar.view.epoch, liar.view.ring, 2, 0, 0)]
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


# --- rule 5: durable before it leaves, and resumed from there -----------------------------------------------------


def test_rule_5_a_share_is_durable_before_it_leaves(liar: LyingHead) -> None:
    liar.offer()
    first, second = liar.member.receive(liar.open(), 0.0)
    assert first == Persist(Attempted(0, 0, Progress.SHARED))
    assert isinstance(second, ToHead)
    assert isinstance(second.message, wire.MaskedInput)


def test_rule_5_a_reveal_is_durable_before_it_leaves(liar: LyingHead) -> None:
    liar.confirm()
    first, second = liar.member.receive(liar.confirmed(), 0.0)
    assert first == Persist(Attempted(0, 0, Progress.SERVED))
    assert isinstance(second, ToHead)
    assert isinstance(second.message, wire.Reveal)


@pytest.mark.parametrize("sent", [False, True], ids=["killed before sending", "killed after sending"])
def test_rule_5_killed_around_the_share(liar: LyingHead, *, sent: bool) -> None:
    """The same attempt is never shared again, under this or another E; the next attempt is."""
    liar.offer()
    liar.carry_out(liar.member.receive(liar.open(), 0.0), stop_before=2 if sent else 1)
    liar.boot()
    assert liar.member.unsettled == 0
    liar.offer()
    refuses(liar, liar.open(), "stale_attempt")
    refuses(liar, liar.open(expected=PART), "stale_attempt")
    assert kinds(liar.say(liar.open(1))) == [wire.MaskedInput]
    assert [type(each) for each in liar.sent].count(wire.MaskedInput) == 1 + sent


def test_rule_5_killed_before_the_share_was_durable(liar: LyingHead) -> None:
    """Nothing has left: it is as if the OPEN had never come, and the attempt is still to be had, once."""
    liar.offer()
    assert liar.carry_out(liar.member.receive(liar.open(), 0.0), stop_before=0) == []
    liar.boot()
    assert liar.member.unsettled is None
    liar.offer()
    assert kinds(liar.say(liar.open())) == [wire.MaskedInput]


@pytest.mark.parametrize("sent", [False, True], ids=["killed before sending", "killed after sending"])
def test_rule_5_killed_around_the_reveal(liar: LyingHead, *, sent: bool) -> None:
    liar.confirm()
    liar.carry_out(liar.member.receive(liar.confirmed(), 0.0), stop_before=2 if sent else 1)
    liar.boot()
    liar.offer()
    refuses(liar, liar.open(1), "already_served")
    assert liar.say(liar.roster(), liar.confirmed(), liar.recover({1})) == []
    assert [type(each) for each in liar.sent].count(wire.Reveal) == sent


def test_rule_5_killed_before_the_reveal_was_durable(liar: LyingHead) -> None:
    """Nothing was revealed, so the next attempt may be served, and the old one may not any more."""
    liar.confirm()
    assert liar.carry_out(liar.member.receive(liar.confirmed(), 0.0), stop_before=0) == []
    liar.boot()
    liar.offer()
    assert liar.say(liar.roster(), liar.confirmed()) == []
    liar.say(liar.open(1), liar.roster(attempt=1))
    assert kinds(liar.say(liar.confirmed(attempt=1))) == [wire.Reveal]


def test_rule_5_the_result_is_durable_before_anything_else(liar: LyingHead) -> None:
    liar.confirm()
    assert liar.member.receive(liar.result(roster=(1, 2, 3, 4, 5)), 0.0) == [
        Persist(Settled(0, included=False)),
        ToHead(wire.Ready(liar.view.epoch, liar.view.ring, 0, 1, 0)),
    ]


def test_rule_5_the_next_contribution_waits_for_the_last_ones_result(liar: LyingHead) -> None:
    """Its energy is counted from the last opened one: which that is, is not known yet."""
    liar.share()
    with pytest.raises(LocalProtocolError, match="not settled"):
        liar.offer(1)
    ask = wire.RoundStatusRequest(liar.view.epoch, liar.view.ring, 0)
    assert liar.say(liar.open(round_=1)) == [ask]
    liar.boot()
    with pytest.raises(LocalProtocolError, match="not settled"):
        liar.offer(1)
    assert liar.say(liar.open(round_=1)) == [ask]
    assert liar.say(liar.result()) == []
    assert kinds(liar.offer(1)) == [wire.MaskedInput]


@pytest.mark.parametrize(
    ("outcome", "roster", "included"),
    [
        (wire.Outcome.OPENED, (0, 1, 2, 3), True),
        (wire.Outcome.OPENED, (1, 2, 3, 4), False),
        (VOID, (), False),
    ],
)
def test_a_result_settles_the_contribution_once(
    liar: LyingHead, outcome: wire.Outcome, roster: Collection[int], *, included: bool
) -> None:
    liar.confirm()
    liar.say(liar.result(0, outcome, roster))
    assert liar.records[-1] == Settled(0, included)
    assert (liar.member.state, liar.member.unsettled) == (State.WAITING, None)
    count = len(liar.records)
    liar.say(liar.result(0, outcome, roster))
    assert len(liar.records) == count


def test_a_void_round_counts_nobody_whatever_its_roster_says(liar: LyingHead) -> None:
    liar.confirm()
    text = result_text(liar.view, 0, VOID, liar.view.everybody)
    full = liar.view.to_wire(liar.view.everybody)
    signature = liar.ledger_secrets.sign(text)
    liar.say(wire.Result(liar.view.epoch, liar.view.ring, 0, VOID, full, signature))
    assert liar.records[-1] == Settled(0, included=False)


@pytest.mark.parametrize(
    "bend",
    [
        lambda result: replace(result, outcome=2),
        lambda result: replace(result, roster=b"\x3e"),
        lambda result: replace(result, round=1),
        lambda result: replace(result, signature=bytes(64)),
    ],
)
def test_a_head_cannot_bend_a_result(liar: LyingHead, bend: Callable[[wire.Result], wire.Result]) -> None:
    liar.serve()
    refuses(liar, bend(liar.result()), "forged_result")


def test_the_result_of_another_round_does_not_end_this_one(liar: LyingHead) -> None:
    liar.offer(1)
    liar.say(liar.open(round_=1))
    assert liar.say(liar.result(0)) == []
    assert (liar.member.state, liar.member.unsettled) == (State.SHARED, 1)
    assert kinds(liar.say(liar.result(0, roster=(1, 2, 3, 4)))) == [wire.Ready]
    assert liar.member.state is State.SHARED


# --- rule 6: every wait has a deadline, and nothing a peer says takes memory without a bound -----------------------


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
    ask, ready = wire.RoundStatusRequest(view.epoch, view.ring, 0), wire.Ready(view.epoch, view.ring, 0, 0, 1)
    silent = wire.HeadSilent(view.epoch, view.ring, 0, 0)
    liar.share()
    assert liar.carry_out(liar.member.on_timer(SILENT_S)) == [ask, silent, ready]
    assert liar.member.next_timer_s() == 2 * SILENT_S
    assert liar.carry_out(liar.member.on_timer(2 * SILENT_S)) == [ask, ready]
    assert liar.carry_out(liar.member.on_timer(10.0)) == [ask, wire.HeadSilent(view.epoch, view.ring, 0, 1), ready]
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


# --- the table: what is not in it changes nothing -----------------------------------------------------------------

LEADS: dict[State, Callable[[LyingHead], object]] = {
    State.WAITING: lambda liar: liar.offer(),
    State.SHARED: lambda liar: liar.share(),
    State.CONFIRMED: lambda liar: liar.confirm(),
    State.SERVED: lambda liar: liar.serve(),
}
SAYINGS: dict[type[wire.Message], Callable[[LyingHead], wire.RingMessage]] = {
    wire.Open: lambda liar: liar.open(1),
    wire.Roster: lambda liar: liar.roster(),
    wire.Confirmed: lambda liar: liar.confirmed(),
    wire.Recover: lambda liar: liar.recover({1}),
    wire.Result: lambda liar: liar.result(),
}


@pytest.mark.parametrize(
    ("state", "kind"), [pair for pair in product(State, SAYINGS) if pair not in TRANSITIONS], ids=str
)
def test_what_the_table_does_not_name_changes_nothing(liar: LyingHead, state: State, kind: type[wire.Message]) -> None:
    LEADS[state](liar)
    before = snapshot(liar.member)
    assert liar.member.receive(SAYINGS[kind](liar), 1.0) == [Note("member_message_out_of_season")]
    assert snapshot(liar.member) == before


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(
    "message",
    [
        wire.Ready(1, 0, 0, 0, 0),
        wire.MaskedInput(1, 0, 0, 0, bytes(32), bytes(16), b"", b"", b""),
        wire.Confirm(1, 0, 0, 0, b"", b"", b""),
        wire.Reveal(1, 0, 0, 0, bytes(32)),
        wire.Partial(1, 0, 0, 0, 1, bytes(32), bytes(64)),
        wire.BadDeal(1, 0, 1),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_members_say_is_not_for_members(liar: LyingHead, state: State, message: wire.RingMessage) -> None:
    LEADS[state](liar)
    refuses(liar, message, "message_not_allowed")


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("change", [{"epoch": 2}, {"ring": 1}], ids=str)
def test_another_epochs_or_rings_message(liar: LyingHead, state: State, change: dict[str, int]) -> None:
    LEADS[state](liar)
    for make in SAYINGS.values():
        message: Any = make(liar)
        refuses(liar, replace(message, **change), "wrong_ring")


@pytest.mark.parametrize("other", [{"round_": 1}, {"attempt": 1}], ids=str)
def test_what_is_about_another_attempt_is_out_of_season(liar: LyingHead, other: dict[str, Any]) -> None:
    liar.share()
    assert liar.say(liar.roster(**other)) == []
    liar.say(liar.roster())
    assert liar.say(liar.confirmed(**other)) == []
    liar.say(liar.confirmed())
    assert liar.say(liar.recover({1}, **other)) == []
    assert liar.notes == ["member_message_out_of_season"] * 3


def test_the_table_is_enforced(liar: LyingHead, monkeypatch: pytest.MonkeyPatch) -> None:
    opening: tuple[State, type[wire.RingMessage]] = (State.WAITING, wire.Open)
    monkeypatch.setitem(member.TRANSITIONS, opening, (State.WAITING,))
    liar.offer()
    with pytest.raises(InvariantError, match="Open led to shared") as caught:
        liar.say(liar.open())
    (note,) = caught.value.__notes__
    document = json.loads(note.partition(": ")[2])
    assert (document["machine"], document["position"], document["ring"]["n"]) == ("member", 0, 6)
    assert document["events"][-1]["after"] == "shared"


def test_every_transition_of_the_table_happens() -> None:
    """The diagram in the documentation is drawn from the table: it may not promise what never comes."""
    seen: set[tuple[State, type[wire.Message], State]] = set()

    def step(liar: LyingHead, message: wire.RingMessage) -> None:
        before = liar.member.state
        with suppress(RemoteProtocolError):
            liar.say(message)
        seen.add((before, type(message), liar.member.state))

    makes: list[Callable[[LyingHead], wire.RingMessage]] = [
        *SAYINGS.values(),
        lambda liar: liar.open(round_=1),
        lambda liar: liar.roster(round_=1),
        lambda liar: liar.confirmed(round_=1),
        lambda liar: liar.result(5),
    ]
    for state in State:
        for make in makes:
            liar = LyingHead(SUITE)
            LEADS[state](liar)
            step(liar, make(liar))
    liar = LyingHead(SUITE)
    step(liar, liar.open())
    table = {
        (state, kind, after)
        for (state, kind), afters in TRANSITIONS.items()
        for after in afters
        if isinstance(kind, type)
    }
    assert {each for each in seen if each[0] is not each[2]} <= table
    assert table <= seen


# --- the share itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [None, PART, (0, 1, 2, 4)])
@pytest.mark.parametrize("attempt", [0, 1])
def test_a_share_is_the_reading_under_both_kinds_of_masks(
    liar: LyingHead, expected: Collection[int] | None, attempt: int
) -> None:
    liar.offer()
    (share,) = liar.say(liar.open(attempt, expected))
    assert isinstance(share, wire.MaskedInput)
    label = mask_label(liar.view, 0, attempt)
    seed = prf.mask_seed(liar.secrets[0].evaluate(label), label)
    others = liar.view.everybody if expected is None else bitmap(list(expected))
    masked = words_from_bytes(share.vector) - liar.masks.words(0, attempt, others) - self_mask(SUITE, seed, 4)
    assert masked.tolist() == liar.vector().tolist()
    assert (share.commitments, share.blinding, share.attestation) == (b"", b"", b"")


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
    assert len(bindings[0]) == 16


def test_ready_says_which_attempt_is_next(liar: LyingHead) -> None:
    view = liar.view
    liar.share()
    ready = wire.Ready(view.epoch, view.ring, 3, 0, 1)
    assert liar.carry_out(liar.member.appointed(3, 0.0)) == [ready]
    assert ready in liar.carry_out(liar.member.on_timer(9.0))
    liar.say(liar.result(0, roster=(1, 2, 3, 4, 5)))
    assert liar.sent[-1] == replace(ready, round=1, attempt=0)


def test_a_share_with_committed_slots() -> None:
    liar = LyingHead(SUITE, replace(SMALL, committed=(1, 3)))
    vector = np.array([1, 5, 6, 2**64 - 7], dtype=np.uint64)
    liar.carry_out(liar.member.offer(0, vector, 0.0, (11, 12)))
    (share,) = liar.say(liar.open())
    assert isinstance(share, wire.MaskedInput)
    pedersen = Pedersen(SUITE.group)
    assert share.commitments == pedersen.commit(5, 11) + pedersen.commit(-7, 12)
    key = liar.ledger_secrets.member_key(liar.view, 0)
    assert share.attestation == SUITE.mac(key, attestation_text(liar.view, 0, 0, 0, share.commitments))
    label = mask_label(liar.view, 0, 0)
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
    assert again.attestation == SUITE.mac(key, attestation_text(liar.view, 0, 1, 0, share.commitments))


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
        assert liar.say(liar.open(round_=int(late) + 1)) == [
            wire.RoundStatusRequest(liar.view.epoch, liar.view.ring, round_)
        ]
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


# --- borders: each of these was once a mutant that nothing noticed -------------------------------------------------


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


def test_the_seed_is_made_when_the_reading_comes_and_not_again_at_the_opening(
    liar: LyingHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []
    evaluate = liar.secrets[0].evaluate
    monkeypatch.setattr(liar.secrets[0], "evaluate", lambda label: made.append(label) or evaluate(label))
    labels = [mask_label(liar.view, 0, attempt) for attempt in range(3)]
    liar.offer()
    assert made == labels[:1]
    liar.say(liar.open())
    assert made == labels[:1]
    liar.boot()
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
    label = mask_label(liar.view, 0, 0)
    seed = prf.mask_seed(liar.secrets[0].evaluate(label), label)
    bare = words_from_bytes(share.vector) - liar.masks.words(0, 0, liar.view.everybody) - self_mask(SUITE, seed, 4)
    assert bare.tolist() == liar.vector().tolist()


def test_who_copies_a_member_gets_the_same_share_from_either(liar: LyingHead) -> None:
    """The mask that was made ahead is in both: a share is a new array, and the mask stays as it was."""
    liar.offer()
    twin = copy(liar.member)
    assert twin.receive(liar.open(), 0.0) == liar.member.receive(liar.open(), 0.0)
    assert twin.receive(liar.open(1), 0.0) == liar.member.receive(liar.open(1), 0.0)
    liar.offer()
    assert liar.member._precomputed_mask is not None
    with pytest.raises(ValueError, match="read-only"):
        liar.member._precomputed_mask[2][0] = 1


def test_just_before_the_first_round_nobody_is_late(liar: LyingHead) -> None:
    liar.share()
    assert kinds(liar.carry_out(liar.boot().on_timer(-5.0))) == []
    liar.carry_out(liar.member.appointed(0, -30.0))
    assert kinds(liar.carry_out(liar.member.on_timer(-5.0))) == [wire.RoundStatusRequest]


def test_a_late_round_is_settled_and_tried_again_by_its_number() -> None:
    liar = LyingHead(SUITE, replace(SMALL, rounds=2000))
    liar.offer(int("1000"))
    liar.say(liar.open(round_=int("1000")))
    liar.boot()
    liar.offer(int("1000"))
    assert kinds(liar.say(liar.open(1, round_=int("1000")))) == [wire.MaskedInput]
    liar.say(liar.result(int("1000")))
    assert liar.member.state is State.WAITING


def test_before_the_first_round_the_wait_is_for_the_first(liar: LyingHead) -> None:
    liar.carry_out(liar.member.appointed(0, -30.0))
    assert liar.member.next_timer_s() == SILENT_S
