"""
How a figure is taken: medians with their quartiles, ours and the peer's in turn.

Machines differ, and so do minutes, and others use them too.  So a comparison is made of pairs, one sample of ours right
after one of the peer's: whatever else the machine does meets both alike, and the ratio is taken pair by pair.  Work
that keeps one core busy is counted in CPU time; what waits for a network is counted by the clock, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter, process_time


@dataclass(frozen=True, slots=True)
class Spread:
    """The median and the quartiles of `count` samples; for a single sample all three are that one."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Of at least one sample."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], 1)
        low, _, high = quantiles(samples, n=4, method="inclusive")
        return cls(median(samples), low, high, len(samples))


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to reach: `of` says whether ours or the ratio is held against the limit."""

    of: str  # "ours" or "ratio"
    limit: float
    at_least: bool

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "<"
        return f"{sign} {self.limit:g}{'x' if self.of == 'ratio' else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the table.  `ratio` is how many times better ours is; `clock` is "cpu", "wall" or "" (no time).

    `quoted` marks a peer's figure that somebody else measured on another machine: no ratio is made of it.
    """

    what: str
    unit: str
    ours: Spread
    peer_name: str = ""
    peer: Spread | None = None
    ratio: Spread | None = None
    target: Target | None = None
    clock: str = "cpu"
    quoted: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing to hold against it."""
        if self.target is None:
            return None
        value = self.ours if self.target.of == "ours" else self.ratio
        if value is None:
            return None
        return value.median >= self.target.limit if self.target.at_least else value.median < self.target.limit


def cpu_us(work: Callable[[], object], times: int) -> float:
    """CPU time of one call in µs, the mean of `times` calls in a row."""
    begin = process_time()
    for _ in range(times):
        work()
    return 1e6 * (process_time() - begin) / times


def wall_us(work: Callable[[], object], times: int) -> float:
    """The same by the clock on the wall."""
    begin = perf_counter()
    for _ in range(times):
        work()
    return 1e6 * (perf_counter() - begin) / times


def samples(sample: Callable[[], float], count: int) -> Spread:
    """Take a figure `count` times, after one that warms up."""
    sample()
    return Spread.of([sample() for _ in range(count)])


def pairs(ours: Callable[[], float], peer: Callable[[], float], count: int) -> tuple[Spread, Spread, Spread]:
    """Peer and ours in turn, `count` times after one to warm up: ours, the peer's, and the ratio peer/ours."""
    peer()
    ours()
    taken = [(peer(), ours()) for _ in range(count)]
    return (
        Spread.of([mine for _, mine in taken]),
        Spread.of([theirs for theirs, _ in taken]),
        Spread.of([theirs / mine for theirs, mine in taken]),
    )
