"""What a ring membership is given: its gateway's and its process's shared parts, and the events that reach it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from node.aggregation.contribution import Contributions
from node.metrics import NodeMetrics
from node.security.module import SecurityModule
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.effects import EpochRefused
from protocol.dcnet.machines.masks import Fleet
from protocol.link import LinkContext
from protocol.metering.interval import RegistrationGrid

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


async def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class MembershipContext:
    """What a membership shares with its gateway and its process."""

    suite: Suite
    module: SecurityModule
    link: LinkContext
    contributions: Contributions
    metrics: NodeMetrics
    clock: Callable[[], float]
    grid: RegistrationGrid  # the epoch's
    to_coordinator: Callable[[wire.Message], None]
    account_moved: Callable[[], None]
    verify_member: Callable[[int, bytes, bytes], None]  # position, text, signature
    listen: str  # where a head listens, tcp://host:*
    public_host: str | None
    relay: bool
    epoch_refused: Callable[[EpochRefused], None] = lambda _: None
    fleet: Fleet = field(default_factory=Fleet)  # whose masks are made along with ours
    commitments: dict[int, tuple[bytes, ...]] = field(default_factory=dict)  # by dealer, for all of the ring here
    opened: Callable[[], Awaitable[None]] = _nothing  # a total of the epoch was opened with us in it
