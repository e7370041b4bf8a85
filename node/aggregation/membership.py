"""
One gateway's place in one ring: drives the member machine, and the head machine while it is appointed.

Everything that happens (a head's message, the coordinator's word, a reading, a deadline) goes through one inbox and is
carried out in order, so that "durable before sent" is simply the order of the instructions.  The inbox is bounded:
what does not fit is dropped like a lost packet, and deadlines take care of it.

When the store fails, the machine is thrown away and made again from what is durable, exactly as after a crash.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass

import trio

from node.aggregation.context import RELAY, AccountMoved, FromCoordinator, FromHead, MembershipContext
from node.aggregation.contribution import Contributions, SupersededError
from node.aggregation.head import HeadDriver
from node.metering.registers import Registers
from node.storage.errors import StoreError
from protocol import wire
from protocol.dcnet.discipline.returns import EpochAttendance
from protocol.dcnet.machines.effects import (
    Attempted,
    EpochRefused,
    MemberEffect,
    Note,
    Persist,
    Settled,
    ToCoordinator,
    ToHead,
)
from protocol.dcnet.machines.masks import MaskSchedule
from protocol.dcnet.machines.member import Member
from protocol.dcnet.setup.epoch import head_text
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.errors import RemoteProtocolError
from protocol.link import Connection, Inbox, LinkError
from protocol.log_limit import PEER_LINE_S, LogLimiter

log = logging.getLogger(__name__)
_INBOX = 256
_STORE_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """The gateway's registers for a round."""

    round: int
    registers: Registers


Event = _Reading | FromHead | FromCoordinator | AccountMoved


