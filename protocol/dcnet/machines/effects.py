"""
What the machines hand back: an ordered list of instructions, to be carried out in that order.

The order is the safety rule: a `Persist` must be durable before the driver carries out what follows it
(aggregation.md, section 6 rule 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from protocol.wire import Message, RingMessage


class Progress(IntEnum):
    """How far a member went in one attempt; durable, and never taken back."""

    SHARED = 1
    SERVED = 2


@dataclass(frozen=True, slots=True)
class Attempted:
    """Durable record: this member shared in, or served, an attempt."""

    round: int
    attempt: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Settled:
    """Durable record: the round ledger has spoken; `included` says whether our contribution is in an opened total."""

    round: int
    included: bool


@dataclass(frozen=True, slots=True)
class Persist:
    """Make the record durable before anything that follows."""

    record: Attempted | Settled


@dataclass(frozen=True, slots=True)
class ToHead:
    """Send to the ring's head (which may be ourselves)."""

    message: RingMessage


@dataclass(frozen=True, slots=True)
class ToMember:
    """A head sends to the member at `position`."""

    position: int
    message: RingMessage


@dataclass(frozen=True, slots=True)
class ToCoordinator:
    """Send to the coordinator."""

    message: Message


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth counting: a name fit for a metric label, and how long it took where that means something."""

    name: str
    seconds: float = 0.0


Instruction = Persist | ToHead | ToMember | ToCoordinator | Note
