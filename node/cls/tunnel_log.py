"""
What happens to tunnels, in the gateway's logs: the first at once, and what follows within a minute as one sum.

A system that connects again and again must not push everything else out of a log that keeps its newest entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from node.cls.relay import End, Traffic
from protocol.logs.events import Event, Parameter
from protocol.profiles.communication import ProxyProfile

PERIOD_S: Final = 60.0
_SUBJECTS_MAX: Final = 256


class Note(Protocol):
    """Notes an event in the gateway's logs (`node.logs.gateway_log.GatewayLog.note`)."""

    def __call__(self, event: Event, **parameters: Parameter) -> None: ...  # noqa: D102


@dataclass(slots=True)
class _Sum:
    event: Event
    names: dict[str, Parameter]
    due_s: float
    numbers: dict[str, int] = field(default_factory=dict)


class TunnelLog:
    """One gateway's; `run` writes the sums."""

    def __init__(self, note: Note, clock: Callable[[], float] = trio.current_time) -> None:
        self._note = note
        self._clock = clock
        self._sums: dict[tuple[Event, tuple[Parameter, ...]], _Sum] = {}

    def opened(self, proxy: ProxyProfile) -> None:
        """A tunnel is open."""
        self._add(Event.CLS_CONNECTED, {"system": proxy.cls, "participant": proxy.participant}, {"count": 1})

    def begun(self, proxy: ProxyProfile, initiator: str, result: str) -> None:
        """Somebody else than the system wanted one; as rare as orders and occasions are."""
        self._note(Event.CLS_BEGUN, system=proxy.cls, participant=proxy.participant, initiator=initiator, result=result)

    def ended(self, proxy: ProxyProfile, end: End, traffic: Traffic) -> None:
        """It is over."""
        names: dict[str, Parameter] = {"system": proxy.cls, "participant": proxy.participant, "reason": end.value}
        numbers = {"count": 1, "sent": traffic.sent, "received": traffic.received}
        self._add(Event.CLS_ENDED, names, numbers)

    def refused(self, system: str, reason: str) -> None:
        """Nothing was opened; `system` is "-" where nobody has proved to be one."""
        self._add(Event.CLS_REFUSED, {"system": system, "reason": reason}, {"count": 1})

    async def run(self) -> None:
        """Write sums when they are due, until cancelled, and what is left then."""
        try:
            while True:
                await trio.sleep(PERIOD_S / 4)
                self.write_due()
        finally:
            self.write_due(everything=True)

    def write_due(self, *, everything: bool = False) -> None:
        """Write what has gathered for a minute."""
        for key, each in list(self._sums.items()):
            if everything or self._clock() >= each.due_s:
                del self._sums[key]
                if each.numbers:
                    self._note(each.event, **each.names, **each.numbers)

    def _add(self, event: Event, names: dict[str, Parameter], numbers: dict[str, int]) -> None:
        key = (event, tuple(names.values()))
        gathered = self._sums.get(key)
        if gathered is not None:
            gathered.numbers = {name: gathered.numbers.get(name, 0) + number for name, number in numbers.items()}
        elif len(self._sums) < _SUBJECTS_MAX:  # by names of profiles, so there are no more of them
            self._sums[key] = _Sum(event, names, self._clock() + PERIOD_S)
            self._note(event, **names, **numbers)
