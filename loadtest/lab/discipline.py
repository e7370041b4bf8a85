"""
Who is in a total, and how the energy of a household that was left out comes back: as linear maps over intervals.

Where returns are free a head may leave a member out in any round, and all that was missed comes with the next
contribution.  The protocol limits returns and releases missed energy slowly: what members do is played here by its own
rules (`protocol.dcnet.discipline`), and read off as the weights with which intervals enter totals.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from protocol.dcnet.discipline.carried_energy import EnergyAccount, contribute
from protocol.dcnet.discipline.returns import Attendance, EpochAttendance
from protocol.metering.interval import QUARTER_HOUR_S

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_LEVEL, _STEP = 10**18, 10**12  # of energy in an interval: rounding to whole units is far below a step


class Returns(Enum):
    """What a member does about being left out: come back at once, or within the protocol's budget."""

    FREE = 1
    LIMITED = 2


def toggling(count: int, returns: Returns, away: int = 1) -> Bools:
    """
    The most that a head gets from a member that keeps to the rules: out for `away` intervals where the return is paid.

    Without a token the member cannot come back, so a head that wants to go on seeing it keeps it in.
    """
    served = np.ones(count, np.bool_)
    mine = EpochAttendance(Attendance.first(0, is_key_new=True), 0, QUARTER_HOUR_S)
    mine = mine.entered(0, is_return=True).served(0)
    interval = 1
    while interval < count:
        back = interval + away
        if returns is Returns.FREE or mine.has_token(back):
            served[interval:back] = False
            mine = mine.entered(back, is_return=returns is Returns.LIMITED)
            interval = back
        if interval < count:
            mine = mine.served(interval)
        interval += 1
    return served


def contributions(served: Bools, returns: Returns, opened: Bools | None = None) -> Floats:
    """
    How intervals enter contributions, shape (intervals, intervals): row t is what is contributed in interval t.

    In rounds that are not `opened` (void, or said to be) a member contributes and its account does not move.
    """
    opened = np.ones(len(served), np.bool_) if opened is None else opened
    return _at_once(served, opened) if returns is Returns.FREE else _released(served, opened)


def _at_once(served: Bools, opened: Bools) -> Floats:
    rows = np.zeros((len(served), len(served)))
    owed = np.zeros(len(served))
    for interval, is_served in enumerate(served):
        owed[interval] = 1.0
        if is_served:
            rows[interval] = owed
            if opened[interval]:
                owed = np.zeros(len(served))
    return rows


def _released(served: Bools, opened: Bools) -> Floats:
    """By one step more in one interval after the other, on a level that keeps every account in the same course."""
    count = len(served)
    level, states = _played(served, opened, EnergyAccount(0, 0), 0, [_LEVEL] * count)
    rows = np.zeros((count, count))
    for interval in range(count):
        moved = [_LEVEL + _STEP, *[_LEVEL] * (count - interval - 1)]
        begun = states[interval - 1] if interval else EnergyAccount(0, 0)
        more, _ = _played(served, opened, begun, interval, moved)
        rows[interval:, interval] = [(a - b) / _STEP for a, b in zip(more, level[interval:], strict=True)]
    return rows


def _played(
    served: Bools, opened: Bools, account: EnergyAccount, first: int, moved: list[int]
) -> tuple[list[int], list[EnergyAccount]]:
    """What a member contributes from interval `first` on, 0 where it is left out, and its account after each."""
    register = first * _LEVEL
    words, states = [], []
    for interval, energy in enumerate(moved, first):
        register += energy
        word = 0
        if served[interval]:
            word, after = contribute(account, register, interval, length_s=1, limit=2**200)
            account = after if opened[interval] else account
        words.append(word)
        states.append(account)
    return words, states


def alternating(count: int) -> Bools:
    """In every second interval."""
    return np.asarray(np.arange(count) % 2 == 0)


def out_for(count: int, shortest: int, longest: int, rng: np.random.Generator) -> Bools:
    """Out for so many intervals at random, then in for as many."""
    wanted = np.ones(count, np.bool_)
    at = int(rng.integers(1, 8))
    while at < count:
        length = int(rng.integers(shortest, longest + 1))
        wanted[at : at + length] = False
        at += length + int(rng.integers(shortest, longest + 1))
    return wanted
