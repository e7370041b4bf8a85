"""
What the machines hand back: an ordered list of effects, to be carried out in that order.

The order is the safety rule: a `Persist` must be durable before the driver carries out what follows it
(docs/explanation/protocol.md, section 7).  One family serves all three machines; each machine's union names what it
may ask.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Generic, TypeVar

from protocol.records import record
from protocol.wire import Message, Outcome, Result, RingMessage, TwoResults

R_co = TypeVar("R_co", covariant=True)
M_co = TypeVar("M_co", bound=Message, covariant=True)


class Misbehaviour(IntEnum):
    """What a member was proved to do: its words do not add up, its deal does not fit, or its commitment to a seed."""

    WRONG_SEED = 1
    CORRUPT_SUM = 2
    BAD_DEAL = 3


class Progress(IntEnum):
    """How far a member went in one attempt; durable, and never taken back."""

    SHARED = 1
    SERVED = 2


@record
class Attempted:
    """A member's durable record: it shared in, or served, an attempt; `is_return`: for a token (discipline.returns)."""

    round: int
    attempt: int
    progress: Progress
    is_return: bool = False


@record
class Settled:
    """A member's durable record: the ledger has spoken; `included` says whether its contribution is in the total."""

    round: int
    included: bool


@record
class EpochRefused:
    """A member's durable record: it leaves an epoch in which the ledger signed two ends of one round, for good."""

    first: Result
    second: Result

    @property
    def proof(self) -> TwoResults:
        """What the coordinator is shown."""
        ends = ((each.outcome, each.roster, each.signature) for each in (self.first, self.second))
        return TwoResults(self.first.epoch, self.first.ring, self.first.round, *ends)


@record
class Ended:
    """A round's end.  `total` is empty for a void round; words are unsigned."""

    epoch: int
    ring: int
    round: int
    outcome: Outcome
    attempt: int
    term: int
    expected: int
    roster: int
    total: tuple[int, ...]
    verified: bool
    reason: str
    opened_s: float
    ended_s: float


@record
class RoundEnded:
    """
    The ledger's durable record: where it cannot be made durable the round has not ended.

    `commitments` are those of a verified total, by roster position and committed slot: bills are verified by them.
    """

    ended: Ended
    commitments: bytes = b""


@record
class Persist(Generic[R_co]):
    """Make the record durable before anything that follows."""

    record: R_co


@record
class ToHead:
    """Send to the ring's head (which may be ourselves)."""

    message: RingMessage


@record
class ToMember(Generic[M_co]):
    """Send to the member at `position`."""

    position: int
    message: M_co


@record
class ToRing:
    """Send to every member of the ring."""

    message: Message


@record
class ToCoordinator:
    """Send to the coordinator."""

    message: Message


@record
class ReportMisbehaviour:
    """For the operator: the member at `position` was proved to misbehave in `round`; `reporter` handed in evidence."""

    round: int
    reporter: int
    position: int
    misbehaviour: Misbehaviour


@record
class Note:
    """Something worth counting: a name fit for a metric label, and how long it took where that means something."""

    name: str
    seconds: float = 0.0


MemberEffect = Persist[Attempted | Settled | EpochRefused] | ToHead | ToCoordinator | Note
HeadEffect = ToMember[RingMessage] | ToCoordinator | Note
LedgerEffect = Persist[RoundEnded] | ToMember[Message] | ToRing | ReportMisbehaviour | Note
Effect = MemberEffect | HeadEffect | LedgerEffect
