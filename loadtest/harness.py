"""
Carries out what the machines ask, effect by effect: the one driver of everything that runs a ring in one process.

Who builds on it says what is particular there: how a message travels (at once, with loss, into a liar's hands) and what
becomes of a record.  The rule that a driver owes the machines is kept here: effects in their order, and none after the
gateway has stopped, so that a crash between "durable" and "sent" is one that happens between two of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from protocol import wire
from protocol.dcnet.machines.effects import (
    Attempted,
    EpochRefused,
    HeadEffect,
    LedgerEffect,
    MemberEffect,
    Note,
    Persist,
    ReportMisbehaviour,
    RoundEnded,
    Settled,
    ToCoordinator,
    ToHead,
    ToMember,
    ToRing,
)
from protocol.dcnet.machines.member_attempt import Resume


def resume_after(past: Resume, record: Attempted | Settled | EpochRefused) -> Resume:
    """What a member that starts again knows once `record` is durable; who refused the epoch does not start in it."""
    if isinstance(record, EpochRefused):
        return past
    if isinstance(record, Attempted):
        return Resume(record.round, record.attempt, record.progress, settled=False)
    return replace(past, settled=True)


class MemberHarness(ABC):
    """Drives members; `position` is the member's."""

    def from_member(self, position: int, effects: Sequence[MemberEffect]) -> None:
        """Carry out what a member asks, as far as it stays up."""
        for each in effects:
            if not self.is_up(position):
                return
            match each:
                case Persist(record):
                    self.persist(position, record)
                case ToHead(message):
                    self.to_head(position, message)
                case ToCoordinator(message):
                    self.to_coordinator(position, message)
                case Note(name):
                    self.noted(name)

    def is_up(self, position: int) -> bool:  # noqa: ARG002
        """Whether the gateway is there for the next effect."""
        return True

    def noted(self, name: str) -> None:  # noqa: B027 - who counts nothing need not say so
        """Something was worth counting."""

    @abstractmethod
    def persist(self, position: int, record: Attempted | Settled | EpochRefused) -> None:
        """Make a member's record durable."""

    @abstractmethod
    def to_head(self, position: int, message: wire.RingMessage) -> None:
        """A member sends to its head."""

    @abstractmethod
    def to_coordinator(self, position: int, message: wire.Message) -> None:
        """A member or head sends to the coordinator."""


class RingHarness(MemberHarness):
    """Drives a whole ring: its members, its head and its round ledger."""

    size: int

    def from_head(self, position: int, effects: Sequence[HeadEffect]) -> None:
        """Carry out what the head at `position` asks."""
        for each in effects:
            match each:
                case ToMember(target, message):
                    self.to_member(position, target, message)
                case ToCoordinator(message):
                    self.to_coordinator(position, message)
                case Note(name):
                    self.noted(name)

    def from_ledger(self, effects: Sequence[LedgerEffect]) -> None:
        """Carry out what the round ledger asks."""
        for each in effects:
            match each:
                case Persist(record):
                    self.round_ended(record)
                case ToMember(target, message):
                    self.from_coordinator(target, message)
                case ToRing(message):
                    for target in range(self.size):
                        self.from_coordinator(target, message)
                case ReportMisbehaviour():
                    self.reported(each)
                case Note():
                    pass

    def reported(self, report: ReportMisbehaviour) -> None:
        """The ledger names a member."""

    @abstractmethod
    def to_member(self, head: int, target: int, message: wire.RingMessage) -> None:
        """The head at one position sends to the member at another."""

    @abstractmethod
    def from_coordinator(self, target: int, message: wire.Message) -> None:
        """The coordinator sends to a gateway."""

    @abstractmethod
    def round_ended(self, record: RoundEnded) -> None:
        """Make a round's end durable."""