class Membership:
    """A gateway in a ring, from the layout to the epoch's last round."""

    def __init__(
        self, context: MembershipContext, view: RingView, secrets: EpochSecrets, nonce: bytes, first_round: int = 0
    ) -> None:
        """
        `nonce` is this process's own: another one than the layout's where another process has joined.

        `first_round` is the first that this process may contribute to.
        """
        self.view = view
        self.secrets = secrets
        self.last_heard_s = 0.0
        self.has_taken_part = False
        self._context = context
        self._refusal_lines = LogLimiter(PEER_LINE_S, context.clock)
        self._position = secrets.position
        self._masks = MaskSchedule(context.suite, view, secrets, context.fleet, nonce)
        self._first_round = first_round
        self._inbox: Inbox[Event, bytes] = context.link.inbox(_INBOX)
        self._member = self._resume()
        self._head: HeadDriver | None = None
        self._connection: Connection | None = None
        self._sending = False
        self._waiting: _Reading | None = None
        self._nursery: trio.Nursery | None = None
        self._address: wire.HeadAt | None = None
        self._expelled = 0
        self._left_out = 0
        self._offered = -1

    def _resume(self) -> Member:
        context = self._context
        resume = context.contributions.resume(self.view.epoch)
        attendance = self._attendance()
        return Member(context.suite, self.view, self.secrets, self._masks, resume, self._first_round, attendance)

    def _attendance(self) -> EpochAttendance | None:
        """What is durable of our returns, in rounds of this epoch; None where they are not counted."""
        attendance = self._context.contributions.attendance
        return None if attendance is None else attendance.of_epoch(self._context.grid)

    @property
    def account(self) -> Contributions:
        """The account that it contributes from."""
        return self._context.contributions

    @property
    def is_waiting(self) -> bool:
        """Whether it hears results alone, for want of a token for a return."""
        return self._member.is_waiting

    @property
    def is_head_linked(self) -> bool:
        """Whether the head can be spoken to: it is us, it is relayed, or its link stands."""
        if self._address is None:
            return False
        if self.view.head_of(self._address.term) == self._position:
            return self._head is not None
        if self._address.endpoint == RELAY:
            return True
        return self._connection is not None and self._connection.is_connected

    @property
    def history_leaf(self) -> bytes | None:
        """How all rounds ended, once all have, and we know of all."""
        return self._member.history.leaf

    def post(self, event: Event) -> None:
        """Put an event into the inbox; it is dropped where the inbox is full."""
        if not self._inbox.post(event):
            self._context.metrics.dropped("member_inbox")

    def reading(self, round_: int, registers: Registers) -> None:
        """The meters were read for a round."""
        self.post(_Reading(round_, registers))

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                await self._serve()
        finally:
            self._head = None  # which knows us: two that held each other would keep the epoch's keys in memory
            if self._connection is not None:  # the poller would keep it, one more each epoch
                with trio.CancelScope(shield=True):
                    await self._connection.aclose()

    async def _serve(self) -> None:
        clock = self._context.clock
        while True:
            event = await self._inbox.receive(self._member.next_timer_s() - clock())
            try:
                if event is None:
                    await self._carry_out(self._member.on_timer(clock()))
                else:
                    await self._on_event(event)
                await self._offer()
            except StoreError as error:
                # Nothing that was not durable has left.  Start again from what is, once the disk has had a rest.
                self._context.metrics.store_error()
                log.error("gateway %s does not contribute: %s", self._context.module.identity, error)
                await trio.sleep(_STORE_RETRY_S)
                await self._start_again()
            except SupersededError as error:
                context = self._context
                context.metrics.noted("contribution_superseded")
                log.info("gateway %s does not contribute: %s", context.module.identity, error)
                await self._start_again()

    async def _start_again(self) -> None:
        term = self._member.term
        self._member = self._resume()
        await self._carry_out(self._member.appointed(term, self._context.clock()))

    async def _on_event(self, event: Event | bytes) -> None:
        context, now_s = self._context, self._context.clock()
        try:
            match event:
                case bytes():
                    context.metrics.received(len(event))
                    await self._hear(wire.decode(event, wire.FROM_HEAD))  # type: ignore[arg-type]
                case _Reading():
                    self._waiting = event
                case AccountMoved():
                    pass  # what waits is offered after every event
                case FromHead(message):
                    await self._hear(message)
                case FromCoordinator(wire.HeadAt() as message):
                    await self._on_head_at(message)
                case FromCoordinator(wire.Appoint() as message):
                    await self._on_appoint(message)
                case FromCoordinator(wire.Result() as message):
                    if self._head is not None:
                        self._head.result(message)
                    await self._carry_out(self._member.receive(message, now_s))
                case FromCoordinator(wire.Relay() as message):
                    await self._on_relay(message)
                case FromCoordinator(wire.Deals() as message):
                    self._take_deals(message)
                case FromCoordinator(wire.Expelled() as message):
                    self._on_expelled(message)
                case FromCoordinator(wire.LeftOut() as message):
                    self._left_out = self.view.from_wire(message.members)
                    if self._head is not None:
                        self._head.leave_out(self._left_out)
                case FromCoordinator(
                    wire.Inquiry() | wire.DisputedPair() | wire.DisputedDeal() | wire.PresenceRequest() as message
                ):
                    await self._carry_out(self._member.asked(message))
                case _:
                    raise RemoteProtocolError("message_not_allowed", "not about a ring")
        except RemoteProtocolError as error:
            context.metrics.protocol_error(error.reason)
            if self._refusal_lines.is_due(error.reason):
                log.warning("gateway %s refuses: %s", context.module.identity, error)

    async def _carry_out(self, instructions: list[MemberEffect]) -> None:
        context = self._context
        for each in instructions:
            match each:
                case Persist(Attempted() as record):
                    await context.contributions.attempted(self.view, record)
                case Persist(Settled() as record):
                    await context.contributions.settled(self.view, record)
                    context.metrics.settled(included=record.included)
                    if record.included:
                        self.has_taken_part |= record.round >= self._first_round
                        await context.opened()
                    context.account_moved()
                case Persist(EpochRefused() as record):
                    context.metrics.noted("epoch_refused")
                    context.epoch_refused(record)
                case ToHead(message):
                    await self._to_head(message)
                case ToCoordinator(message):
                    context.to_coordinator(message)
                case Note(name):
                    context.metrics.noted(name)

    async def _offer(self) -> None:
        """Build the contribution once we know how the last one ended: its registers are differences to it."""
        waiting, contributions = self._waiting, self._context.contributions
        if waiting is None or self._member.unsettled not in (None, waiting.round):
            return
        if not contributions.is_free_for(self.view.epoch):
            return
        self._waiting = None
        if waiting.round < self._offered:  # a clock that was set back; the energy is in what is offered
            self._context.metrics.noted("reading_out_of_order")
            return
        length_s = self._context.grid.interval_s
        contribution = contributions.build(self.view, waiting.round, waiting.registers, length_s=length_s)
        if contribution is not None:
            self._offered = waiting.round
            if contribution.is_over_range:
                self._context.metrics.noted("contribution_over_range")
            now_s = self._context.clock()
            offered = self._member.offer(
                waiting.round, contribution.vector, now_s, contribution.blindings, self._attendance()
            )
            await self._carry_out(offered)

    def _take_deals(self, message: wire.Deals) -> None:
        for dealer, commitments, sealed in message.deals:
            if dealer >= self.view.size:
                raise RemoteProtocolError("no_such_member", "a deal from a position that does not exist")
            try:
                known = self._context.commitments.setdefault(dealer, commitments)
                self.secrets.accept(dealer, known if known == commitments else commitments, sealed)
            except RemoteProtocolError as error:  # one bad dealer costs only its own recovery
                self._context.metrics.protocol_error(error.reason)
                self._context.to_coordinator(wire.BadDeal(self.view.epoch, self.view.ring, dealer))

    def _on_expelled(self, message: wire.Expelled) -> None:
        """Who was revoked stays out until the epoch is over: what a coordinator says next lets nobody in again."""
        self._expelled |= self.view.from_wire(message.members)
        self._member.expelled(self._expelled, self._context.clock())
        if self._head is not None:
            self._head.expel(self._expelled)

    async def _hear(self, message: wire.RingMessage) -> None:
        """A head that knows the expelled starts no attempt with one; a head that does gets no share of ours."""
        self.last_heard_s = now_s = self._context.clock()
        if isinstance(message, wire.Open) and self.view.from_wire(message.expected) & self._expelled:
            raise RemoteProtocolError("expelled_member", "the expected set has a member that was revoked")
        await self._carry_out(self._member.receive(message, now_s))

    # --- the head ------------------------------------------------------------------------------------------------

    async def _on_appoint(self, message: wire.Appoint) -> None:
        """We are the head of a term: listen, and let the coordinator pass our signed address on."""
        if self.view.head_of(message.term) != self._position or message.term < self._member.term:
            raise RemoteProtocolError("head_out_of_turn", "an appointment that is not ours")
        if self._head is not None and self._head.term >= message.term:
            return
        if self._nursery is None:
            return
        context = self._context
        await self._drop_link()
        if self._head is not None:  # or each appointment would leave a listener behind
            self._head.stop()
        commitments = {
            dealer: known
            for dealer in self.secrets.dealers
            if (known := self.secrets.commitments_of(dealer)) is not None
        }
        self._head = HeadDriver(
            context, self.view, message.term, commitments, self.post,
            first=self._member.next_attempt, known=self._member.incarnation, secrets=self.secrets,
        )  # fmt: skip
        self._head.expel(self._expelled)
        self._head.leave_out(self._left_out)
        try:
            endpoint = await self._nursery.start(self._head.run)
        except LinkError as error:  # the ring goes on under the next deputy
            log.error("gateway %s cannot be head of its ring: %s", context.module.identity, error)
            context.metrics.noted("head_cannot_listen")
            self._head = None
            return
        signature = context.module.sign(head_text(self.view, message.term, endpoint))
        context.to_coordinator(wire.HeadAt(self.view.epoch, self.view.ring, message.term, endpoint, signature))

    async def _on_head_at(self, message: wire.HeadAt) -> None:
        if message.term < self._member.term or (self._address == message and self._is_linked()):
            return
        position = self.view.head_of(message.term)
        self._context.verify_member(position, head_text(self.view, message.term, message.endpoint), message.signature)
        if self._head is not None and self._head.term < message.term:
            self._head.stop()
            self._head = None
        await self._drop_link()
        self._address = message
        if position != self._position and message.endpoint != RELAY:
            self._connect(message.endpoint, self.view.members[position].curve_key)
        now_s = self._context.clock()
        # Not before: now those of the ring who live in this process have joined it, and a pair's masks are made once.
        self._masks.prepare(min(max(0, self.view.timing.round_at(now_s)), self.view.rounds - 1))
        await self._carry_out(self._member.appointed(message.term, now_s))

    def _connect(self, endpoint: str, curve_key: bytes) -> None:
        """A head may sign any text as its address; one that is none leaves it silent, and the ring has deputies."""
        context = self._context
        try:
            self._connection = context.link.connect(endpoint, curve_key, context.module.curve)
        except LinkError as error:
            context.metrics.noted("head_unreachable")
            log.warning("gateway %s does not reach the head of its ring: %s", context.module.identity, error)
        else:
            self._inbox.follow(self._connection)

    def _is_linked(self) -> bool:
        if self._address is None:
            return False
        return (
            self._connection is not None
            or self._address.endpoint == RELAY
            or self.view.head_of(self._address.term) == self._position
        )

    async def _drop_link(self) -> None:
        self._sending = False
        if self._connection is not None:
            connection, self._connection = self._connection, None
            self._inbox.follow(None)
            await connection.aclose()

    async def _to_head(self, message: wire.RingMessage) -> None:
        if self._address is None:
            return
        position = self.view.head_of(self._address.term)
        if position == self._position:
            if self._head is not None:
                self._head.from_member(self._position, message)
            return
        data = wire.encode(message)
        self._context.metrics.sent(len(data))
        if self._address.endpoint == RELAY:
            sealed = self.secrets.seal_relay(position, data, os.urandom(12))
            self._context.to_coordinator(wire.Relay(self.view.epoch, self.view.ring, position, sealed))
        elif self._connection is not None and not self._connection.send_nowait(data) and not self._sending:
            # Not connected yet, or the head takes nothing: one message may wait for it, never the machine.
            self._sending = True
            if self._nursery is not None:
                self._nursery.start_soon(self._send_when_connected, self._connection, data)

    async def _send_when_connected(self, connection: Connection, data: bytes) -> None:
        with contextlib.suppress(trio.ClosedResourceError):  # the head was changed while we waited
            await connection.send(data)
        if connection is self._connection:
            self._sending = False

    async def _on_relay(self, message: wire.Relay) -> None:
        """A relayed message is for our head if members send such, and for our member if the present head sent it."""
        data = self.secrets.unseal_relay(message.position, message.sealed)
        inner = wire.decode(data, wire.FROM_MEMBER | wire.FROM_HEAD)
        if type(inner) in wire.FROM_MEMBER:
            if self._head is not None:
                self._head.from_member(message.position, inner)  # type: ignore[arg-type]
        elif self._address is not None and message.position == self.view.head_of(self._address.term):
            await self._hear(inner)  # type: ignore[arg-type]
