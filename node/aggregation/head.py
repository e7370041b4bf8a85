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

from node.aggregation.context import RELAY, FromHead, MembershipContext
from protocol import wire
from protocol.dcnet.machines.effects import HeadEffect, Note, ToCoordinator, ToMember
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.incarnations import Incarnation
from protocol.dcnet.setup.rings import RingView, positions_of
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.errors import RemoteProtocolError
from protocol.link import Inbox, Listener
from protocol.log_limit import PEER_LINE_S, LogLimiter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _FromMember:
    position: int
    message: wire.RingMessage


@dataclass(frozen=True, slots=True)
class _FromLedger:
    message: wire.Result


class HeadDriver:
    """One term of one ring's head."""

    def __init__(
        self,
        context: MembershipContext,
        view: RingView,
        term: int,
        commitments: dict[int, tuple[bytes, ...]],
        to_own_member: Callable[[FromHead], None],
        *,
        first: tuple[int, int],
        known: Incarnation,
        secrets: EpochSecrets,
    ) -> None:
        self.term = term
        self._context = context
        self._refusal_lines = LogLimiter(PEER_LINE_S, context.clock)
        self._view = view
        self._secrets = secrets
        self._to_own_member = to_own_member
        self._inbox: Inbox[_FromMember | _FromLedger, tuple[Hashable, bytes]] = context.link.inbox(16 + 4 * view.size)
        self._scope = trio.CancelScope()
        self._listener: Listener | None = None
        self._head = Head(context.suite, view, term, context.clock(), commitments, *first, known)
        self._by_curve_key = {member.curve_key: position for position, member in enumerate(view.members)}
        self._expelled = 0

    def stop(self) -> None:
        """The term is over."""
        self._scope.cancel()

    def expel(self, members: int) -> None:
        """These members, a bitmap, were revoked: their links are closed, and nothing more is taken from them."""
        self._expelled |= members
        for position in positions_of(members):
            self._by_curve_key.pop(self._view.members[position].curve_key, None)
            self._head.lost(position, self._context.clock())
            if self._listener is not None:
                self._listener.disconnect(position)

    def leave_out(self, members: int) -> None:
        """The coordinator says whom to leave out, a bitmap: no attempt starts with one."""
        self._head.leave_out(members, self._context.clock())

    def from_member(self, position: int, message: wire.RingMessage) -> None:
        """A member's message, from the listener, the relay or our own member."""
        if not self._inbox.post(_FromMember(position, message)):
            self._context.metrics.dropped("head_inbox")

    def result(self, message: wire.Result) -> None:
        """The round ledger's answer to our report."""
        if not self._inbox.post(_FromLedger(message)):
            self._context.metrics.dropped("head_inbox")

    async def run(self, task_status: trio.TaskStatus[str]) -> None:
        """Listen and serve until the term is over; reports the endpoint that members reach us at."""
        context = self._context
        context.metrics.heads(1)
        try:
            with self._scope:
                if context.relay:
                    task_status.started(RELAY)
                    await self._serve()
                    return
                async with context.link.listen(
                    context.listen, context.module.curve, self._by_curve_key.get
                ) as listener:
                    self._listener = listener
                    endpoint = listener.endpoint
                    if context.public_host is not None:
                        endpoint = f"tcp://{context.public_host}:{endpoint.rpartition(':')[2]}"
                    self._inbox.follow(listener)
                    task_status.started(endpoint)
                    await self._serve()
        finally:
            context.metrics.heads(-1)

    def _refuse(self, position: int, error: RemoteProtocolError) -> None:
        self._context.metrics.protocol_error(error.reason)
        if self._refusal_lines.is_due(f"{position} {error.reason}"):
            log.warning(
                "epoch %d ring %d: member %s broke the protocol: %s",
                self._view.epoch, self._view.ring, self._view.members[position].identity, error,
            )  # fmt: skip
        self._head.lost(position, self._context.clock())
        if self._listener is not None:
            self._listener.disconnect(position)

    async def _serve(self) -> None:
        context = self._context
        clock = context.clock
        while True:
            event = await self._inbox.receive(self._head.next_timer_s() - clock())
            match event:
                case None:
                    self._carry_out(self._head.on_timer(clock()))
                case _FromLedger(message):
                    self._carry_out(self._head.result(message, clock()))
                case _FromMember(position, message):
                    self._hear(position, message)
                case (int() as position, data):  # the name that our own `authorise` gave
                    self._context.metrics.received(len(data))
                    self._hear(position, data)
                case _:
                    raise AssertionError("members are known by their positions")

    def _hear(self, position: int, message: wire.RingMessage | bytes) -> None:
        if self._expelled >> position & 1:  # by the relay, or by a second link that was open before
            self._context.metrics.protocol_error("expelled_member")
            return
        try:
            if isinstance(message, bytes):
                message = wire.decode(message, wire.FROM_MEMBER)  # type: ignore[assignment]  # those are ring messages
            self._carry_out(self._head.receive(position, message, self._context.clock()))  # type: ignore[arg-type]
        except RemoteProtocolError as error:
            self._refuse(position, error)

    def _carry_out(self, instructions: list[HeadEffect]) -> None:
        context = self._context
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
                    context.to_coordinator(message)
                case Note(name, seconds):
                    context.metrics.phase(name, seconds)

    def _send(self, position: int, data: bytes) -> None:
        context = self._context
        context.metrics.sent(len(data))
        if self._listener is None:
            sealed = self._secrets.seal_relay(position, data, os.urandom(12))
            context.to_coordinator(wire.Relay(self._view.epoch, self._view.ring, position, sealed))
        elif not self._listener.send(position, data):
            self._head.lost(position, self._context.clock())
