"""
Faults of meters as events of the gateway's log: which there are, and which of them are throttle.

A fault is counted every time and an event once a quarter hour: noise must not flood a log.  The gateway's own meters
are few; unknown devices on a wire may have any name, so only so many of theirs are reported.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Final

import trio

_PAUSE_S: Final = 890.0  # the same fault of the same meter is throttle again at the next quarter hour
_REPORTED_MAX: Final = (
    256  # faults of one bus reported in a quarter hour; beyond it those of unknown devices are only counted
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LmnEvent:
    """Something for the gateway's log: a fault's kind, where, when.  Never a value, a key or received bytes."""

    kind: str
    protocol: str
    device: str
    at_s: float
    detail: str = ""


def log_event(event: LmnEvent) -> None:
    """The event as a line of the process log, where the gateway has no better place."""
    _log.warning("meter fault %s (%s, %s) %s", event.kind, event.protocol, event.device or "bus", event.detail)


class FaultThrottle:
    """What one bus has reported, by trio's clock, which nobody sets; `ours` are the gateway's devices on it."""

    def __init__(self) -> None:
        self.ours: set[str] = set()
        self._reported_s: dict[tuple[str, str], float] = {}

    def should_report(self, kind: str, device: str) -> bool:
        """Whether to report a fault (of the bus itself where `device` is empty); one that was is not reported again."""
        now_s = trio.current_time()
        if now_s - self._reported_s.get((kind, device), -math.inf) < _PAUSE_S:
            return False
        if len(self._reported_s) >= _REPORTED_MAX:
            self._reported_s = {fault: at_s for fault, at_s in self._reported_s.items() if now_s - at_s < _PAUSE_S}
        if len(self._reported_s) >= _REPORTED_MAX and device and device not in self.ours:
            return False
        self._reported_s[kind, device] = now_s
        return True
