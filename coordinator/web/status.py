"""
What the web server may know of the running service: rings, who is missing, how fast; never a value.

`StatusFeed` is where the service says that something changed; the web server only looks.  Everything durable comes from
the store instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from coordinator.gwa.areas import Areas
from coordinator.gwa.epochs import AreaEpoch, Ring
from protocol.dcnet.setup.rings import positions_of


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
    view, ledger = ring.view, ring.ledger
    last = ledger.ended[max(ledger.ended)] if ledger is not None and ledger.ended else None
    missing = view.everybody & ~last.roster if last is not None else 0
    return RingStatus(
        epoch=view.epoch, ring=view.ring, area=epoch.call.area, members=tuple(ring.positions),
        missing=tuple(positions_of(missing)), head=None if ledger is None else view.head_of(ledger.term),
        last_round=None if last is None else last.round,
        last_outcome=None if last is None else last.outcome.name.lower(),
        last_latency_s=None if last is None else last.ended_s - last.opened_s,
    )  # fmt: skip


class StatusFeed:
    """The state of a running service, as a `StatusSource`."""

    def __init__(self, areas: Areas, enrolled: Callable[[], int]) -> None:
        self.is_open = False
        self._areas = areas
        self._enrolled = enrolled
        self._revision = 0
        self._change = trio.Event()

    def bump_revision(self) -> None:
        """Something changed that a viewer may want to see."""
        self._revision += 1
        event, self._change = self._change, trio.Event()
        event.set()

    def status(self) -> Status:
        """See `StatusSource`."""
        rings = tuple(ring_status(epoch, ring) for epoch, ring in self._areas.rings())
        return Status(self._revision, rings, self._enrolled(), self._areas.present_count)

    async def changed(self, revision: int) -> None:
        """See `StatusSource`."""
        while self._revision == revision:
            await self._change.wait()

    def not_ready(self) -> str | None:
        """See `StatusSource`."""
        return None if self.is_open else "the ZeroMQ socket is not open yet"
