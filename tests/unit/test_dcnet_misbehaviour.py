"""
Members that lie to an honest head: what it notices at once, what it cannot tell, and whom the round ledger names.

Rings as in `test_dcnet_head`: seven with everybody as neighbours, twelve with four neighbours each.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, knowing, ledger_secrets, opening, random_vectors, ready
from loadtest.signing import sign_again
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.machines.effects import (
    Ended,
    HeadEffect,
    MemberEffect,
    Misbehaviour,
    ToCoordinator,
    ToHead,
    ToMember,
)
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.head_states import State
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.machines.masks import seed_commitment
from protocol.dcnet.machines.recovery import Recovery
from protocol.dcnet.setup.rings import Timing, bitmap, positions_of
from protocol.dcnet.setup.secrets import _deal_context, mask_label
from protocol.dcnet.setup.statements import deal_text
from protocol.errors import RemoteProtocolError

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
        return [(each.position, each.misbehaviour) for each in self.misbehaviour]


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
def test_wrong_confirmations_cost_nothing_while_neighbours_have_others(size: RingSize) -> None:
    ring = Ring(size)
    ring.twist = wrong_macs(4)
    for round_ in range(3):
        ended = ring.play(round_)
        assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
    assert (ring.refused, ring.accused) == ([], [])


def test_wrong_confirmations_with_none_to_spare_void_and_name_nobody() -> None:
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


def deal_badly(ring: Ring, dealer: int, holders: Sequence[int], *, junk: bool = False) -> None:
    """The dealer gives some holders a share of nothing, or octets that are none, and signs it."""
    secrets, view = ring.secrets[dealer], ring.view
    good = secrets.deal()
    blobs = dict(good.sealed)
    for holder in holders:
        context = _deal_context(view, dealer, good.commitments)
        bad = SUITE.seal(secrets.pair(holder).transport, dealer, (1000 + holder).to_bytes(32, "little"), context)
        blobs[holder] = b"junk" if junk else bad
    sealed = tuple(blobs.items())
    signature = secrets.sign(deal_text(view, dealer, good.commitments, sealed))
    deal = ring.deals[dealer] = replace(good, sealed=sealed, signature=signature)
    for holder in holders:
        if junk:
            with pytest.raises(RemoteProtocolError):
                ring.secrets[holder].accept(dealer, deal.commitments, blobs[holder])
            del ring.secrets[holder]._received[dealer]
        else:
            ring.secrets[holder].accept(dealer, deal.commitments, blobs[holder])


def test_a_dealer_of_bad_shares_is_named_after_the_one_round_that_it_costs() -> None:
    """D9: its neighbours prove it against the deal that it signed, and no later round is lost to it."""
    ring = Ring()
    deal_badly(ring, 3, [0, 1, 2, 4, 5, 6])
    vanish = silent_at(3, wire.Reveal)
    assert ring.play(0, vanish).outcome is VOID
    assert ring.accused == [(3, Misbehaviour.BAD_DEAL)]
    ring.silent = set()
    for round_ in (1, 2):
        ring.from_member(3, ring.members[3].appointed(ring.head.term, ring.now_s))
        assert ring.play(round_, vanish).roster == ring.view.everybody & ~(1 << 3)


def test_a_deal_that_cannot_be_unsealed_is_proved_before_any_round() -> None:
    ring = Ring()
    deal_badly(ring, 3, [5], junk=True)
    ring.from_member(5, [ToCoordinator(wire.BadDeal(1, 0, 3))])
    ring._run()
    assert ring.accused == [(3, Misbehaviour.BAD_DEAL)]
    ring.play(0)  # which had been opened by then
    assert ring.play(1).roster == ring.view.everybody & ~(1 << 3)


def test_a_complaint_about_a_good_deal_opens_no_pair_and_names_nobody() -> None:
    ring = Ring()
    ring.from_member(5, [ToCoordinator(wire.BadDeal(1, 0, 3))])
    ring._run()
    assert (ring.accused, ring.refused) == ([], ["no_dispute"])
    ring.from_member(5, [ToCoordinator(wire.PairOpening(1, 0, 3, ring.secrets[5].open_pair(3)))])  # a liar's own doing
    ring._run()
    assert ring.accused == []
    assert [ring.play(round_).roster for round_ in (0, 1)] == [ring.view.everybody] * 2


def test_commitments_that_are_none_spare_the_helpers_and_prove_nothing() -> None:
    """The head's copy is junk: what the neighbours give is taken, and the ledger, which has the deal, names nobody."""
    ring = Ring()
    ring.head._commitments[3] = (b"\xff" * 32,) * ring.view.t
    ring.twist = lying(1, wire.Partial, element=SUITE.group.multiply_base(4242))
    ended = ring.play(0, silent_at(3, wire.Reveal))
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
    assert (positions_of(ring.head.refuted), ring.accused) == ([1], [])


