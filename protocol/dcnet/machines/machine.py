"""
What the machines have in common: states that only a table's transitions connect, and a log of the events.

Every event, a message, a deadline or what the driver says, runs through `_apply`, which holds the machine to its
table and keeps the event.  A table names for each state and event where it may lead; an event that it does not name
must leave the state as it is.  The documentation draws its diagrams from the tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from protocol import wire
from protocol.dcnet.machines.effects import Effect
from protocol.dcnet.machines.event_log import VERSION, EventLog, Local, Trigger
from protocol.dcnet.setup.rings import RingView
from protocol.errors import InvariantError, RemoteProtocolError

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=Effect)
Transitions = dict[tuple[S, Trigger], tuple[S, ...]]


class Machine(Generic[S, E]):
    """A machine with a state, a table and an event log."""

    KIND: ClassVar[str]
    TRANSITIONS: ClassVar[Mapping[tuple[Any, Trigger], tuple[Any, ...]]]
    ARRIVALS: ClassVar[frozenset[Trigger]] = frozenset()  # messages that only come in, of the newest attempt
    view: RingView
    state: S
    events: EventLog

    def bug_report(self) -> dict[str, Any]:
        """
        The event log as a document for a bug report; `stromkreis simulate --replay` plays it.

        It says the ring's numbers and first nonces, where the machine sits (-1: in no place of the ring), what it began
        with, and its newest events, in values that JSON has: sets are lists of positions, times are seconds of the
        ring's clock.
        There is no gateway's identity in it, no reading, no key, and nothing made from one.
        """
        view, rows = self.view, self.events.rows()
        ring = {
            "n": view.size, "k": view.k, "t": view.t, "t_c": view.t_c, "k_min": view.k_min, "n_min": view.n_min,
            "words": view.word_count, "committed": list(view.committed), "rounds": view.rounds,
            "timing": asdict(view.timing), "nonces": [member.nonce.hex() for member in view.members],
        }  # fmt: skip
        return {
            "event_log": VERSION, "machine": self.KIND, "position": self.events.position, "ring": ring,
            "start": self.events.start, "dropped": self.events.added - len(rows), "events": rows,
        }  # fmt: skip

    def _apply(
        self, trigger: Trigger, about: wire.Message | tuple[int | bytes, ...], now_s: float, position: int,
        step: Callable[..., list[E]], *arguments: Any,
    ) -> list[E]:  # fmt: skip
        """
        Run one step, for what came from the member at `position` (-1: nobody of the ring).

        Raises what it raises, and InvariantError where it led to a state that the table does not name.
        """
        before = self.state
        try:
            effects = step(*arguments)
        except RemoteProtocolError as error:
            self.events.add(now_s, trigger, about, position, before, self.state, (), error.reason)
            raise
        if self.state is before and not effects and trigger in self.ARRIVALS:
            self.events.add_arrival(now_s, trigger, position)  # type: ignore[arg-type]  # messages all
            return effects
        self.events.add(now_s, trigger, about, position, before, self.state, effects)
        if self.state is not before and self.state not in self.TRANSITIONS.get((before, trigger), ()):
            name = trigger.name if isinstance(trigger, Local) else trigger.__name__
            broken = InvariantError(f"a {name} led to {self.state.value}")
            broken.add_note(f"Event log, without secrets, for a bug report: {json.dumps(self.bug_report())}")
            raise broken
        return effects
