"""
The head, with real members around it: dropouts in every phase, liars, failing heads, and every message out of place.

Rings of seven in which everybody is everybody's neighbour (k = 6, four help to recover), and rings of twelve with
four neighbours each, where position matters.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, knowing, opening, random_vectors, ready
from loadtest.signing import sign_again, sign_confirm, sign_input, sign_ready
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.effects import Ended, HeadEffect, MemberEffect, Note, ToCoordinator, ToHead, ToMember
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.head_states import TRANSITIONS, State
from protocol.dcnet.machines.masks import Words, seed_commitment
from protocol.dcnet.setup import secrets as secrets_module
from protocol.dcnet.setup.rings import Timing, bitmap, positions_of
from protocol.errors import InvariantError, RemoteProtocolError

SUITE = CheapSuite()
COMPLETE = RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=4, rounds=8)
SPARSE = RingSize(n=12, k=4, t=3, t_c=3, k_min=3, n_min=8, rounds=8)
OPENED, VOID = wire.Outcome.OPENED, wire.Outcome.VOID
PATIENT = replace(Timing.spread(0.0, 10.0), silent_s=9.0)  # members that never complain
FIRST_TO_LAST = [wire.MaskedInput, wire.Confirm, wire.Reveal]


class Ring(LocalRing):
    """A ring in which `twist` may change what a member says, and `bend` what the head says to a member."""

    def __init__(self, suite: Suite, size: RingSize, timing: Timing | None = None) -> None:
        self.given_up: list[str] = []  # why the heads gave rounds up; the members may have lost patience before
        super().__init__(suite, size, timing=timing)
        self.trace = lambda _to, _index, message: (
            self.given_up.append(message.reason) if isinstance(message, wire.RingVoid) else None
        )

    twist: Callable[[int, wire.RingMessage], wire.RingMessage] = staticmethod(lambda _index, message: message)

    def from_member(self, index: int, instructions: Sequence[MemberEffect]) -> None:
        super().from_member(
            index,
            [ToHead(self._twisted(index, each.message)) if isinstance(each, ToHead) else each for each in instructions],
        )

    def _twisted(self, index: int, message: wire.RingMessage) -> wire.RingMessage:
        said = self.twist(index, message)
        if said == message:
            return message
        return sign_again(said, self.members[index], self.secrets[index])


class Plan:
    """Members that vanish just before they would have sent their first message of a kind."""

    def __init__(self, *losses: tuple[int, type[wire.Message], int]) -> None:
        self._losses = {(position, kind): attempt for position, kind, attempt in losses}

    def __call__(self, position: int, message: wire.Message) -> bool:
        attempt = self._losses.get((position, type(message)))
        return attempt is not None and getattr(message, "attempt", 0) == attempt


def play(ring: LocalRing, *losses: tuple[int, type[wire.Message], int], round_: int = 0) -> tuple[Ended, list[Words]]:
    vectors = random_vectors(np.random.default_rng(5), ring.view.size, ring.view.word_count)
    return ring.round(round_, vectors, Plan(*losses)), vectors


def is_exact(ended: Ended, vectors: list[Words], roster: Sequence[int]) -> None:
    """The round is open, over exactly these members, and its total is their sum."""
    assert (ended.outcome, positions_of(ended.roster)) == (OPENED, list(roster))
    with np.errstate(over="ignore"):
        expected = np.sum([vectors[i] for i in roster], axis=0, dtype=np.uint64)
    assert list(ended.total) == expected.tolist()


def others(ring: LocalRing, *gone: int) -> list[int]:
    return [i for i in range(ring.view.size) if i not in gone]


# --- rounds with losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
def test_a_good_round(size: RingSize) -> None:
    ring = Ring(SUITE, size)
    for round_ in range(3):
        ended, vectors = play(ring, round_=round_)
        is_exact(ended, vectors, range(size.n))
        assert ended.attempt == 0
    assert all(member.unsettled is None for member in ring.members)


@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
def test_silent_before_the_share_it_is_not_in_the_sum(size: RingSize) -> None:
    ring = Ring(SUITE, size)
    far = 7 if size is SPARSE else 4  # on the circle nobody is the neighbour of both
    ended, vectors = play(ring, (1, wire.MaskedInput, 0), (far, wire.MaskedInput, 0))
    is_exact(ended, vectors, others(ring, 1, far))
    assert ended.attempt == 0


@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
def test_a_member_silent_before_confirming_is_recovered(size: RingSize) -> None:
    ring = Ring(SUITE, size)
    ended, vectors = play(ring, (3, wire.Confirm, 0))
    is_exact(ended, vectors, range(size.n))
    assert ended.attempt == 0


def test_a_member_silent_before_confirming_far_from_dropped_is_recovered() -> None:
    ring = Ring(SUITE, SPARSE)
    ended, vectors = play(ring, (1, wire.MaskedInput, 0), (7, wire.Confirm, 0))
    is_exact(ended, vectors, others(ring, 1))
    assert ended.attempt == 0


def test_silent_with_words_missing_there_is_another_attempt() -> None:
    ring = Ring(SUITE, COMPLETE)
    ended, vectors = play(ring, (3, wire.MaskedInput, 0), (5, wire.Confirm, 0))
    is_exact(ended, vectors, others(ring, 3, 5))
    assert ended.attempt == 1
    assert ring.notes.count("retry") == 1
    assert ring.refused == []


def test_an_attempt_that_leaves_too_few_neighbours_is_refused() -> None:
    ring = Ring(SUITE, SPARSE)
    ended, _ = play(ring, (3, wire.MaskedInput, 0), (4, wire.Confirm, 0))
    assert ended.outcome is VOID
    assert set(ring.refused) == {"too_few_neighbours"}


@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
def test_silent_before_its_reveal_it_is_recovered(size: RingSize) -> None:
    ring = Ring(SUITE, size)
    ended, vectors = play(ring, (3, wire.Reveal, 0), (6, wire.Reveal, 0))
    is_exact(ended, vectors, range(size.n))
    assert ended.attempt == 0


def test_silent_in_every_phase_at_once() -> None:
    ring = Ring(SUITE, replace(COMPLETE, n=9, k=8, t=5, t_c=5, k_min=5, n_min=5))
    ended, vectors = play(
        ring, (1, wire.MaskedInput, 0), (2, wire.Confirm, 0), (3, wire.Reveal, 1), (4, wire.Confirm, 1)
    )
    is_exact(ended, vectors, others(ring, 1, 2))
    assert ended.attempt == 1


def test_a_helper_that_falls_silent_is_done_without() -> None:
    ring = Ring(SUITE, COMPLETE)
    ended, vectors = play(ring, (3, wire.Reveal, 0), (5, wire.Partial, 0))
    is_exact(ended, vectors, range(7))


def test_three_attempts_then_the_round_is_given_up_and_the_next_one_opens() -> None:
    patient = replace(Timing.spread(0.0, 20.0), share_s=2.0, confirm_s=1.5, reveal_s=1.5)
    ring = Ring(SUITE, replace(COMPLETE, n=11, k=10, t=6, t_c=6, k_min=4, n_min=4), timing=patient)
    losses = [(10, wire.MaskedInput, 0), (9, wire.Confirm, 0), (8, wire.MaskedInput, 1), (7, wire.Confirm, 1),
              (6, wire.MaskedInput, 2),
              (5, wire.Confirm, 2)]  # fmt: skip
    ended, _ = play(ring, *losses)
    assert (ended.outcome, ended.reason) == (VOID, "members fell silent in every attempt")
    ring.silent = {9, 10}
    for position in (5, 6, 7, 8):
        ring.from_member(position, ring.members[position].on_timer(19.0))
    ring._run()
    ended, vectors = play(ring, round_=1)
    is_exact(ended, vectors, others(ring, 5, 7, 9, 10))  # who was silent to the ledger too is out for a round
    assert (ended.term, ended.attempt) == (0, 0)
    ended, vectors = play(ring, round_=2)
    is_exact(ended, vectors, others(ring, 9, 10))


def test_too_few_shares_is_waited_for_and_then_given_up() -> None:
    ring = Ring(SUITE, COMPLETE, timing=PATIENT)
    ended, _ = play(ring, *[(i, wire.MaskedInput, 0) for i in (1, 3, 5, 6)])
    assert ended.outcome is VOID
    assert ring.given_up[0] == "fewer than 4 members sent a share"
    assert 7 < ended.ended_s <= 8.2


def test_a_member_that_would_refuse_for_want_of_neighbours_is_not_asked() -> None:
    ring = Ring(SUITE, SPARSE)
    ended, _ = play(ring, (1, wire.MaskedInput, 0), (3, wire.MaskedInput, 0))
    assert (ended.outcome, ended.reason) == (VOID, "a member has fewer than 3 neighbours left")


def test_too_few_neighbours_to_recover_a_silent_member() -> None:
    ring = Ring(SUITE, SPARSE, timing=PATIENT)
    ended, _ = play(ring, (2, wire.Reveal, 0), (3, wire.Reveal, 0), (4, wire.Reveal, 0))
    assert ended.outcome is VOID
    assert ring.given_up[0] == "a silent member has fewer than 3 neighbours to recover it"


def test_helpers_that_fall_silent_leave_too_few() -> None:
    ring = Ring(SUITE, SPARSE, timing=PATIENT)
    ended, _ = play(ring, (3, wire.Reveal, 0), (2, wire.Partial, 0), (4, wire.Partial, 0))
    assert ended.outcome is VOID
    assert ring.given_up[0] == "too few neighbours helped to recover a silent member"


def test_too_few_left_for_another_attempt() -> None:
    ring = Ring(SUITE, replace(COMPLETE, n_min=6))
    ended, _ = play(ring, (3, wire.MaskedInput, 0), (5, wire.Confirm, 0))
    assert (ended.outcome, ended.reason) == (VOID, "fewer than 6 members are present")


def test_those_who_come_back_are_in_the_next_round() -> None:
    ring = Ring(SUITE, COMPLETE)
    play(ring, (3, wire.MaskedInput, 0))
    ring.silent.clear()
    ring.now_s = 9.0
    ring.from_member(3, ring.members[3].on_timer(9.0))
    ring._run()
    ended, vectors = play(ring, round_=1)
    is_exact(ended, vectors, range(7))


# --- heads that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", FIRST_TO_LAST, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
def test_a_head_that_dies_in_any_phase_is_replaced_by_its_deputy(size: RingSize, phase: type[wire.Message]) -> None:
    """Before anything was revealed, the deputy opens the round with the next attempt; afterwards it may not."""
    ring = Ring(SUITE, size)
    ended, vectors = play(ring, (0, phase, 0))
    if phase is wire.Reveal:
        assert ended.outcome is VOID
    else:
        is_exact(ended, vectors, others(ring, 0))
        assert (ended.term, ended.attempt) == (1, 1)
    after, vectors = play(ring, round_=1)
    is_exact(after, vectors, others(ring, 0))
    assert after.term >= 1


def test_deputies_take_over_in_ring_order() -> None:
    ring = Ring(SUITE, COMPLETE)
    ring.silent |= {0, 1}
    ended, vectors = play(ring)
    is_exact(ended, vectors, others(ring, 0, 1))
    assert ended.term == 2


def test_a_dead_head_between_rounds() -> None:
    ring = Ring(SUITE, COMPLETE)
    play(ring)
    ring.silent.add(0)
    play(ring, round_=1)
    ended, vectors = play(ring, round_=2)
    is_exact(ended, vectors, others(ring, 0))
    assert ended.term == 1


# --- liars ---------------------------------------------------------------------------------------------------------


def lying_partials(*liars: int) -> Callable[[int, wire.RingMessage], wire.RingMessage]:
    def twist(index: int, message: wire.RingMessage) -> wire.RingMessage:
        if index in liars and isinstance(message, wire.Partial):
            return replace(message, element=SUITE.group.multiply_base(4242))
        return message

    return twist


def test_a_partial_that_lies_is_refuted_by_its_proof_and_done_without() -> None:
    ring = Ring(SUITE, COMPLETE)
    ring.twist = lying_partials(1)
    ended, vectors = play(ring, (3, wire.Reveal, 0))
    is_exact(ended, vectors, range(7))
    assert positions_of(ring.head.refuted) == [1]
    assert ring.notes.count("partial_refuted") == 1


def test_liars_over_two_recoveries_are_all_named() -> None:
    ring = Ring(SUITE, replace(COMPLETE, n=9, k=8))
    ring.twist = lying_partials(1, 2)
    ended, vectors = play(ring, (3, wire.Reveal, 0), (5, wire.Reveal, 0))
    is_exact(ended, vectors, range(9))
    assert positions_of(ring.head.refuted) == [1, 2]


def test_more_liars_than_the_threshold_can_spare_cost_the_round() -> None:
    ring = Ring(SUITE, COMPLETE, timing=PATIENT)
    ring.twist = lying_partials(1, 2, 4)
    ended, _ = play(ring, (3, wire.Reveal, 0))
    assert ended.outcome is VOID
    assert ring.given_up[0] == "too few neighbours helped to recover a silent member"
    assert positions_of(ring.head.refuted) == [1, 2, 4]


def test_without_commitments_leaving_each_helper_out_finds_one_liar() -> None:
    ring = Ring(SUITE, SPARSE)  # the head at 0 is no neighbour of 6
    ring.twist = lying_partials(5)
    ended, vectors = play(ring, (6, wire.Reveal, 0))
    is_exact(ended, vectors, range(12))
    assert positions_of(ring.head.refuted) == [5]


def test_without_the_dealers_commitments_two_cannot_be_told_apart() -> None:
    ring = Ring(SUITE, SPARSE, timing=PATIENT)
    ring.twist = lying_partials(5, 7)
    ended, _ = play(ring, (6, wire.Reveal, 0))
    assert ended.outcome is VOID
    assert ring.given_up[0] == "too few neighbours helped to recover a silent member"
    assert (ring.head.refuted, ring.named) == (0, set())


def test_a_dealer_that_cheated_costs_a_round_and_its_neighbours_name_it() -> None:
    ring = Ring(SUITE, COMPLETE)
    accused: list[tuple[int, int]] = []
    for position in others(ring, 3):
        received = ring.secrets[position]._received
        received[3] = replace(received[3], share=1000 + position**5)
    ring.trace = lambda target, index, message: (
        accused.append((int(index), message.dealer))
        if target == "ledger" and isinstance(message, wire.BadDeal)
        else None
    )
    vectors = random_vectors(np.random.default_rng(5), 7, 4)
    receive = ring.ledger.receive
    ring.ledger.receive = lambda position, message, now_s: (  # type: ignore[method-assign]
        [] if isinstance(message, wire.BadDeal) else receive(position, message, now_s)
    )
    ended = ring.round(0, vectors, Plan((3, wire.Reveal, 0)))
    assert ended.outcome is VOID
    assert accused
    assert {dealer for _, dealer in accused} == {3}


# --- committed slots -----------------------------------------------------------------------------------------------


def committed_ring(size: RingSize = COMPLETE) -> tuple[Ring, list[Words], list[tuple[int, int]]]:
    ring = Ring(SUITE, replace(size, committed=(1, 3)))
    vectors = [np.array([1, 10 + i, 2**64 - 5, 2**64 - 1 - i], dtype=np.uint64) for i in range(ring.view.size)]
    return ring, vectors, [(100 + i, 200 + i) for i in range(ring.view.size)]


@pytest.mark.parametrize(
    "losses",
    [(), ((3, wire.MaskedInput, 0),), ((3, wire.Reveal, 0),), ((3, wire.MaskedInput, 0), (5, wire.Confirm, 0)),
     ((3, wire.MaskedInput, 0), (5, wire.Reveal, 0))],
    ids=["nobody", "share", "reveal", "share and confirm", "share and reveal"],
)  # fmt: skip
def test_totals_are_verified_whoever_is_missing(losses: tuple[tuple[int, type[wire.Message], int], ...]) -> None:
    ring, vectors, blindings = committed_ring()
    ended = ring.round(0, vectors, Plan(*losses), blindings)
    is_exact(ended, vectors, positions_of(ended.roster))
    assert ended.verified


@pytest.mark.parametrize("slot", [1, 3])
def test_pollution_of_a_committed_slot_is_caught(slot: int) -> None:
    """One member shares more than it committed to: the total opens, but as unverified."""
    ring, vectors, blindings = committed_ring()

    def twist(index: int, message: wire.RingMessage) -> wire.RingMessage:
        if index == 4 and isinstance(message, wire.MaskedInput):
            words = np.frombuffer(message.vector, dtype="<u8").copy()
            words[slot] += np.uint64(1000)
            return replace(message, vector=words.tobytes())
        return message

    ring.twist = twist
    ended = ring.round(0, vectors, None, blindings)
    assert (ended.outcome, ended.verified) == (OPENED, False)
    assert ended.total[slot] == (sum(int(v[slot]) for v in vectors) + 1000) % 2**64


def test_a_ring_without_commitments_is_never_verified() -> None:
    ended, _ = play(Ring(SUITE, COMPLETE))
    assert not ended.verified


# --- the head alone ------------------------------------------------------------------------------------------------


class Alone:
    """A head whose members say whatever the test wants; a ring of seven, everybody present, round 0 open."""

    def __init__(self, size: RingSize = COMPLETE) -> None:
        self.ring = LocalRing(SUITE, size)
        self.view = self.ring.view
        self.head = Head(SUITE, self.view, 0, 0.0)
        self.out: list[HeadEffect] = []
        for position in range(self.view.size):
            self.say(position, ready(self.view, position))

    def say(self, position: int, message: wire.RingMessage, now_s: float = 0.5) -> list[HeadEffect]:
        """Of the member at a position, and signed by it."""
        secrets, current = self.ring.secrets[position], self.head.current
        if isinstance(message, wire.MaskedInput):
            message = sign_input(self.view, secrets, current.context, message)
        if isinstance(message, wire.Confirm):
            message = sign_confirm(self.view, secrets, current.context, current.roster, message)
        return self.say_as_it_is(position, message, now_s)

    def say_as_it_is(self, position: int, message: wire.RingMessage, now_s: float = 0.5) -> list[HeadEffect]:
        self.out = self.head.receive(position, message, now_s)
        return self.out

    def share(self, attempt: int = 0) -> wire.MaskedInput:
        count = len(self.view.committed)
        element = SUITE.group.multiply_base(5)
        commitment = seed_commitment(bytes(32))
        return wire.MaskedInput(
            1, 0, 0, attempt, bytes(32), commitment, bytes(16), element * count, bytes(32 * count), bytes(64)
        )

    def confirm(self, gone: int = 0) -> wire.Confirm:
        macs = self.view.size - 1 - gone
        return wire.Confirm(1, 0, 0, 0, bytes(16 * macs), bytes(32 * (gone > 0)), b"", bytes(64))

    def to_confirming(self) -> None:
        for position in range(self.view.size):
            self.say(position, self.share())

    def to_revealing(self) -> None:
        self.to_confirming()
        for position in range(self.view.size):
            self.say(position, self.confirm())

    def to_recovering(self) -> None:
        self.to_revealing()
        for position in range(self.view.size - 1):
            self.say(position, wire.Reveal(1, 0, 0, 0, bytes(32)))
        self.head.on_timer(self.head.next_timer_s())


STALE = [Note("head_stale_message")]
READY = ready(LocalRing(SUITE, COMPLETE).view, 0)


def test_everybody_there_a_late_first_round_is_opened_at_once() -> None:
    alone = Alone()
    assert alone.head.state is State.COLLECTING
    assert alone.out == [ToMember(position, opening(alone.view)) for position in range(7)]


def test_before_its_time_a_round_is_not_opened() -> None:
    head = Head(SUITE, LocalRing(SUITE, COMPLETE).view, 0, -5.0)
    for position in range(7):
        assert head.receive(position, ready(head.view, position), -4.0) == []
    assert (head.state, head.next_timer_s()) == (State.GATHERING, 0.0)
    assert head.on_timer(-0.1) == []
    assert len(head.on_timer(0.0)) == 7


def test_a_deputy_goes_on_with_the_attempts_of_the_round_it_knows() -> None:
    view = LocalRing(SUITE, COMPLETE).view
    for first_round, attempt in [(3, 2), (1, 0)]:
        known = knowing(view, 3)
        head = Head(SUITE, view, 1, 31.0, first_round=first_round, first_attempt=2, known=known)
        for position in range(7):
            out = head.receive(position, ready(view, position, 1, history=known.history), 31.0)
        assert out[0] == ToMember(0, opening(view, 1, 3, attempt, settled=3))


def test_ready_for_another_term_does_not_count() -> None:
    head = Head(SUITE, LocalRing(SUITE, COMPLETE).view, 1, 0.0)
    assert head.receive(2, ready(head.view, 2), 0.0) == STALE
    assert head.presence.present == 0


def test_a_lost_member_is_not_in_the_next_e() -> None:
    head = Head(SUITE, LocalRing(SUITE, COMPLETE).view, 0, -5.0)
    for position in range(7):
        head.receive(position, ready(head.view, position), -4.0)
    head.lost(3, -4.0)
    head.lost(3, -4.0)
    assert [each.position for each in head.on_timer(0.0) if isinstance(each, ToMember)] == [0, 1, 2, 4, 5, 6]


def test_who_owes_an_answer_is_in_no_e_until_it_is_said_anew() -> None:
    head = Head(SUITE, LocalRing(SUITE, COMPLETE).view, 0, -5.0)
    head.leave_out(0b100, -4.5)
    for position in range(7):
        head.receive(position, ready(head.view, position), -4.0)
    opened = [each.position for each in head.on_timer(0.0) if isinstance(each, ToMember)]
    assert opened == [0, 1, 3, 4, 5, 6]
    head.leave_out(0, 1.0)
    head.on_timer(head.next_timer_s())  # nobody shared: the round is given up
    head.result(wire.Result(1, 0, 0, 2, bytes(1), bytes(64)), 3.0)
    for position in range(7):
        head.receive(position, ready(head.view, position, round_=1, history=head.presence.catch_up.history), 4.0)
    opened = [each.position for each in head.on_timer(10.0) if isinstance(each, ToMember)]
    assert opened == [0, 1, 2, 3, 4, 5, 6]


def test_a_share_whose_link_is_gone_is_hardly_waited_for() -> None:
    alone = Alone()
    alone.head.lost(6, 0.5)
    for position in range(5):
        alone.say(position, alone.share())
    patient_s = alone.head.next_timer_s()
    assert patient_s == pytest.approx(0.5 + alone.view.timing.share_s)
    alone.say(5, alone.share(), 0.6)
    hasty_s = alone.head.next_timer_s()
    assert hasty_s == pytest.approx(0.6 + alone.view.timing.share_s / 16)
    out = alone.head.on_timer(hasty_s)
    assert out[1] == ToMember(0, wire.Roster(1, 0, 0, 0, b"\x3f"))


def test_the_last_broken_link_hurries_and_one_back_in_time_is_in() -> None:
    alone = Alone()
    for position in range(6):
        alone.say(position, alone.share())
    alone.head.lost(6, 0.7)
    assert alone.head.next_timer_s() == pytest.approx(0.7 + alone.view.timing.share_s / 16)
    alone.say(6, alone.share(), 0.71)
    assert alone.out[1] == ToMember(0, wire.Roster(1, 0, 0, 0, b"\x7f"))
    alone.head.lost(6, 0.72)
    assert alone.head.next_timer_s() == pytest.approx(0.71 + alone.view.timing.confirm_s)


class Breaking(Ring):
    """A ring in which member 3 and its link go as soon as the head says a kind of word to it."""

    def __init__(self, kind: type[wire.RingMessage], *, is_noticed: bool = True) -> None:
        self._kind = kind
        self._is_noticed = is_noticed
        super().__init__(SUITE, COMPLETE)

    def from_head(self, position: int, effects: Sequence[HeadEffect]) -> None:
        gone = any(isinstance(each, ToMember) and isinstance(each.message, self._kind) for each in effects)
        if gone:
            self.silent.add(3)
        super().from_head(position, effects)
        if gone and self._is_noticed:
            self.head.lost(3, self.now_s)


@pytest.mark.parametrize(("kind", "wait"), [(wire.Roster, "confirm_s"), (wire.Confirmed, "reveal_s")])
def test_who_is_gone_after_its_share_is_hardly_waited_for(kind: type[wire.RingMessage], wait: str) -> None:
    waited_s = getattr(Breaking(kind).view.timing, wait)
    ring = Breaking(kind, is_noticed=False)
    ended, vectors = play(ring)
    is_exact(ended, vectors, range(7))
    assert ended.ended_s == pytest.approx(waited_s)
    ring = Breaking(kind)
    ended, vectors = play(ring)
    is_exact(ended, vectors, range(7))
    assert ended.ended_s == pytest.approx(waited_s / 16)


def test_who_is_started_anew_after_its_share_is_hardly_waited_for() -> None:
    ring = Breaking(wire.Roster, is_noticed=False)
    to_head = ring.to_head

    def restarting(position: int, message: wire.RingMessage) -> None:
        to_head(position, message)
        if position == 6 and isinstance(message, wire.Confirm):
            again = sign_ready(ring.view, ring.secrets[3], ready(ring.view, 3), bytes(range(16)))
            ring._queue.append(("head", 3, again))

    ring.to_head = restarting  # type: ignore[method-assign]
    ended, vectors = play(ring)
    is_exact(ended, vectors, range(7))
    assert ended.ended_s == pytest.approx(ring.view.timing.confirm_s / 16)


def test_who_has_shared_and_is_gone_does_not_hurry_the_others() -> None:
    alone = Alone()
    for position in range(2, 7):
        alone.say(position, alone.share())
    alone.head.lost(5, 0.6)
    alone.head.lost(6, 0.6)
    assert alone.head.next_timer_s() == pytest.approx(0.5 + alone.view.timing.share_s)


def test_nobody_there_the_head_waits_and_then_gives_the_round_up() -> None:
    head = Head(SUITE, LocalRing(SUITE, COMPLETE).view, 0, 0.0)
    while not (out := head.on_timer(head.next_timer_s())):
        assert head.next_timer_s() <= 8.2
    void = wire.RingVoid(1, 0, 0, 0, "fewer than 4 members are present", b"\0")
    assert out == [ToCoordinator(void)]
    assert head.on_timer(head.next_timer_s()) == [Note("result_overdue")]
    assert (head.state, head.next_timer_s()) == (State.IDLE, 10.0)


def test_a_head_that_overslept_opens_the_round_of_now() -> None:
    alone = Alone()
    for round_ in range(3):
        alone.head.result(wire.Result(1, 0, round_, 2, b"\0", bytes(64)), 5.0)
    out = alone.head.on_timer(35.0)
    assert out[0] == ToMember(0, opening(alone.view, 0, 3, settled=3))


def test_after_the_last_round_the_head_rests() -> None:
    view = LocalRing(SUITE, COMPLETE).view
    known = knowing(view, 7)
    head = Head(SUITE, view, 0, 75.0, known=known)
    for position in range(7):
        head.receive(position, ready(view, position, history=known.history), 75.0)
    head.result(wire.Result(1, 0, 7, 2, b"\0", bytes(64)), 76.0)
    assert (head.state, head.next_timer_s()) == (State.IDLE, float("inf"))
    late = Head(SUITE, view, 0, 200.0)
    for position in range(7):
        assert late.receive(position, ready(view, position), 200.0) == []
    assert (late.state, late.next_timer_s()) == (State.IDLE, float("inf"))


def test_the_result_of_another_round_is_passed_on_and_nothing_else() -> None:
    alone = Alone()
    result = wire.Result(1, 0, 5, 2, b"\0", bytes(64))
    assert alone.head.result(result, 1.0) == [ToMember(position, result) for position in range(7)]
    assert alone.head.state is State.COLLECTING


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (replace(READY, epoch=2), "wrong_ring"),
        (replace(READY, ring=1), "wrong_ring"),
        (opening(LocalRing(SUITE, COMPLETE).view), "message_not_allowed"),
        (wire.Roster(1, 0, 0, 0, b"\x7f"), "message_not_allowed"),
        (wire.Confirmed(1, 0, 0, 0, b"\x7f", b""), "message_not_allowed"),
        (wire.Recover(1, 0, 0, 0, b"\x7f"), "message_not_allowed"),
        (wire.Result(1, 0, 0, 1, b"\x7f", bytes(64)), "message_not_allowed"),
    ],
)
def test_what_is_not_for_heads(message: wire.RingMessage, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        Alone().say(1, message)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "change",
    [{"vector": bytes(24)}, {"commitments": bytes(32)}, {"blinding": bytes(32)}],
    ids=str,
)
def test_a_share_of_another_shape(change: dict[str, bytes]) -> None:
    alone = Alone()
    with pytest.raises(RemoteProtocolError, match="bad_share"):
        alone.say(1, replace(alone.share(), **change))  # type: ignore[arg-type]


def test_a_share_with_a_commitment_that_is_no_element() -> None:
    """Found at the member that sent it, or the round ledger would blame the head."""
    alone = Alone(replace(COMPLETE, committed=(1, 2)))
    good = alone.share()
    with pytest.raises(RemoteProtocolError, match="bad_share"):
        alone.say(1, replace(good, commitments=good.commitments[:32] + bytes(32)))
    with pytest.raises(RemoteProtocolError, match="scalar_not_reduced"):
        alone.say(1, replace(good, blinding=b"\xff" * 64))
    assert alone.say(1, good) == []


@pytest.mark.parametrize("change", ["vector", "salt", "seed_commitment", "signature"])
def test_a_share_that_its_member_did_not_sign_is_refused_on_arrival(change: str) -> None:
    alone = Alone()
    share = sign_input(alone.view, alone.ring.secrets[1], alone.head.current.context, alone.share())
    octet = getattr(share, change)
    bent = replace(share, **{change: octet[:-1] + bytes([octet[-1] ^ 1])})
    for position, message in ((1, bent), (2, share)):
        with pytest.raises(RemoteProtocolError, match="bad_signature"):
            alone.say_as_it_is(position, message)
    assert alone.say_as_it_is(1, share) == []


def test_a_confirmation_that_its_member_did_not_sign_is_refused_on_arrival() -> None:
    alone = Alone()
    alone.to_confirming()
    current = alone.head.current
    confirm = sign_confirm(alone.view, alone.ring.secrets[1], current.context, current.roster, alone.confirm())
    other = sign_confirm(alone.view, alone.ring.secrets[1], current.context, current.roster & ~1, alone.confirm())
    for position, message in ((2, confirm), (1, other), (1, replace(confirm, macs=confirm.macs, signature=bytes(64)))):
        with pytest.raises(RemoteProtocolError, match="bad_signature"):
            alone.say_as_it_is(position, message)
    assert alone.say_as_it_is(1, confirm) == []
    assert alone.say_as_it_is(1, confirm) == []  # once more changes nothing


def test_shares_that_do_not_count() -> None:
    alone = Alone()
    assert alone.say(1, replace(alone.share(), attempt=1)) == STALE
    assert alone.say(1, replace(alone.share(), round=1)) == STALE
    alone.say(1, replace(alone.share(), vector=b"\1" * 32))
    alone.say(1, alone.share())  # the first one counts
    assert alone.head.current.shares[1].vector == b"\1" * 32
    alone.head.current.expected = bitmap([0, 1, 2, 3, 4, 5])
    assert alone.say(6, alone.share()) == STALE


@pytest.mark.parametrize(
    "change", [{"macs": bytes(80)}, {"dropped": bytes(32)}, {"dropped_blinding": bytes(32)}], ids=str
)
def test_a_confirmation_of_another_shape(change: dict[str, bytes]) -> None:
    alone = Alone()
    alone.to_confirming()
    with pytest.raises(RemoteProtocolError, match="bad_confirm"):
        alone.say(1, replace(alone.confirm(), **change))  # type: ignore[arg-type]


def test_messages_of_those_outside_the_roster_do_not_count() -> None:
    alone = Alone()
    for position in range(6):
        alone.say(position, alone.share())
    alone.head.on_timer(alone.head.next_timer_s())
    assert alone.say(6, alone.confirm(1)) == STALE
    alone.say(5, replace(alone.confirm(1), macs=b"\1" * 80))
    alone.say(5, alone.confirm(1))  # the first one counts
    assert alone.head.current.confirms[5].macs == b"\1" * 80


def test_a_second_reveal_does_nothing() -> None:
    alone = Alone()
    alone.to_revealing()
    for seed in (bytes(32), b"\1" * 32):
        assert alone.say(1, wire.Reveal(1, 0, 0, 0, seed)) == []
    assert (alone.head.current.seeds, alone.head.current.wrong_seeds) == ({1: bytes(32)}, {})


def test_reveals_of_those_who_did_not_confirm_do_not_count() -> None:
    alone = Alone()
    alone.to_confirming()
    for position in range(6):
        alone.say(position, alone.confirm())
    alone.head.on_timer(alone.head.next_timer_s())
    assert alone.say(6, wire.Reveal(1, 0, 0, 0, bytes(32))) == STALE


def test_partials_that_do_not_count() -> None:
    alone = Alone()
    alone.to_recovering()
    element = SUITE.group.multiply_base(9)
    assert alone.say(1, wire.Partial(1, 0, 0, 0, 2, element, bytes(64))) == STALE  # nobody asked for 2
    assert alone.say(6, wire.Partial(1, 0, 0, 0, 6, element, bytes(64))) == STALE  # 6 cannot help itself
    with pytest.raises(RemoteProtocolError, match="bad_partial"):
        alone.say(1, wire.Partial(1, 0, 0, 0, 6, bytes(32), bytes(64)))
    alone.say(1, wire.Partial(1, 0, 0, 0, 6, element, bytes(64)))
    alone.say(1, wire.Partial(1, 0, 0, 0, 6, SUITE.group.multiply_base(8), bytes(64)))
    assert alone.head.current.recoveries[6].parts[1][0] == element


def test_a_late_reveal_saves_its_own_recovery() -> None:
    ring = Ring(SUITE, COMPLETE)
    kept: list[wire.RingMessage] = []

    def vanish(position: int, message: wire.Message) -> bool:
        if position == 3 and isinstance(message, wire.Reveal):
            kept.append(message)
            return True
        return False

    receive = Head.receive

    def late(position: int, message: wire.RingMessage, now_s: float) -> list[HeadEffect]:
        if isinstance(message, wire.Partial) and kept:
            return receive(ring.head, 3, kept.pop(), now_s)
        return receive(ring.head, position, message, now_s)

    ring.head.receive = late  # type: ignore[method-assign]
    vectors = random_vectors(np.random.default_rng(5), 7, 4)
    is_exact(ring.round(0, vectors, vanish), vectors, range(7))


def test_late_reveals_one_after_the_other() -> None:
    alone = Alone()
    alone.to_revealing()
    for position in range(5):
        alone.say(position, wire.Reveal(1, 0, 0, 0, bytes(32)))
    alone.head.on_timer(alone.head.next_timer_s())
    assert alone.say(5, wire.Reveal(1, 0, 0, 0, bytes(32))) == []
    assert alone.head.state is State.RECOVERING
    assert set(alone.head.current.recoveries) == {6}


def test_reveals_that_are_late_are_waited_for_where_recovery_is_hopeless() -> None:
    alone = Alone()
    alone.to_revealing()
    for position in range(3):
        alone.say(position, wire.Reveal(1, 0, 0, 0, bytes(32)))
    assert alone.head.on_timer(alone.head.next_timer_s()) == []
    assert alone.head.state is State.REVEALING


@pytest.mark.parametrize("state", list(State))
def test_what_the_table_does_not_name_moves_nothing(state: State) -> None:
    leads: dict[State, Callable[[Alone], object]] = {
        State.GATHERING: lambda alone: setattr(alone, "head", Head(SUITE, alone.view, 0, 0.0)),
        State.IDLE: lambda alone: alone.head.result(wire.Result(1, 0, 0, 2, b"\0", bytes(64)), 1.0),
        State.COLLECTING: lambda _: None,
        State.CONFIRMING: Alone.to_confirming,
        State.REVEALING: Alone.to_revealing,
        State.RECOVERING: Alone.to_recovering,
        State.REPORTED: lambda alone: [alone.to_revealing(), *(
            alone.say(i, wire.Reveal(1, 0, 0, 0, bytes(32))) for i in range(7)
        )],
    }  # fmt: skip
    says: list[wire.RingMessage] = [
        wire.MaskedInput(1, 0, 0, 0, bytes(32), seed_commitment(bytes(32)), bytes(16), b"", b"", bytes(64)),
        wire.Confirm(1, 0, 0, 0, bytes(96), b"", b"", bytes(64)),
        wire.Reveal(1, 0, 0, 0, bytes(32)),
        wire.Partial(1, 0, 0, 0, 6, SUITE.group.multiply_base(9), bytes(64)),
    ]
    for message in says:
        alone = Alone()
        leads[state](alone)
        assert alone.head.state is state
        if (state, type(message)) not in TRANSITIONS:
            due_s = alone.head.next_timer_s()
            assert alone.say(1, message) == STALE
            assert (alone.head.state, alone.head.next_timer_s()) == (state, due_s)


def test_the_table_is_enforced(monkeypatch: pytest.MonkeyPatch) -> None:
    all_ready: tuple[State, type[wire.RingMessage]] = (State.GATHERING, wire.Ready)
    monkeypatch.setitem(TRANSITIONS, all_ready, (State.GATHERING,))
    with pytest.raises(InvariantError, match="Ready led to collecting"):
        Alone()


def test_the_label_of_the_sum_is_the_label_of_the_share() -> None:
    view = LocalRing(SUITE, COMPLETE).view
    labels = {
        secrets_module.mask_label(view, r, a, nonce, terms)
        for r in range(4) for a in range(3) for nonce in (bytes(16), b"\7" * 16) for terms in (bytes(32), b"\7" * 32)
    }  # fmt: skip
    assert len(labels) == 48
