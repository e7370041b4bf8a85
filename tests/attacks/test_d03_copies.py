"""
D3: several live copies of one gateway, a lying head and no corrupt neighbour.

Each copy confirms one roster; together their words towards the dropped cover all neighbours, and one of them reveals
its self mask.  In the first edition that opened the reading; `loadtest.exhaustive.copies` searches all views of small
rings.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from loadtest.ring import RingSize, make_ring, nonce, opening
from loadtest.signing import SignedNonces
from protocol import wire
from protocol.dcnet.crypto.suite import MAC_SIZE, StandardSuite
from protocol.dcnet.machines.effects import MemberEffect, ToHead
from protocol.dcnet.machines.masks import MaskSchedule, self_mask, words_from_bytes
from protocol.dcnet.machines.member import Member
from protocol.dcnet.parameters.choice import choose
from protocol.dcnet.setup.rings import RingView, Timing, positions_of
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.errors import RemoteProtocolError

SUITE = StandardSuite()
SEED = bytes(32)
READING = np.array([1, 4_321, 17, 2_750], np.uint64)


def size_of(n: int, corrupt: float, population: int) -> RingSize:
    numbers = choose(n, corrupt, 0.05, model="unsplittable", population=population)
    return RingSize(n, numbers.k, numbers.t, numbers.t_c, numbers.k_min, numbers.n_min)


def said(effects: Sequence[MemberEffect], kind: type[wire.Message]) -> wire.Message:
    (message,) = [each.message for each in effects if isinstance(each, ToHead) and isinstance(each.message, kind)]
    return message


class Copies:
    """A ring in which the gateway at `victim` runs in as many copies as it takes to cover its neighbours."""

    def __init__(self, size: RingSize, victim: int, *, of_memory: bool) -> None:
        self.view, self.secrets = make_ring(SUITE, size, SEED, Timing.spread(0.0, 900.0))
        self.victim = victim
        neighbours = positions_of(self.view.neighbourhoods[victim])
        room = min(size.k - size.k_min, size.n - size.n_min)
        self.dropped = [neighbours[start : start + room] for start in range(0, len(neighbours), room)]
        self.rosters = [self.view.everybody & ~sum(1 << i for i in each) for each in self.dropped]
        numbers = [0] * len(self.dropped) if of_memory else range(len(self.dropped))
        self.nonces = [nonce(SEED, victim, number) for number in numbers]
        self.copies = [self.start(self.view, self.secrets[victim], each) for each in self.nonces]
        self.others = {
            i: self.start(self.view, self.secrets[i], self.view.members[i].nonce)
            for i in range(size.n) if i != victim
        }  # fmt: skip

    def start(self, view: RingView, secrets: EpochSecrets, own: bytes) -> Member:
        member = Member(SUITE, view, secrets, MaskSchedule(SUITE, view, secrets, nonce=own))
        member.appointed(0, 0.0)
        member.offer(0, READING, 1.0)
        return member

    def open(self, own: bytes) -> wire.Open:
        table = SignedNonces(SUITE, self.view, self.secrets)
        table.newest[self.victim] = own
        return opening(self.view, nonces=table)

    def opened(self, believed: Sequence[int]) -> list[int]:
        """
        What the head computes; member i is told that the victim's process is copy `believed[i]`.

        Raises RemoteProtocolError where the first copy does not get the confirmations that it wants.
        """
        view, victim = self.view, self.victim
        shares = [
            said(copy.receive(self.open(own), 2.0), wire.MaskedInput)
            for copy, own in zip(self.copies, self.nonces, strict=True)
        ]
        for i, member in self.others.items():
            member.receive(self.open(self.nonces[believed[i]]), 2.0)
        confirms = [
            said(copy.receive(wire.Roster(1, 0, 0, 0, view.to_wire(roster)), 3.0), wire.Confirm)
            for copy, roster in zip(self.copies, self.rosters, strict=True)
        ]
        makers, macs = 0, b""
        for i in positions_of(view.neighbourhoods[victim] & self.rosters[0]):
            roster = wire.Roster(1, 0, 0, 0, view.to_wire(self.rosters[0]))
            confirm = said(self.others[i].receive(roster, 3.0), wire.Confirm)
            assert isinstance(confirm, wire.Confirm)
            at = positions_of(view.neighbourhoods[i] & self.rosters[0]).index(victim)
            makers |= 1 << i
            macs += confirm.macs[MAC_SIZE * at : MAC_SIZE * (at + 1)]
        confirmed = wire.Confirmed(1, 0, 0, 0, view.to_wire(makers), macs)
        reveal = said(self.copies[0].receive(confirmed, 4.0), wire.Reveal)
        assert isinstance(reveal, wire.Reveal)
        assert isinstance(shares[0], wire.MaskedInput)
        total = words_from_bytes(shares[0].vector) - self_mask(SUITE, reveal.seed, view.word_count)
        for confirm in confirms:
            assert isinstance(confirm, wire.Confirm)
            total = total - words_from_bytes(confirm.dropped)
        return [int(word) for word in total]


RINGS = {
    "complete, n=24": size_of(24, 0.05, 24),
    "n=64": size_of(64, 0.05, 64),
    "n=64 of 1,024": size_of(64, 0.01, 1024),
}


@pytest.mark.parametrize("size", RINGS.values(), ids=RINGS)
@pytest.mark.parametrize("victim", [0, 11])
def test_copies_of_a_store_open_nothing_together(size: RingSize, victim: int) -> None:
    attack = Copies(size, victim, of_memory=False)
    opened = attack.opened([0] * size.n)
    assert not any(word == int(truth) for word, truth in zip(opened, READING, strict=True))
    assert all(2**20 < word < 2**64 - 2**20 for word in opened)


@pytest.mark.parametrize("size", RINGS.values(), ids=RINGS)
def test_copies_of_a_memory_do(size: RingSize) -> None:
    """The control, and what stays open: a copy of a running process, taken live, has its nonce."""
    attack = Copies(size, 0, of_memory=True)
    assert attack.opened([0] * size.n) == [1, 4_321, 17, 2_750]


@pytest.mark.parametrize("size", RINGS.values(), ids=RINGS)
def test_neighbours_that_believe_in_several_copies_confirm_none(size: RingSize) -> None:
    """A head that shows each dropped neighbour the copy that gives its words away gets no reveal of any."""
    attack = Copies(size, 0, of_memory=False)
    believed = [index % len(attack.copies) for index in range(size.n)]
    with pytest.raises(RemoteProtocolError, match="confirmed this roster"):
        attack.opened(believed)
