"""
One smart meter gateway: its meters, its metering log, its session with the coordinator, its place in the rings.

Here the parts are put together and nothing is decided: drivers deliver into the log (node.metering.delivery), rings and
whoever else wants readings subscribe to it, the session carries what the epochs say (node.aggregation.epochs).  A
gateway is one nursery.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from random import Random

import trio

from node.aggregation.account_basis import ProfiledAccount
from node.aggregation.bill_requests import BillRequests
from node.aggregation.bills import Bills, BillStore
from node.aggregation.epoch_services import EpochServices
from node.aggregation.epochs import Epochs
from node.aggregation.range_proofs import RangeProofs
from node.aggregation.ring_subscriber import NAME as RINGS
from node.aggregation.seats import running_epoch, seat_of
from node.cls.initiator import TunnelInitiator
from node.cls.proxy import ClsProxy
from node.cls.tunnels import ClsServices, Tunnels
from node.han.facts import GatewayFacts, HanServices, MeterFacts, RingFacts, no_tunnels
from node.han.server import HanServer
from node.lmn.counters import CounterStore
from node.lmn.events import LmnEvent, log_event
from node.lmn.pairing import PairingStore
from node.lmn.profiles import ANY_METER, MeterProfile
from node.lmn.runtime import Backoff, NotLoggedError, run_meters
from node.lmn.session import LmnStores
from node.logs.gateway_log import GatewayLog
from node.mdns.service import MdnsService
from node.metering.delivery import MeterDelivery
from node.metering.interval import Arrival
from node.metering.log import MeteringLog
from node.profiles.contribution_rule import ContributionRule
from node.profiles.gateway_profiles import GatewayProfiles
from node.profiles.ring_readings import RingReadings
from node.readiness import Participation, Seat
from node.security.module import SecurityModule
from node.storage.errors import StoreError
from node.storage.repositories.gateway_logs import GatewayLogRepository
from node.storage.repositories.metering_log import MeteringLogRepository
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.taf.use_cases import UseCases
from node.timekeeping.clock import Correction, Deviation
from node.timekeeping.keeper import TimeKeeper
from node.wan.coordinator_session import CoordinatorSession
from node.wan.deliveries import Deliveries, DeliveryServices
from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.setup.ranges import FUSE_A
from protocol.errors import StromkreisError
from protocol.logs.events import Event, Parameter
from protocol.metering.interval import QUARTER_HOURS, RegistrationGrid
from protocol.metering.reading import Reading

log = logging.getLogger(__name__)
_TIME_EVENTS = {
    Correction.FIRST: Event.CLOCK_SET, Correction.SET: Event.CLOCK_SET, Correction.SET_FAR: Event.CLOCK_DEVIATED,
}  # fmt: skip
_PROFILES_S = 30.0


def _always() -> bool:
    return True


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _names_of(meters: Sequence[MeterProfile]) -> dict[str, str]:
    """Under which name a meter's readings are logged, by that name and by the meter's own id."""
    own = {each.meter_id: each.device for each in meters if each.meter_id not in {"", ANY_METER}}
    return own | {each.device: each.device for each in meters}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared(EpochServices):
    """
    What all gateways of a process share; `version` is that of this software.

    `time` keeps their clock; without it `clock` is the system's, which is trusted.
    """

    bills: BillStore
    counters: CounterStore
    metering: MeteringLogRepository
    logs: GatewayLogRepository
    profile_sets: ProfileSetRepository
    deliveries: DeliveryServices
    version: str
    time: TimeKeeper | None = None
    han: HanServices | None = None
    cls: ClsServices | None = None
    mdns: dict[str, MdnsService] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    pairings: PairingStore | None = None


class Gateway:
    """
    One gateway; `run` serves until cancelled.

    `subscribe` is called with its metering log before anything is read, for subscribers of the application's own.
    """

    def __init__(
        self, shared: Shared, module: SecurityModule, area: str, endpoint: str, coordinator_key: bytes,
        profiles: Sequence[MeterProfile], subscribe: Callable[[MeteringLog, trio.Nursery], None] | None = None,
    ) -> None:  # fmt: skip
        self.identity = module.identity
        self._shared = shared
        self._module = module
        self._profiles = profiles
        self._area = area
        self._subscribe = subscribe
        self._metering = MeteringLog(shared.metering, self.identity, shared.clock)
        self._log = GatewayLog(shared.logs, self.identity, shared.clock, module.sign)
        self.profiles = GatewayProfiles(
            shared.profile_sets, module, shared.trust, _names_of(profiles), self._note_profiles, shared.clock
        )
        self._ring_readings = RingReadings(self.profiles, self._grid)
        self._metering.show(RINGS, self._ring_readings.view)
        self._deliveries = Deliveries(
            shared.deliveries, module, self.profiles, self._log.note, Random(f"deliveries of {self.identity}")
        )
        self._tunnels = self._tunnels_by(shared.cls)
        self.initiator: TunnelInitiator | None = None
        if self._tunnels is not None and self.identity in self._tunnels.services.begins:
            mdns = shared.mdns.get(self.identity)
            dial = trio.open_tcp_stream if mdns is None else mdns.lookup.connect
            self.initiator = TunnelInitiator(self._tunnels, Random(f"tunnels of {self.identity}"), dial)
            self._log.watch(self.initiator.on_event)
        self._use_cases = UseCases(
            self._metering, self.profiles, shared.deliveries.repository, module, self._metering_time, shared.clock,
            self._deliveries.wake,
        )  # fmt: skip
        self._session = CoordinatorSession(
            shared.link, endpoint, coordinator_key, module.curve, self.identity, shared.metrics
        )
        fuse_a = max((profile.fuse_a for profile in profiles), default=FUSE_A)
        self._epochs = Epochs(
            shared, module, area, self._metering, self._profiled(area),
            fuse_a=fuse_a, post=self._session.post, ask=self._ask, account_moved=self._account_moved,
            use_grid=self._use_grid,
        )  # fmt: skip
        bills = Bills(
            shared.bills, self.identity, Pedersen(shared.suite.group), shared.trust, shared.billing,
            self._epochs.account.register_scaler, may_answer=lambda: self._epochs.is_reviewed,
            is_listed=partial(shared.sheets.is_listed, self.identity),
        )  # fmt: skip
        self._range_proofs = RangeProofs(
            shared.bills, self.identity, Pedersen(shared.suite.group), lambda: self._epochs.account.schema, fuse_a,
            shared.metrics, self._session.post, os.urandom,
        )  # fmt: skip
        self._bill_requests = BillRequests(bills, self.identity, shared.metrics, self._session.post, self._log.note)
        self._nursery: trio.Nursery | None = None
        self._delivery: MeterDelivery | None = None
        self._has_grid = trio.Event()
        self._has_taken_part = False
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    def _profiled(self, area: str) -> ProfiledAccount:
        """What its profiles let into rings."""
        rule = ContributionRule(
            self.profiles, [each.device for each in self._profiles], area,
            without_profile=self._shared.contribute_without_profile,
        )  # fmt: skip
        return ProfiledAccount(
            self._shared.bases, rule, self.identity, area, self._shared.metrics, self._log.note,
            self._ring_readings.adopt,
        )  # fmt: skip

    @property
    def participation(self) -> Participation:
        """Where it sits, what it reaches, and whether it was in a total since the start."""
        seat, is_head_linked = seat_of(self._epochs.rings, self._shared.clock())
        return Participation(
            seat, self._session.is_linked, is_head_linked, self._epochs.is_waiting, self._has_taken_part
        )

    @property
    def is_in_round(self) -> bool:
        """Whether it has contributed to a round whose end it does not know, and may hear."""
        return self._session.is_linked and any(ring.account.unsettled is not None for _, ring in self._epochs.rings)

    @property
    def is_delivering(self) -> bool:
        """Whether a session for deliveries is open."""
        return self._deliveries.is_open

    @property
    def epoch(self) -> int | None:
        """The epoch that it has a running ring of, None for none."""
        return running_epoch(self._epochs.rings, self._shared.clock())

    def note(self, event: Event, **parameters: Parameter) -> None:
        """Note an event that is its node's (`GatewayLog.note`)."""
        self._log.note(event, **parameters)

    async def run(self) -> None:
        """Serve until cancelled.  Raises StoreError where its log cannot be read."""
        grid = self._shared.metering.grid(self.identity)
        if grid is None and not self._shared.calendar.time_lapse:
            grid = QUARTER_HOURS  # in a time lapse an epoch's call must say first how long they are
        if grid is not None:
            self._begin(grid)  # the coordinator need not be there for meters to be read
        self._log.note(Event.STARTED, version=self._shared.version)
        time = self._shared.time
        try:
            with self._scope, nullcontext() if time is None else time.listening(self._on_time, self._on_billing):
                await self._serve()
        finally:
            self.profiles.close()
            await self._log.close(Event.STOPPED)
            self._ended.set()

    # --- leaving for good ---------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Join no further epoch, for good; see `owed`."""
        if not self._epochs.is_leaving:
            self._epochs.is_leaving = True
            self._log.note(Event.LEAVING)

    def owed(self, *, discard: bool) -> list[str]:
        """What keeps it from leaving, in words: its rings' rounds and, unless `discard`, bills and deliveries."""
        owed = [f"the end of epoch {number}" for number in self._epochs.unfinished]
        is_known = self._epochs.is_reviewed or self._module.newest_bound() < 0
        if not is_known or (self._epochs.account.contributions is not None and self.question() is not None):
            owed.append("the coordinator's word on its last contribution")
        if not discard:
            owed += self._shared.bills.waiting(self.identity)
            if count := self._shared.deliveries.repository.count_waiting(self.identity):
                owed.append(f"{count} deliveries")
        return owed

    async def stop(self) -> None:
        """Have `run` return, and wait until it has."""
        self._scope.cancel()
        await self._ended.wait()

    @property
    def has_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._scope.cancel_called

    def _on_time(self, deviation: Deviation) -> None:
        """What an answer of the time service did to the clock; small corrections are no events."""
        if deviation.correction is not Correction.SLEWED:
            self._log.note(_TIME_EVENTS[deviation.correction], offset_ms=deviation.offset_us // 1000)

    def _on_billing(self, is_for_billing: bool) -> None:
        self._log.note(Event.MEASUREMENT_RESUMED if is_for_billing else Event.MEASUREMENT_SUSPENDED)

    async def _serve(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._log.serve_in(self._nursery)
            self._epochs.serve_in(self._nursery)
            if self._subscribe is not None:
                self._subscribe(self._metering, self._nursery)
            self._nursery.start_soon(self._call)
            self._nursery.start_soon(self._range_proofs.run)
            self._nursery.start_soon(self._use_cases.run)
            self._nursery.start_soon(self._deliveries.run)
            if self._shared.han is not None and self.identity in self._shared.han.listen:
                self._nursery.start_soon(self._serve_home, HanServer(self._home_facts(), self._shared.han))
            if self._tunnels is not None:
                self._nursery.start_soon(self._tunnels.run)
                if self.identity in self._tunnels.services.listen:
                    self._nursery.start_soon(self._serve_home, ClsProxy(self._tunnels))
            if self.initiator is not None:
                self._nursery.start_soon(self._serve_home, self.initiator)
            if self.identity in self._shared.mdns:
                self._nursery.start_soon(self._shared.mdns[self.identity].run)
            await self._has_grid.wait()
            if self._delivery is not None:
                await self._read_meters(self._delivery)

    async def _call(self) -> None:
        """Call the coordinator; who has no profiles yet asks for them first, or would miss the first epoch."""
        if not self.profiles.version and not self._shared.contribute_without_profile:
            with trio.move_on_after(_PROFILES_S):
                await self.profiles.asked.wait()
        await self._session.run(self)

    async def _read_meters(self, delivery: MeterDelivery) -> None:
        shared = self._shared
        seed = Random(self.identity)  # jitter only: gateways must not hammer in step
        stores = LmnStores(shared.counters, shared.pairings)
        await run_meters(
            self._profiles, self._deliver, delivery, clock=shared.clock, rng=seed, backoff=shared.backoff,
            on_event=self._on_meter_fault, stores=stores,
        )  # fmt: skip

    def _tunnels_by(self, services: ClsServices | None) -> Tunnels | None:
        if services is None or self.identity not in services.begins | services.listen.keys():
            return None
        return Tunnels(services, self._module, self.profiles, self._log.note, self._shared.clock)

    async def _serve_home(self, server: HanServer | ClsProxy | TunnelInitiator) -> None:
        """The home's interface; where it cannot be served, meters and rings go on without it."""
        try:
            await server.run()
        except* StromkreisError as group:
            log.error("gateway %s does not serve its home: %s", self.identity, _first(group))

    def _home_facts(self) -> GatewayFacts:
        time = self._shared.time
        return GatewayFacts(
            module=self._module, profiles=self.profiles, version=self._shared.version, clock=self._shared.clock,
            meters=[MeterFacts(each.device, each.meter_id, each.protocol) for each in self._profiles],
            is_time_good=_always if time is None else time.is_for_billing,
            ring=lambda: trio.from_thread.run_sync(self._ring_facts),
            grid=self._grid, note=self._log.note,
            open_tunnels=no_tunnels if self._tunnels is None else self._tunnels.open_by,
        )  # fmt: skip

    def _ring_facts(self) -> RingFacts:
        schema = self._epochs.account.schema
        return RingFacts(
            self._area, self.participation.seat is Seat.RUNNING, self.is_carrying, self._shared.policy.honest_floor,
            () if schema is None else tuple(each.obis for each in schema.slots if each.obis is not None),
        )  # fmt: skip

    def _on_meter_fault(self, event: LmnEvent) -> None:
        log_event(event)
        self._log.note(Event.METER_FAULT, kind=event.kind, protocol=event.protocol, device=event.device or "bus")

    async def _deliver(self, readings: list[Reading], arrival: Arrival) -> None:
        if self._delivery is None:
            return
        try:
            await self._delivery.deliver(readings, arrival)
        except StoreError as error:
            self._store_failed(error)
            raise NotLoggedError(str(error)) from error

    def _store_failed(self, error: StoreError) -> None:
        self._shared.metrics.store_error()
        log.error("gateway %s does not log its meters: %s", self.identity, error)

    def _note_profiles(self, event: Event, **parameters: Parameter) -> None:
        self._shared.metrics.profile_set("taken" if event is Event.PROFILES_TAKEN else "refused")
        self._log.note(event, **parameters)
        if event is Event.PROFILES_TAKEN:
            self._epochs.profiles_changed()
            self._session.greet(self)  # the coordinator calls again who is in no ring

    def _grid(self) -> RegistrationGrid | None:
        return None if self._delivery is None else self._delivery.grid

    def _metering_time(self) -> int | None:
        """The registration time that has come, Unix, s; None before the grid is known."""
        grid = self._grid()
        return None if grid is None else grid.registration_s(grid.index_at(self._shared.clock()))

    # --- registration periods -----------------------------------------------------------------------------------------

    def _begin(self, grid: RegistrationGrid) -> None:
        if self._delivery is None:
            time = self._shared.time
            is_time_good = _always if time is None else time.is_for_billing
            self._delivery = MeterDelivery(
                self._metering, self._shared.clock, grid, is_time_good, self._ring_readings.finest_s
            )
            self._has_grid.set()
        self._delivery.grid = grid

    async def _use_grid(self, grid: RegistrationGrid) -> None:
        """Those of a new epoch; durable, for a start without the coordinator."""
        known = None if self._delivery is None else self._delivery.grid
        self._begin(grid)
        if known is None or not grid.agrees_with(known):
            self._log.note(Event.REGISTRATION_PERIOD, interval_s=grid.interval_s, period_ms=grid.period_ms)
            try:
                await self._shared.metering.store.write([self._shared.metering.put_grid(self.identity, grid)])
            except StoreError as error:
                self._store_failed(error)

    # --- what the session hands over ----------------------------------------------------------------------------------

    @property
    def newest_epoch(self) -> int:
        """The highest epoch whose layout was verified."""
        return self._epochs.newest_epoch

    @property
    def bound_epoch(self) -> int:
        """The highest epoch that there ever was a layout of."""
        return self._module.newest_bound()

    @property
    def is_carrying(self) -> bool:
        """Whether energy of missed rounds is still to be released."""
        return self._epochs.account.is_carrying

    @property
    def is_waiting(self) -> bool:
        """Whether it may not come back into a total yet."""
        return self._epochs.is_waiting

    def question(self) -> wire.Message | None:
        """What the coordinator is asked until it answers."""
        return self._epochs.account.question()

    def refused(self, epoch: int) -> None:
        """The coordinator has refused a message about an epoch."""
        self._epochs.refused(epoch)

    def _ask(self) -> None:
        self._session.ask(self)

    def _account_moved(self) -> None:
        self._has_taken_part |= any(ring.has_taken_part for _, ring in self._epochs.rings)
        self._range_proofs.account_moved()

    async def receive(self, message: wire.Message) -> None:
        """A message of the coordinator.  Raises RemoteProtocolError where it is refused."""
        if isinstance(message, wire.BillRequest):
            if self._nursery is not None:
                self._bill_requests.receive(message, self._nursery)
        elif isinstance(message, wire.RangeRequest):
            self._range_proofs.receive(message)
        else:
            await self._epochs.receive(message)
