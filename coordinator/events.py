"""
Events between the parts of a coordinator: plain facts, emitted on the trio thread and handled at once, in order.

Rings, administrator and market participant stand beside each other and know nothing of one another; each is made with
one `emit`, and `coordinator.service` decides whom an event concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from coordinator.storage.engine import fault_of
from protocol import wire
from protocol.dcnet.machines.effects import Misbehaviour
from protocol.errors import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class To:
    """A message for a gateway."""

    identity: str
    message: wire.Message


@dataclass(frozen=True, slots=True)
class Joined:
    """What goes into list and layout for one gateway that joined in a try; `certificate` is DER."""

    try_: int
    commitment: bytes
    join_digest: bytes
    public_key: bytes
    curve_key: bytes
    verify_key: bytes
    nonce: bytes
    signature: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True)
class MessagesReady:
    """These may leave now, in this order: what they promise is durable."""

    messages: Sequence[To]


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """Database or disk refused: what comes of it, and what the driver said, without statement and values."""

    consequence: str
    fault: str

    @classmethod
    def by(cls, error: SQLAlchemyError | OSError, consequence: str) -> StoreFailed:
        """The event of an error."""
        return cls(consequence, str(error) if isinstance(error, OSError) else fault_of(error))


@dataclass(frozen=True, slots=True)
class JoinAccepted:
    """The directory knows the gateway, and every member of a ring could accept its join."""

    epoch: int
    identity: str
    joined: Joined


@dataclass(frozen=True, slots=True)
class JoinRefused:
    """A join that does not hold."""

    identity: str
    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class GatewaysRevoked:
    """
    Everybody who was ever revoked, said again and again.

    A connection that was admitted just before a revocation has begun just after it.
    """

    identities: frozenset[str]


@dataclass(frozen=True, slots=True)
class MisbehaviourReported:
    """`reporter` says so of `reported`, a gateway of its ring, in `round` of `epoch` and `ring`."""

    reporter: str
    reported: str
    misbehaviour: str
    area: str
    epoch: int
    ring: int
    round: int


@dataclass(frozen=True, slots=True)
class RoundWritten:
    """The end of a round of this epoch and ring is durable."""

    epoch: int
    ring: int


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """Something is durable that a viewer may want to see."""


MISBEHAVIOURS = tuple(each.name.lower() for each in Misbehaviour)

Event = (
    MessagesReady
    | StoreFailed
    | JoinAccepted
    | JoinRefused
    | GatewaysRevoked
    | MisbehaviourReported
    | RoundWritten
    | StatusChanged
)
Emit = Callable[[Event], None]
