"""
What the machines have in common: states that only a table's transitions connect, and a log of the events.

Every event, a message, a deadline or what the driver says, runs through `_apply`, which holds the machine to its
table and keeps the event.  A table names for each state and event where it may lead; an event that it does not name
must leave the state as it is.  The documentation draws its diagrams from the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from protocol import wire
from protocol.dcnet.machines.effects import Effect
from protocol.dcnet.machines.event_log import EventLog, Local, Trigger
from protocol.errors import InvariantError, RemoteProtocolError

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=Effect)
Transitions = dict[tuple[S, Trigger], tuple[S, ...]]


class Machine(Generic[S, E]):
    """A machine with a state, a table and an event log."""

    TRANSITIONS: ClassVar[Mapping[tuple[Any, Trigger], tuple[Any, ...]]]
    state: S
    events: EventLog

    def _apply(
        self, trigger: Trigger, about: wire.Message | tuple[int | bytes, ...], now_s: float,
        step: Callable[..., list[E]], *arguments: Any, position: int = -1,
    ) -> list[E]:  # fmt: skip
        """Run one step.  Raises what it raises, and InvariantError where the table does not name where it led."""
        before = self.state
        try:
            effects = step(*arguments)
        except RemoteProtocolError as error:
            self.events.add(now_s, trigger, about, position, before, self.state, (), error.reason)
            raise
        self.events.add(now_s, trigger, about, position, before, self.state, effects)
        if self.state is not before and self.state not in self.TRANSITIONS.get((before, trigger), ()):
            name = trigger.name if isinstance(trigger, Local) else trigger.__name__
            raise InvariantError(f"a {name} led to {self.state.value}")
        return effects
