"""
Members that lie to an honest head: what it notices at once, what it has to search for, and whom it names.

Rings as in `test_dcnet_head`: seven with everybody as neighbours, twelve with four neighbours each.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, knowing, opening, random_vectors, ready
from loadtest.signing import sign_again
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.machines.effects import Ended, HeadEffect, MemberEffect, Note, ToCoordinator, ToHead, ToMember
from protocol.dcnet.machines.head import Head, State
from protocol.dcnet.machines.masks import seed_commitment
from protocol.dcnet.machines.recovery import Recovery
from protocol.dcnet.machines.search import lost_rounds_granted, lost_rounds_max, room
from protocol.dcnet.setup.rings import Timing, positions_of
from protocol.dcnet.setup.secrets import mask_label
from protocol.wire import Misbehaviour

SUITE = CheapSuite()
COMPLETE = RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=4, rounds=24)
SPARSE = RingSize(n=12, k=4, t=3, t_c=3, k_min=3, n_min=8, rounds=24)
OPENED, VOID = wire.Outcome.OPENED, wire.Outcome.VOID
Twist = Callable[[int, wire.RingMessage], wire.RingMessage]


class Ring(LocalRing):
    """A ring in which `twist` may change what a member says, and what the head says to some gets lost."""

    def __init__(self, size: RingSize = COMPLETE, timing: Timing | None = None) -> None:
        self.deaf: set[int] = set()
        super().__init__(SUITE, size, timing=timing)

    twist: Twist = staticmethod(lambda _index, message: message)

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

    def from_head(self, position: int, effects: Sequence[HeadEffect]) -> None:
        super().from_head(position, [e for e in effects if not isinstance(e, ToMember) or e.position not in self.deaf])

    def play(self, round_: int, vanish: Callable[[int, wire.Message], bool] | None = None) -> Ended:
        """One round, which is exact if it opens."""
        vectors = random_vectors(np.random.default_rng(round_), self.view.size, self.view.word_count)
        ended = self.round(round_, vectors, vanish)
        if ended.outcome is OPENED:
            with np.errstate(over="ignore"):
                total = np.sum([vectors[i] for i in positions_of(ended.roster)], axis=0, dtype=np.uint64)
            assert list(ended.total) == total.tolist()
        return ended

    @property
    def accused(self) -> list[tuple[int, Misbehaviour]]:
        return [(each.position, each.misbehaviour) for each in self.ledger.reported.values()]


def lying(liar: int, kind: type[wire.RingMessage], **other: bytes) -> Twist:
    """The liar's messages of a kind have other fields."""
    return lambda index, message: replace(message, **other) if index == liar and isinstance(message, kind) else message


WRONG_SHARE = {"vector": bytes(32)}


# --- confirmations ---------------------------------------------------------------------------------------------------


def wrong_macs(liar: int) -> Twist:
    return lambda index, message: (
        replace(message, macs=bytes(len(message.macs)))
        if index == liar and isinstance(message, wire.Confirm)
        else message
    )


@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
def test_wrong_confirmations_cost_nothing_while_each_neighbour_has_enough_others(size: RingSize) -> None:
    ring = Ring(size)
    ring.twist = wrong_macs(4)
    for round_ in range(3):
        ended = ring.play(round_)
        assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
    assert (ring.refused, ring.accused) == ([], [])


def test_wrong_confirmations_where_nobody_has_another_to_spare_void_the_round_and_name_nobody() -> None:
    """Three others are under the threshold of four; only the pair could tell a wrong MAC, and neither is believed."""
    ring = Ring()
    ring.twist = wrong_macs(4)
    ring.silent = {5, 6}
    assert ring.play(0).outcome is VOID
    assert ring.refused.count("too_few_confirmations") == 4
    ring.silent = {6}
    assert ring.play(1).outcome is VOID  # who refused has missed its deadline, and 5 was not there to say READY
    ended = ring.play(2)
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody & ~(1 << 6))
    assert ring.accused == []


# --- deals -----------------------------------------------------------------------------------------------------------


