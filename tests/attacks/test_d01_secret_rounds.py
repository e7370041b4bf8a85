"""D1: results told ahead of time and rosters around those that served, to make rounds opened in secret look empty."""

import pytest

from loadtest.lying_head import LyingHead, refuses
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.setup.rings import bitmap
from tests.attacks.test_d01_rosters import DAY, OPENED, VOID, Counting


@pytest.mark.parametrize("ahead", [1, 2, 50, 95])
def test_an_end_that_no_history_counts_yet_does_not_clear_v(ahead: int) -> None:
    """
    The coordinator signs the end of a round that is still to come: in no h_q before that, so nobody notices.

    A helper that believes it accepts a V without itself; with all helpers told so, a head takes its victim out of
    rounds and in again for nothing.
    """
    helper = LyingHead(CheapSuite(), DAY)
    helper.serve()
    helper.say(helper.result(ahead, OPENED))  # while it serves: its own round goes on
    helper.say(helper.result(0, VOID))  # a round that was opened in secret
    helper.offer(1)
    refuses(helper, helper.open(round_=1, served=[1, 2], settled=1), "served_left_out")


def test_an_end_beyond_what_the_open_counts_does_not_clear_v() -> None:
    """Each member may be told another end of a round that none of them was in, as long as no OPEN counts it."""
    helper = LyingHead(CheapSuite(), DAY)
    helper.serve()
    helper.say(helper.result(0, VOID), helper.result(1, OPENED, [1, 2, 3, 4, 5]))
    helper.offer(2)
    refuses(helper, helper.open(round_=2, served=[1, 2], settled=1), "served_left_out")
    assert helper.say(helper.open(round_=2, served=[], settled=2))


def test_members_outside_e_may_be_those_that_opened_the_round_in_secret() -> None:
    """V binds those in E alone: whoever served and is not in E can be left out of it, and counts as if in V."""
    for expected, served, is_paid in [
        ([0, 1, 2, 3, 4, 5], [], False),
        ([0, 1, 2, 3, 4, 5], [1, 2], False),
        ([0, 1, 2, 3, 5], [1, 2], True),  # 1, 2 and 4 are t
        ([0, 1, 2, 5], [1], True),  # 1, 3 and 4
        ([0, 1, 2, 5], [], False),
    ]:
        liar = Counting()
        assert liar.round(0)
        liar.ends(0, OPENED)
        liar.ends(1, VOID)
        liar.offered(2)
        assert liar.say(liar.open(round_=2, expected=expected, served=served))
        assert (liar.paid == [0, 2]) is is_paid, (expected, served)


def test_a_process_that_was_started_anew_remembers_that_it_served() -> None:
    """Between void rounds: until its history says that a round was opened since, V has to name it."""
    liar = Counting()
    assert liar.round(0)
    liar.ends(0, VOID)
    liar.boot(1)
    liar.ends(0, VOID)
    assert liar.member.has_served
    liar.offered(1)
    refuses(liar, liar.open(round_=1, served=[1]), "served_left_out")
    assert any(isinstance(each, wire.MaskedInput) for each in liar.say(liar.open(round_=1, served=[0])))
    assert bitmap([0]) == liar.served


def test_a_process_started_anew_judges_v_by_the_ends_that_the_open_counts() -> None:
    """It does not know yet how the round ended that the process before it served: neither refused nor shared in."""
    for end in (OPENED, VOID):
        liar = Counting()
        assert liar.round(0)
        liar.ends(0, end)
        liar.boot(1)
        assert not liar.member.has_served
        liar.offered(1)
        assert not any(
            isinstance(each, wire.MaskedInput) for each in liar.say(liar.open(round_=1, served=[], settled=1))
        )
        liar.ends(0, end)
        shared = [each for each in liar.sent if isinstance(each, wire.MaskedInput) and each.round == 1]
        assert bool(shared) is (end is OPENED)
        assert ("served_left_out" in liar.notes) is (end is VOID)
