"""
D3, section 4: a coordinator that tells some members another end of a round than the rest, alone or with the head.

Told "void" of a round that opened, a gateway contributes the same energy once more; in the first edition the next total
had it, and the difference of two totals was a reading that the coordinator chose.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, ledger_secrets, make_ring, opening, random_vectors
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.crypto.suite import MAC_SIZE
from protocol.dcnet.machines.effects import EpochRefused, MemberEffect, Note, ToHead
from protocol.dcnet.machines.masks import MaskSchedule, seed_commitment
from protocol.dcnet.machines.member import Member
from protocol.dcnet.machines.member_states import State
from protocol.dcnet.setup.rings import positions_of, result_text
from protocol.dcnet.setup.secrets import mask_label
from protocol.errors import RemoteProtocolError

SUITE = CheapSuite()
SEED = bytes(32)
OPENED, VOID = wire.Outcome.OPENED, wire.Outcome.VOID
SEVEN = RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=5, rounds=8)
SIXTEEN = RingSize(n=16, k=10, t=7, t_c=7, k_min=7, n_min=11, rounds=8)
SIGN = ledger_secrets(SUITE, SEED).sign


class TwoTongues(LocalRing):
    """An honest head, and a coordinator that tells `victims` another end of round `lie`."""

    def __init__(self, size: RingSize, victims: Collection[int], lie: int) -> None:
        self.victims, self.lie = victims, lie
        super().__init__(SUITE, size, SEED)

    def to_member(self, head: int, target: int, message: wire.RingMessage) -> None:
        if isinstance(message, wire.Result) and message.round == self.lie and target in self.victims:
            message = end(self, self.lie, VOID, 0)
        super().to_member(head, target, message)


def end(ring: LocalRing, round_: int, outcome: wire.Outcome, roster: int) -> wire.Result:
    view = ring.view
    signature = SIGN(result_text(view, round_, outcome, roster))
    return wire.Result(view.epoch, view.ring, round_, outcome, view.to_wire(roster), signature)


@pytest.mark.parametrize("size", [SEVEN, SIXTEEN], ids=["n=7", "n=16"])
@pytest.mark.parametrize("victims", [(3,), (1, 3)], ids=["one", "two"])
@pytest.mark.parametrize("lie", [0, 2])
def test_who_was_told_another_end_is_in_no_further_total_and_finds_the_lie(
    size: RingSize, victims: Collection[int], lie: int
) -> None:
    """With an honest head the victims hear both ends, leave the epoch, and the others' totals are exact."""
    ring = TwoTongues(size, victims, lie)
    told = sum(1 << i for i in victims)
    for round_ in range(lie + 3):
        vectors = random_vectors(np.random.default_rng(round_), size.n, 4)
        ended = ring.round(round_, vectors)
        assert ended.outcome is OPENED
        assert ended.roster & told == (told if round_ <= lie else 0)
        total = sum((vectors[i] for i in positions_of(ended.roster)), np.zeros(4, np.uint64))
        assert list(ended.total) == [int(word) for word in total]
        if round_ >= lie:
            ring.victims = ()  # what the honest head tells once more is not bent
            for i in victims:
                if not ring.members[i].is_out:
                    ring.from_member(i, ring.members[i].on_timer(ring.members[i].next_timer_s()))
            ring._run()
    proofs = [(i, record) for i, record in ring.persisted if isinstance(record, EpochRefused)]
    assert sorted(i for i, _ in proofs) == sorted(victims)
    for i, record in proofs:
        assert {record.first.outcome, record.second.outcome} == {OPENED, VOID}
        assert ring.members[i].is_out


