"""
Deadlines of thousands of waiting tasks, kept by one.

A deadline that somebody waits with is nearly always moved on before it comes: a message arrives first.  So an alarm is
only entered when it is earlier than the one that its task has there already.  One that rings early costs its task a
look at the time; one that is never too late costs nothing per wait, where a cancel scope costs as much as a message.
"""

from __future__ import annotations

import heapq
from itertools import count

import trio


class Alarm:
    """One task's; `lot` is where it waits.  It wakes it at the time that was set, or earlier."""

    __slots__ = ("due_s", "lot")

    def __init__(self, lot: trio.lowlevel.ParkingLot) -> None:
        self.lot = lot
        self.due_s = float("inf")  # as it is entered


class DeadlineQueue:
    """All of a process; times are trio's."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = count()
        self._earlier = trio.Event()

    def set(self, alarm: Alarm, due_s: float) -> None:
        """Wake the alarm's task at `due_s` at the latest.  Later ones are forgotten: set it at every wait."""
        if due_s >= alarm.due_s:
            return
        alarm.due_s = due_s
        heapq.heappush(self._heap, (due_s, next(self._order), alarm))
        if self._heap[0][2] is alarm:
            self._earlier.set()

    async def run(self) -> None:
        """Wake whoever is due, for ever."""
        while True:
            with trio.move_on_at(self._heap[0][0] if self._heap else float("inf")):
                await self._earlier.wait()
            self._earlier = trio.Event()
            now_s = trio.current_time()
            while self._heap and self._heap[0][0] <= now_s:
                due_s, _, alarm = heapq.heappop(self._heap)
                if due_s == alarm.due_s:  # or it was set anew, to an earlier time
                    alarm.due_s = float("inf")
                    alarm.lot.unpark()
