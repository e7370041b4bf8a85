"""
Many seeds of one scenario over the machine's cores, their results in the seeds' order whatever finishes first.

Seeds know nothing of each other, so a campaign is the same in one process and in many.  Processes are spawned and
ignore Ctrl-C: the one that started them ends them.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context

from loadtest.simulator.run import Played, Scenario, play
from protocol.errors import StromkreisError

_GARBAGE = 200_000  # objects between collections: a ring makes many that live for one event, and few that are garbage
_AHEAD = 8  # seeds that a process has before it, so that none waits for a slow one and few are played in vain


@dataclass(frozen=True, slots=True)
class Broken:
    """A seed in which something did not hold."""

    seed: int
    what: str


def campaign(scenario: Scenario, first: int, seeds: int, jobs: int) -> Generator[Played | Broken]:
    """
    What each of `seeds` seeds from `first` on gave, in their order, from `jobs` processes; 0 seeds: without end.

    The iterator ends the processes when it is closed.
    """
    numbers = range(first, first + seeds) if seeds else count(first)
    if jobs == 1 or seeds == 1:
        thresholds = gc.get_threshold()
        gc.set_threshold(_GARBAGE)
        try:
            yield from map(partial(_played, scenario), numbers)
        finally:
            gc.set_threshold(*thresholds)
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: else who stops us stops what is still starting
    try:
        started = get_context("spawn").Pool(jobs, _begin)
    finally:
        signal.signal(signal.SIGINT, before)
    with started as pool:
        pending = []
        for number in numbers:
            pending.append(pool.apply_async(_played, (scenario, number)))
            if len(pending) == _AHEAD * jobs:
                yield pending.pop(0).get()
        for each in pending:
            yield each.get()


def _begin() -> None:
    gc.freeze()
    gc.set_threshold(_GARBAGE)


def _played(scenario: Scenario, seed: int) -> Played | Broken:
    try:
        return play(seed, scenario)
    except (AssertionError, StromkreisError) as violation:
        return Broken(seed, f"{type(violation).__name__}: {violation}")