class Colluding:
    """Head and coordinator lie together: every message is the adversary's choice."""

    def __init__(self, size: RingSize, histories: dict[int, wire.Outcome]) -> None:
        self.view, self.secrets = make_ring(SUITE, size, SEED)
        self.members = [Member(SUITE, self.view, each, MaskSchedule(SUITE, self.view, each)) for each in self.secrets]
        self.shares: dict[int, wire.MaskedInput] = {}
        self.macs: dict[int, bytes] = {}
        for i, member in enumerate(self.members):
            outcome = histories.get(i, OPENED)
            roster = self.view.everybody if outcome is OPENED else 0
            signature = SIGN(result_text(self.view, 0, outcome, roster))
            member.appointed(0, 0.0)
            member.receive(wire.Result(1, 0, 0, outcome, self.view.to_wire(roster), signature), 0.0)
            member.offer(1, np.array([1, 1000 + i, 0, 0], np.uint64), 1.0)

    def say(self, i: int, message: wire.RingMessage) -> list[wire.Message]:
        effects: list[MemberEffect] = self.members[i].receive(message, 2.0)
        return [each.message for each in effects if isinstance(each, ToHead)]

    def share_and_confirm(self) -> None:
        everybody = self.view.to_wire(self.view.everybody)
        for i in range(self.view.size):
            (share,) = self.say(i, opening(self.view, 0, 1, settled=1))
            (confirm,) = self.say(i, wire.Roster(1, 0, 1, 0, everybody))
            assert isinstance(share, wire.MaskedInput)
            assert isinstance(confirm, wire.Confirm)
            self.shares[i], self.macs[i] = share, confirm.macs

    def confirmed(self, i: int) -> wire.Confirmed:
        makers = positions_of(self.view.neighbourhoods[i])
        macs = b""
        for other in makers:
            at = positions_of(self.view.neighbourhoods[other]).index(i)
            macs += self.macs[other][MAC_SIZE * at : MAC_SIZE * (at + 1)]
        return wire.Confirmed(1, 0, 1, 0, self.view.to_wire(self.view.neighbourhoods[i]), macs)


@pytest.mark.parametrize("size", [SEVEN, SIXTEEN], ids=["n=7", "n=16"])
def test_a_head_that_colludes_opens_no_mask_of_who_was_told_another_end(size: RingSize) -> None:
    """The victim reveals nothing, and what its neighbours give belongs to a mask that nobody has used."""
    ring = Colluding(size, {3: VOID})
    ring.share_and_confirm()
    with pytest.raises(RemoteProtocolError, match="confirmed this roster"):
        ring.say(3, ring.confirmed(3))
    parts: dict[int, bytes] = {}
    for i in positions_of(ring.view.neighbourhoods[3]):
        assert isinstance(ring.say(i, ring.confirmed(i))[0], wire.Reveal)
        (part,) = ring.say(i, wire.Recover(1, 0, 1, 0, ring.view.to_wire(1 << 3)))
        assert isinstance(part, wire.Partial)
        parts[i + 1] = part.element
    element = prf.combine(SUITE.group, dict(list(parts.items())[: ring.view.t]))
    nonce = ring.view.members[3].nonce
    told = {ring.members[i].current.terms.of_masks for i in (3, 4)}
    assert len(told) == 2
    for terms in told:  # under neither label: F is that of the neighbours' label
        seed = prf.mask_seed(element, mask_label(ring.view, 1, 0, nonce, terms))
        assert seed_commitment(seed) != ring.shares[3].seed_commitment


@pytest.mark.parametrize("size", [SEVEN, SIXTEEN], ids=["n=7", "n=16"])
def test_a_ring_that_is_told_two_ends_by_halves_opens_nothing(size: RingSize) -> None:
    ring = Colluding(size, dict.fromkeys(range(0, size.n, 2), VOID))
    ring.share_and_confirm()
    for i in range(size.n):
        with pytest.raises(RemoteProtocolError, match="confirmed this roster"):
            ring.say(i, ring.confirmed(i))
    assert {each.state for each in ring.members} == {State.CONFIRMED}


def test_a_head_cannot_open_with_an_end_left_out() -> None:
    """With fewer ends the two histories would be one again: who has contributed to the round refuses."""
    ring = LocalRing(SUITE, SEVEN, SEED)
    ring.round(0, random_vectors(np.random.default_rng(0), SEVEN.n, 4))
    for i, member in enumerate(ring.members):
        with pytest.raises(RemoteProtocolError) as caught:
            member.receive(opening(ring.view, 0, 1, settled=0), 11.0)
        assert caught.value.reason == "old_history", i


def test_who_says_that_the_ledger_signed_two_ends_has_to_show_them() -> None:
    """Else any gateway fills the log with an error that is the coordinator's, one line a message."""
    ring = LocalRing(SUITE, SEVEN, SEED)
    view = ring.view
    opened, void = (
        (each.outcome, each.roster, each.signature)
        for each in (end(ring, 3, OPENED, view.everybody), end(ring, 3, VOID, 0))
    )
    proof = wire.TwoResults(view.epoch, view.ring, 3, opened, void)
    assert ring.ledger.receive(2, proof, 11.0) == [Note("two_results")]
    for claim in (
        replace(proof, second=opened),
        replace(proof, round=4),
        replace(proof, second=(*void[:2], bytes(64))),
        replace(proof, first=(1, view.to_wire(0b111), opened[2])),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            ring.ledger.receive(2, claim, 11.0)
        assert caught.value.reason == "bad_evidence"
