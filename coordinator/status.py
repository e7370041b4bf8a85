"""
What the web may know of the running rings: who is missing, how fast; never a value.

`RingStatus` is the one form of a ring on its way out: REST and dashboard serve it as it is.  `StatusFeed` is where the
service says that something changed; the web server only looks.  Everything durable comes from the store instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio
from pydantic import BaseModel, ConfigDict


class Member(BaseModel):
    """A place in a ring."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    position: int
    gateway: str


class RingStatus(BaseModel):
    """One ring of a current epoch, as it stands."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    epoch: int
    ring: int
    area: str
    size: int
    honest_min: int
    """Honest members that each total has at least: among so many a household is hidden."""
    members: tuple[str, ...]
    """Gateway ids in position order."""
    missing: tuple[Member, ...]
    """Who was not in the last round's total."""
    head: Member | None = None
    last_round: int | None = None
    last_outcome: str | None = None
    """`opened` or `void`."""
    last_latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """The service at one moment; `revision` grows with every change."""

    revision: int
    rings: tuple[RingStatus, ...]
    enrolled: int
    connected: int


class StatusSource(Protocol):
    """What a coordinator offers to the web server; called on the trio thread, must not block."""

    def status(self) -> Status:
        """The present state."""

    async def changed(self, revision: int) -> None:
        """Return as soon as the state's revision is another one than this."""

    def not_ready(self) -> str | None:
        """Why the service cannot work now (database, sockets), None where it can."""

    def described(self) -> str | None:
        """What the service is, in a line; None: there is nothing to say."""


class RoleState(Protocol):
    """Whether a process is the ring service."""

    def not_ready(self) -> str | None:
        """Why it is not, or may not be; None where it is."""

    def described(self) -> str:
        """The role, in a line."""


class StatusFeed:
    """The state of a running service, as a `StatusSource`; `read` makes it, given the revision."""

    def __init__(self, read: Callable[[int], Status], role: RoleState | None = None) -> None:
        """`role`: whether this process is the ring service; None: it is."""
        self.is_open = False
        self._role = role
        self._read = read
        self._revision = 0
        self._change = trio.Event()

    def bump_revision(self) -> None:
        """Something changed that a viewer may want to see."""
        self._revision += 1
        event, self._change = self._change, trio.Event()
        event.set()

    def status(self) -> Status:
        """See `StatusSource`."""
        return self._read(self._revision)

    async def changed(self, revision: int) -> None:
        """See `StatusSource`."""
        while self._revision == revision:
            await self._change.wait()

    def not_ready(self) -> str | None:
        """See `StatusSource`."""
        if not self.is_open:
            return "the ZeroMQ socket is not open yet"
        return None if self._role is None else self._role.not_ready()

    def described(self) -> str | None:
        """See `StatusSource`."""
        return None if self._role is None else self._role.described()
