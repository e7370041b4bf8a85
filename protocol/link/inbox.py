"""
Everything that one task waits for, in one place: posted events, the messages of a link, a deadline.

A task for each link that hands its messages on, a channel between them and a cancel scope around every wait would do
the same.  In a process of thousands of gateways they were two thirds of what a message costs, and kilobytes each.

What is posted comes first, then what the link holds; both come before a deadline that has passed: on a busy machine a
phase must not close over messages that have arrived.  A link's messages are taken from libzmq's queue one by one as
the task asks for them, so that queue is the only one, and its bound the back-pressure.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import trio
import zmq

from protocol.link.deadlines import Alarm, DeadlineQueue
from protocol.link.edge import BURST, EdgeSocket

Event = TypeVar("Event")
Message = TypeVar("Message")
_Taken_co = TypeVar("_Taken_co", covariant=True)

_WAIT_S_MAX = 3600.0  # a clock that is set may make any wait wrong: look again now and then


class Source(Protocol[_Taken_co]):
    """A `Connection` (bytes) or a `Listener` (peer's name and bytes)."""

    edge: EdgeSocket

    def take(self) -> _Taken_co | None: ...  # noqa: D102


class Inbox(Generic[Event, Message]):
    """
    Made by `LinkContext.inbox`; one task receives.

    `size`: events that may be posted and not yet received.
    """

    __slots__ = ("_alarm", "_alarms", "_burst", "_events", "_link", "_lot", "_size")

    def __init__(self, alarms: DeadlineQueue, size: int) -> None:
        self._alarms = alarms
        self._size = size
        self._lot = trio.lowlevel.ParkingLot()
        self._alarm = Alarm(self._lot)
        self._events: list[Event] = []  # a few at most times, and a deque is 700 bytes however empty
        self._link: Source[Message] | None = None
        self._burst = 0

    def post(self, event: Event) -> bool:
        """Put an event in; False where the inbox is full."""
        if len(self._events) >= self._size:
            return False
        self._events.append(event)
        if self._lot:
            self._lot.unpark()
        return True

    def follow(self, link: Source[Message] | None) -> None:
        """From now on receive this link's messages, and no other's; nobody else may receive from it."""
        self._link = link
        if link is not None:
            link.edge.receivers = self._lot
            if self._lot:
                self._lot.unpark()

    async def receive(self, wait_s: float) -> Event | Message | None:
        """
        Return the next event or message, or None when `wait_s` has passed without one.

        Cancelling takes nothing.  Up to `BURST` are returned in a row without a checkpoint.
        """
        due_s: float | None = None
        while True:
            if self._burst >= BURST:
                self._burst = 0
                await trio.lowlevel.checkpoint()
            self._burst += 1
            if self._events:
                return self._events.pop(0)
            link = self._link
            if link is not None and not link.edge.closed and link.edge.poll_readable():
                message = self._take(link)
                if message is not None:
                    return message
                continue
            now_s = trio.current_time()
            if due_s is None:
                due_s = now_s + min(wait_s, _WAIT_S_MAX)
            if now_s >= due_s:
                self._burst = BURST  # a deadline that is always due must not keep the others from their turn
                return None
            self._alarms.set(self._alarm, due_s)
            self._burst = 0
            await self._lot.park()

    @staticmethod
    def _take(link: Source[Message]) -> Message | None:
        try:
            return link.take()
        except zmq.Again:
            return None
        finally:
            link.edge.after_call()