def test_who_has_not_dealt_is_left_out_until_it_has() -> None:
    """D9: a member that deals nothing could not be recovered."""
    ring = Ring()
    late = ring.deals.pop(3)
    ring.ledger = RoundLedger(SUITE, ring.view, ledger_secrets(SUITE, bytes(32)), 0.0, deals=ring.deals)
    ring.from_ledger(ring.ledger.start())
    ring._run()
    ring.play(0)
    assert ring.play(1).roster == ring.view.everybody & ~(1 << 3)
    ring.deals[3] = late
    ring.play(2)
    assert ring.play(3).roster == ring.view.everybody


# --- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
@pytest.mark.parametrize("liar", [0, 4, 6])
def test_a_wrong_seed_is_refused_its_sender_left_out_and_recovered(size: RingSize, liar: int) -> None:
    ring = Ring(size)
    ring.twist = lying(liar, wire.Reveal, seed=bytes(32))
    ended = ring.play(0)
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
    assert ring.notes.count("member_wrong_seed") == 1
    for round_ in (1, 2):
        assert ring.play(round_).roster == ring.view.everybody & ~(1 << liar)
    assert ring.accused == []  # REVEAL is not signed, and what it committed to is its seed


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


def test_proofs_tell_a_silent_members_wrong_binding_from_wrong_help() -> None:
    ring = Ring()
    ring.twist = lying(3, wire.MaskedInput, seed_commitment=bytes(32))
    ended = ring.play(0, silent_at(3, wire.Reveal))
    assert (ended.outcome, ended.roster) == (OPENED, ring.view.everybody)
    assert ring.accused == [(3, Misbehaviour.WRONG_SEED)]
    assert ring.head.refuted == 0


def test_a_wrong_binding_beside_a_wrong_share_blames_no_head_and_names_both() -> None:
    """The ledger could check no sum with a seed that was not committed to: one liar is named after the other."""
    ring = Ring()
    binding = lying(3, wire.MaskedInput, seed_commitment=bytes(32))
    ring.twist = lambda index, message: binding(index, lying(5, wire.MaskedInput, **WRONG_SHARE)(index, message))
    assert [ring.play(round_).reason for round_ in range(3)] == [
        "a member masked with another seed than it committed to", "the masks did not cancel", "",
    ]  # fmt: skip
    assert ring.accused == [(3, Misbehaviour.WRONG_SEED), (5, Misbehaviour.CORRUPT_SUM)]
    assert (ring.ledger.unfit, ring.head_position) == (0, 0)


def test_a_head_without_the_deal_has_the_ledger_name_a_wrong_binding() -> None:
    """D9: silent, too, so that its neighbours' parts fit nothing; it would lose every round under such a head."""
    ring = Ring(SPARSE)
    assert ring.secrets[0].commitments_of(6) is None
    ring.twist = lying(6, wire.MaskedInput, seed_commitment=bytes(32))
    assert ring.play(0, silent_at(6, wire.Reveal)).outcome is VOID
    assert ring.accused == [(6, Misbehaviour.WRONG_SEED)]
    assert ring.play(1).roster == ring.view.everybody & ~(1 << 6)


def test_a_wrong_seed_and_a_wrong_binding_are_told_by_the_proofs_too() -> None:
    ring = Ring()
    ring.twist = lambda index, message: lying(3, wire.MaskedInput, seed_commitment=bytes(32))(
        index, lying(3, wire.Reveal, seed=bytes(32))(index, message)
    )
    ended = ring.play(0)
    assert (ended.outcome, ended.roster, ring.accused) == (OPENED, ring.view.everybody, [(3, Misbehaviour.WRONG_SEED)])


def test_unrecoverable_wrong_seeds_cost_the_round_and_the_next_opens() -> None:
    ring = Ring(SPARSE)
    liars = (4, 5, 6)
    ring.twist = lambda index, message: (
        replace(message, seed=bytes(32)) if index in liars and isinstance(message, wire.Reveal) else message
    )
    assert ring.play(0).reason == "a silent member has fewer than 3 neighbours to recover it"
    assert positions_of(ring.head.presence.caught) == list(liars)


