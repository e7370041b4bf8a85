"""
Rings: who sits where, who is whose neighbour, and the digest that binds it all.

The order inside a part of an area is by hash under a beacon that nobody chose alone (protocol.dcnet.setup.beacon).
Each gateway recomputes the cut and refuses a place that is not its own.  Neighbours are the k/2 positions on either
side (a Harary graph), so that a ring of any size costs a gateway k key agreements.

Cost: verifying one's own placement needs the list of one's own part, 94 bytes for each gateway and a value of 32; it is
flat in the size of area and network.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import compress, count

from protocol import wire
from protocol.dcnet.crypto.suite import digest
from protocol.dcnet.setup.schema import Noise
from protocol.dcnet.setup.terms import RoundTerms
from protocol.errors import RemoteProtocolError
from protocol.metering.interval import index_at, start_of
from protocol.wire import VERSION

_BITS = bytes.maketrans(b"01", b"\0\1")


def bitmap(positions: Sequence[int] | set[int] | frozenset[int]) -> int:
    """Positions as an integer with those bits set: sets of ring positions are integers throughout."""
    bits = 0
    for position in positions:
        bits |= 1 << position
    return bits


def positions_of(bits: int) -> list[int]:
    """The set bits, rising."""
    return list(_positions_of(bits))


@lru_cache(maxsize=512)  # all members of a ring ask for the same few sets, and each for its neighbours all the time
def _positions_of(bits: int) -> tuple[int, ...]:
    return tuple(
        compress(count(), bin(bits)[:1:-1].encode().translate(_BITS))
    )  # a loop over bits takes four times this


def cut_rings(beacon_value: bytes, identities: Sequence[str], ring_size: int) -> list[list[str]]:
    """
    The area's gateways in beacon order, cut into rings of at least `ring_size`, sizes differing by at most one.

    An area of N makes max(1, N // ring_size) rings: rings that are too small hide nobody, and one of up to twice the
    size costs its members little more.
    """
    order = sorted(identities, key=lambda identity: digest("order", beacon_value, identity.encode()))
    rings, start = [], 0
    for size in ring_sizes(len(order), ring_size):
        rings.append(order[start : start + size])
        start += size
    return rings


def ring_sizes(count: int, ring_size: int) -> list[int]:
    """How many members the rings of `count` gateways have."""
    rings = max(min(1, count), count // ring_size)
    base, extra = divmod(count, rings) if rings else (0, 0)
    return [base + (index < extra) for index in range(rings)]


def ring_number(index: int, split_bits: int, part: int) -> int:
    """The number of a part's ring in its epoch: the parts count their rings side by side."""
    return index << split_bits | part


@dataclass(frozen=True, slots=True)
class Member:
    """What everybody in the ring knows of a member: id, epoch key, CURVE key, signing key (Ed25519), first nonce."""

    identity: str
    public_key: bytes
    curve_key: bytes
    verify_key: bytes
    nonce: bytes

    @property
    def keys(self) -> tuple[bytes, bytes, bytes, bytes]:
        """All that the epoch digest binds besides the id: the three public keys and the nonce."""
        return self.public_key, self.curve_key, self.verify_key, self.nonce


@dataclass(frozen=True)
class Timing:
    """
    How long a ring waits for what, in seconds; round r is opened at first_open_s + r·period_s.

    Raising a wait lets slower gateways take part, lowering it leaves more time for another attempt.
    """

    first_open_s: float
    period_s: float
    gather_s: float  # a new head waits this long for members to reach it
    share_s: float  # from OPEN to the roster
    confirm_s: float  # from ROSTER to the confirmations
    reveal_s: float  # from CONFIRMED to the reveals, and again for the partials
    silent_s: float  # a member waits this long for its head's next word
    void_s: float  # after a round's opening time, when the round ledger closes it

    def open_at_s(self, round_: int) -> float:
        """When round `round_` is opened."""
        return start_of(round_, self.first_open_s, self.period_s)

    def round_at(self, now_s: float) -> int:
        """The last round whose opening time has come; negative before the first."""
        return index_at(now_s, self.first_open_s, self.period_s)

    @classmethod
    def spread(cls, first_open_s: float, period_s: float) -> Timing:
        """Waits as fixed parts of the period: three attempts and one change of head fit into it."""
        return cls(
            first_open_s=first_open_s,
            period_s=period_s,
            gather_s=0.08 * period_s,
            share_s=0.20 * period_s,
            confirm_s=0.15 * period_s,
            reveal_s=0.15 * period_s,
            silent_s=0.25 * period_s,
            void_s=0.82 * period_s,
        )


@dataclass(frozen=True)
class RingView:
    """One ring in one epoch as its members agree on it; all but the timing goes into the digest, or follows from it."""

    epoch: int
    ring: int
    members: tuple[Member, ...]
    schema_digest: bytes
    word_count: int
    committed: tuple[int, ...]  # indices of the committed slots
    rounds: int
    k: int
    t: int
    t_c: int
    k_min: int
    n_min: int
    result_key: bytes
    timing: Timing
    corrupt: int = 0  # members that were assumed to be so at most; follows from what is in the digest
    noise: tuple[tuple[int, Noise], ...] = ()  # by slot; its schema is in the digest
    bits: tuple[int, ...] = ()  # k of each committed slot (setup.ranges); follows from what is in the digest

    @property
    def honest_min(self) -> int:
        """How many honest members a total has at least."""
        return self.n_min - self.corrupt

    @property
    def size(self) -> int:
        """n, the number of members."""
        return len(self.members)

    @property
    def committed_count(self) -> int:
        """How many slots carry commitments."""
        return len(self.committed)

    @cached_property
    def everybody(self) -> int:
        """The bitmap of all positions."""
        return (1 << self.size) - 1

    @cached_property
    def bitmap_size(self) -> int:
        """Bytes of a bitmap on the wire."""
        return (self.size + 7) // 8

    @cached_property
    def neighbourhoods(self) -> tuple[int, ...]:
        """For each position the bitmap of its neighbours."""
        n = self.size
        if self.k >= n - 1:
            return tuple(self.everybody & ~(1 << i) for i in range(n))
        steps = [step for half in range(1, self.k // 2 + 1) for step in (half, -half)]
        return tuple(bitmap([(i + step) % n for step in steps]) for i in range(n))

    @cached_property
    def digest(self) -> bytes:
        """The epoch digest: salts every key, so that gateways with different layouts share no key."""
        numbers = struct.pack(
            "<B11Q", VERSION, self.epoch, self.ring, self.size, self.word_count, self.committed_count, self.rounds,
            self.k, self.t, self.t_c, self.k_min, self.n_min,
        )  # fmt: skip
        roster = [part for m in self.members for part in (m.identity.encode(), *m.keys)]
        return digest("epoch", numbers, self.schema_digest, self.result_key, *roster)

    def head_of(self, term: int) -> int:
        """The position of the head of a term: deputies follow in ring order."""
        return term % self.size

    def to_wire(self, bits: int) -> bytes:
        """A bitmap's bytes."""
        return bits.to_bytes(self.bitmap_size, "little")

    def from_wire(self, data: bytes) -> int:
        """A bitmap from a peer.  Raises RemoteProtocolError for a wrong size or positions that do not exist."""
        bits = int.from_bytes(data, "little")
        if len(data) != self.bitmap_size or bits > self.everybody:
            raise RemoteProtocolError("bad_bitmap", f"expected {self.bitmap_size} bytes with {self.size} positions")
        return bits


def round_digest(
    view: RingView, round_: int, attempt: int, term: int, expected: int, roster: int, terms: RoundTerms
) -> bytes:
    """What is confirmed: epoch, ring, round, attempt, head, E, U and the terms of the attempt (see `setup.terms`)."""
    numbers = struct.pack("<QQQQ", view.ring, round_, attempt, term)
    return _round_digest(view.digest, numbers, view.to_wire(expected), view.to_wire(roster), terms.digest)


@lru_cache(maxsize=64)
def _round_digest(*parts: bytes) -> bytes:
    """It is public, and the same for all members of an attempt."""
    return digest("confirm", *parts)


def last_contribution_text(identity: str, message: wire.LastContribution) -> bytes:
    """What the coordinator signs of an answer to a gateway: all of it, but for the signature."""
    return digest("last contribution", identity.encode(), wire.encode(replace(message, statement=bytes(64))))


def result_text(view: RingView, round_: int, outcome: int, roster: int) -> bytes:
    """What the round ledger signs."""
    return result_text_of(view.digest, view.ring, round_, outcome, view.to_wire(roster))


@lru_cache(maxsize=64)
def result_text_of(epoch_digest: bytes, ring: int, round_: int, outcome: int, roster: bytes) -> bytes:
    """The same for whoever has kept no more of a ring than its digest; `roster` is the bitmap's bytes."""
    return digest("result", epoch_digest, struct.pack("<QQQ", ring, round_, outcome), roster)