def badly_dealt(ring: Ring, dealer: int, **share: Callable[[int], int]) -> None:
    """Everybody got commitments of a dealer that are no group elements, and the head takes its term with them."""
    for position in set(range(ring.view.size)) - {dealer}:
        received = ring.secrets[position]._received
        made = {name: make(position) for name, make in share.items()}
        received[dealer] = replace(received[dealer], commitments=(b"\xff" * 32,) * ring.view.t, **made)
    ring._appoint(0)


def test_commitments_that_are_none_are_their_dealers_lie_and_not_its_helpers() -> None:
    """A deal is looked at on suspicion, so such commitments get as far as the recovery; helpers are not cut off."""
    ring = Ring()
    badly_dealt(ring, 3, share=lambda position: 1000 + position**5)
    head = ring.head
    assert ring.play(0, silent_at(3, wire.Reveal)).outcome is VOID
    assert "bad_share_commitment" not in ring.refused
    assert ring.accused == [(3, Misbehaviour.WRONG_SEED)]
    assert ring.notes.count("member_wrong_seed") == 1
    assert head.search.named == 1 << 3


def test_without_commitments_worth_the_name_a_good_deal_still_recovers() -> None:
    ring = Ring()
    badly_dealt(ring, 3)
    ring.twist = lying(1, wire.Partial, element=SUITE.group.multiply_base(4242))
    ended = ring.play(0, silent_at(3, wire.Reveal))
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
    assert positions_of(ring.head.refuted) == [1]
    assert ring.accused == [(3, Misbehaviour.WRONG_SEED)]


# --- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
@pytest.mark.parametrize("liar", [0, 4, 6])
def test_a_wrong_seed_is_refused_its_sender_named_and_recovered(size: RingSize, liar: int) -> None:
    ring = Ring(size)
    ring.twist = lying(liar, wire.Reveal, seed=bytes(32))
    ended = ring.play(0)
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
    assert ring.accused == [(liar, Misbehaviour.WRONG_SEED)]
    assert ring.notes.count("member_wrong_seed") == 1
    for round_ in (1, 2):
        assert ring.play(round_).roster == ring.view.everybody & ~(1 << liar)
    assert len(ring.accused) == 1


@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
def test_a_wrong_binding_costs_nothing_either(size: RingSize) -> None:
    """The seed that it revealed is the one that its neighbours give: only the seed_commitment was wrong."""
    ring = Ring(size)
    ring.twist = lying(6, wire.MaskedInput, seed_commitment=bytes(32))
    ended = ring.play(0)
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
    assert ring.accused == [(6, Misbehaviour.WRONG_SEED)]


def silent_at(position: int, kind: type[wire.Message]) -> Callable[[int, wire.Message], bool]:
    return lambda who, message: who == position and isinstance(message, kind)


def test_a_wrong_binding_of_a_silent_member_is_told_from_wrong_help_by_the_proofs() -> None:
    ring = Ring()
    ring.twist = lying(3, wire.MaskedInput, seed_commitment=bytes(32))
    ended = ring.play(0, silent_at(3, wire.Reveal))
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
    assert ring.accused == [(3, Misbehaviour.WRONG_SEED)]
    assert ring.head.refuted == 0


def test_a_wrong_seed_and_a_wrong_binding_are_told_by_the_proofs_too() -> None:
    ring = Ring()
    ring.twist = lambda index, message: lying(3, wire.MaskedInput, seed_commitment=bytes(32))(
        index, lying(3, wire.Reveal, seed=bytes(32))(index, message)
    )
    ended = ring.play(0)
    assert (ended.outcome, ended.roster, ring.accused) == (OPENED, ring.view.everybody, [(3, Misbehaviour.WRONG_SEED)])


def test_wrong_seeds_that_nobody_can_recover_cost_the_round_and_the_next_one_opens() -> None:
    ring = Ring(SPARSE)
    liars = (4, 5, 6)
    ring.twist = lambda index, message: (
        replace(message, seed=bytes(32)) if index in liars and isinstance(message, wire.Reveal) else message
    )
    assert ring.play(0).reason == "a silent member has fewer than 3 neighbours to recover it"
    assert {position for position, _ in ring.accused} == set(liars)


