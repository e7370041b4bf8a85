"""
The ring service: takes gateways' messages to the part that each is for, and parts' events to whom they concern.

Messages go to machines without I/O (areas, epochs, round ledgers).  What these return is sent at once, except the
making of an epoch (`coordinator.rings.epoch_writer`) and the end of a round (`coordinator.rings.round_writer`): these
are durable first.  What cannot be written is not sent, the gateways keep asking, and the operator reads why in the log
and in `stromkreis_peer_errors_total{reason="store_error"}`.  Nothing here asks the database: that is done in worker
threads, so that one which is slow holds no round up.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import trio
from sqlalchemy.exc import SQLAlchemyError

from coordinator.config import CoordinatorConfig
from coordinator.emp.billing import Billing
from coordinator.emp.billing_service import BillCollection
from coordinator.events import (
    Event,
    GatewaysRevoked,
    JoinAccepted,
    JoinRefused,
    MessagesReady,
    MisbehaviourReported,
    RoundWritten,
    StatusChanged,
    StoreFailed,
    To,
)
from coordinator.gwa.admission import Admission
from coordinator.gwa.misbehaviour import MisbehaviourReports
from coordinator.metrics import CoordinatorMetrics
from coordinator.rings.areas import Area, Areas
from coordinator.rings.early import EarlyCalls
from coordinator.rings.epoch_writer import EpochWriter
from coordinator.rings.epochs import AreaEpoch
from coordinator.rings.histories import history_leaves
from coordinator.rings.last_contribution import LastContributions
from coordinator.rings.log_proofs import LogProofs
from coordinator.rings.numbers import EpochNumbers
from coordinator.rings.part import Stage
from coordinator.rings.range_checks import RangeChecks, draw
from coordinator.rings.rounds import Rounds
from coordinator.rings.scheduler import Scheduler
from coordinator.status import RoleState, Status, StatusFeed
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.storage.store import Store
from coordinator.threads import RETRY_S, look_up
from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.errors import RemoteProtocolError
from protocol.link import Listener
from protocol.log_limit import LogLimiter

log = logging.getLogger(__name__)
_PRICE_SHEETS_MAX = 64  # that gateways note of an area in a day
_PRICE_SHEETS_S = 10.0  # between two looks for new tariffs
HELLOS_MAX = 5  # of a gateway in a row; it says one every 10 s, and one when it is started or linked anew
HELLO_S = 2.0  # for each there is another one: an answer may be two layouts of a megabyte
_REMEMBERED_S = 7 * 86_400  # metering time
_LEFT_OVER_S = 86_400  # the same: after so long nobody goes on with an area's epoch that has ended
_PROTOCOL_LINE_S = 10.0  # between two lines about one gateway that breaks the protocol: the counter has them all


class Coordinator:
    """The ring service of one network: what gateways call."""

    def __init__(
        self,
        config: CoordinatorConfig,
        store: Store,
        intermediates: Sequence[bytes],
        metrics: CoordinatorMetrics,
        list_secret: bytes,
        irrevocable: IrrevocableLog,
        numbers: EpochNumbers,
        role: RoleState | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        `intermediates` are the DER certificates between a gateway's and the root's; `list_secret` is the Ed25519 seed
        whose public key gateways pin at enrolment; `numbers` are those of its epochs,
        `role` says whether this process is the ring service.
        """
        suite = StandardSuite()
        reached = irrevocable.read().reached
        self._sign_list = partial(suite.sign, suite.signing_key(list_secret))
        self.areas = Areas(
            suite, config.epoch, config.schema_of, intermediates, config.areas, os.urandom, numbers, self._sign_list,
        )  # fmt: skip
        self.admission = Admission(store.gateways, clock, self._on_event, store.enrolment_log.signed)
        self.areas.price_sheets = store.tariffs.newest(_PRICE_SHEETS_MAX)
        self._tariffs = store.tariffs
        self.status_feed = StatusFeed(self._status, role)
        self.bills = BillCollection(
            Billing(store, Pedersen(suite.group)), intermediates, metrics, self.areas.present_gateways, self._on_event,
            keep_s=config.commitments_keep_days * 86_400, clock=clock,
        )  # fmt: skip
        self.metrics = metrics
        self._clock = clock
        self._reports = MisbehaviourReports(store.misbehaviour, metrics, clock, self._on_event)
        self._contributions = LastContributions(store.epochs, store.rounds, self.areas, self._sign_list, self._on_event)
        self._epoch_writer = EpochWriter(store.epochs, irrevocable, self._on_event, store.enrolment_log)
        self._log_proofs = LogProofs(store.enrolment_log, self._on_event)
        self._ranges = RangeChecks(
            store.range_checks, Pedersen(suite.group), self.areas, metrics, self.areas.present_gateways,
            self._on_event, clock,
        )  # fmt: skip
        self._rounds = Rounds(
            store.rounds, irrevocable, lambda: self.admission.enrolled, metrics, self._on_event,
            partial(draw, below=secrets.randbelow), self._ranges.drawn,
        )  # fmt: skip
        self._scheduler = Scheduler(
            self.areas, self._epoch_writer, self._rounds, metrics, self._on_event, clock,
            EarlyCalls(self.areas, config.epoch, lambda: self.admission.enrolled, metrics),
        )  # fmt: skip
        self._listener: Listener | None = None
        self._logged_revoked: set[str] = set()
        self._protocol_lines = LogLimiter(_PROTOCOL_LINE_S, clock)
        self._store_lines = LogLimiter(RETRY_S, time.monotonic)
        self._hellos: dict[str, tuple[float, float]] = {}  # by gateway: how many it has left, as of when
        metrics.areas.begin(config.areas)
        metrics.watch(
            enrolled=lambda: sum(self.admission.enrolled.values()), connected=lambda: self.areas.present_count,
            queue_length=lambda: self._rounds.writer.queued,
        )  # fmt: skip
        self._remember_members(config, store)
        for number, state in store.epochs.states(config.areas):
            self._resume(suite, store, number, state, reached)
        for number in store.epochs.left_over(config.areas, round(self._metering_s(config)) - _LEFT_OVER_S):
            self._epoch_writer.drop(number)

    def _status(self, revision: int) -> Status:
        enrolled = sum(self.admission.enrolled.values())
        return Status(revision, self.areas.statuses(), enrolled, self.areas.present_count)

    def _remember_members(self, config: CoordinatorConfig, store: Store) -> None:
        """Who was in the areas' epochs of the last days; who was longer away counts as new, which delays it at most."""
        epoch, now_s = config.epoch, self._clock()
        lapse, metering_s = epoch.interval_s / epoch.period_s, self._metering_s(config)
        for name, area in self.areas.areas.items():
            area.drawn |= {
                each.epoch: (now_s - (metering_s - each.interval_start_s) / lapse, 1)
                for each in store.epochs.newest_of(name, 0, epoch.early.reveals_max)
            }
            for start_s, members in store.epochs.members(name, round(metering_s) - _REMEMBERED_S):
                self.areas.remember(name, members, now_s - (metering_s - start_s) / lapse)

    def _metering_s(self, config: CoordinatorConfig) -> float:
        epoch = config.epoch
        return epoch.metering_start_unix_s + (self._clock() - epoch.origin_unix_s) * epoch.interval_s / epoch.period_s

    def _resume(
        self, suite: StandardSuite, store: Store, number: int, state: bytes, reached: Mapping[int, int]
    ) -> None:  # fmt: skip
        ended = store.rounds.of_epoch(number)
        if reached.get(number, -1) > max((each.round for each in ended), default=-1):
            # Rounds that its gateways have results of would end a second time.
            log.warning(
                "epoch %d is given up, its gateways join the next: the database is from before its round %d",
                number, reached[number],
            )  # fmt: skip
            self._epoch_writer.drop(number)
            return
        try:
            epoch = AreaEpoch.from_state(suite, state, ended, self._clock(), self._sign_list)
        except RemoteProtocolError as error:  # its gateways speak another version of the protocol, too
            log.warning("epoch %d does not go on, another release has kept it (%s)", number, error)
            self._epoch_writer.drop(number)
            return
        area = self.areas.areas.get(epoch.call.area)
        if area is None or epoch.over:
            self._epoch_writer.drop(number, history_leaves(epoch))
            return
        area.epochs.append(epoch)
        log.info("epoch %d of area %s goes on", number, area.name)

    async def serve(self, listener: Listener) -> None:
        """Run until cancelled."""
        self._listener = listener
        self.status_feed.is_open = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, listener)
            nursery.start_soon(self._follow_price_sheets)
            for part in (
                self._scheduler, self._rounds.writer, self._epoch_writer, self.admission, self._contributions,
                self._reports, self.bills, self._ranges, self._log_proofs,
            ):  # fmt: skip
                nursery.start_soon(part.run)

    async def _receive(self, listener: Listener) -> None:
        while True:
            peer, data = await listener.receive()
            identity = str(peer)
            self.metrics.received.inc(len(data))
            try:
                self._dispatch(identity, wire.decode(data, wire.FROM_GATEWAY))
            except RemoteProtocolError as error:
                self._broke_the_protocol(identity, error)

    async def _follow_price_sheets(self) -> None:
        """Calls list the newest tariffs, which another process may publish."""
        while True:
            try:
                self.areas.price_sheets = await look_up(self._tariffs.newest, _PRICE_SHEETS_MAX)
            except SQLAlchemyError as error:
                self._on_event(StoreFailed.by(error, "tariffs cannot be read, calls list those known before"))
            await trio.sleep(_PRICE_SHEETS_S)

    def _broke_the_protocol(self, identity: str, error: RemoteProtocolError) -> None:
        self.metrics.peer_error(error.reason)
        if self._protocol_lines.is_due(identity):
            log.warning("gateway %s broke the protocol: %s", identity, error)
        if self._listener is not None:
            self._listener.disconnect(identity)

    def _on_event(self, event: Event) -> None:
        match event:
            case MessagesReady(messages):
                self._send_all(messages)
            case StoreFailed(consequence, fault):
                self.metrics.peer_error("store_error")
                if self._store_lines.is_due(consequence):
                    log.error("%s: %s", consequence, fault)
            case JoinAccepted():
                self._on_joined(event)
            case JoinRefused(identity, error):
                self._broke_the_protocol(identity, error)
            case GatewaysRevoked(identities):
                self._drop_revoked(identities)
            case MisbehaviourReported():
                self._reports.add(event)
            case RoundWritten(epoch, ring):
                self._contributions.round_ended(epoch, ring)
            case StatusChanged():
                self.status_feed.bump_revision()

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
            case wire.LastContributionRequest():
                self._contributions.ask(identity, name, message)
            case wire.RangeProof():
                self._ranges.receive(identity, message)
            case wire.Bill() | wire.BillDeclined():
                self.bills.receive(identity, message)
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
        area.bound[identity], area.known[identity] = message.bound_epoch, message.known_epoch
        for epoch in area.epochs:
            known = epoch.call.epoch <= message.known_epoch
            self._epoch_writer.greet(epoch, identity, partial(epoch.greet_again if known else epoch.invite, identity))
        self._scheduler.wake()

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
                part = epoch.part_for(identity)
                if part.stage is Stage.JOINING and message.try_ == part.call.try_:
                    self.admission.join(part.call, identity, message, part.until_s)
            case wire.BeaconReveal():
                self._scheduler.after_phase(epoch, epoch.reveal(identity, message, now_s))
            case wire.SpotCheck():
                self._send_all(epoch.spot_check(identity, message))
            case wire.LogRequest():
                self._log_proofs.ask(identity, epoch, message)
            case wire.Deal():
                self._scheduler.after_phase(epoch, epoch.deal(identity, message, now_s))
            case _:
                self._rounds.receive(identity, epoch, message, now_s)
                self._scheduler.wake()

    # --- what the directory says -----------------------------------------------------------------------------------

    def _on_joined(self, event: JoinAccepted) -> None:
        found = self.areas.epoch(event.epoch)
        if found is not None:
            epoch = found[1]
            self._scheduler.after_phase(epoch, epoch.join(event.identity, event.joined, self._clock()))

    def _drop_revoked(self, revoked: frozenset[str]) -> None:
        """Cut off who was revoked, by another process, while it was connected, and have its rings do the same."""
        for identity in self.admission.gateways.keys() & revoked:
            if self._listener is not None:
                self._listener.disconnect(identity)
            self.areas.expel(identity)
            if identity not in self._logged_revoked:
                self._logged_revoked.add(identity)
                log.info("gateway %s was revoked", identity)
        for area in self.areas.areas.values():
            for epoch in area.epochs:
                if not self._epoch_writer.holds(epoch):  # else its layout has not been sent yet
                    self._expel_from_rings(epoch, revoked)

    def _expel_from_rings(self, epoch: AreaEpoch, revoked: frozenset[str]) -> None:
        for ring, messages in epoch.expel(revoked):
            log.info("epoch %d ring %d: its members are to leave out who was revoked", epoch.call.epoch, ring.view.ring)
            self._send_all(messages)
            if ring.ledger is not None:
                self._rounds.carry_out(epoch, ring, ring.ledger.expel(ring.expelled, self._clock()))
