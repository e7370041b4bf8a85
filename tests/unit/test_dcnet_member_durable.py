"""
Rule 5 of protocol.md, section 7: what leaves is durable before, and a restarted member goes on from there.

The member sits at position 0 of a ring of six; its neighbours are 1, 2, 4 and 5, and 3 is none.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest

from loadtest.lying_head import LyingHead, kinds, refuses
from loadtest.ring import ready
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines.effects import Attempted, Persist, Progress, Settled, ToHead
from protocol.dcnet.machines.member_attempt import Resume
from protocol.dcnet.machines.member_states import State
from protocol.dcnet.setup.rings import result_text
from protocol.errors import LocalProtocolError

SUITE = CheapSuite()
PART = (0, 2, 3, 4, 5)  # a roster that leaves three of our neighbours
VOID = wire.Outcome.VOID


@pytest.fixture
def liar() -> LyingHead:
    return LyingHead(SUITE)


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
    """The same attempt is never shared again, nor is any other of its round."""
    liar.offer()
    liar.carry_out(liar.member.receive(liar.open(), 0.0), stop_before=2 if sent else 1)
    liar.boot()
    assert liar.member.unsettled == 0
    liar.offer()
    refuses(liar, liar.open(), "stale_attempt")
    refuses(liar, liar.open(expected=PART), "stale_attempt")
    refuses(liar, liar.open(1), "already_served")
    assert [type(each) for each in liar.sent].count(wire.MaskedInput) == sent


@pytest.mark.parametrize("sent", [False, True], ids=["failed before sending", "failed after sending"])
def test_rule_5_the_same_process_shares_in_the_next_attempt_again(liar: LyingHead, *, sent: bool) -> None:
    """Its machine was made anew after a failed write; its masks are its own, and used once for each attempt."""
    liar.offer()
    liar.carry_out(liar.member.receive(liar.open(), 0.0), stop_before=2 if sent else 1)
    liar.make()
    assert liar.member.unsettled == 0
    liar.offer()
    refuses(liar, liar.open(), "stale_attempt")
    refuses(liar, liar.open(expected=PART), "stale_attempt")
    assert kinds(liar.say(liar.open(1))) == [wire.MaskedInput]
    assert [type(each) for each in liar.sent].count(wire.MaskedInput) == 1 + sent


def test_rule_5_a_process_masks_an_attempt_once_whatever_its_store_says(liar: LyingHead) -> None:
    """The store was put back under the running process: what it has used is in its memory."""
    liar.share()
    liar.durable = Resume()
    liar.make()
    assert liar.member.unsettled is None
    liar.offer()
    refuses(liar, liar.open(), "stale_attempt")
    refuses(liar, liar.open(expected=PART), "stale_attempt")


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
    liar.make()
    liar.offer()
    assert liar.say(liar.roster(), liar.confirmed()) == []
    liar.say(liar.open(1), liar.roster(attempt=1))
    assert kinds(liar.say(liar.confirmed(attempt=1))) == [wire.Reveal]


def test_rule_5_the_result_is_durable_before_anything_else(liar: LyingHead) -> None:
    liar.confirm()
    assert liar.member.receive(liar.result(roster=(1, 2, 3, 4, 5)), 0.0) == [
        Persist(Settled(0, included=False)),
        ToHead(ready(liar.view, 0, round_=1, history=liar.member.history)),
    ]


def test_rule_5_the_next_contribution_waits_for_the_last_ones_result(liar: LyingHead) -> None:
    """Its energy is counted from the last opened one: which that is, is not known yet."""
    liar.share()
    with pytest.raises(LocalProtocolError, match="not settled"):
        liar.offer(1)
    ask = wire.RoundStatusRequest(liar.view.epoch, liar.view.ring, 0)
    assert kinds(liar.say(liar.open(round_=1, settled=1))) == [wire.Ready]
    assert liar.carry_out(liar.member.receive(liar.result(), 0.0), stop_before=0) == []
    liar.make()  # the result's record failed, and the process knows the history
    assert liar.say(liar.open(round_=1)) == [ask]
    liar.boot()
    with pytest.raises(LocalProtocolError, match="not settled"):
        liar.offer(1)
    assert kinds(liar.say(liar.open(round_=1, settled=1))) == [wire.Ready]
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
    assert kinds(liar.say(liar.result(2, roster=(1, 2, 3, 4)))) == [wire.Ready]
    assert liar.member.state is State.SHARED
