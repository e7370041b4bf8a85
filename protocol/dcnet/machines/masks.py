"""
The share engine: pairwise masks of whole epochs ahead of time, one vector add online.

A pair's masks are one AES-CTR keystream: attempt 0 of round r owns words [r·stride, r·stride + m) of stream 0, a
later attempt a is stream a.  The lower position adds, the higher subtracts, so over a roster they cancel.  What
round r needs when nobody is missing is the sum over all neighbours; it is made in blocks of rounds, one cipher call
per pair and block.  Who is missing from E costs one short cipher call each.  An epoch that takes several blocks reads
every stream on where the last block ended, under a cipher that is set up once.

The stream's key is made of the pair's mask key and the nonces of both ends (`incarnations`).  Where a neighbour was
started anew, the rest of the block is put right with two cipher calls, and all other pairs keep what is there.

Gateways of one process may share a `Fleet`: a pair with both ends in it has its keystream made once, added to the
one's block and subtracted from the other's.  The words are the same, and a gateway of its own is a fleet of one.

The stride is even because a cipher block is two words.  The blinding vector (of committed slots) does the
same with scalars modulo the group order (see `commitments`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from weakref import WeakSet, WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from protocol import wire
from protocol.dcnet.crypto.commitments import (
    BLINDING_MASK_SIZE,
    BlindingVector,
    add_blinding_vectors,
    blinding_masks,
    subtract_blinding_vectors,
)
from protocol.dcnet.crypto.suite import Encryptor, Suite, counter_block, derive, zeros
from protocol.dcnet.machines.incarnations import Incarnation
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.dcnet.setup.statements import nonce_text

Words = NDArray[np.uint64]
_WORD = np.dtype("<u8")
_BLOCK_BYTES = 1 << 16  # of keystream per pair and block: bounds memory however long the epoch
_BLOCK_ROUNDS = 32  # what is made ahead lies in memory until its round comes,
_BLOCK_ROUNDS_A_PAIR = 2  # and each block sets up a cipher a pair, some 3 µs: 2 µs a round, however many pairs
_CIPHER_BYTES = 1 << 10  # a cipher that stands
_PIECE_WORDS = 1 << 14  # of keystream per call: the cache holds it until it is added, and calls cost next to nothing
_FIRST = counter_block(0, 0)


def words_from_bytes(data: bytes) -> Words:
    """Little-endian words of wire bytes, read-only."""
    return np.frombuffer(data, _WORD)


def incarnation_key(base: bytes, low: bytes, high: bytes) -> bytes:
    """The key of a pair for one purpose, of the two processes that it is made with, the lower position's first."""
    return derive(base, "incarnations", low, high)


def first_mask_word(
    suite: Suite, view: RingView, base: bytes, nonces: tuple[bytes, bytes], round_: int, attempt: int
) -> int:
    """The word of slot 0, which carries no data, of the pair with this mask key and these nonces, the lower's first."""
    key = incarnation_key(base, *nonces)
    words = suite.keystream(key, attempt, 8 * stride(view) * round_, 8)
    return int.from_bytes(words, "little")


def stride(view: RingView) -> int:
    """Words of a round in a pair's stream: an even number, since a cipher block is two words."""
    return view.word_count + view.word_count % 2


def self_mask(suite: Suite, seed: bytes, word_count: int) -> Words:
    """The self mask that grows from a revealed or recovered seed, a fresh array."""
    buffer, octets = _buffer(word_count)
    _self_words(suite, seed).update_into(zeros(8 * word_count), octets)
    return buffer[:word_count]


def self_masks(suite: Suite, seeds: Iterable[bytes], word_count: int) -> Words:
    """The sum of the self masks of many seeds."""
    total = np.zeros(word_count, _WORD)
    buffer, octets = _buffer(min(word_count, _PIECE_WORDS))
    for seed in seeds:
        cipher = _self_words(suite, seed)
        for start in range(0, word_count, _PIECE_WORDS):
            piece = total[start : start + _PIECE_WORDS]
            cipher.update_into(zeros(8 * len(piece)), octets)
            np.add(piece, buffer[: len(piece)], piece)
    return total


