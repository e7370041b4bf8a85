"""What a ring membership is given: its gateway's and its process's shared parts, and the events that reach it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from node.aggregation.contribution import Contributions
from node.metrics import NodeMetrics
from node.security.module import SecurityModule
from protocol import wire
from protocol.dcnet.masks import Fleet
from protocol.dcnet.suite import Suite
from protocol.link import LinkContext

_Event = TypeVar("_Event")
_WAIT_S_MAX = 3600.0  # a clock that is set may make any wait wrong: look again now and then
RELAY = "relay:"  # the endpoint of a head that cannot accept connections


@dataclass(frozen=True, slots=True)
class FromHead:
    """A message of the ring's head."""

    message: wire.RingMessage


@dataclass(frozen=True, slots=True)
class FromCoordinator:
    """A message of the coordinator about this ring."""

    message: wire.Message


@dataclass(frozen=True, slots=True)
class AccountMoved:
    """The last contribution of another epoch was settled: the next one can be built."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a membership shares with its gateway and its process."""

    suite: Suite
    module: SecurityModule
    link: LinkContext
    contributions: Contributions
    metrics: NodeMetrics
    clock: Callable[[], float]
    to_coordinator: Callable[[wire.Message], None]
    account_moved: Callable[[], None]
    verify_member: Callable[[int, bytes, bytes], None]  # position, text, signature
    listen: str  # where a head listens, tcp://host:*
    public_host: str | None
    relay: bool
    fleet: Fleet = field(default_factory=Fleet)  # whose masks are made along with ours


async def next_event(inbox: trio.MemoryReceiveChannel[_Event], wait_s: float) -> _Event | None:
    """
    The next event, or None when `wait_s` has passed without one.

    What is there already comes before any deadline: on a busy machine a phase must not close over messages that have
    arrived, and a deadline that is always due must not keep the inbox shut.
    """
    try:
        event = inbox.receive_nowait()
    except trio.WouldBlock:
        with trio.move_on_after(max(0.0, min(wait_s, _WAIT_S_MAX))):
            return await inbox.receive()
        return None
    await trio.lowlevel.checkpoint()
    return event