def test_a_dealer_that_is_caught_explains_the_sum_that_it_spoils() -> None:
    """It dealt another key than it masked with, and its share bound the one it masked with."""
    ring = Ring()
    group = SUITE.group
    commitments = tuple(group.multiply_base(scalar) for scalar in (77, 5, 6, 7))
    for position in range(7):
        if position != 3:
            x = position + 1
            received = ring.secrets[position]._received
            share = (77 + 5 * x + 6 * x**2 + 7 * x**3) % group.order
            received[3] = replace(received[3], commitments=commitments, share=share)
    ring.head._commitments[3] = commitments
    ended = ring.play(0, silent_at(3, wire.Reveal))
    assert (ended.outcome, ended.reason) == (VOID, "the masks did not cancel")
    assert (ring.accused, ring.head.search.suspects) == ([(3, Misbehaviour.WRONG_SEED)], 0)


# --- one member's recovery -------------------------------------------------------------------------------------------


def helped(ring: Ring, dealer: int, label: bytes) -> dict[int, tuple[bytes, bytes]]:
    """The parts of the dealer's neighbours."""
    parts = {i: ring.secrets[i].partial(dealer, label) for i in range(ring.view.size) if i != dealer}
    return {i: part for i, part in parts.items() if part is not None}


def test_what_comes_after_the_seed_and_a_second_part_of_one_helper_do_nothing() -> None:
    ring = Ring()
    label = mask_label(ring.view, 0, 0, bytes(16), bytes(32))
    seed = prf.mask_seed(ring.secrets[3].evaluate(label), label)
    recovery = Recovery(3, ring.view.t, label, seed_commitment(seed), ring.secrets[0].commitments_of(3))
    parts = helped(ring, 3, label)
    wrong = SUITE.group.multiply_base(9)
    recovery.help(SUITE, 1, *parts[1], b"")
    recovery.help(SUITE, 1, wrong, bytes(64), b"")
    assert (recovery.parts, recovery.culprits) == ({1: parts[1]}, 0)
    recovery.help(SUITE, 2, wrong, bytes(64), b"")
    for helper in (4, 5):
        recovery.help(SUITE, helper, *parts[helper], b"")
    assert (positions_of(recovery.refuted), recovery.seed) == ([2], b"")
    recovery.help(SUITE, 2, *parts[2], b"")  # too late
    assert not recovery.seed
    recovery.help(SUITE, 6, *parts[6], b"")
    assert (recovery.seed, recovery.is_dealers_lie, recovery.culprits) == (seed, False, 0)
    recovery.help(SUITE, 0, wrong, bytes(64), b"")
    assert recovery.seed == seed


def test_without_commitments_more_than_one_liar_leaves_all_of_them_under_suspicion() -> None:
    ring = Ring()
    label = mask_label(ring.view, 0, 0, bytes(16), bytes(32))
    seed = prf.mask_seed(ring.secrets[3].evaluate(label), label)
    recovery = Recovery(3, ring.view.t, label, seed_commitment(seed))
    parts = helped(ring, 3, label)
    wrong = SUITE.group.multiply_base(9)
    for helper in (0, 1):
        recovery.help(SUITE, helper, wrong, bytes(64), b"")
    for helper in (2, 4, 5):
        recovery.help(SUITE, helper, *parts[helper], b"")
    assert positions_of(recovery.culprits) == [0, 1, 2, 3, 4, 5]
    recovery.help(SUITE, 6, *parts[6], b"")  # the newest four are honest
    assert (recovery.seed, recovery.refuted) == (seed, 0)


