"""
What the web server may know of the running service: rings, who is missing, how fast; never a value.

The service implements `StatusSource`; the web server only looks.  Everything durable it takes from the store instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from protocol import wire


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
