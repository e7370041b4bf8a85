"""
Whether a node does its work, as checks with names: /readyz and the metrics say the same from here.

Each check falls back when what it says is over.  A gateway that merely waits for the next epoch fails `seated` and no
other check, so that whoever rolls out new versions can wait for the others (`/readyz?exclude=seated`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

_KEEP_S = 1.0  # one answer or scrape asks several times, and thousands of gateways are milliseconds each time
SEPARATE = frozenset({"placed"})
"""Checks that are served by themselves and are no part of /readyz."""


class Seat(Enum):
    """Where a gateway sits."""

    RUNNING = "in a ring of the running epoch"
    NEXT = "in a ring of an epoch that has not begun, and in none that runs"
    NONE = "in no ring"


class Participation(NamedTuple):
    """
    What can be said of one gateway now.

    `is_head_linked` is about the ring of the running epoch, False without one.  `is_return_due`: it came back too often
    and waits until it may be in a total again.  `has_taken_part`: in an opened total of a round since the start.
    """

    seat: Seat
    is_coordinator_linked: bool
    is_head_linked: bool
    is_return_due: bool
    has_taken_part: bool


class HasParticipation(Protocol):
    """A gateway."""

    @property
    def participation(self) -> Participation: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Counts:
    """Gateways, of those that run."""

    running: int = 0
    seated: int = 0
    seated_next: int = 0
    without_coordinator: int = 0
    without_head: int = 0
    taken_part: int = 0
    without_round: int = 0  # seated, free to be in a total, and in none since the start

    @classmethod
    def of(cls, gateways: Sequence[HasParticipation]) -> Counts:
        """Ask each gateway once."""
        found = [each.participation for each in gateways]
        seated = [each for each in found if each.seat is Seat.RUNNING]
        return cls(
            running=len(found),
            seated=len(seated),
            seated_next=sum(each.seat is Seat.NEXT for each in found),
            without_coordinator=sum(not each.is_coordinator_linked for each in found),
            without_head=sum(not each.is_head_linked for each in seated),
            taken_part=sum(each.has_taken_part for each in found),
            without_round=sum(not (each.has_taken_part or each.is_return_due) for each in seated),
        )


class Readiness:
    """
    That of one node with so many gateways `configured`.

    `waits_for` is what keeps the node from starting, None once it has started.
    """

    def __init__(self, configured: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.waits_for: str | None = "the node is starting"
        self._configured = configured
        self._clock = clock
        self._gateways: Sequence[HasParticipation] = ()
        self._counts = Counts()
        self._counted_s = float("-inf")

    def use(self, gateways: Sequence[HasParticipation]) -> None:
        """These run from now on, and no others."""
        self._gateways = tuple(gateways)
        self._counted_s = float("-inf")

    def expect(self, gateways: int) -> None:
        """So many are configured and have not left."""
        self._configured = gateways

    @property
    def counts(self) -> Counts:
        """The gateways as they were at most a second ago."""
        now_s = self._clock()
        if now_s - self._counted_s >= _KEEP_S:
            self._counts, self._counted_s = Counts.of(self._gateways), now_s
        return self._counts

    def checks(self) -> Mapping[str, str | None]:
        """What is wrong by the name of the check, None where nothing is."""
        if self.waits_for is not None:
            return dict.fromkeys(("started", "enrolled", "linked", "seated", "round", "placed"), self.waits_for)
        counts = self.counts
        return {
            "started": None,
            "enrolled": self._not_enrolled(counts),
            "linked": _not_linked(counts),
            "seated": _not_seated(counts),
            "round": _without_round(counts),
            "placed": _not_placed(counts, self._configured),
        }

    def _not_enrolled(self, counts: Counts) -> str | None:
        if counts.running < self._configured:
            return f"{counts.running} of {self._configured} gateways are enrolled"
        return None


def _not_linked(counts: Counts) -> str | None:
    problems = []
    if counts.without_coordinator:
        problems.append(f"{counts.without_coordinator} of {counts.running} gateways have no link to the coordinator")
    if counts.without_head:
        problems.append(f"{counts.without_head} of {counts.seated} have none to the head of their ring")
    return "; ".join(problems) or None


def _not_seated(counts: Counts) -> str | None:
    waiting = counts.running - counts.seated
    if not waiting:
        return None
    return f"{waiting} of {counts.running} gateways wait for the next epoch, {counts.seated_next} have a seat in it"


def _without_round(counts: Counts) -> str | None:
    if not counts.without_round:
        return None
    return f"{counts.without_round} of {counts.seated} seated gateways were in no opened total since the start"


def _not_placed(counts: Counts, configured: int) -> str | None:
    placed = counts.seated + counts.seated_next
    return None if placed == configured else f"{placed} of {configured} gateways sit in a ring, running or next"
