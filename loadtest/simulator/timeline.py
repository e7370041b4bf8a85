"""
Time and network of a simulated ring: a heap of what is still to happen, and a digest of what was said.

Time is a number that only `run_until` moves, chance is one seeded generator, and what is due at the same moment happens
in the order in which it was entered: so a seed is the same run to the byte, in any process.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random

from loadtest.simulator.faults import Faults
from protocol import wire


class Timeline:
    """Everything to come, and the ways between places that may lose, delay or hold up what is sent."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._clogged: dict[tuple[str, str], float] = {}

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        """Run `action` at a time."""
        self._sequence += 1
        heapq.heappush(self._heap, (max(when_s, self.now_s), self._sequence, action))

    def run_until(self, end_s: float) -> None:
        """Let everything happen that happens before `end_s`."""
        heap = self._heap
        while heap and heap[0][0] <= end_s:
            self.now_s, _, action = heapq.heappop(heap)
            action()
        self.now_s = end_s

    def send(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        """Run `deliver` when a message from one place has come to the other: once, more often, or never."""
        sent_s = max(self.now_s, self._clogged.get((source, target), 0.0)) if self._clogged else self.now_s
        for delay_s in self.faults.deliveries(self.random):
            self._sequence += 1
            heapq.heappush(self._heap, (sent_s + delay_s, self._sequence, deliver))

    def clog(self, source: str, target: str, seconds: float) -> None:
        """Nothing on this way arrives for so long, then all of it at once."""
        self._clogged[source, target] = self.now_s + seconds


class Transcript:
    """Every message in order, as one digest."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()
        self._message: wire.Message | None = None
        self._data = b""

    def note(self, who: int, message: wire.Message) -> None:
        """Somebody (at most 65,535) sent a message."""
        if message is not self._message:  # what a head tells everybody is one
            self._message, self._data = message, wire.encode(message)
        self._state.update(who.to_bytes(2, "little") + self._data)

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._state.hexdigest()
