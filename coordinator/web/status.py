"""
What the web server may know of the running service: rings, who is missing, how fast; never a value.

The service implements `StatusSource`; the web server only looks.  Everything durable it takes from the store instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from coordinator.gwa.epochs import AreaEpoch, Ring
from protocol import wire
from protocol.dcnet.rings import positions_of


@dataclass(frozen=True, slots=True)
class AccusedMember:
    """The head at position `head` said in `round` that the member at `position` lies, and how."""

    position: int
    head: int
    round: int
    lie: wire.Lie


@dataclass(frozen=True, slots=True)
class RingStatus:
    """
    One ring as it stands now.

    `members` are gateway ids in position order, `missing` the positions that were not in the last roster (before the
    first round: those not connected), `head` a position; `last_outcome` is "opened" or "void".
    """

    epoch: int
    ring: int
    area: str
    members: tuple[str, ...]
    missing: tuple[int, ...]
    head: int | None = None
    last_round: int | None = None
    last_outcome: str | None = None
    last_latency_s: float | None = None
    accused: tuple[AccusedMember, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """The service at one moment; `revision` grows with every change."""

    revision: int
    rings: tuple[RingStatus, ...]
    enrolled: int
    connected: int


class StatusSource(Protocol):
    """What the coordinator service offers to the web server; called on the trio thread, must not block."""

    def status(self) -> Status:
        """The present state."""

    async def changed(self, revision: int) -> None:
        """Return as soon as the state's revision is another one than this."""

    def not_ready(self) -> str | None:
        """Why the service cannot work now (database, sockets), None where it can."""


def ring_status(epoch: AreaEpoch, ring: Ring) -> RingStatus:
    """How a ring of a living epoch stands."""
    view, book = ring.view, ring.book
    last = book.ended[max(book.ended)] if book is not None and book.ended else None
    missing = view.everybody & ~last.roster if last is not None else 0
    return RingStatus(
        epoch=view.epoch, ring=view.ring, area=epoch.call.area, members=tuple(ring.positions),
        missing=tuple(positions_of(missing)), head=None if book is None else view.head_of(book.term),
        last_round=None if last is None else last.round,
        last_outcome=None if last is None else last.outcome.name.lower(),
        last_latency_s=None if last is None else last.ended_s - last.opened_s,
        accused=tuple(
            AccusedMember(each.position, each.head, each.round, each.lie)
            for each in (() if book is None else book.accusations.values())
        ),
    )  # fmt: skip
