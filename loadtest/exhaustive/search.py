"""
Three searches over what a lying head may show: every combination, two attempts, and structured samples.

- `exhaustive`: all combinations of admissible rosters, with or without "shown nothing" as one more choice.
- `two_attempts`: the same reading in two opened sums, over all combinations of both attempts. They are coupled by
  rule 1 alone: if T is the set of members that act in the first, only T may act in it and only the others take part in
  the second. For a fixed T the attempts are independent, so (choices)^2n combinations cost 2^n · 2 · (choices)^n; on a
  ring without corrupt members one T of each class under rotation and reflection is enough.
- `sampled`: for larger rings, combinations that a purposeful liar would try. Uniformly random rosters practically
  never agree, and nothing opens; so each combination has two or three rosters, made from everybody minus runs next to
  the ends of an arc, minus few random members; members see them by arcs, with exceptions that see anything or nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loadtest.exhaustive.model import Masks, Ring, opened, smallest

_CHUNK = 1 << 17


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    Of how many combinations some sum opened in `opening`; `smallest` is the least honest set that did (0: none).

    `example` are the views and the opened sets (bitmasks by position) of one combination that opens the smallest.
    """

    combinations: int
    opening: int
    smallest: int
    example: tuple[tuple[int, ...], tuple[int, ...]] | None


@dataclass(frozen=True, slots=True)
class TwoAttempts:
    """`repeated` are bitmasks (T, readings that open in both attempts if T acts in the first); empty is the claim."""

    combinations: int
    repeated: tuple[tuple[int, int], ...]


def exhaustive(ring: Ring, *, may_see_nothing: bool = False) -> Outcome:
    """Every combination of admissible rosters, one per honest member."""
    return _judge(ring, _combinations(ring, ring.everybody, may_see_nothing=may_see_nothing))


def two_attempts(ring: Ring) -> TwoAttempts:
    """Every pair of attempts; members may be shown nothing in either."""
    repeated = []
    count = 0
    for acting in _acting_sets(ring):
        first = second = 0
        for views in _combinations(ring, ring.everybody, may_see_nothing=True):
            count += views.shape[1]
            first |= _union(opened(ring, views, may_act=acting))
        if first:
            for views in _combinations(ring, ring.everybody & ~acting, may_see_nothing=True):
                count += views.shape[1]
                second |= _union(opened(ring, views, absent=acting))
        if first & second:
            repeated.append((acting, first & second))
    return TwoAttempts(count, tuple(repeated))


def sampled(ring: Ring, combinations: int, rng: np.random.Generator) -> Outcome:
    """At least `combinations` structured random combinations of one attempt."""
    return _judge(ring, _samples(ring, combinations, rng))


def _judge(ring: Ring, source: Iterator[Masks]) -> Outcome:
    combinations = opening = least = 0
    example = None
    for views in source:
        sets = opened(ring, views)
        combinations += views.shape[1]
        opening += int(sets.any(axis=0).sum())
        size = smallest(sets)
        if size and (not least or size < least):
            least = size
            at = int((np.bitwise_count(sets) == size).any(axis=0).argmax())
            example = (tuple(views[:, at].tolist()), tuple(sets[:, at].tolist()))
    return Outcome(combinations, opening, least, example)


def _combinations(ring: Ring, members: int, *, may_see_nothing: bool) -> Iterator[Masks]:
    nothing = np.zeros(1, np.uint16)
    choices = {
        i: np.append(ring.admissible(i), nothing) if may_see_nothing else ring.admissible(i)
        for i in ring.honest
        if members >> i & 1
    }
    total = int(np.prod([choice.size for choice in choices.values()], dtype=np.int64))
    for start in range(0, total, _CHUNK):
        index = np.arange(start, min(total, start + _CHUNK))
        views = np.zeros((ring.n, index.size), np.uint16)
        for i, choice in choices.items():
            index, digit = np.divmod(index, choice.size)
            views[i] = choice[digit]
        yield views


def _acting_sets(ring: Ring) -> list[int]:
    honest = ring.everybody & ~ring.corrupt_mask
    sets = [mask for mask in range(1, ring.everybody + 1) if mask & ~honest == 0]
    if ring.corrupt:
        return sets
    return sorted({min(_images(mask, ring.n)) for mask in sets})


def _images(mask: int, n: int) -> Iterator[int]:
    members = [i for i in range(n) if mask >> i & 1]
    for shift in range(n):
        for direction in (1, -1):
            yield sum(1 << (direction * i + shift) % n for i in members)


def _union(sets: Masks) -> int:
    return int(np.bitwise_or.reduce(sets, axis=None))


def _samples(ring: Ring, combinations: int, rng: np.random.Generator) -> Iterator[Masks]:
    lists = {i: ring.admissible(i) for i in ring.honest}
    accepted = np.zeros((ring.n, 1 << ring.n), np.bool_)
    for i, rosters in lists.items():
        accepted[i, rosters] = True
    for _ in range(0, combinations, _CHUNK):
        arc = _arcs(ring, _CHUNK, rng)
        pool = [_roster(ring, arc, rng), _roster(ring, arc, rng), _roster(ring, _arcs(ring, _CHUNK, rng), rng)]
        stray = _sparse(ring, _CHUNK, rng)
        kind = rng.integers(0, 5, (ring.n, _CHUNK), dtype=np.uint8)
        views = np.zeros((ring.n, _CHUNK), np.uint16)
        for i, rosters in lists.items():
            anything = rosters[rng.integers(0, rosters.size, _CHUNK)]
            strange = np.choose(kind[i], [*pool, np.zeros_like(anything), anything])
            shown = np.where(stray >> i & 1, strange, np.where(arc >> i & 1, pool[0], pool[1]))
            views[i] = np.where(accepted[i, shown], shown, anything * (kind[i] & 1))
        yield views


def _arcs(ring: Ring, rows: int, rng: np.random.Generator) -> Masks:
    start, length = rng.integers(0, ring.n, rows), rng.integers(1, ring.n + 1, rows)
    positions = np.arange(ring.n)[:, None]
    return _pack((positions - start) % ring.n < length)


def _sparse(ring: Ring, rows: int, rng: np.random.Generator) -> Masks:
    rate = rng.choice([0.0, 0.05, 0.15, 0.4], rows)
    return _pack(rng.random((ring.n, rows), np.float32) < rate)


def _roster(ring: Ring, arc: Masks, rng: np.random.Generator) -> Masks:
    """Everybody, minus a random part of what lies within k/2 of an end of `arc` outside of it, minus a few."""
    grown = arc.copy()
    for _ in range(ring.k // 2):
        grown |= (grown << 1 | grown >> (ring.n - 1) | grown >> 1 | grown << (ring.n - 1)) & np.uint16(ring.everybody)
    border = grown & ~arc
    rate = rng.choice([0.0, 0.3, 0.7, 1.0], arc.size)
    dropped = border & _pack(rng.random((ring.n, arc.size), np.float32) < rate) | _sparse(ring, arc.size, rng)
    return np.uint16(ring.everybody) & ~dropped


def _pack(bits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Masks:
    packed = np.zeros(bits.shape[1], np.uint16)
    for i, row in enumerate(bits):
        packed |= row.astype(np.uint16) << i
    return packed
