"""
The share engine: pairwise masks of whole epochs ahead of time, one vector add online.

A pair's masks are one AES-CTR keystream: attempt 0 of round r owns words [r·stride, r·stride + m) of stream 0, a
later attempt a is stream a.  The lower position adds, the higher subtracts, so over a roster they cancel.  What
round r needs when nobody is missing is the sum over all neighbours; it is made in blocks of rounds, one cipher call
per pair and block.  Who is missing from E costs one short cipher call each.

The stride is even because a cipher block is two words.  The second lane (blindings of committed slots) does the
same with scalars modulo the group order (see `commitments`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from protocol.dcnet.commitments import LANE_MASK_SIZE, Lane, add_lanes, lane_masks, subtract_lanes
from protocol.dcnet.rings import RingView, positions_of
from protocol.dcnet.secrets import EpochSecrets
from protocol.dcnet.suite import Suite, derive

Words = NDArray[np.uint64]
BINDING_SIZE = 16
_BLOCK_BYTES = 1 << 16  # of keystream per pair and block: fits the L2 cache, bounds memory however long the epoch


def words_from_bytes(data: bytes) -> Words:
    """Little-endian words of wire bytes, read-only."""
    return np.frombuffer(data, dtype="<u8")


def self_mask(suite: Suite, seed: bytes, word_count: int) -> Words:
    """The self mask that grows from a revealed or recovered seed."""
    return words_from_bytes(suite.keystream(derive(seed, "self-words"), 0, 0, 8 * word_count))


def seed_binding(seed: bytes) -> bytes:
    """
    16 bytes that a SHARE binds its self mask's seed with; a seed that is revealed or recovered is held against them.

    The seed is uniform and expanded for each purpose on its own, so they say nothing of the masks.  Another seed with
    the same binding takes 2^128 trials; two that a liar makes for itself, 2^64, would spare it this check alone.
    """
    return derive(seed, "self-binding")[:BINDING_SIZE]


def self_blinding(suite: Suite, seed: bytes, count: int) -> Lane:
    """The blinding lane's self mask from the same seed."""
    if not count:
        return ()
    return lane_masks(suite.group, suite.keystream(derive(seed, "self-scalars"), 0, 0, LANE_MASK_SIZE * count))


class MaskSchedule:
    """One member's pairwise masks of one epoch."""

    def __init__(self, suite: Suite, view: RingView, secrets: EpochSecrets) -> None:
        self._suite = suite
        self._view = view
        self._position = secrets.position
        self._neighbours = view.neighbourhoods[secrets.position]
        self._pairs = {other: secrets.pair(other) for other in positions_of(self._neighbours)}
        self._stride = view.word_count + view.word_count % 2
        self._block_rounds = max(1, min(view.rounds, _BLOCK_BYTES // (8 * self._stride)))
        self._block_index = -1
        self._block: Words = np.zeros((0, view.word_count), dtype=np.uint64)

    def prepare(self, round_: int) -> None:
        """Make the block of sums that holds `round_`, if it is not there yet: the work done ahead of time."""
        index = round_ // self._block_rounds
        if index == self._block_index:
            return
        first = index * self._block_rounds
        rounds = min(self._block_rounds, self._view.rounds - first)
        total = self._net(self._pairs, 0, 8 * self._stride * first, rounds * self._stride)
        self._block_index, self._block = index, total.reshape(rounds, self._stride)

    def words(self, round_: int, attempt: int, others: int) -> Words:
        """Σ ± m_ij over the neighbours in the bitmap `others`, a fresh array of the vector's length."""
        count = self._view.word_count
        missing = self._neighbours & ~others
        if attempt or missing.bit_count() > (self._neighbours & others).bit_count():
            return self._sum(round_, attempt, self._neighbours & others)
        self.prepare(round_)
        total: Words = self._block[round_ % self._block_rounds][:count].copy()
        if missing:
            total -= self._sum(round_, attempt, missing)
        return total

    def _sum(self, round_: int, attempt: int, others: int) -> Words:
        return self._net(positions_of(others), attempt, 8 * self._stride * round_, self._view.word_count)

    def _net(self, others: Iterable[int], stream: int, offset: int, count: int) -> Words:
        """Σ ± of `count` words from byte `offset` of a stream of each pair; one buffer takes all the keystreams."""
        total = np.zeros(count, dtype=np.uint64)
        buffer = np.empty(count + 2, dtype="<u8")  # two words more, because the cipher wants 15 bytes of room
        octets, words = buffer.data.cast("B"), buffer[:count]
        for other in others:
            self._suite.keystream_into(octets, self._pairs[other].mask, stream, offset, 8 * count)
            if self._position < other:
                np.add(total, words, out=total)
            else:
                np.subtract(total, words, out=total)
        return total

    def blindings(self, round_: int, attempt: int, others: int) -> Lane:
        """The blinding lane's Σ ± over the neighbours in `others`, one scalar for each committed slot."""
        group, count = self._suite.group, self._view.committed_count
        total: Lane = (0,) * count
        if not count:
            return total
        size = LANE_MASK_SIZE * count
        for other in positions_of(self._neighbours & others):
            lane = lane_masks(group, self._suite.keystream(self._pairs[other].blinding, attempt, size * round_, size))
            total = add_lanes(group, total, lane) if self._position < other else subtract_lanes(group, total, lane)
        return total
