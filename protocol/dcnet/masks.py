"""
The share engine: pairwise masks of whole epochs ahead of time, one vector add online.

A pair's masks are one AES-CTR keystream: attempt 0 of round r owns words [r·stride, r·stride + m) of stream 0, a
later attempt a is stream a.  The lower position adds, the higher subtracts, so over a roster they cancel.  What
round r needs when nobody is missing is the sum over all neighbours; it is made in blocks of rounds, one cipher call
per pair and block.  Who is missing from E costs one short cipher call each.  An epoch that takes several blocks reads
every stream on where the last block ended, under a cipher that is set up once.

Gateways of one process may share a `Fleet`: a pair with both ends in it has its keystream made once, added to the
one's block and subtracted from the other's.  The words are the same, and a gateway of its own is a fleet of one.

The stride is even because a cipher block is two words.  The second lane (blindings of committed slots) does the
same with scalars modulo the group order (see `commitments`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from weakref import WeakSet, WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from protocol.dcnet.commitments import LANE_MASK_SIZE, Lane, add_lanes, lane_masks, subtract_lanes
from protocol.dcnet.rings import RingView, positions_of
from protocol.dcnet.secrets import EpochSecrets
from protocol.dcnet.suite import Keystreams, Suite, derive

Words = NDArray[np.uint64]
_WORD = np.dtype("<u8")
_BLOCK_BYTES = 1 << 16  # of keystream per pair and block: bounds memory however long the epoch
_PIECE_WORDS = 1 << 14
_ROOM = 2  # words more than a piece, because the cipher wants 15 bytes of room


def words_from_bytes(data: bytes) -> Words:
    """Little-endian words of wire bytes, read-only."""
    return np.frombuffer(data, _WORD)


def self_mask(suite: Suite, seed: bytes, word_count: int) -> Words:
    """The self mask that grows from a revealed or recovered seed."""
    return words_from_bytes(suite.keystream(derive(seed, "self-words"), 0, 0, 8 * word_count))


def self_masks(suite: Suite, seeds: Iterable[bytes], word_count: int) -> Words:
    """The sum of the self masks of many seeds."""
    total = np.zeros(word_count, _WORD)
    buffer = _Buffer(word_count)
    for seed in seeds:
        stream = suite.keystreams(derive(seed, "self-words"))
        for start in range(0, word_count, _PIECE_WORDS):
            piece = total[start : start + _PIECE_WORDS]
            np.add(piece, buffer.words(stream, 0, 8 * start, len(piece)), piece)
    return total


def self_blinding(suite: Suite, seed: bytes, count: int) -> Lane:
    """The blinding lane's self mask from the same seed."""
    if not count:
        return ()
    return lane_masks(suite.group, suite.keystream(derive(seed, "self-scalars"), 0, 0, LANE_MASK_SIZE * count))


class _Buffer:
    """Where a piece of keystream is made, and added from while the cache holds it."""

    def __init__(self, word_count: int) -> None:
        self._words = np.empty(min(word_count, _PIECE_WORDS) + _ROOM, _WORD)
        self._octets = self._words.data.cast("B")

    def words(self, stream: Keystreams, number: int, offset: int, count: int) -> Words:
        """`count` words from byte `offset` of stream `number`, until the next call."""
        stream.into(self._octets, number, offset, 8 * count)
        return self._words[:count]


class Fleet:
    """The gateways of one process: finds the schedules of one ring, and keeps none of them alive."""

    def __init__(self) -> None:
        self._rings: WeakValueDictionary[bytes, WeakSet[MaskSchedule]] = WeakValueDictionary()

    def ring(self, view: RingView) -> WeakSet[MaskSchedule]:
        """The schedules of a ring, for a new one to join; it is forgotten with the last of them."""
        ring = self._rings.get(view.digest)
        if ring is None:
            ring = self._rings[view.digest] = WeakSet()
        return ring


