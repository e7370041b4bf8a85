"""
Many seeds of one scenario over the machine's cores, their results in the seeds' order whatever finishes first.

Seeds know nothing of each other, so a campaign is the same in one process and in many.  Processes are spawned and
ignore Ctrl-C: the one that started them ends them.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context

from loadtest.simulator.run import Played, Scenario, play
from protocol.errors import StromkreisError

_AHEAD = 8  # seeds that a process has before it, so that none waits for a slow one and few are played in vain


@dataclass(frozen=True, slots=True)
class Broken:
    """A seed in which something did not hold."""

    seed: int
    what: str


def campaign(scenario: Scenario, first: int, seeds: int, processes: int) -> Generator[Played | Broken]:
    """
    What each of `seeds` seeds from `first` on gave, in their order; 0 seeds: without end.

    The iterator ends the processes when it is closed.
    """
    numbers = range(first, first + seeds) if seeds else count(first)
    if processes == 1 or seeds == 1:
        yield from map(partial(_played, scenario), numbers)
        return
    with get_context("spawn").Pool(processes, _ignore_interrupt) as pool:
        pending = []
        for number in numbers:
            pending.append(pool.apply_async(_played, (scenario, number)))
            if len(pending) == _AHEAD * processes:
                yield pending.pop(0).get()
        for each in pending:
            yield each.get()


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _played(scenario: Scenario, seed: int) -> Played | Broken:
    try:
        return play(seed, scenario)
    except (AssertionError, StromkreisError) as violation:
        return Broken(seed, f"{type(violation).__name__}: {violation}")
