"""
The coordinator process: gateways on ZeroMQ, the round book on the database, the web beside it.

Messages go to machines without I/O (areas, epochs, round books); what they return is sent at once, except the end of
a round: that is written first, many rounds in one transaction, and announced when it is durable.  If it cannot be
written nobody hears of it, the gateways keep asking, and the operator reads why in the log and in
`stromkreis_store_errors_total`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.config import CoordinatorConfig
from coordinator.gwa.areas import Area, Areas
from coordinator.gwa.enrolment import Directory, Gateway
from coordinator.gwa.epochs import AreaEpoch, Joined, Phase, Ring, To
from coordinator.metrics import CoordinatorMetrics
from coordinator.store import Epoch, Opened, Slot, Store, Void
from coordinator.store import Ring as StoredRing
from protocol import wire
from protocol.dcnet.book import Announce, BookInstruction, Ended, Observed, Record
from protocol.dcnet.rings import positions_of
from protocol.dcnet.schema import Schema
from protocol.dcnet.suite import Suite
from protocol.errors import RemoteProtocolError
from protocol.link import Listener

log = logging.getLogger(__name__)
_TICK_S = 5.0  # longest sleep of the timer loop: bounds the harm of a clock that is set


@dataclass(slots=True)
class _Waiting:
    """Ends of one ring that wait for the disk, with what follows them."""

    ended: Ended
    ring: Ring
    epoch: AreaEpoch
    then: list[Announce] = field(default_factory=list)


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
        clock: Callable[[], float] = time.time,
    ) -> None:
        last = store.last_epoch()
        self.areas = Areas(
            suite, config.epoch, schema, intermediates, [area.name for area in config.areas], os.urandom,
            0 if last is None else last.epoch + 1,
        )  # fmt: skip
        self.metrics = metrics
        self.latencies: dict[str, tuple[int, float]] = {}
        self._schema = schema
        self._store = store
        self._directory = directory
        self._clock = clock
        self._known: dict[str, Gateway] = {}
        self._wake = trio.Event()
        self._to_write: list[_Waiting] = []
        self._written = trio.Event()
        self._listener: Listener | None = None

    def authorise(self, curve_key: bytes) -> str | None:
        """The gateway that owns a CURVE key, if it is enrolled and active: what ZAP asks."""
        gateway = self._directory.active_by_curve_key(curve_key)
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
            nursery.start_soon(self._write)

    async def _receive(self, listener: Listener) -> None:
        while True:
            peer, data = await listener.receive()
            identity = str(peer)
            self.metrics.received(len(data))
            try:
                self._dispatch(identity, wire.decode(data, wire.FROM_GATEWAY))
            except RemoteProtocolError as error:
                self.metrics.protocol_error(error.reason)
                log.warning("gateway %s broke the protocol: %s", identity, error)
                listener.disconnect(peer)

    def _send(self, identity: str, message: wire.Message) -> None:
        data = wire.encode(message)
        if self._listener is not None and self._listener.send(identity, data):
            self.metrics.sent(len(data))
        else:
            self.metrics.undeliverable()

    def _send_all(self, messages: Sequence[To]) -> None:
        for each in messages:
            self._send(each.identity, each.message)

    # --- what gateways say ---------------------------------------------------------------------------------------

    def _dispatch(self, identity: str, message: wire.Message) -> None:
        now_s = self._clock()
        if isinstance(message, wire.Hello):
            self._on_hello(identity, message, now_s)
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
            case wire.FetchDeals():
                self._send_all(epoch.fetch_deals(identity))
            case _:
                self._on_ring_message(identity, epoch, message, now_s)

    def _on_hello(self, identity: str, message: wire.Hello, now_s: float) -> None:
        if message.version != wire.VERSION:
            raise RemoteProtocolError("wrong_version", f"protocol version {message.version}, ours is {wire.VERSION}")
        area = self.areas.areas.get(self._known[identity].area)
        if area is None:
            self._send(identity, wire.Refused(0, f"area {self._known[identity].area} is not served here"))
            return
        self.areas.arrive(area, identity, now_s)
        self.metrics.connected(sum(len(each.present) for each in self.areas.areas.values()))
        for epoch in area.epochs:
            if epoch.call.epoch > message.known_epoch:
                self._send_all(epoch.invite(identity))
        self._wake.set()

    def _on_join(self, identity: str, epoch: AreaEpoch, message: wire.Join, now_s: float) -> None:
        gateway = self._known[identity]
        joined = Joined(message.public_key, gateway.curve_key, message.signature, gateway.certificate)
        self._after_phase(epoch, epoch.join(identity, joined, now_s))

    def _on_ring_message(self, identity: str, epoch: AreaEpoch, message: wire.Message, now_s: float) -> None:
        place = epoch.place_of(identity)
        if place is None or place[0].book is None:
            self._send(identity, wire.Refused(epoch.call.epoch, "this gateway sits in no running ring of the epoch"))
            return
        ring, position = place
        match message:
            case wire.HeadAt():
                if message.term == ring.book.term and ring.view.head_of(message.term) == position:
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
                self.metrics.protocol_error("bad_deal")
                log.warning("gateway %s says that %s dealt it a bad share", identity, dealer)
            case _:
                if isinstance(message, wire.HeadSilent) and ring.head_at is not None:
                    self._send(identity, ring.head_at)
                self._carry_out(epoch, ring, ring.book.receive(position, message, now_s))
        self._wake.set()

    # --- what the machines answer --------------------------------------------------------------------------------

    def _carry_out(self, epoch: AreaEpoch, ring: Ring, instructions: Sequence[BookInstruction]) -> None:
        waiting: _Waiting | None = None
        for each in instructions:
            match each:
                case Record(ended):
                    waiting = _Waiting(ended, ring, epoch)
                    self._to_write.append(waiting)
                    self._written.set()
                case Announce() if waiting is not None:
                    waiting.then.append(each)
                case Announce():
                    self._announce(ring, each)
                case Observed(name):
                    self.metrics.observed(name)
                    if name == "head_replaced":
                        log.info("epoch %d ring %d: head replaced", epoch.call.epoch, ring.view.ring)
                        ring.head_at = None

    def _announce(self, ring: Ring, announce: Announce) -> None:
        message = announce.message
        targets = ring.positions.values() if announce.position is None else [announce.position]
        for position in targets:
            if isinstance(message, wire.Appoint) and position != ring.view.head_of(message.term):
                # Only the appointed needs the appointment; the others wait for its signed address.
                if ring.head_at is not None and ring.head_at.term == message.term:
                    self._send(ring.view.members[position].identity, ring.head_at)
                continue
            self._send(ring.view.members[position].identity, message)

    def _after_phase(self, epoch: AreaEpoch, messages: Sequence[To]) -> None:
        if epoch.phase is Phase.DEALING and messages and isinstance(messages[0].message, wire.EpochLayout):
            self._keep_epoch(epoch)
        if epoch.phase is Phase.REFUSED:
            log.warning("epoch %d: %s", epoch.call.epoch, epoch.refusal)
            self.metrics.observed("epoch_refused")
        self._send_all(messages)
        self._wake.set()

    def _keep_epoch(self, epoch: AreaEpoch) -> None:
        call = epoch.call
        slots = tuple(
            Slot(each.name, each.obis or "", each.unit, each.scaler, each.kind.value) for each in self._schema.slots
        )
        kept = Epoch(
            call.epoch, slots, call.interval_s, call.rounds, call.interval_start_s * 1000, round(self._clock() * 1000)
        )
        self._store.add_epoch(
            kept,
            [StoredRing(call.epoch, ring.view.ring, call.area, tuple(ring.positions)) for ring in epoch.rings],
        )
        log.info(
            "epoch %d of area %s: %d gateways in rings of %s", call.epoch, call.area, epoch.joined,
            sorted({ring.view.size for ring in epoch.rings}),
        )  # fmt: skip
        self.metrics.members(sum(ring.view.size for _, ring in self._rings()))

    def _rings(self) -> list[tuple[AreaEpoch, Ring]]:
        return [(epoch, ring) for area in self.areas.areas.values() for epoch in area.epochs for ring in epoch.rings]

    # --- time ----------------------------------------------------------------------------------------------------

    def _next_timer_s(self) -> float:
        times = [self.areas.next_timer_s()]
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
        for area in self.areas.areas.values():
            for epoch in area.epochs:
                self._after_phase_if(epoch, epoch.on_timer(now_s))
        for epoch, ring in self._rings():
            if ring.book is not None:
                self._carry_out(epoch, ring, ring.book.on_timer(now_s))
        for area, epoch in self.areas.call_due(now_s):
            log.info("epoch %d of area %s: called %d gateways", epoch.call.epoch, area.name, len(area.present))
            self._call(area, epoch)
        self.areas.drop_finished(now_s)

    def _after_phase_if(self, epoch: AreaEpoch, messages: Sequence[To]) -> None:
        if messages:
            self._after_phase(epoch, messages)

    def _call(self, area: Area, epoch: AreaEpoch) -> None:
        for identity in sorted(area.present):
            self._send_all(epoch.invite(identity))

    # --- durable, then announced -----------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            await self._written.wait()
            self._written = trio.Event()
            batch, self._to_write = self._to_write, []
            rows = [_row(each) for each in batch]
            try:
                await trio.to_thread.run_sync(self._store.record_many, rows)
            except SQLAlchemyError as error:
                self.metrics.store_error()
                log.error("the round book cannot be written, rounds stay unanswered: %s", type(error).__name__)
                self._to_write = batch + self._to_write
                await trio.sleep(1.0)
                self._written.set()
                continue
            for each in batch:
                self._observe(each)
                for announce in each.then:
                    self._announce(each.ring, announce)

    def _observe(self, waiting: _Waiting) -> None:
        ended = waiting.ended
        self.metrics.ended(
            opened=ended.outcome is wire.Outcome.OPENED, attempts=ended.attempt, seconds=ended.ended_s - ended.opened_s
        )
        if ended.outcome is wire.Outcome.VOID:
            log.warning("epoch %d ring %d round %d is void: %s", ended.epoch, ended.ring, ended.round, ended.reason)


def _row(waiting: _Waiting) -> Opened | Void:
    ended, call, view = waiting.ended, waiting.epoch.call, waiting.ring.view
    interval_ms = (call.interval_start_s + ended.round * call.interval_s) * 1000
    ended_ms, latency_us = round(ended.ended_s * 1000), round((ended.ended_s - ended.opened_s) * 1e6)
    if ended.outcome is wire.Outcome.OPENED:
        return Opened(
            ended.epoch, ended.ring, ended.round, ended.attempt, view.head_of(ended.term),
            tuple(positions_of(ended.roster)), ended.expected.bit_count(), ended.total, interval_ms, ended_ms,
            latency_us,
        )  # fmt: skip
    return Void(
        ended.epoch, ended.ring, ended.round, ended.attempt, view.head_of(ended.term), ended.expected.bit_count(),
        ended.reason, interval_ms, ended_ms, latency_us,
    )  # fmt: skip
