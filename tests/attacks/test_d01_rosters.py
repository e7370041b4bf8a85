"""D1: heads that take a member out of rosters and in again, and heads that open rounds in secret and call them void."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.lying_head import LyingHead, refuses
from loadtest.ring import LocalRing, RingSize, random_vectors
from loadtest.ring import ready as ready_of
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.discipline.returns import REFILL_S, TOKENS_MAX, Attendance, EpochAttendance
from protocol.dcnet.machines.effects import Attempted, MemberEffect, Note, Persist, Progress, ToHead
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.masks import Words
from protocol.dcnet.machines.member import Member
from protocol.dcnet.setup.rings import bitmap

START_S = 1_772_366_400
OPENED, VOID = wire.Outcome.OPENED, wire.Outcome.VOID
DAY = RingSize(n=6, k=4, t=3, t_c=3, k_min=3, n_min=4, rounds=96)


def counted(attendance: Attendance | None = None) -> EpochAttendance:
    fresh = Attendance.first(START_S - 86_400, is_key_new=True)
    return EpochAttendance(attendance or fresh, START_S, 900)


class Counting(LyingHead):
    """A lying head around a member whose returns are counted and durable."""

    def __init__(self, tokens: int = TOKENS_MAX, size: RingSize = DAY, position: int = 0) -> None:
        self.returns = counted(Attendance(tokens, START_S))
        self.paid: list[int] = []
        self.opened_in_secret = False
        super().__init__(CheapSuite(), size, position)

    def make(self, first_round: int = 0) -> Member:
        secrets = self.secrets[self.position]
        self.member = Member(self.suite, self.view, secrets, self.masks, self.durable, first_round, self.returns)
        self.carry_out(self.member.appointed(self.term, 0.0))
        return self.member

    def persist(self, position: int, record: object) -> None:
        super().persist(position, record)  # type: ignore[arg-type]
        if isinstance(record, Attempted) and record.progress is Progress.SERVED:
            self.returns = self.returns.served(record.round)
        elif isinstance(record, Attempted):
            self.returns = self.returns.entered(record.round, is_return=record.is_return)
            self.paid += [record.round] * record.is_return

    def offered(self, round_: int) -> list[wire.Message]:
        return self.carry_out(self.member.offer(round_, self.vector(round_), 0.0, (), self.returns))

    def round(self, round_: int, *, serves: bool = True, served: list[int] | None = None) -> bool:
        """Take the member in; whether it shared.  Its answer to RESULT is left to the caller."""
        for before in range(self.member.history.settled, round_):  # of which the member was not told
            self.member.history.add(self.result(before, VOID))
        self.offered(round_)
        opening = self.open(round_=round_, served=served)
        shared = any(isinstance(each, wire.MaskedInput) for each in self.say(opening))
        if shared and serves:
            self.say(self.roster(round_=round_), self.confirmed(round_=round_))
        return shared

    def ends(self, round_: int, outcome: wire.Outcome, *, with_us: bool = True) -> wire.Ready | None:
        """RESULT; the READY that the member answers with."""
        without = [] if with_us else [self.position]
        said = self.say(self.result(round_, outcome, self.everybody(*without)))
        return next((each for each in said if isinstance(each, wire.Ready)), None)


def test_after_four_returns_an_alternated_member_says_it_waits() -> None:
    """The first edition came back in every second round."""
    liar = Counting()
    shared = []
    for round_ in range(0, 32, 2):
        shared.append(liar.round(round_))
        if shared[-1]:
            liar.ends(round_, OPENED)
        ready = liar.ends(round_ + 1, OPENED, with_us=False)
        assert ready is not None
        assert ready.is_waiting == (liar.returns.attendance.tokens_at(START_S + 900 * (round_ + 2)) == 0)
    assert shared[:4] == [True] * 4
    assert sum(shared) == 5  # four tokens, and one after four hours
    assert "no_return_left" in liar.notes


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(["in", "in, not served", "out", "void with us", "void without us", "restart"]), max_size=60
    )
)
def test_no_forced_roster_sequence_gives_more_returns_than_tokens(steps: list[str]) -> None:
    """V is what suits the head best where the member may believe it: nobody, or just the member itself."""
    liar = Counting()
    at_s: list[int] = []
    rounds = iter(range(96))
    for step, round_ in zip(steps, rounds, strict=False):
        if step == "restart":
            liar.make()
            continue
        before = len(liar.paid)
        is_in = step in {"in", "in, not served", "void with us"}
        shared = False
        if is_in:
            mine = [liar.position] if liar.member.has_served else []
            everybody = liar.everybody()
            # Whoever opened a round in secret had t helpers that served: V is never empty then (honest helpers refuse).
            served = everybody if liar.opened_in_secret else mine
            shared = liar.round(round_, serves=step != "in, not served", served=served)
        if step == "void without us":
            liar.opened_in_secret = True
        outcome = VOID if "void" in step else OPENED
        if outcome is OPENED:
            liar.opened_in_secret = False
        liar.ends(round_, outcome, with_us=shared)
        at_s += [START_S + 900 * round_] * (len(liar.paid) - before)
    for first, last in itertools.combinations(range(len(at_s)), 2):
        assert last - first + 1 <= TOKENS_MAX + (at_s[last] - at_s[first]) // REFILL_S + 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_rounds_that_nobody_served_are_no_absence(count: int) -> None:
    liar = Counting(tokens=1)
    assert liar.round(0)
    liar.ends(0, OPENED)
    for round_ in range(1, 1 + count):
        liar.ends(round_, VOID)
    assert liar.round(1 + count, served=[])
    assert liar.paid == [0]


@pytest.mark.parametrize("knows_ends", [True, False])
def test_a_machine_made_anew_excuses_void_rounds_that_its_process_heard_of(knows_ends: bool) -> None:
    liar = Counting()
    assert liar.round(0)
    liar.ends(0, OPENED)
    liar.ends(1, VOID)
    if knows_ends:
        liar.make()
    else:  # another process, which fetches the ends again before it shares
        liar.boot(2)
        liar.ends(0, OPENED)
        liar.ends(1, VOID)
    assert liar.round(2, served=[])
    assert liar.paid == [0]


@pytest.mark.parametrize("end", [OPENED, VOID])
def test_a_machine_made_anew_knows_whether_v_must_name_it(end: wire.Outcome) -> None:
    liar = Counting()
    assert liar.round(0)
    liar.ends(0, end)
    liar.make()
    liar.offered(1)
    if end is OPENED:
        assert liar.say(liar.open(round_=1, served=[]))
    else:
        refuses(liar, liar.open(round_=1, served=[]), "served_left_out")


def test_a_void_round_that_t_members_served_costs_a_token() -> None:
    """A head opens without the victim, reports void, and takes it in again."""
    for count, is_paid in [(0, False), (1, False), (2, False), (3, True), (5, True)]:
        liar = Counting()
        assert liar.round(0)
        liar.ends(0, OPENED)
        liar.ends(1, VOID)
        assert liar.round(2, served=[1, 2, 3, 4, 5][:count])
        assert (liar.paid == [0, 2]) is is_paid, count


def test_corrupt_members_count_less() -> None:
    """t - c: as many of the helpers that open a sum may be corrupt, and need not be in V."""
    liar = Counting()
    liar.view = replace(liar.view, corrupt=1)
    liar.make()
    assert liar.round(0)
    liar.ends(0, OPENED)
    liar.ends(1, VOID)
    assert liar.round(2, served=[1, 2])
    assert liar.paid == [0, 2]


def test_whoever_is_outside_e_counts_once_in_v_or_not() -> None:
    for served, is_paid in [([], False), ([3, 4], False), ([2, 3, 4], True)]:
        liar = Counting()
        assert liar.round(0)
        liar.ends(0, OPENED)
        liar.ends(1, VOID)
        liar.offered(2)
        assert liar.say(liar.open(round_=2, expected=[0, 1, 2, 5], served=served))
        assert (liar.paid == [0, 2]) is is_paid, served


def test_without_a_token_an_unproven_void_round_is_waited_out_and_said() -> None:
    liar = Counting(tokens=1)
    assert liar.round(0)
    liar.ends(0, OPENED)
    liar.ends(1, VOID)
    liar.offered(2)
    said = liar.say(liar.open(round_=2, served=[1, 2, 3]))
    assert [each.is_waiting for each in said if isinstance(each, wire.Ready)] == [1]
    liar.ends(2, VOID)
    assert not liar.round(3, served=[1, 2, 3])
    ready = liar.ends(3, OPENED, with_us=False)
    assert ready is not None
    assert ready.is_waiting
    assert liar.member.is_waiting


@pytest.mark.parametrize("end", [None, VOID])
def test_a_v_without_us_is_refused_where_we_served(end: wire.Outcome | None) -> None:
    liar = Counting()
    liar.round(0)
    if end is not None:
        liar.ends(0, end)
        liar.offered(1)
        refuses(liar, liar.open(round_=1, served=[]), "served_left_out")
        refuses(liar, liar.open(round_=1, served=[1, 2, 3, 4, 5]), "served_left_out")
        assert liar.say(liar.open(round_=1, served=[0]))
    else:  # the result is still to come: the OPEN is held, and judged by what that says
        liar.say(liar.open(round_=1, served=[], settled=1))
        liar.ends(0, VOID)
        assert not [each for each in liar.offered(1) if isinstance(each, wire.MaskedInput)]
        assert "served_left_out" in liar.notes


def test_after_an_opened_round_v_begins_anew() -> None:
    liar = Counting()
    liar.round(0)
    liar.ends(0, VOID)
    assert liar.round(1, served=[0])
    liar.ends(1, OPENED)
    assert liar.round(2, served=[])
    assert liar.paid == [0]


def test_members_that_were_told_another_v_confirm_nothing_to_each_other() -> None:
    """V is in the round digest: a head that names helpers to some and not to others opens nothing."""
    liar = Counting()
    liar.offered(0)
    liar.say(liar.open(served=[1]))
    liar.say(liar.roster())
    liar.served = bitmap([1, 2])
    refuses(liar, liar.confirmed(), "too_few_confirmations")
    liar.served = bitmap([1])
    assert liar.say(liar.confirmed())


def test_self_masks_under_another_v_have_nothing_in_common() -> None:
    """V is in the label: what neighbours recover under their V does not open a share under ours."""
    seeds = []
    for served in ([], [1], [1, 2]):
        liar = Counting()
        liar.offered(0)
        liar.say(liar.open(served=served))
        seeds.append(liar.member.current.seed)
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("progress", ["shared", "served"])
def test_a_payment_is_durable_before_the_share_and_survives_a_restart(progress: str) -> None:
    liar = Counting(tokens=2)
    liar.offered(0)
    effects: list[MemberEffect] = liar.member.receive(liar.open(), 0.0)
    assert isinstance(effects[0], Persist)
    assert effects[0].record == Attempted(0, 0, Progress.SHARED, is_return=True)
    assert isinstance(effects[1], ToHead)
    liar.carry_out(effects[:1])
    if progress == "served":
        liar.carry_out(effects[1:])
        liar.say(liar.roster(), liar.confirmed())
    liar.make()
    assert liar.returns.attendance.tokens == 1
    liar.ends(0, OPENED, with_us=progress == "served")
    assert liar.round(1)
    assert liar.paid == ([0] if progress == "served" else [0, 1])


def test_a_second_attempt_of_a_round_costs_nothing() -> None:
    liar = Counting(tokens=1)
    liar.offered(0)
    for attempt in range(wire.MAX_ATTEMPTS):
        assert any(isinstance(each, wire.MaskedInput) for each in liar.say(liar.open(attempt)))
    assert liar.paid == [0]


def test_where_returns_are_not_counted_v_is_checked_all_the_same() -> None:
    liar = LyingHead(CheapSuite(), DAY)
    liar.serve()
    liar.say(liar.result(0, VOID))
    liar.offer(1)
    refuses(liar, liar.open(round_=1, served=[]), "served_left_out")
    assert liar.say(liar.open(round_=1, served=[0]))


# --- the honest head ------------------------------------------------------------------------------------------------


def heads_v(ring: LocalRing) -> int:
    return ring.head.presence.served


def test_a_head_tells_v_from_what_it_confirmed_and_what_members_say(rng_vectors: list[Words]) -> None:
    ring = LocalRing(CheapSuite(), DAY)
    opens: list[wire.Open] = []
    ring.trace = lambda _to, _who, message: opens.append(message) if isinstance(message, wire.Open) else None
    lost = 3

    def vanish(position: int, message: wire.Message) -> bool:
        return position == lost and isinstance(message, wire.Reveal)

    for neighbour in (1, 2):  # too few help to recover it: the round is void, and all have served
        ring.silent.discard(neighbour)
    ended = ring.round(0, rng_vectors, vanish=lambda p, m: vanish(p, m) or isinstance(m, wire.Partial))
    assert ended.outcome is VOID
    assert heads_v(ring) == ring.view.everybody
    ring.silent.clear()
    ring._appoint(1)  # a new head, which saw none of it
    assert heads_v(ring) == ring.view.everybody & bitmap([p for p in range(6) if ring.members[p].has_served])


def test_a_waiting_member_hears_results_and_is_in_no_e() -> None:
    ring = LocalRing(CheapSuite(), DAY)
    view, suite = ring.view, CheapSuite()
    head = Head(suite, view, 0, 0.0)

    def ready(position: int, *, waits: bool) -> wire.Ready:
        return replace(ready_of(view, position), is_waiting=int(waits))

    opened = [
        each
        for position in range(6)
        for each in head.receive(position, ready(position, waits=position == 5), 0.0)
        if not isinstance(each, Note)
    ]
    expected = {each.message.expected for each in opened if isinstance(each.message, wire.Open)}
    assert expected == {view.to_wire(0b011111)}
    told = head.result(ring_result(view), 1.0)
    assert {each.position for each in told if not isinstance(each, Note)} == set(range(6))  # type: ignore[union-attr]
    head.receive(5, ready(5, waits=False), 2.0)
    following = head.on_timer(head.next_timer_s())
    assert any(isinstance(each.message, wire.Open) and each.message.expected == view.to_wire(0b111111)
               for each in following if not isinstance(each, Note))  # fmt: skip


def ring_result(view: object) -> wire.Result:
    return wire.Result(1, 0, 0, int(OPENED), view.to_wire(0b011111), bytes(64))  # type: ignore[attr-defined]


@pytest.fixture
def rng_vectors() -> list[Words]:
    return random_vectors(np.random.default_rng(3), 6, 4)
