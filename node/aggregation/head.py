"""
The head's driver: a listener for the ring's members, and one inbox and one task for the head machine.

It listens only while its gateway is head, on an address of its own; who may connect is decided by the CURVE keys in
the verified layout, and who is speaking by the key that connected, never by what a message says.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import trio

from node.aggregation.surroundings import RELAY, FromHead, Surroundings
from protocol import wire
from protocol.dcnet.events import Instruction, Note, ToCoordinator, ToMember
from protocol.dcnet.head import Head
from protocol.dcnet.rings import RingView, positions_of
from protocol.dcnet.secrets import EpochSecrets
from protocol.errors import RemoteProtocolError
from protocol.link import Inbox, Listener

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _FromMember:
    position: int
    message: wire.RingMessage


@dataclass(frozen=True, slots=True)
class _FromBook:
    message: wire.Result


class HeadDriver:
    """One term of one ring's head."""

    def __init__(
        self,
        around: Surroundings,
        view: RingView,
        term: int,
        commitments: dict[int, tuple[bytes, ...]],
        to_own_member: Callable[[FromHead], None],
        *,
        first: tuple[int, int],
        secrets: EpochSecrets,
    ) -> None:
        self.term = term
        self._around = around
        self._view = view
        self._secrets = secrets
        self._to_own_member = to_own_member
        self._inbox: Inbox[_FromMember | _FromBook, tuple[Hashable, bytes]] = around.link.inbox(16 + 4 * view.size)
        self._scope = trio.CancelScope()
        self._listener: Listener | None = None
        self._head = Head(around.suite, view, term, around.clock(), commitments, *first)
        self._by_curve_key = {member.curve_key: position for position, member in enumerate(view.members)}
        self._expelled = 0

    def stop(self) -> None:
        """The term is over."""
        self._scope.cancel()

    def expel(self, members: int) -> None:
        """These members, a bitmap, were shut out: their links are closed, and nothing more is taken from them."""
        self._expelled |= members
        for position in positions_of(members):
            self._by_curve_key.pop(self._view.members[position].curve_key, None)
            self._head.lost(position, self._around.clock())
            if self._listener is not None:
                self._listener.disconnect(position)

    def from_member(self, position: int, message: wire.RingMessage) -> None:
        """A member's message, from the listener, the relay or our own member."""
        if not self._inbox.post(_FromMember(position, message)):
            self._around.metrics.dropped("head_inbox")

    def result(self, message: wire.Result) -> None:
        """The round book's answer to our report."""
        if not self._inbox.post(_FromBook(message)):
            self._around.metrics.dropped("head_inbox")

    async def run(self, task_status: trio.TaskStatus[str]) -> None:
        """Listen and serve until the term is over; reports the endpoint that members reach us at."""
        around = self._around
        around.metrics.heads(1)
        try:
            with self._scope:
                if around.relay:
                    task_status.started(RELAY)
                    await self._serve()
                    return
                async with around.link.listen(around.listen, around.module.curve, self._by_curve_key.get) as listener:
                    self._listener = listener
                    endpoint = listener.endpoint
                    if around.public_host is not None:
                        endpoint = f"tcp://{around.public_host}:{endpoint.rpartition(':')[2]}"
                    self._inbox.follow(listener)
                    task_status.started(endpoint)
                    await self._serve()
        finally:
            around.metrics.heads(-1)

    def _refuse(self, position: int, error: RemoteProtocolError) -> None:
        self._around.metrics.protocol_error(error.reason)
        log.warning(
            "epoch %d ring %d: member %s broke the protocol: %s",
            self._view.epoch, self._view.ring, self._view.members[position].identity, error,
        )  # fmt: skip
        self._head.lost(position, self._around.clock())
        if self._listener is not None:
            self._listener.disconnect(position)

    async def _serve(self) -> None:
        around = self._around
        clock = around.clock
        while True:
            event = await self._inbox.receive(self._head.next_timer_s() - clock())
            match event:
                case None:
                    self._carry_out(self._head.on_timer(clock()))
                case _FromBook(message):
                    self._carry_out(self._head.result(message, clock()))
                case _FromMember(position, message):
                    self._hear(position, message)
                case (int() as position, data):  # the name that our own `authorise` gave
                    self._around.metrics.received(len(data))
                    self._hear(position, data)
                case _:
                    raise AssertionError("members are known by their positions")

    def _hear(self, position: int, message: wire.RingMessage | bytes) -> None:
        if self._expelled >> position & 1:  # by the relay, or by a second link that was open before
            self._around.metrics.protocol_error("expelled_member")
            return
        try:
            if isinstance(message, bytes):
                message = wire.decode(message, wire.FROM_MEMBER)  # type: ignore[assignment]  # those are ring messages
            self._carry_out(self._head.receive(position, message, self._around.clock()))  # type: ignore[arg-type]
        except RemoteProtocolError as error:
            self._refuse(position, error)

    def _carry_out(self, instructions: list[Instruction]) -> None:
        around = self._around
        encoded: dict[int, bytes] = {}  # OPEN, ROSTER and RESULT are one message for everybody: encoded once
        for each in instructions:
            match each:
                case ToMember(position, message):
                    if position == self._secrets.position:
                        self._to_own_member(FromHead(message))
                        continue
                    data = encoded.get(id(message))
                    if data is None:
                        data = encoded[id(message)] = wire.encode(message)
                    self._send(position, data)
                case ToCoordinator(message):
                    if isinstance(message, wire.Accused):
                        self._log_accused(message)
                    around.to_coordinator(message)
                case Note(name, seconds):
                    around.metrics.phase(name, seconds)
                case _:
                    raise AssertionError("heads persist nothing")

    def _log_accused(self, message: wire.Accused) -> None:
        log.warning(
            "epoch %d ring %d: member %s lies (%s) and is left out",
            message.epoch, message.ring, self._view.members[message.position].identity,
            wire.Lie(message.lie).name.lower(),
        )  # fmt: skip

    def _send(self, position: int, data: bytes) -> None:
        around = self._around
        around.metrics.sent(len(data))
        if self._listener is None:
            sealed = self._secrets.seal_relay(position, data, os.urandom(12))
            around.to_coordinator(wire.Relay(self._view.epoch, self._view.ring, position, sealed))
        elif not self._listener.send(position, data):
            self._head.lost(position, self._around.clock())
