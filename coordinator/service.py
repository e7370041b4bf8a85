"""
The coordinator process: gateways on ZeroMQ, the round book on the database, the web beside it.

Messages go to machines without I/O (areas, epochs, round books); what they return is sent at once, except the making
of an epoch (`coordinator.keeping`) and the end of a round (`coordinator.writing`): these are durable first.  What
cannot be written is not said, the gateways keep asking, and the operator reads why in the log and in
`stromkreis_peer_errors_total{reason="store_error"}`.  Bills have a desk of their own (`coordinator.emp.desk`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.config import CoordinatorConfig
from coordinator.emp.desk import BillDesk
from coordinator.gwa.areas import Area, Areas
from coordinator.gwa.enrolment import Directory, Gateway
from coordinator.gwa.enrolment import Status as Activity
from coordinator.gwa.epochs import AreaEpoch, Joined, Phase, Ring, To
from coordinator.gwa.joining import check_join
from coordinator.keeping import RETRY_S, EpochKeeper
from coordinator.metrics import CoordinatorMetrics
from coordinator.store import Store, fault_of
from coordinator.web.status import Status, ring_status
from coordinator.writing import Ending, RoundWriter
from protocol import wire
from protocol.dcnet.book import Accusation, Announce, BookInstruction, Observed, Record
from protocol.dcnet.schema import Schema
from protocol.dcnet.suite import Suite
from protocol.errors import RemoteProtocolError
from protocol.link import Listener

log = logging.getLogger(__name__)
EXPEL_S = 5.0  # between two looks for gateways that were shut out; longer, and one stays connected longer
_TICK_S = 5.0  # longest sleep of the timer loop: bounds the harm of a clock that is set


class Coordinator:
    """Gateway administrator and external market participant of one network."""

    def __init__(
        self,
        config: CoordinatorConfig,
        suite: Suite,
        schema: Schema,
        store: Store,
        directory: Directory,
        intermediates: Sequence[bytes],
        metrics: CoordinatorMetrics,
        desk: BillDesk,
        clock: Callable[[], float] = time.time,
    ) -> None:
        last = store.last_epoch()
        self.areas = Areas(
            suite, config.epoch, schema, intermediates, config.areas, os.urandom,
            0 if last is None else last + 1,
        )  # fmt: skip
        self.metrics = metrics
        self._suite = suite
        self._store = store
        self._keeper = EpochKeeper(store, schema, self._send_all, self._store_failed)
        self._joins_waiting: dict[tuple[int, str], wire.Join] = {}
        self._enrolled = 0
        self._directory = directory
        self._clock = clock
        self._known: dict[str, Gateway] = {}
        self._wake = trio.Event()
        self._writer = RoundWriter(store, metrics, self._on_written)
        self._desk = desk
        self._listener: Listener | None = None
        self._revision = 0
        self._change = trio.Event()
        metrics.watch(
            enrolled=self._count_enrolled, connected=lambda: self.areas.present_count,
            queue_length=lambda: self._writer.queued,
        )  # fmt: skip
        for state in store.states():
            self._resume(suite, state)

    def _resume(self, suite: Suite, state: bytes) -> None:
        number = AreaEpoch.number_of(state)
        epoch = AreaEpoch.from_state(suite, state, self._store.epoch_outcomes(number), self._clock())
        area = self.areas.areas.get(epoch.call.area)
        if area is None or epoch.over:
            self._keeper.drop(number)
            return
        area.epochs.append(epoch)
        log.info("epoch %d of area %s goes on", number, area.name)

    def authorise(self, curve_key: bytes) -> str | None:
        """The gateway that owns a CURVE key, if it is enrolled and active: what ZAP asks."""
        try:
            gateway = self._directory.active_by_curve_key(curve_key)
        except SQLAlchemyError as error:
            self._store_failed()
            log.error("the directory cannot be read, nobody is let in: %s", fault_of(error))
            return None
        if gateway is None:
            return None
        self._known[gateway.gateway_id] = gateway
        return gateway.gateway_id

    async def serve(self, listener: Listener) -> None:
        """Run until cancelled."""
        self._listener = listener
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, listener)
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._writer.run)
            nursery.start_soon(self._desk.run, self.areas.everybody, self._send, self._changed)
            nursery.start_soon(self._keeper.run)
            nursery.start_soon(self._expel, listener)

    async def _receive(self, listener: Listener) -> None:
        while True:
            peer, data = await listener.receive()
            identity = str(peer)
            self.metrics.received.inc(len(data))
            try:
                self._dispatch(identity, wire.decode(data, wire.FROM_GATEWAY))
            except RemoteProtocolError as error:
                self._broke_the_protocol(identity, error)
            except SQLAlchemyError as error:  # it asks again
                self._store_failed()
                log.error("gateway %s gets no answer, the database cannot be read: %s", identity, fault_of(error))

    def _broke_the_protocol(self, identity: str, error: RemoteProtocolError) -> None:
        self.metrics.peer_error(error.reason)
        log.warning("gateway %s broke the protocol: %s", identity, error)
        if self._listener is not None:
            self._listener.disconnect(identity)

    def _store_failed(self) -> None:
        self.metrics.peer_error("store_error")

    async def _expel(self, listener: Listener) -> None:
        """
        Cut off who was shut out, by another process, while it was connected, and have its rings do the same.

        Again and again: a connection that was admitted just before has begun just after.
        """
        told: set[str] = set()
        while True:
            try:
                revoked = await trio.to_thread.run_sync(self._directory.revoked)
            except SQLAlchemyError as error:
                self._store_failed()
                log.error("the directory cannot be read, nobody is shut out: %s", fault_of(error))
                revoked = []
            for identity in self._known.keys() & set(revoked):
                listener.disconnect(identity)
                self.areas.expel(identity)
                if identity not in told:
                    told.add(identity)
                    log.info("gateway %s was shut out", identity)
            self._expel_from_rings(frozenset(revoked))
            await trio.sleep(EXPEL_S)

    def _expel_from_rings(self, revoked: frozenset[str]) -> None:
        for area in self.areas.areas.values():
            for epoch in area.epochs:
                if self._keeper.holds(epoch):  # its gateways have not heard of their rings yet
                    continue
                for ring, messages in epoch.expel(revoked):
                    log.info("epoch %d ring %d: told its members whom to leave out", epoch.call.epoch, ring.view.ring)
                    self._send_all(messages)
                    if ring.book is not None:
                        self._carry_out(epoch, ring, ring.book.expel(ring.expelled, self._clock()))

    def _send(self, identity: str, message: wire.Message) -> None:
        data = wire.encode(message)
        if self._listener is not None and self._listener.send(identity, data):
            self.metrics.sent.inc(len(data))
        else:
            self.metrics.peer_error("undeliverable")

    def _send_all(self, messages: Sequence[To]) -> None:
        for each in messages:
            self._send(each.identity, each.message)

    # --- what gateways say ---------------------------------------------------------------------------------------

    def _dispatch(self, identity: str, message: wire.Message) -> None:
        now_s = self._clock()
        area = self.areas.areas.get(self._known[identity].area)
        if area is not None:
            self.areas.arrive(area, identity, now_s)
        if isinstance(message, wire.Hello):
            self._on_hello(identity, area, message)
            return
        if isinstance(message, wire.AskAccount):
            self._on_ask_account(identity, message)
            return
        if isinstance(message, wire.Bill | wire.BillDeclined):
            self._desk.receive(identity, message)
            return
        epoch_number = getattr(message, "epoch")  # noqa: B009 - every other message has one, mypy cannot know
        found = self.areas.epoch(epoch_number)
        if found is None:
            self._send(identity, wire.Refused(epoch_number, "this epoch is over or never was"))
            return
        _, epoch = found
        match message:
            case wire.Join():
                self._on_join(identity, epoch, message, now_s)
            case wire.Deal():
                self._after_phase(epoch, epoch.deal(identity, message, now_s))
            case _:
                self._on_ring_message(identity, epoch, message, now_s)

    def _on_hello(self, identity: str, area: Area | None, message: wire.Hello) -> None:
        if message.version != wire.VERSION:
            raise RemoteProtocolError("wrong_version", f"protocol version {message.version}, ours is {wire.VERSION}")
        if area is None:
            self._send(identity, wire.Refused(0, f"area {self._known[identity].area} is not served here"))
            return
        for epoch in area.epochs:
            known = epoch.call.epoch <= message.known_epoch
            self._keeper.greet(epoch, identity, partial(epoch.greet_again if known else epoch.invite, identity))
        self._wake.set()

    def _on_ask_account(self, identity: str, message: wire.AskAccount) -> None:
        """From what is durable only; a round of a living epoch that is still open has no answer yet."""
        rings = self._store.epoch_rings(message.epoch)
        mine = next(((ring, ring.members.index(identity)) for ring in rings if identity in ring.members), None)
        if mine is None:
            self._send(identity, wire.Refused(message.epoch, "this gateway sat in no ring of the epoch"))
            return
        ring, position = mine
        ended = self._store.ended(message.epoch, ring.ring, message.round)
        if ended is None and self.areas.epoch(message.epoch) is not None:
            return
        included = ended is not None and ended.outcome is wire.Outcome.OPENED and bool(ended.roster >> position & 1)
        self._send(identity, wire.Account(message.epoch, message.round, int(included)))

    def _on_join(self, identity: str, epoch: AreaEpoch, message: wire.Join, now_s: float) -> None:
        self._joins_waiting.pop((epoch.call.epoch, identity), None)
        try:
            gateway = self._directory.gateway(identity)
        except SQLAlchemyError:
            if epoch.phase is Phase.CALLED:  # a gateway joins once; it is looked up again until the window closes
                self._joins_waiting[epoch.call.epoch, identity] = message
            raise
        if gateway is None or gateway.status is not Activity.ACTIVE:  # shut out while it was connected
            raise RemoteProtocolError("gateway_revoked", "a join of a gateway that was shut out")
        check_join(self._suite, epoch.call, gateway, message, now_s)
        joined = Joined(message.public_key, gateway.curve_key, message.signature, gateway.certificate)
        self._after_phase(epoch, epoch.join(identity, joined, now_s))

    def _join_again(self, now_s: float) -> None:
        """Look up those who joined while the directory could not be read."""
        for (number, identity), message in list(self._joins_waiting.items()):
            found = self.areas.epoch(number)
            if found is None or found[1].phase is not Phase.CALLED:
                del self._joins_waiting[number, identity]
                continue
            try:
                self._on_join(identity, found[1], message, now_s)
            except RemoteProtocolError as error:
                self._broke_the_protocol(identity, error)
            except SQLAlchemyError as error:
                self._store_failed()
                log.error("the directory cannot be read, gateways wait to join: %s", fault_of(error))
                return

    def _on_ring_message(self, identity: str, epoch: AreaEpoch, message: wire.Message, now_s: float) -> None:
        place = epoch.place_of(identity)
        book = None if place is None else place[0].book
        if place is None or book is None:
            self._send(identity, wire.Refused(epoch.call.epoch, "this gateway sits in no running ring of the epoch"))
            return
        ring, position = place
        match message:
            case wire.HeadAt():
                if message.term == book.term and ring.view.head_of(message.term) == position:
                    ring.head_at = message
                    for member in ring.positions:
                        self._send(member, message)
            case wire.Relay():
                if message.position >= ring.view.size:
                    raise RemoteProtocolError("no_such_member", "a relayed message for nobody")
                forwarded = wire.Relay(message.epoch, message.ring, position, message.sealed)
                self._send(ring.view.members[message.position].identity, forwarded)
            case wire.BadDeal():
                dealer = ring.view.members[message.dealer].identity if message.dealer < ring.view.size else "nobody"
                self.metrics.peer_error("bad_deal")
                log.warning("gateway %s says that %s dealt it a bad share", identity, dealer)
            case _:
                if isinstance(message, wire.HeadSilent) and ring.head_at is not None:
                    self._send(identity, ring.head_at)
                self._carry_out(epoch, ring, book.receive(position, message, now_s))
        self._wake.set()

    # --- what the machines answer --------------------------------------------------------------------------------

    def _carry_out(self, epoch: AreaEpoch, ring: Ring, instructions: Sequence[BookInstruction]) -> None:
        ending: Ending | None = None
        for each in instructions:
            match each:
                case Record():
                    ending = Ending(each, ring, epoch)
                    self._writer.add(ending)
                case Announce() if ending is not None:
                    ending.then.append(each)
                case Announce():
                    self._announce(ring, each)
                case Accusation(round_, head, position, lie):
                    log.warning(
                        "epoch %d ring %d: %s, head in round %d, says that %s lies: %s",
                        epoch.call.epoch, ring.view.ring, ring.view.members[head].identity, round_,
                        ring.view.members[position].identity, lie.name.lower(),
                    )  # fmt: skip
                case Observed(name):
                    self.metrics.peer_error(name)
                    if name == "head_replaced":
                        log.info("epoch %d ring %d: head replaced", epoch.call.epoch, ring.view.ring)
                        ring.head_at = None

    def _announce(self, ring: Ring, announce: Announce) -> None:
        message = announce.message
        if isinstance(message, wire.Result) and self._writer.is_waiting(message.epoch, message.ring, message.round):
            return  # who asks while the disk is busy hears it when it is durable, or asks again
        targets = ring.positions.values() if announce.position is None else [announce.position]
        for position in targets:
            if isinstance(message, wire.Appoint) and position != ring.view.head_of(message.term):
                # Only the appointed needs the appointment; the others wait for its signed address.
                if ring.head_at is not None and ring.head_at.term == message.term:
                    self._send(ring.view.members[position].identity, ring.head_at)
                continue
            self._send(ring.view.members[position].identity, message)

    def _after_phase(self, epoch: AreaEpoch, messages: Sequence[To]) -> None:
        if epoch.phase in {Phase.DEALING, Phase.RUNNING} and messages:
            self._keeper.keep(epoch, messages)
        elif epoch.phase is Phase.REFUSED:
            log.warning("epoch %d: %s", epoch.call.epoch, epoch.refusal)
            self.metrics.peer_error("epoch_refused")
            self._keeper.drop(epoch.call.epoch)
            self._send_all(messages)
        self._wake.set()

    def _rings(self) -> list[tuple[AreaEpoch, Ring]]:
        return [(epoch, ring) for area in self.areas.areas.values() for epoch in area.epochs for ring in epoch.rings]

    # --- time ----------------------------------------------------------------------------------------------------

    def _next_timer_s(self) -> float:
        times = [self.areas.next_timer_s()]
        if self._joins_waiting:
            times.append(self._clock() + RETRY_S)
        for area in self.areas.areas.values():
            times += [epoch.next_timer_s() for epoch in area.epochs]
        times += [ring.book.next_timer_s() for _, ring in self._rings() if ring.book is not None]
        return min(times)

    async def _keep_time(self) -> None:
        while True:
            now_s = self._clock()
            self._on_time(now_s)
            with trio.move_on_after(min(_TICK_S, max(0.0, self._next_timer_s() - self._clock()))):
                await self._wake.wait()
            self._wake = trio.Event()
            await trio.lowlevel.checkpoint()

    def _on_time(self, now_s: float) -> None:
        self.areas.forget_silent(now_s)
        self._join_again(now_s)
        for area in self.areas.areas.values():
            for epoch in area.epochs:
                self._on_epoch_time(epoch, now_s)
        for epoch, ring in self._rings():
            if ring.book is not None:
                self._carry_out(epoch, ring, ring.book.on_timer(now_s))
        for epoch in self.areas.drop_finished(now_s):
            self._keeper.drop(epoch.call.epoch)
        for area, epoch in self.areas.call_due(now_s):
            log.info("epoch %d of area %s: called %d gateways", epoch.call.epoch, area.name, len(area.present))
            self._call(area, epoch)
        rings = self._rings()
        self.metrics.rings.set(len(rings))
        self.metrics.ring_members.set(sum(ring.view.size for _, ring in rings))

    def _on_epoch_time(self, epoch: AreaEpoch, now_s: float) -> None:
        if epoch.phase is Phase.DEALING and self._keeper.holds(epoch) and now_s >= epoch.next_timer_s():
            reason = f"area {epoch.call.area} cannot form rings: their layout could not be made durable in time"
            self._after_phase(epoch, epoch.give_up(reason))
        elif messages := epoch.on_timer(now_s):
            self._after_phase(epoch, messages)

    def _call(self, area: Area, epoch: AreaEpoch) -> None:
        for identity in sorted(area.present):
            self._send_all(epoch.invite(identity))

    def _on_written(self, ending: Ending) -> None:
        self._observe(ending)
        for announce in ending.then:
            self._announce(ending.ring, announce)

    def _observe(self, ending: Ending) -> None:
        ended, size = ending.ended, ending.ring.view.size
        seconds = ended.ended_s - ended.opened_s
        opened = ended.outcome is wire.Outcome.OPENED
        if opened:
            present = ended.roster.bit_count()
            self.metrics.round_opened(duration_s=seconds, attempt=ended.attempt, present=present, size=size)
        else:
            self.metrics.round_void(attempt=ended.attempt)
            log.warning("epoch %d ring %d round %d is void: %s", ended.epoch, ended.ring, ended.round, ended.reason)
        self._changed()

    # --- what the web may see --------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._revision += 1
        event, self._change = self._change, trio.Event()
        event.set()

    def status(self) -> Status:
        """The rings as they stand; see `coordinator.web.status`."""
        rings = tuple(ring_status(epoch, ring) for epoch, ring in self._rings())
        return Status(self._revision, rings, self._count_enrolled(), self.areas.present_count)

    def _count_enrolled(self) -> int:
        """As last known where the database cannot be asked: then the other figures are wanted most."""
        with suppress(SQLAlchemyError):
            self._enrolled = self._directory.count()
        return self._enrolled

    async def changed(self, revision: int) -> None:
        """Return as soon as the state's revision is another one than this."""
        while self._revision == revision:
            await self._change.wait()

    def not_ready(self) -> str | None:
        """Why the coordinator cannot work now, None where it can."""
        return None if self._listener is not None else "the ZeroMQ socket is not open yet"
