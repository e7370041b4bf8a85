"""
ZeroMQ sockets under trio, without losing a wake-up.

A ZeroMQ socket has no file descriptor that says "readable".  It has one (ZMQ_FD) that says "the I/O thread left a
command in your mailbox; look again": libzmq clears it whenever *any* call on the socket empties the mailbox, and sets
it again only for the next command.  What is ready then stands in ZMQ_EVENTS.  Hence the trap: a task waits for ZMQ_FD
to receive, another task sends, the send reads the mailbox on its way, learns that a message is there, and clears the
descriptor.  The receiver sleeps for ever.

The rules that close the trap, all in this file:

- Nobody waits for ZMQ_FD itself.  One task per process waits for a selector over all descriptors (one trio wait for
  thousands of sockets; an idle socket costs no task, and no system call per wait) and calls `refresh`.
- After *every* libzmq call that may have read the mailbox, `refresh` reads ZMQ_EVENTS and wakes whoever can go on, if
  anybody is parked at all.
- Before a task parks it looks at ZMQ_EVENTS itself, since its own `refresh` may be the one that cleared the descriptor.
  There is no await between that poll_readable and the parking.
- The selector is level-triggered: a descriptor that nobody cleared is reported again.
- A task that also waits for other things (`Inbox`) brings its own parking lot and follows the same rules.

A message is taken or handed over in one synchronous step after the last point where the task can be cancelled, so
cancellation loses nothing and duplicates nothing.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import TypeVar

import trio
import zmq

T = TypeVar("T")

POLLIN, POLLOUT, NOBLOCK = int(zmq.POLLIN), int(zmq.POLLOUT), int(zmq.NOBLOCK)
"""Plain integers: one `&` on zmq's own enumerations takes as long as a message."""

BURST = 32
"""Messages that one task may take from a socket before it lets the others run; a trio tick costs about 10 µs."""


class EdgeSocket:
    """One ZeroMQ socket and the tasks that wait for it.  Made by `Poller.adopt`."""

    __slots__ = ("_burst", "_poller", "_senders", "closed", "fd", "readable", "receivers", "socket")

    def __init__(self, poller: Poller, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self.fd: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]
        self.closed = False
        self.receivers: trio.lowlevel.ParkingLot | None = None  # a lot is 300 bytes, and few sockets need both
        self.readable = False  # as `refresh` saw it last
        self._poller = poller
        self._senders: trio.lowlevel.ParkingLot | None = None
        self._burst = 0

    def refresh(self) -> int:
        """Read ZMQ_EVENTS (which clears ZMQ_FD), wake one parked receiver and one sender that can go on, return it."""
        events: int = self.socket.getsockopt(zmq.EVENTS)  # type: ignore[assignment]
        self.readable = bool(events & POLLIN)
        if self.readable and self.receivers:
            self.receivers.unpark()
        if self._senders and events & POLLOUT:
            self._senders.unpark()
        return events

    def after_call(self) -> None:
        """To be called after a libzmq call on the socket: it may have cleared ZMQ_FD under the parked tasks."""
        if self.receivers or self._senders:
            self.refresh()

    def poll_readable(self) -> bool:
        """Whether there is a message to take; after False a task may park among the receivers."""
        return self.readable or bool(self.refresh() & POLLIN)

    async def receive(self, attempt: Callable[[], T]) -> T:
        """Run `attempt`, which takes one message or raises `zmq.Again`, when there is one to take."""
        return await self._when(POLLIN, attempt)

    async def send(self, attempt: Callable[[], T]) -> T:
        """Run `attempt`, which hands over one message or raises `zmq.Again`, when there is room."""
        return await self._when(POLLOUT, attempt)

    def _lot(self, event: int) -> trio.lowlevel.ParkingLot:
        lot = self.receivers if event == POLLIN else self._senders
        if lot is None:
            lot = trio.lowlevel.ParkingLot()
            if event == POLLIN:
                self.receivers = lot
            else:
                self._senders = lot
        return lot

    async def _when(self, event: int, attempt: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self.closed:
                raise trio.ClosedResourceError("this link was closed")
            try:
                result = attempt()
                break
            except zmq.Again:
                can_go_on = self.refresh() & event
            if not can_go_on:  # outside the handler, or a parked task keeps the exception and its traceback alive
                self._burst = 0
                await self._lot(event).park()
                if not self._senders:
                    self._senders = None  # mostly there is room, once the first message has gone
        self.after_call()
        self._burst += 1
        if self._burst >= BURST:
            self._burst = 0
            await trio.lowlevel.cancel_shielded_checkpoint()
        return result

    def close(self) -> None:
        """Close; parked tasks raise `trio.ClosedResourceError`.  What was sent is flushed for ZMQ_LINGER."""
        if self.closed:
            return
        self.closed = True
        self._poller.release(self)
        self.socket.close()
        for lot in (self.receivers, self._senders):
            if lot is not None:
                lot.unpark_all()


class Poller:
    """The one trio wait of the process: a selector over the ZMQ_FD of every socket."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: set[EdgeSocket] = set()

    def adopt(self, socket: zmq.Socket[bytes]) -> EdgeSocket:
        """Watch `socket` until it is closed."""
        edge = EdgeSocket(self, socket)
        self._selector.register(edge.fd, selectors.EVENT_READ, edge)
        self._sockets.add(edge)
        return edge

    def release(self, edge: EdgeSocket) -> None:
        """Stop watching; before the close, because libzmq's reaper gives the descriptor's number away."""
        self._selector.unregister(edge.fd)
        self._sockets.discard(edge)

    async def run(self) -> None:
        """Wake what is ready, for ever."""
        while True:
            await trio.lowlevel.wait_readable(self._selector)
            for key, _ in self._selector.select(0):
                key.data.refresh()

    def close(self) -> None:
        """Close every socket and the selector."""
        for edge in tuple(self._sockets):
            edge.close()
        self._selector.close()