def _self_words(suite: Suite, seed: bytes) -> Encryptor:
    return suite.encryptor(derive(seed, "self-words"), _FIRST)


def _buffer(word_count: int) -> tuple[Words, memoryview]:
    """Where keystream is made: as words, and as the cipher sees them, which wants 15 bytes of room."""
    buffer = np.empty(word_count + 2, _WORD)
    return buffer, buffer.data.cast("B")


def seed_commitment(seed: bytes) -> bytes:
    """
    32 bytes by which a MASKED_INPUT commits to its self mask's seed; a revealed or recovered seed must fit them.

    The seed is uniform and expanded for each purpose on its own, so they say nothing of the masks.  Nobody finds two
    seeds with one commitment: what a member signed names one self mask.
    """
    return derive(seed, "self-binding")


def self_blinding(suite: Suite, seed: bytes, count: int) -> BlindingVector:
    """The blinding blinding_vector's self mask from the same seed."""
    if not count:
        return ()
    return blinding_masks(suite.group, suite.keystream(derive(seed, "self-scalars"), 0, 0, BLINDING_MASK_SIZE * count))


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
    """The pairwise masks of one process of a member, for one epoch; `nonce` is its own, that of its join by default."""

    def __init__(
        self, suite: Suite, view: RingView, secrets: EpochSecrets, fleet: Fleet | None = None, nonce: bytes = b""
    ) -> None:
        self.view = view
        self.position = secrets.position
        joined = view.members[self.position].nonce
        own = nonce or joined
        signature = b"" if own == joined else secrets.sign(nonce_text(view, self.position, own))
        self.incarnation = Incarnation(suite, view, self.position, own, signature)
        self._suite = suite
        self._neighbours = view.neighbourhoods[secrets.position]
        self._secrets = secrets
        self._nonces: dict[int, bytes] = {}  # of neighbours that were started anew; the others' are LAYOUT's
        self._stride = stride(view)
        rounds_max = max(_BLOCK_ROUNDS, _BLOCK_ROUNDS_A_PAIR * self._neighbours.bit_count())
        self._block_rounds = max(1, min(view.rounds, rounds_max, _BLOCK_BYTES // (8 * self._stride)))
        self._block_index = -1
        self._block: Words = np.zeros((0, view.word_count), _WORD)
        self._standing: dict[tuple[int, bytes], list[tuple[int, Encryptor]]] = {}
        self._ring = (fleet or Fleet()).ring(view)
        self._ring.add(self)

    def use(self, message: wire.Open) -> None:
        """
        Contribute to an attempt that `incarnation` has checked, under the nonces that it is opened with.

        Every later call is about this attempt, until the next one is used.
        """
        for other, nonce in self.incarnation.use(message).items():
            if self._neighbours >> other & 1 and self._nonce(other) != nonce:
                self._change(other, nonce, message.round)

    def _nonce(self, other: int) -> bytes:
        """That of a neighbour's process that we mask with."""
        return self._nonces.get(other) or self.view.members[other].nonce

    def _change(self, other: int, nonce: bytes, round_: int) -> None:
        """A neighbour was started anew: mask with its new nonce from a round on."""
        self._standing.clear()
        if self._block_index != round_ // self._block_rounds:
            self._block_index, self._nonces[other] = -1, nonce
            return
        rest = self._block[round_ % self._block_rounds :].reshape(-1)
        counter, sign = counter_block(0, 8 * self._stride * round_), 1 if self.position < other else -1
        for each, step in ((self._nonce(other), -sign), (nonce, sign)):
            self._nonces[other] = each
            ((_, cipher),) = self._ciphers(1 << other, counter)
            words = words_from_bytes(cipher.update(zeros(8 * len(rest))))
            (np.add if step > 0 else np.subtract)(rest, words, rest)

    def _key(self, other: int, base: bytes) -> bytes:
        """The key of a pair for one purpose, of the two processes that it is made with."""
        own, theirs = self.incarnation.nonce, self._nonce(other)
        low, high = (own, theirs) if self.position < other else (theirs, own)
        return incarnation_key(base, low, high)

    def _shared(self, ring: Mapping[int, MaskSchedule]) -> int:
        """Which of these schedules mask with this very process of ours, as it does with theirs: a bitmap."""
        return bitmap(
            [
                other
                for other in positions_of(self._neighbours & bitmap(list(ring)))
                if self._nonce(other) == ring[other].incarnation.nonce
                and ring[other]._nonce(self.position) == self.incarnation.nonce
            ]
        )

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
        offset, count = 8 * self._stride * first, rounds * self._stride
        # Else a new cipher costs less than one that waits in memory for the next block, for each pair.
        reads_on = first + rounds < self.view.rounds and 8 * self._stride >= _CIPHER_BYTES
        totals = _net(dict(sorted(ring.items())), self.view.everybody, 0, offset, count, reads_on=reads_on)
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

    def _ciphers(self, others: int, counter: bytes) -> list[tuple[int, Encryptor]]:
        """The ciphers of the pairs with `others` at a counter block: those that stand there, or new ones."""
        standing = self._standing.pop((others, counter), None)
        if standing is not None:
            return standing
        pair, encryptor = self._secrets.pair, self._suite.encryptor
        return [(other, encryptor(self._key(other, pair(other).mask), counter)) for other in positions_of(others)]

    def blindings(self, round_: int, attempt: int, others: int) -> BlindingVector:
        """The blinding blinding_vector's Σ ± over the neighbours in `others`, one scalar for each committed slot."""
        group, count = self._suite.group, self.view.committed_count
        total: BlindingVector = (0,) * count
        if not count:
            return total
        size = BLINDING_MASK_SIZE * count
        for other in positions_of(self._neighbours & others):
            blinding_vector = blinding_masks(
                group,
                self._suite.keystream(
                    self._key(other, self._secrets.pair(other).blinding), attempt, size * round_, size
                ),
            )
            total = (
                add_blinding_vectors(group, total, blinding_vector)
                if self.position < other
                else subtract_blinding_vectors(group, total, blinding_vector)
            )
        return total


def _net(
    ring: Mapping[int, MaskSchedule], others: int, stream: int, offset: int, count: int, *, reads_on: bool = False
) -> dict[int, Words]:
    """
    For each schedule in `ring`, by position, Σ ± of its neighbours in `others`: `count` words from byte `offset`.

    A pair with both ends in `ring` is read once, at its lower end; `others` is everybody where there are several.
    With `reads_on` the ciphers are kept for who comes to read on.
    """
    shared = {position: schedule._shared(ring) for position, schedule in ring.items()}
    totals = {position: np.zeros(count, _WORD) for position in ring}
    buffer, octets = _buffer(min(count, _PIECE_WORDS))
    for start in range(0, count, _PIECE_WORDS):
        pieces = {position: total[start : start + _PIECE_WORDS] for position, total in totals.items()}
        words = buffer[: min(_PIECE_WORDS, count - start)]
        nothing = zeros(8 * len(words))
        counter = counter_block(stream, offset + 8 * start)
        after = counter_block(stream, offset + 8 * (start + len(words)))
        for position, schedule in ring.items():
            mine = pieces[position]
            to_read = schedule._neighbours & others & ~(shared[position] & ((1 << position) - 1))
            ciphers = schedule._ciphers(to_read, counter)
            for other, cipher in ciphers:
                cipher.update_into(nothing, octets)
                if position > other:
                    np.subtract(mine, words, mine)
                    continue
                np.add(mine, words, mine)
                if shared[position] >> other & 1:
                    theirs = pieces[other]
                    np.subtract(theirs, words, theirs)
            if reads_on:
                schedule._standing = {(to_read, after): ciphers}
    return totals