def test_who_kept_its_help_from_one_of_two_silent_members_is_called_silent() -> None:
    """Not the others, who helped both, and not for the one that was recovered before."""
    ring = Ring()
    voids: list[wire.RingVoid] = []
    to_head, to_coordinator = ring.to_head, ring.to_coordinator

    def keeping_help(position: int, message: wire.RingMessage) -> None:
        if not (position in {1, 2} and isinstance(message, wire.Partial) and message.silent == 5):
            to_head(position, message)

    def reading(position: int, message: wire.Message) -> None:
        if isinstance(message, wire.RingVoid):
            voids.append(message)
        if not isinstance(message, wire.HeadSilent):  # it would be replaced before it gives up
            to_coordinator(position, message)

    ring.to_head, ring.to_coordinator = keeping_help, reading  # type: ignore[method-assign]
    ended = ring.play(0, lambda who, message: who in {3, 5} and isinstance(message, wire.Reveal))
    assert (ended.outcome, len(voids)) == (VOID, 1)
    assert positions_of(ring.view.from_wire(voids[0].silent)) == [1, 2, 3, 5]


# --- one member's recovery -------------------------------------------------------------------------------------------


def helped(ring: Ring, dealer: int, label: bytes) -> dict[int, tuple[bytes, bytes]]:
    """The parts of the dealer's neighbours."""
    parts = {i: ring.secrets[i].partial(dealer, label) for i in range(ring.view.size) if i != dealer}
    return {i: part for i, part in parts.items() if part is not None}


def test_parts_after_the_seed_and_second_parts_of_one_helper_do_nothing() -> None:
    ring = Ring()
    label = mask_label(ring.view, 0, 0, bytes(16), bytes(32))
    seed = prf.mask_seed(ring.secrets[3].evaluate(label), label)
    recovery = Recovery(3, ring.view.t, label, seed_commitment(seed), ring.secrets[0].commitments_of(3))
    parts = helped(ring, 3, label)
    wrong = SUITE.group.multiply_base(9)
    recovery.help(SUITE, 1, *parts[1], b"")
    recovery.help(SUITE, 1, wrong, bytes(64), b"")
    assert recovery.parts == {1: parts[1]}
    recovery.help(SUITE, 2, wrong, bytes(64), b"")
    for helper in (4, 5):
        recovery.help(SUITE, helper, *parts[helper], b"")
    assert (positions_of(recovery.refuted), recovery.seed) == ([2], b"")
    recovery.help(SUITE, 2, *parts[2], b"")  # too late
    assert not recovery.seed
    recovery.help(SUITE, 6, *parts[6], b"")
    assert (recovery.seed, recovery.is_dealers_lie) == (seed, False)
    recovery.help(SUITE, 0, wrong, bytes(64), b"")
    assert recovery.seed == seed


def test_without_commitments_more_than_one_liar_tells_nobody_apart() -> None:
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
    assert not recovery.seed
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
    assert (ring.accused, positions_of(ring.head.presence.caught)) == ([], [3])


# --- shares and words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [COMPLETE, SPARSE], ids=["complete", "sparse"])
@pytest.mark.parametrize("liar", [0, 1, 5, 6])
def test_a_wrong_share_costs_one_round_and_names_its_sender(size: RingSize, liar: int) -> None:
    ring = Ring(size)
    ring.twist = lying(liar, wire.MaskedInput, **WRONG_SHARE)
    ended = ring.play(0)
    assert (ended.outcome, ended.reason) == (VOID, "the masks did not cancel")
    assert ring.accused == [(liar, Misbehaviour.CORRUPT_SUM)]
    assert ring.head.term == (liar == 0)  # a head that lies is replaced
    assert ring.play(1).roster == ring.view.everybody & ~(1 << liar)


def test_wrong_words_towards_the_dropped_name_who_signed_them() -> None:
    ring = Ring()
    words = bytes(8 * ring.view.word_count)
    ring.twist = lambda index, message: (
        replace(message, dropped=words)
        if index == 4 and isinstance(message, wire.Confirm) and message.dropped
        else message
    )
    ended = ring.play(0, silent_at(2, wire.MaskedInput))
    assert (ended.outcome, ended.reason) == (VOID, "the masks did not cancel")
    assert ring.accused == [(4, Misbehaviour.CORRUPT_SUM)]
    assert ring.play(1).roster == bitmap([0, 1, 3, 5, 6])


def test_too_few_left_without_the_named_the_head_waits_for_others() -> None:
    ring = Ring()
    head = Head(SUITE, ring.view, 0, 0.0)
    for position in (0, 1, 2, 3):
        head.receive(position, ready(ring.view, position), 0.0)
    head.leave_out(1 << 2, 0.0)
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
        assert head.receive(position, ready(view, position, 1, 4, 2, head.presence.catch_up.history), 33.0) == []
    first = head.on_timer(40.0)[0]
    assert first == ToMember(0, opening(view, 1, 4, settled=4))
