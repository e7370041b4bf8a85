"""
Rules 1 and 2 of protocol.md, section 7: one attempt of a round is served, and only the dropped are given away.

The member sits at position 0 of a ring of six; its neighbours are 1, 2, 4 and 5, and 3 is none.
"""

from dataclasses import replace

import pytest

from loadtest.lying_head import LyingHead, kinds, refuses
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines.member_states import State
from protocol.dcnet.setup.rings import bitmap

SUITE = CheapSuite()
VOID = wire.Outcome.VOID


@pytest.fixture
def liar() -> LyingHead:
    return LyingHead(SUITE)


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


def test_rule_1_after_sharing_in_the_next_attempt_no_earlier_reveal(liar: LyingHead) -> None:
    liar.confirm()
    assert kinds(liar.say(liar.open(1))) == [wire.MaskedInput]
    before = len(liar.sent)
    liar.say(liar.confirmed(), liar.roster(), liar.recover({1}))
    liar.say(liar.roster(attempt=1))
    liar.say(liar.confirmed(), liar.recover({1}))
    assert kinds(liar.sent[before:]) == [wire.Confirm]
    assert liar.member.state is State.CONFIRMED


def test_rule_1_after_serving_the_later_attempt_no_help_in_the_earlier(liar: LyingHead) -> None:
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
def test_rule_2_confirm_gives_words_towards_dropped_neighbours_alone(liar: LyingHead, gone: tuple[int, ...]) -> None:
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
    assert [p.silent for p in parts if isinstance(p, wire.Partial)] == [1, 4]
    for part in parts:
        assert isinstance(part, wire.Partial)
        assert (part.element, part.proof) == liar.secrets[0].partial(part.silent, liar.label(part.silent))
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