def test_a_late_reveal_that_is_wrong_does_not_end_the_recovery() -> None:
    ring = Ring()
    late: list[wire.RingMessage] = []
    receive = Head.receive

    def keep(position: int, message: wire.Message) -> bool:
        return position == 3 and isinstance(message, wire.Reveal)

    def wrong_in_between(position: int, message: wire.RingMessage, now_s: float) -> list[HeadEffect]:
        if isinstance(message, wire.Partial) and not late:
            late.append(message)
            for _ in range(2):  # it is named once
                ring.from_head(0, receive(ring.head, 3, wire.Reveal(1, 0, 0, 0, bytes(32)), now_s))
            assert ring.head.state is State.RECOVERING
        return receive(ring.head, position, message, now_s)

    ring.head.receive = wrong_in_between  # type: ignore[method-assign]
    ended = ring.play(0, keep)
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
    assert ring.accused == [(3, Misbehaviour.WRONG_SEED)]


# --- shares and words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
@pytest.mark.parametrize("liar", [0, 1, 5, 6])
def test_a_wrong_share_is_found_by_leaving_members_out(size: RingSize, liar: int) -> None:
    ring = Ring(size)
    ring.twist = lying(liar, wire.MaskedInput, **WRONG_SHARE)
    bound = lost_rounds_max(size.n, room(ring.view)) if size is COMPLETE else lost_rounds_granted(ring.view)
    lost = round_ = 0
    while not ring.accused:
        ended = ring.play(round_)
        lost += ended.outcome is VOID
        assert ended.reason in {"", "the masks did not cancel"}
        round_ += 1
    assert 0 < lost <= bound
    assert ring.accused == [(liar, Misbehaviour.CORRUPT_SUM)]
    assert ring.head.term == 0  # the ledger lets it search
    assert ring.notes.count("member_corrupt_sum") == 1
    assert "head_stale_message" not in ring.notes
    assert ring.play(round_).roster == ring.view.everybody & ~(1 << liar)


def test_members_left_out_do_not_complain_of_the_head() -> None:
    """A round of the search that takes long: they hear the last result when it opens."""
    ring = Ring(timing=replace(Timing.spread(0.0, 10.0), share_s=4.0))
    ring.twist = lying(4, wire.MaskedInput, **WRONG_SHARE)
    assert ring.play(0).outcome is VOID
    out = positions_of(ring.view.everybody & ~ring.head.search.expected(ring.view.everybody))
    said: list[tuple[str, wire.Message]] = []
    ring.trace = lambda _to, index, message: said.append((index, message))
    slow = next(i for i in range(1, 7) if i not in out)
    ring.play(1, silent_at(slow, wire.MaskedInput))
    complaining = {int(index) for index, message in said if isinstance(message, wire.HeadSilent)}
    assert out
    assert not complaining & set(out)


def test_wrong_words_towards_the_dropped_are_a_corrupt_sum() -> None:
    ring = Ring()
    words = bytes(8 * ring.view.word_count)
    ring.twist = lambda index, message: (
        replace(message, dropped=words)
        if index == 4 and isinstance(message, wire.Confirm) and message.dropped
        else message
    )
    ended = ring.play(0, silent_at(2, wire.MaskedInput))
    assert (ended.outcome, ended.reason) == (VOID, "the masks did not cancel")
    assert positions_of(ring.head.search.suspects) == [0, 1, 3, 4, 5, 6]
    assert ring.play(1).outcome is OPENED  # nobody is dropped: it spoils nothing


def test_a_head_that_meets_a_liar_says_whom_it_suspects() -> None:
    ring = Ring()
    ring.twist = lying(4, wire.MaskedInput, **WRONG_SHARE)
    said: list[wire.Message] = []
    ring.trace = lambda _to, _index, message: said.append(message)
    for round_ in range(2):
        ring.play(round_)
    voids = [positions_of(ring.view.from_wire(each.suspects)) for each in said if isinstance(each, wire.RingVoid)]
    assert voids[0] == [0, 1, 2, 3, 4, 5, 6]
    assert len(voids) == 2
    assert 4 in voids[1]
    assert len(voids[1]) < 7


