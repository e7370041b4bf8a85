"""One history of a ring's rounds: what is kept of it, what a member refuses, how a head brings everybody up to date."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.lying_head import LyingHead, kinds, refuses
from loadtest.ring import LocalRing, RingSize, knowing, ledger_secrets, opening, random_vectors, ready
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.machines.effects import EpochRefused, Note, Persist, ToCoordinator, ToMember
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.head_states import State
from protocol.dcnet.machines.history import History
from protocol.dcnet.machines.ledger import HISTORY_MAX, RoundLedger
from protocol.errors import RemoteProtocolError

SUITE = CheapSuite()
SEVEN = RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=5, rounds=8)
VIEW = LocalRing(SUITE, SEVEN).view
OPENED, VOID = wire.Outcome.OPENED, wire.Outcome.VOID


@pytest.fixture
def liar() -> LyingHead:
    return LyingHead(SUITE)


def end(round_: int, outcome: wire.Outcome = VOID, roster: int = 0, signature: bytes = bytes(64)) -> wire.Result:
    return wire.Result(VIEW.epoch, VIEW.ring, round_, outcome, VIEW.to_wire(roster), signature)


# --- the history -----------------------------------------------------------------------------------------------------


@given(st.permutations(range(8)), st.lists(st.integers(0, 2**7 - 1), min_size=8, max_size=8))
def test_in_whatever_order_the_ends_come_the_history_is_one(order: list[int], rosters: list[int]) -> None:
    ends = [
        end(round_, OPENED if roster else VOID, roster, bytes([round_]) * 64) for round_, roster in enumerate(rosters)
    ]
    straight, mixed = History(VIEW), History(VIEW)
    hashes = {straight.hash(0)}
    for each in ends:
        assert straight.add(each) is None
        hashes.add(straight.hash(straight.settled))
    for round_ in order:
        assert mixed.add(ends[round_]) is None
        assert mixed.add(ends[round_]) is None
    assert mixed.settled == straight.settled == 8
    assert [mixed.hash(q) for q in range(9)] == [straight.hash(q) for q in range(9)]
    assert len(hashes) == 9
    assert list(mixed.since(2, 20)) == ends[2:]
    assert mixed.ends == [(each.outcome, each.roster.hex()) for each in ends]
    assert mixed.leaf == straight.leaf != mixed.hash(8)


@pytest.mark.parametrize("early", [False, True], ids=["in its turn", "before its turn"])
@pytest.mark.parametrize("other", [end(1, OPENED, 0b11111), end(1, VOID, 1)], ids=["outcome", "roster"])
def test_another_end_of_a_round_is_seen(other: wire.Result, *, early: bool) -> None:
    history = History(VIEW)
    if not early:
        history.add(end(0))
    history.add(end(1))
    before = history.settled, history.hash(history.settled)
    assert history.add(other) == end(1)
    assert (history.settled, history.hash(history.settled)) == before
    assert history.add(end(1, signature=b"s" * 64)) is None  # signed anew, the end is the same


def test_what_every_end_says_is_in_the_hash() -> None:
    hashes = set()
    for first in (end(0), end(0, OPENED, 3), end(0, OPENED, 5), end(0, VOID, 3)):
        history = History(VIEW)
        history.add(first)
        hashes.add(history.hash(1))
    hashes.add(History(replace(VIEW, epoch=2)).hash(0))
    hashes.add(History(VIEW).hash(0))
    assert len(hashes) == 6


def test_the_leaf_is_there_once_every_round_has_ended() -> None:
    assert knowing(VIEW, 7).history.leaf is None
    leaves = set()
    for last in (end(7), end(7, OPENED, 0b11111)):
        history = knowing(VIEW, 7).history
        history.add(last)
        leaves.add(history.leaf)
    assert len(leaves - {None}) == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(end(8), "no_such_round"), (replace(end(0), roster=b"\0\0"), "bad_bitmap")],
    ids=["round", "roster"],
)
def test_no_end_of_another_form_is_kept(bad: wire.Result, reason: str) -> None:
    history = History(VIEW)
    with pytest.raises(RemoteProtocolError) as caught:
        history.add(bad)
    assert (caught.value.reason, history.settled) == (reason, 0)


# --- the member ------------------------------------------------------------------------------------------------------


def test_a_member_waits_for_the_ends_that_it_lacks_and_says_so(liar: LyingHead) -> None:
    liar.offer(2)
    (again,) = liar.say(liar.open(round_=2, settled=2))
    assert isinstance(again, wire.Ready)
    assert again.settled == 0
    assert liar.say(liar.result(1, VOID)) == []
    assert kinds(liar.say(liar.result(0, VOID))) == [wire.MaskedInput]
    assert liar.member.current.terms.settled == 2


def test_rule_7_the_end_of_a_round_we_contributed_to_counts(liar: LyingHead) -> None:
    liar.serve()
    liar.say(liar.result())
    liar.offer(1)
    refuses(liar, liar.open(round_=1, settled=0), "old_history")
    assert kinds(liar.say(liar.open(round_=1, settled=1))) == [wire.MaskedInput]


def test_rule_7_also_after_a_restart(liar: LyingHead) -> None:
    liar.serve()
    liar.say(liar.result())
    liar.boot()
    liar.offer(1)
    refuses(liar, liar.open(round_=1, settled=0), "old_history")


def test_rule_7_ends_of_rounds_that_we_were_not_in_may_be_left_out(liar: LyingHead) -> None:
    """They say nothing of us; a head that has not heard of them opens its round all the same."""
    for round_ in range(3):
        liar.say(liar.result(round_, roster=(1, 2, 3, 4, 5)))
    liar.offer(3)
    assert kinds(liar.say(liar.open(round_=3, settled=1))) == [wire.MaskedInput]
    assert kinds(liar.say(liar.open(1, round_=3, settled=2))) == [wire.MaskedInput]


def test_rule_7_a_later_attempt_counts_no_less_than_the_first_had_to(liar: LyingHead) -> None:
    liar.serve()
    liar.say(liar.result())
    liar.offer(1)
    liar.say(liar.open(round_=1, settled=1))
    refuses(liar, liar.open(1, round_=1, settled=0), "old_history")
    liar.make()
    liar.offer(1)
    refuses(liar, liar.open(1, round_=1, settled=0), "old_history")
    assert kinds(liar.say(liar.open(1, round_=1, settled=1))) == [wire.MaskedInput]


def test_an_attempt_at_a_round_that_has_ended_is_refused(liar: LyingHead) -> None:
    liar.offer()
    refuses(liar, liar.open(settled=1), "old_history")


def test_the_mask_that_is_made_ahead_is_for_the_newest_history(
    liar: LyingHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []
    evaluate = liar.secrets[0].evaluate
    monkeypatch.setattr(liar.secrets[0], "evaluate", lambda label: made.append(label) or evaluate(label))
    liar.say(liar.result(0, VOID))
    liar.offer(1)
    assert kinds(liar.say(liar.open(round_=1, settled=1))) == [wire.MaskedInput]
    assert len(made) == 1
    liar.say(liar.open(1, round_=1, settled=0))  # another q costs one more evaluation
    assert len(made) == len(set(made)) == 2


@pytest.mark.parametrize("lead", ["offer", "share", "confirm", "serve"])
def test_two_signed_ends_of_a_round_end_the_epoch_for_the_member(liar: LyingHead, lead: str) -> None:
    getattr(liar, lead)()
    opened, void = liar.result(), liar.result(0, VOID)
    liar.say(opened)
    effects = liar.member.receive(void, 1.0)
    assert effects[0] == Persist(EpochRefused(opened, void))
    assert isinstance(effects[1], ToCoordinator)
    proof = effects[1].message
    assert isinstance(proof, wire.TwoResults)
    assert (proof.first[0], proof.second[0], proof.round) == (OPENED, VOID, 0)
    for outcome, roster, signature in (proof.first, proof.second):
        again = wire.Result(proof.epoch, proof.ring, proof.round, outcome, roster, signature)
        assert again in (opened, void)
    assert liar.member.is_out
    assert liar.say(liar.open(1), liar.roster(), liar.result(1, VOID)) == []
    assert liar.carry_out(liar.member.appointed(1, 2.0)) == []
    if liar.member.unsettled in {None, 1}:
        assert liar.offer(1) == []
    assert liar.member.next_timer_s() == float("inf")
    assert liar.member.on_timer(1e9) == []


def test_confirmations_under_another_history_do_not_count(liar: LyingHead) -> None:
    liar.say(liar.result(0, VOID))
    liar.offer(1)
    liar.say(liar.open(round_=1), liar.roster(round_=1))
    current = liar.member.current
    others = replace(current.terms, history=b"\7" * 32)
    liar.member.current = replace(current, terms=others)
    forged = liar.confirmed(round_=1)
    liar.member.current = current
    refuses(liar, forged, "too_few_confirmations")


# --- the head --------------------------------------------------------------------------------------------------------


def play(ring: LocalRing, round_: int) -> None:
    ended = ring.round(round_, random_vectors(np.random.default_rng(round_), 7, 4))
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)


def test_a_restarted_member_hears_of_every_round_before_the_next_opens() -> None:
    ring = LocalRing(SUITE, SEVEN)
    for round_ in range(3):
        play(ring, round_)
    told: list[int] = []
    ring.trace = lambda to, who, message: (
        told.append(message.round) if (to, who) == ("member", "4") and isinstance(message, wire.Result) else None
    )
    ring.restart(4)
    play(ring, 3)
    assert told == [0, 1, 2, 3]
    assert ring.members[4].history.settled == 4
    assert len({each.history.hash(4) for each in ring.members}) == 1


def test_a_new_head_asks_the_ledger_for_what_it_does_not_know() -> None:
    """Head and deputy are started anew: the third round is opened with all three ends before it."""
    ring = LocalRing(SUITE, SEVEN)
    for round_ in range(3):
        play(ring, round_)
    ring.restart(1, None)
    ring.from_ledger(ring.ledger._next_term(ring.now_s))
    ring._run()
    said: list[wire.Message] = []
    ring.trace = lambda _to, _who, message: said.append(message)
    play(ring, 3)
    assert [each for each in said if isinstance(each, wire.HistoryRequest)] == [wire.HistoryRequest(1, 0, 0)]
    assert all(each.settled == 3 for each in said if isinstance(each, wire.Open))


def test_a_head_that_hears_nothing_opens_late_with_what_it_knows() -> None:
    head = Head(SUITE, VIEW, 0, 30.0)
    for position in range(7):
        out = head.receive(position, ready(VIEW, position), 30.0)
    asks = [ToCoordinator(wire.HistoryRequest(1, 0, 0))]
    assert out == asks
    while (out := head.on_timer(head.next_timer_s())) == asks:
        assert head.state is State.GATHERING
    assert out[0] == ToMember(0, opening(VIEW, 0, 3, settled=0))
    assert head.next_timer_s() > 37.0


def test_the_ends_that_a_head_waited_for_let_it_open_at_once() -> None:
    head = Head(SUITE, VIEW, 0, 20.0)
    for position in range(7):
        head.receive(position, ready(VIEW, position), 20.0)
    for round_ in range(2):
        head.result(end(round_), 20.2)
    assert head.next_timer_s() == 20.2
    out = head.on_timer(20.2)
    assert out[0] == ToMember(0, opening(VIEW, 0, 2, settled=2))


def told(out: list[object]) -> list[tuple[int, int]]:
    return [
        (e.position, e.message.round) for e in out if isinstance(e, ToMember) and isinstance(e.message, wire.Result)
    ]


def test_who_lacks_an_end_within_an_attempt_is_told_twice_and_no_more() -> None:
    known = knowing(VIEW, 2)
    head = Head(SUITE, VIEW, 0, 20.0, known=known)
    for position in range(7):
        out = head.receive(position, ready(VIEW, position, history=known.history), 20.0)
    assert told(list(out)) == []
    assert head.state is State.COLLECTING
    lacking = ready(VIEW, 3, history=knowing(VIEW, 1).history)
    assert [told(list(head.receive(3, lacking, 20.1))) for _ in range(3)] == [[(3, 1)], [(3, 1)], []]


def test_a_member_of_another_history_gets_ours_once_and_is_left_out() -> None:
    known = knowing(VIEW, 2)
    head = Head(SUITE, VIEW, 0, 20.0, known=known)
    other = knowing(VIEW, 1).history
    other.add(end(1, OPENED, 0b11111))
    foreign = ready(VIEW, 3, history=other)
    out = head.receive(3, foreign, 20.0)
    assert out[0] == Note("foreign_history")
    assert told(list(out)) == [(3, 0), (3, 1)]
    assert head.receive(3, foreign, 20.0) == [Note("foreign_history")]
    for position in (0, 1, 2, 4, 5, 6):
        out = head.receive(position, ready(VIEW, position, history=known.history), 20.0)
    out = head.on_timer(head.next_timer_s())
    assert [e.position for e in out if isinstance(e, ToMember)] == [0, 1, 2, 4, 5, 6]


def test_a_head_keeps_the_first_of_two_ends_and_passes_no_other_on() -> None:
    head = Head(SUITE, VIEW, 0, 0.0)
    head.receive(2, ready(VIEW, 2), 0.0)
    assert told(list(head.result(end(0), 1.0))) == [(2, 0)]
    assert head.result(end(0, OPENED, 0b11111), 1.1) == [Note("two_results")]
    assert head.result(end(9), 1.2) == [Note("no_such_round")]


# --- the ledger ------------------------------------------------------------------------------------------------------


def ledger(rounds: int, ended: int) -> RoundLedger:
    view = replace(VIEW, rounds=rounds)
    made = RoundLedger(SUITE, view, ledger_secrets(SUITE, bytes(32)), 0.0)
    made.on_timer(view.timing.open_at_s(ended - 1) + view.timing.void_s)
    return made


def test_the_ledger_tells_all_ends_from_a_round_on() -> None:
    made = ledger(8, 5)
    out = made.receive(3, wire.HistoryRequest(1, 0, 2), 100.0)
    assert told(list(out)) == [(3, 2), (3, 3), (3, 4)]
    assert made.receive(3, wire.HistoryRequest(1, 0, 2), 100.1) == []
    assert told(list(made.receive(4, wire.HistoryRequest(1, 0, 4), 100.1))) == [(4, 4)]
    assert told(list(made.receive(3, wire.HistoryRequest(1, 0, 5), 101.0))) == []


def test_one_answer_of_the_ledger_is_bounded() -> None:
    made = ledger(3 * HISTORY_MAX, 2 * HISTORY_MAX)
    assert len(made.receive(3, wire.HistoryRequest(1, 0, 1), 1e5)) == HISTORY_MAX
