"""
The coordinator: puts its parts together, and takes gateways' messages to the one that each is for.

Messages go to machines without I/O (areas, epochs, round ledgers).  What these return is sent at once, except the
making of an epoch (`coordinator.epoch_writer`) and the end of a round (`coordinator.round_writer`): these are
durable first.  What cannot be written is not sent, the gateways keep asking, and the operator reads why in the log and
in `stromkreis_peer_errors_total{reason="store_error"}`.  Nothing here asks the database: that is done in worker threads
(`admission`, `accounts`, `emp.billing_service`), so that one which is slow holds no round up.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial

import trio

from coordinator.accounts import Accounts
from coordinator.admission import Admission
from coordinator.config import CoordinatorConfig
from coordinator.emp.billing_service import BillingService
from coordinator.epoch_writer import EpochWriter
from coordinator.gwa.areas import Area, Areas
from coordinator.gwa.epochs import AreaEpoch, Joined, To
from coordinator.gwa.misbehaviour import MisbehaviourReports
from coordinator.metrics import CoordinatorMetrics
from coordinator.rounds import Rounds
from coordinator.scheduler import Scheduler
from coordinator.storage.store import Store
from coordinator.web.status import StatusFeed
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.setup.schema import Schema
from protocol.errors import RemoteProtocolError
from protocol.link import Listener

log = logging.getLogger(__name__)
HELLOS_MAX = 5  # of a gateway in a row; it says one every 10 s, and one when it is started or linked anew
HELLO_S = 2.0  # for each there is another one: an answer may be two layouts of a megabyte
_TELL_S = 10.0  # between two lines about one gateway that breaks the protocol: the counter has them all


class Coordinator:
    """Gateway administrator and external market participant of one network."""

    def __init__(
        self,
        config: CoordinatorConfig,
        suite: Suite,
        schema: Schema,
        store: Store,
        intermediates: Sequence[bytes],
        metrics: CoordinatorMetrics,
        desk: BillingService,
        clock: Callable[[], float] = time.time,
    ) -> None:
        last = store.epochs.last_number()
        self.areas = Areas(
            suite, config.epoch, schema, intermediates, config.areas, os.urandom,
            0 if last is None else last + 1,
        )  # fmt: skip
        self.admission = Admission(
            suite, store.gateways, clock, self._store_failed, self._on_joined, self._broke_the_protocol,
            self._drop_revoked,
        )  # fmt: skip
        self.status_feed = StatusFeed(self.areas, lambda: sum(self.admission.enrolled.values()))
        self.metrics = metrics
        self._clock = clock
        self._desk = desk
        self._reports = MisbehaviourReports(store.misbehaviour, metrics, clock)
        self._accounts = Accounts(
            store.epochs,
            store.rounds,
            lambda epoch: self.areas.epoch(epoch) is not None,
            self._send,
            self._store_failed,
        )
        self._keeper = EpochWriter(store.epochs, schema, self._send_all, self._store_failed)
        self._rounds = Rounds(
            store.rounds,
            lambda: self.admission.enrolled,
            metrics,
            self._reports,
            self._send,
            self.status_feed.bump_revision,
        )
        self._time = Scheduler(self.areas, self._keeper, self._rounds, metrics, self._send_all, clock)
        self._listener: Listener | None = None
        self._logged_revoked: set[str] = set()
        self._told_broken: dict[str, float] = {}
        self._hellos: dict[str, tuple[float, float]] = {}  # by gateway: how many it has left, as of when
        metrics.watch(
            enrolled=lambda: sum(self.admission.enrolled.values()), connected=lambda: self.areas.present_count,
            queue_length=lambda: self._rounds.writer.queued,
        )  # fmt: skip
        for state in store.epochs.states():
            self._resume(suite, store, state)

    def _resume(self, suite: Suite, store: Store, state: bytes) -> None:
        number = AreaEpoch.number_of(state)
        epoch = AreaEpoch.from_state(suite, state, store.rounds.of_epoch(number), self._clock())
        area = self.areas.areas.get(epoch.call.area)
        if area is None or epoch.over:
            self._keeper.drop(number)
            return
        area.epochs.append(epoch)
        log.info("epoch %d of area %s goes on", number, area.name)

    async def serve(self, listener: Listener) -> None:
        """Run until cancelled."""
        self._listener = listener
        self.status_feed.is_open = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, listener)
            nursery.start_soon(self._time.run)
            nursery.start_soon(self._rounds.writer.run)
            nursery.start_soon(self._desk.run, self.areas.everybody, self._send, self.status_feed.bump_revision)
            nursery.start_soon(self._keeper.run)
            nursery.start_soon(self.admission.run)
            nursery.start_soon(self._accounts.run)
            nursery.start_soon(self._reports.run, self.status_feed.bump_revision)

    async def _receive(self, listener: Listener) -> None:
        while True:
            peer, data = await listener.receive()
            identity = str(peer)
            self.metrics.received.inc(len(data))
            try:
                self._dispatch(identity, wire.decode(data, wire.FROM_GATEWAY))
            except RemoteProtocolError as error:
                self._broke_the_protocol(identity, error)

    def _broke_the_protocol(self, identity: str, error: RemoteProtocolError) -> None:
        self.metrics.peer_error(error.reason)
        now_s = self._clock()
        if abs(now_s - self._told_broken.get(identity, 0.0)) >= _TELL_S:
            self._told_broken[identity] = now_s
            log.warning("gateway %s broke the protocol: %s", identity, error)
        if self._listener is not None:
            self._listener.disconnect(identity)

    def _store_failed(self) -> None:
        self.metrics.peer_error("store_error")

    def _send(self, identity: str, message: wire.Message) -> None:
        self._send_bytes(identity, wire.encode(message))

    def _send_bytes(self, identity: str, data: bytes) -> None:
        if self._listener is not None and self._listener.send(identity, data):
            self.metrics.sent.inc(len(data))
        else:
            self.metrics.peer_error("undeliverable")

    def _send_all(self, messages: Sequence[To]) -> None:
        """A layout is the same message to all of its ring: it is encoded once."""
        message, data = None, b""
        for each in messages:
            if each.message is not message:
                message, data = each.message, wire.encode(each.message)
            self._send_bytes(each.identity, data)

    # --- what gateways say ---------------------------------------------------------------------------------------

    def _dispatch(self, identity: str, message: wire.Message) -> None:
        now_s = self._clock()
        name = self.admission.gateways[identity].area
        area = self.areas.areas.get(name)
        if area is not None:
            self.areas.arrive(area, identity, now_s)
        match message:
            case wire.Hello():
                self._on_hello(identity, name, area, message)
            case wire.ContributionStatusRequest():
                self._accounts.ask(identity, message)
            case wire.Bill() | wire.BillDeclined():
                self._desk.receive(identity, message)
            case _:
                self._on_epoch_message(identity, message, now_s)

    def _on_hello(self, identity: str, name: str, area: Area | None, message: wire.Hello) -> None:
        if message.version != wire.VERSION:
            raise RemoteProtocolError("wrong_version", f"protocol version {message.version}, ours is {wire.VERSION}")
        if area is None:
            self._send(identity, wire.Refused(0, f"area {name} is not served here"))
            return
        if not self._may_say_hello(identity):
            self.metrics.peer_error("too_many_hellos")
            return
        for epoch in area.epochs:
            known = epoch.call.epoch <= message.known_epoch
            self._keeper.greet(epoch, identity, partial(epoch.greet_again if known else epoch.invite, identity))
        self._time.wake()

    def _may_say_hello(self, identity: str) -> bool:
        now_s = self._clock()
        left, since_s = self._hellos.get(identity, (HELLOS_MAX, now_s))
        left = min(HELLOS_MAX, left + abs(now_s - since_s) / HELLO_S)
        self._hellos[identity] = (left - 1 if left >= 1 else left), now_s
        return left >= 1

    def _on_epoch_message(self, identity: str, message: wire.Message, now_s: float) -> None:
        number = getattr(message, "epoch")  # noqa: B009 - each of these has one, mypy cannot know
        found = self.areas.epoch(number)
        if found is None:
            self._send(identity, wire.Refused(number, "this epoch is over or never was"))
            return
        _, epoch = found
        match message:
            case wire.Join():
                self.admission.join(epoch, identity, message)
            case wire.Deal():
                self._time.after_phase(epoch, epoch.deal(identity, message, now_s))
            case _:
                self._rounds.receive(identity, epoch, message, now_s)
                self._time.wake()

    # --- what the directory says -----------------------------------------------------------------------------------

    def _on_joined(self, epoch: AreaEpoch, identity: str, joined: Joined) -> None:
        self._time.after_phase(epoch, epoch.join(identity, joined, self._clock()))

    def _drop_revoked(self, revoked: frozenset[str]) -> None:
        """Cut off who was shut out, by another process, while it was connected, and have its rings do the same."""
        for identity in self.admission.gateways.keys() & revoked:
            if self._listener is not None:
                self._listener.disconnect(identity)
            self.areas.expel(identity)
            if identity not in self._logged_revoked:
                self._logged_revoked.add(identity)
                log.info("gateway %s was shut out", identity)
        for area in self.areas.areas.values():
            for epoch in area.epochs:
                if not self._keeper.holds(epoch):  # else its gateways have not heard of their rings yet
                    self._expel_from_rings(epoch, revoked)

    def _expel_from_rings(self, epoch: AreaEpoch, revoked: frozenset[str]) -> None:
        for ring, messages in epoch.expel(revoked):
            log.info("epoch %d ring %d: told its members whom to leave out", epoch.call.epoch, ring.view.ring)
            self._send_all(messages)
            if ring.ledger is not None:
                self._rounds.carry_out(epoch, ring, ring.ledger.expel(ring.expelled, self._clock()))