class MaskSchedule:
    """One member's pairwise masks of one epoch."""

    def __init__(self, suite: Suite, view: RingView, secrets: EpochSecrets, fleet: Fleet | None = None) -> None:
        self.view = view
        self.position = secrets.position
        self._suite = suite
        self._neighbours = view.neighbourhoods[secrets.position]
        self._pairs = {other: secrets.pair(other) for other in positions_of(self._neighbours)}
        self._stride = view.word_count + view.word_count % 2
        self._block_rounds = max(1, min(view.rounds, _BLOCK_BYTES // (8 * self._stride)))
        self._block_index = -1
        self._block: Words = np.zeros((0, view.word_count), _WORD)
        self._reads_on = self._block_rounds < view.rounds
        self._streams: dict[int, Keystreams] = {}
        self._ring = (fleet or Fleet()).ring(view)
        self._ring.add(self)

    def prepare(self, round_: int) -> None:
        """
        Make the block of sums that holds `round_`, if it is not there yet: the work done ahead of time.

        Those of the fleet who have not got as far get theirs as well.
        """
        index = round_ // self._block_rounds
        if index == self._block_index:
            return
        first = index * self._block_rounds
        rounds = min(self._block_rounds, self.view.rounds - first)
        ring = {each.position: each for each in self._ring if each._block_index < index} | {self.position: self}
        totals = _net(dict(sorted(ring.items())), self.view.everybody, 0, 8 * self._stride * first, rounds * self._stride)
        for position, each in ring.items():
            each._block_index, each._block = index, totals[position].reshape(rounds, self._stride)

    def add(self, total: Words, round_: int, attempt: int, others: int) -> None:
        """Add Σ ± m_ij over the neighbours in the bitmap `others` to a vector."""
        missing = self._neighbours & ~others
        if attempt or missing.bit_count() > (self._neighbours & others).bit_count():
            total += self._sum(round_, attempt, self._neighbours & others)
            return
        self.prepare(round_)
        total += self._block[round_ % self._block_rounds][: len(total)]
        if missing:
            total -= self._sum(round_, attempt, missing)

    def words(self, round_: int, attempt: int, others: int) -> Words:
        """The same as a fresh array of the vector's length."""
        total = np.zeros(self.view.word_count, _WORD)
        self.add(total, round_, attempt, others)
        return total

    def _sum(self, round_: int, attempt: int, others: int) -> Words:
        offset = 8 * self._stride * round_
        return _net({self.position: self}, others, attempt, offset, self.view.word_count)[self.position]

    def _streams_with(self, other: int) -> Keystreams:
        """A pair's keystreams; they are kept where they will be read again, 1 KB a pair."""
        streams = self._streams.get(other)
        if streams is None:
            streams = self._suite.keystreams(self._pairs[other].mask)
            if self._reads_on:
                self._streams[other] = streams
        return streams

    def blindings(self, round_: int, attempt: int, others: int) -> Lane:
        """The blinding lane's Σ ± over the neighbours in `others`, one scalar for each committed slot."""
        group, count = self._suite.group, self.view.committed_count
        total: Lane = (0,) * count
        if not count:
            return total
        size = LANE_MASK_SIZE * count
        for other in positions_of(self._neighbours & others):
            lane = lane_masks(group, self._suite.keystream(self._pairs[other].blinding, attempt, size * round_, size))
            total = add_lanes(group, total, lane) if self.position < other else subtract_lanes(group, total, lane)
        return total


def _net(
    ring: Mapping[int, MaskSchedule], others: int, number: int, offset: int, count: int
) -> dict[int, Words]:  # fmt: skip
    """
    For each schedule in `ring`, by position, Σ ± of its neighbours in `others`: `count` words from byte `offset`.

    A pair with both ends in `ring` is read once, at its lower end.
    """
    totals = {position: np.zeros(count, _WORD) for position in ring}
    buffer = _Buffer(count)
    for start in range(0, count, _PIECE_WORDS):
        pieces = {position: total[start : start + _PIECE_WORDS] for position, total in totals.items()}
        for position, schedule in ring.items():
            mine = pieces[position]
            for other in positions_of(schedule._neighbours & others):
                theirs = pieces.get(other)
                if position > other and theirs is not None:
                    continue
                words = buffer.words(schedule._streams_with(other), number, offset + 8 * start, len(mine))
                if position > other:
                    np.subtract(mine, words, mine)
                    continue
                np.add(mine, words, mine)
                if theirs is not None:
                    np.subtract(theirs, words, theirs)
    return totals
