"""
What a lying head can open on a small ring in which one gateway runs in several copies of its store.

The copies have the same keys, shares and reading, and nonces of their own: the pads of two processes are those of this
very pair.  The head shows every process its own roster, tells it which copy the copied position is, or leaves it out; a
process refuses a copy that it is not.  The rest is `model`: who acts, which self masks and pads are known.  A pad that
only one of its two ends has masked with, the other one being left out or told another copy, closes the share that has
it, unless it was revealed.

Sums are again those of the components of unrevealed pads that have no closed share.  A reading may be in several of
them here, once for each copy: two components that both have it, subtracted, are a sum without it, so the smallest set
that opens is a component or what is left of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from loadtest.exhaustive.model import Ring

_CHUNK = 1 << 17
_COPIED = 0  # the position that has copies

Column = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CopiesOutcome:
    """How many combinations of views were searched, and the fewest honest members in a sum that opens."""

    combinations: int
    smallest: int


@dataclass(frozen=True, slots=True)
class _Process:
    """One process: its position, which copy it is, and what it can be shown: (takes part, roster, copy) each."""

    position: int
    copy: int
    options: tuple[tuple[bool, int, int], ...]


def _processes(ring: Ring, copies: int) -> list[_Process]:
    out = []
    for position in range(ring.n):
        rosters = [
            roster
            for roster in range(1 << ring.n)
            if roster >> position & 1
            and roster.bit_count() >= ring.n_min
            and (roster & ring.neighbour_mask(position)).bit_count() >= ring.k_min
        ]
        for copy in range(copies if position == _COPIED else 1):
            told = [copy] if position == _COPIED else range(copies)
            shown = [(True, roster, which) for roster in rosters for which in told]
            out.append(_Process(position, copy, ((False, 0, copies), *shown)))
    return out


def every_view(ring: Ring, copies: int) -> CopiesOutcome:
    """All that a head can show to a ring without corrupt members whose position 0 runs in `copies` processes."""
    processes = _processes(ring, copies)
    sizes = [len(each.options) for each in processes]
    combinations, smallest = prod(sizes), ring.n
    for start in range(0, combinations, _CHUNK):
        index = np.arange(start, min(combinations, start + _CHUNK))
        views = []
        for process, size in zip(processes, sizes, strict=True):
            shown = np.array(process.options)[index % size]
            views.append((shown[:, 0].astype(bool), shown[:, 1], shown[:, 2]))
            index //= size
        smallest = min(smallest, _smallest(ring, processes, views))
    return CopiesOutcome(combinations, smallest)


def _smallest(
    ring: Ring, processes: list[_Process], views: list[tuple[Column, NDArray[np.int64], NDArray[np.int64]]]
) -> int:
    count, columns = len(processes), len(views[0][0])
    takes, rosters, told = [view[0] for view in views], [view[1] for view in views], [view[2] for view in views]

    def believes(v: int, w: int) -> Column:
        """Whether process v takes w for the one at w's position."""
        other = processes[w]
        if other.position != _COPIED:
            return takes[v]
        is_told: Column = takes[v] & (told[v] == other.copy)
        return is_told

    def has(v: int, position: int) -> Column:
        column: Column = (rosters[v] >> position & 1).astype(bool)
        return column

    def neighbours(v: int) -> list[int]:
        near = ring.neighbour_mask(processes[v].position)
        return [w for w in range(count) if near >> processes[w].position & 1]

    def by_position(found: dict[int, Column]) -> NDArray[np.int64]:
        """At how many positions one of the processes is."""
        at: dict[int, Column] = {}
        for w, column in found.items():
            position = processes[w].position
            at[position] = at[position] | column if position in at else column
        return sum((column.astype(np.int64) for column in at.values()), np.zeros(columns, np.int64))

    acts = []
    for v in range(count):
        same = {
            w: takes[w] & (rosters[w] == rosters[v]) & (~has(v, _COPIED) | (told[w] == told[v]))
            & has(v, processes[w].position)
            for w in neighbours(v)
        }  # fmt: skip
        acts.append(takes[v] & (by_position(same) >= ring.t_c))
    closed, edges = [], {}
    for v in range(count):
        position = processes[v].position
        help_ = {w: acts[w] & has(w, position) & believes(w, v) for w in neighbours(v)}
        shut = takes[v] & ~(acts[v] | (by_position(help_) >= ring.t))
        for w in neighbours(v):
            revealed = (believes(v, w) & ~has(v, processes[w].position)) | (believes(w, v) & ~has(w, position))
            shut |= believes(v, w) & ~believes(w, v) & ~revealed
            edges[v, w] = believes(v, w) & believes(w, v) & ~revealed
        closed.append(shut)
    label = [np.full(columns, v) for v in range(count)]
    for _ in range(count):
        for (v, w), edge in edges.items():
            low = np.minimum(label[v], label[w])
            label[v], label[w] = np.where(edge, low, label[v]), np.where(edge, low, label[w])
    sizes, with_copy = [], []
    for root in range(count):
        inside = [takes[v] & (label[v] == root) for v in range(count)]
        is_open = ~np.any([each & shut for each, shut in zip(inside, closed, strict=True)], axis=0)
        size = by_position(dict(enumerate(inside))) * is_open
        sizes.append(np.where(size > 0, size, ring.n + 1))
        copied = np.any([inside[v] for v in range(count) if processes[v].position == _COPIED], axis=0)
        with_copy.append(np.where(copied & (size > 0), size, 2 * ring.n))
    shared = np.sort(with_copy, axis=0)
    differences = shared[0] + shared[1] - 2
    return int(min(np.min(sizes), np.min(np.where(differences > 0, differences, ring.n + 1))))
