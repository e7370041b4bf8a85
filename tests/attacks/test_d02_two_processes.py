"""
D2: a gateway's store is moved away, put back or copied while its keys stay, and it shares twice in one quarter hour.

In the first edition SHARE - SHARE' was the reading, since both processes had the same masks.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from loadtest.ring import LocalRing, RingSize, knowing, make_ring, nonce, opening, random_vectors
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto.commitments import decode_blinding_vector
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Progress, ToHead
from protocol.dcnet.machines.incarnations import NonceTable
from protocol.dcnet.machines.masks import MaskSchedule, Words, words_from_bytes
from protocol.dcnet.machines.member import Member
from protocol.dcnet.machines.member_attempt import Resume
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.errors import RemoteProtocolError

SUITE = StandardSuite()
SEED = bytes(32)
SIZES = [
    RingSize(n=24, k=23, t=13, t_c=13, k_min=13, n_min=16, committed=(1, 2)),
    RingSize(n=24, k=14, t=9, t_c=9, k_min=9, n_min=16, committed=(1,)),
    RingSize(n=5, k=4, t=3, t_c=3, k_min=3, n_min=4),
]
READING = np.array([1, 4_321, 17, 2_750], np.uint64)
STORES = {
    "moved away": Resume(),
    "of the round before": Resume(0, 0, Progress.SERVED, settled=True),
    "of before the share": Resume(0, 2, Progress.SERVED, settled=True),
}


class Gateway:
    """A gateway's processes in one ring: each has the keys of all, and the store that it is given."""

    def __init__(self, view: RingView, secrets: EpochSecrets, position: int) -> None:
        self.view, self.secrets, self.position = view, secrets, position
        self.table = NonceTable(SUITE, view)
        self.processes = 0

    def start(self, store: Resume, own: bytes | None = None) -> Member:
        """A new process, unless it is a copy of the memory of another one, with its nonce."""
        drawn = nonce(SEED, self.position, self.processes) if own is None else own
        self.processes += 1
        masks = MaskSchedule(SUITE, self.view, self.secrets, nonce=drawn)
        masks.incarnation.history = knowing(self.view, 1).history
        member = Member(SUITE, self.view, self.secrets, masks, store)
        member.appointed(0, 0.0)
        return member

    def share(self, member: Member, vector: Words, attempt: int = 0, round_: int = 1) -> wire.MaskedInput:
        """What the process answers to a head that tells it the nonce that it wants to hear."""
        view, table = self.view, self.table.copy()
        table.newest[self.position] = member.incarnation.nonce
        table.signatures[self.position] = member.incarnation.signature
        message = opening(view, 0, round_, attempt, nonces=table, settled=member.history.settled)
        if member.has_served:  # in a round that is void: the head has to say so
            message = replace(message, served=view.to_wire(view.everybody))
        member.offer(round_, vector, 1.0, [7 + index for index in range(view.committed_count)])
        effects = member.receive(message, 2.0)
        (share,) = [e.message for e in effects if isinstance(e, ToHead) and isinstance(e.message, wire.MaskedInput)]
        return share


def gateway(size: RingSize, position: int = 0) -> Gateway:
    view, secrets = make_ring(SUITE, size, SEED)
    return Gateway(view, secrets[position], position)


def difference(a: wire.MaskedInput, b: wire.MaskedInput) -> list[int]:
    return [int(word) for word in words_from_bytes(a.vector) - words_from_bytes(b.vector)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"n={size.n} k={size.k}")
@pytest.mark.parametrize("position", [0, 3, -1])
@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
def test_two_shares_of_one_attempt_have_no_mask_in_common(size: RingSize, position: int, store: Resume) -> None:
    ours = gateway(size, position % size.n)
    first = ours.share(ours.start(Resume(0, 0, Progress.SERVED, settled=True)), READING)
    second = ours.share(ours.start(store), np.array([1, 0, 0, 2_750], np.uint64))
    assert all(2**20 < word < 2**64 - 2**20 for word in difference(first, second))
    assert first.seed_commitment != second.seed_commitment
    if size.committed:
        blindings = [
            decode_blinding_vector(SUITE.group, each.blinding, len(size.committed)) for each in (first, second)
        ]
        assert all(a != b for a, b in zip(*blindings, strict=True))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"n={size.n} k={size.k}")
def test_what_the_attack_gave_where_the_nonce_is_the_same(size: RingSize) -> None:
    """The control, and what stays open: a copy of the memory of a running process has its nonce too."""
    ours = gateway(size)
    first = ours.start(Resume())
    second = ours.start(Resume(), own=first.incarnation.nonce)
    zero = np.array([1, 0, 0, 0], np.uint64)
    assert difference(ours.share(first, READING), ours.share(second, zero)) == [0, 4_321, 17, 2_750]


@pytest.mark.parametrize("attempt", [0, 1, 2])
def test_a_head_that_names_the_process_before_is_refused(attempt: int) -> None:
    """Neither the join's nonce nor that of any other process makes one mask with what it has not."""
    ours = gateway(SIZES[0])
    processes = [ours.start(Resume()) for _ in range(3)]
    for member in processes:
        member.offer(1, READING, 1.0, (7, 7))
    for member in processes:
        for other in processes:
            if other is not member:
                table = ours.table.copy()
                table.newest[0], table.signatures[0] = other.incarnation.nonce, other.incarnation.signature
                message = opening(ours.view, 0, 1, attempt, nonces=table, settled=1)
                with pytest.raises(RemoteProtocolError, match="another process"):
                    member.receive(message, 2.0)


def test_a_process_does_not_share_twice_whatever_becomes_of_its_store() -> None:
    """The store is put back under the running process, which makes its machine anew."""
    ours = gateway(SIZES[0])
    member = ours.start(Resume())
    ours.share(member, READING)
    again = Member(SUITE, ours.view, ours.secrets, member._place.masks, Resume())
    again.appointed(0, 3.0)
    with pytest.raises(RemoteProtocolError, match="not after the last one"):
        ours.share(again, READING)


# After each of the first rounds: whose store is moved away (process and store are new), in order.
ORDERS = {"one, then another": (2, 4), "twice the same": (2, 2), "every second one": (1, 3, 5), "all": range(1, 7)}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_ring_goes_on_exactly_with_the_new_processes(order: Iterable[int]) -> None:
    """What the operator does with a lost store costs the ring nothing; sums are exact."""
    ring = LocalRing(CheapSuite(), RingSize(n=7, k=6, t=4, t_c=4, k_min=4, n_min=5, rounds=8))
    for round_ in range(4):
        vectors = random_vectors(np.random.default_rng(round_), 7, 4)
        ended = ring.round(round_, vectors)
        assert (ended.outcome, ended.roster) == (wire.Outcome.OPENED, ring.view.everybody)
        assert list(ended.total) == [int(word) for word in sum(vectors, np.zeros(4, np.uint64))]
        for position in order if round_ < 2 else ():
            ring.restart(position, Resume())