def test_too_few_left_without_the_named_the_head_waits_for_others() -> None:
    ring = Ring()
    head = Head(SUITE, ring.view, 0, 0.0)
    for position in (0, 1, 2, 3):
        head.receive(position, ready(ring.view, position), 0.0)
    head.search.name(2)
    assert head.on_timer(head.next_timer_s()) == []
    head.receive(5, ready(ring.view, 5), 1.0)
    out = head.on_timer(head.next_timer_s())
    assert [each.position for each in out if isinstance(each, ToMember)] == [0, 1, 3, 5]


# --- deputies --------------------------------------------------------------------------------------------------------


def test_a_deputy_that_never_saw_the_round_opened_learns_it_from_its_members() -> None:
    ring = Ring()
    ring.deaf = {1}

    def vanish(position: int, message: wire.Message) -> bool:
        if position == 0 and isinstance(message, wire.Confirm):
            ring.deaf = set()
            return True
        return False

    ended = ring.play(0, vanish)
    assert (ended.outcome, ended.term, ended.attempt) == (OPENED, 1, 1)
    assert ended.roster == ring.view.everybody & ~1
    assert "stale_attempt" not in ring.refused


def deputy(first_round: int = 0, first_attempt: int = 0) -> Head:
    """A deputy in the fourth round, whose three before it were void."""
    view = Ring().view
    return Head(SUITE, view, 1, 31.0, None, first_round, first_attempt, knowing(view, 3))


def opened_with(head: Head, claims: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The round and attempt that a head opens when members claim these."""
    for position, (round_, attempt) in enumerate(claims):
        said = ready(head.view, position, 1, round_, attempt, knowing(head.view, 3).history)
        out = head.receive(position, said, 31.0)
    opening = out[0]
    assert isinstance(opening, ToMember)
    assert isinstance(opening.message, wire.Open)
    return opening.message.round, opening.message.attempt


@pytest.mark.parametrize(
    ("claims", "attempt"),
    [
        ([(3, 1)] * 7, 1),
        ([(3, 2), (3, 1)] + [(3, 0)] * 5, 1),
        ([(3, 2)] + [(3, 0)] * 6, 0),  # one alone uses up no attempts
        ([(2, 1)] * 7, 0),  # and another round's are not this one's
    ],
)
def test_the_second_highest_attempt_that_members_claim_counts(claims: list[tuple[int, int]], attempt: int) -> None:
    assert opened_with(deputy(), claims) == (3, attempt)


def test_what_the_deputy_knows_itself_counts_too() -> None:
    assert opened_with(deputy(3, 2), [(3, 0)] * 7) == (3, 2)


def test_claims_are_of_the_round_that_a_head_begins_with() -> None:
    view = Ring().view
    head = deputy()
    assert opened_with(head, [(3, 1)] * 7) == (3, 1)
    head.result(wire.Result(1, 0, 3, 2, b"\0", bytes(64)), 32.0)
    for position in range(7):
        assert head.receive(position, ready(view, position, 1, 4, 2, head._catch_up.history), 33.0) == []
    first = head.on_timer(40.0)[0]
    assert first == ToMember(0, opening(view, 1, 4, settled=4))


def test_an_accusation_follows_the_report_that_proves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring()
    ring.play(0)
    ring.head.search.spoilt(1 << 4)
    said: list[HeadEffect] = []
    from_head = ring.from_head

    def noted(position: int, effects: Sequence[HeadEffect]) -> None:
        said.extend(effects)
        from_head(position, effects)

    monkeypatch.setattr(ring, "from_head", noted)
    assert ring.play(1).roster == ring.view.everybody & ~(1 << 4)
    report = next(
        i for i, e in enumerate(said) if isinstance(e, ToCoordinator) and isinstance(e.message, wire.RingTotal)
    )
    accused = ToCoordinator(wire.MisbehaviourReport(1, 0, 0, 1, 4, int(Misbehaviour.CORRUPT_SUM)))
    assert said[report + 1 : report + 3] == [Note("member_corrupt_sum"), accused]
    assert ring.head.search.named == 1 << 4
