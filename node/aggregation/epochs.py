"""
The epochs of one gateway, from the coordinator's call to the last result.

The coordinator calls epochs; each call and layout is checked against the gateway's own policy and trust
(protocol.dcnet.setup.epoch).  A membership is kept for every living epoch, and the registers of each registration time
go to the one that it belongs to.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import trio

from node.aggregation.account_review import AccountReview
from node.aggregation.attendance import AttendanceStore, GatewayAttendance
from node.aggregation.beacon import Beacon, CrowdPolicy
from node.aggregation.bills import BillingRules
from node.aggregation.context import AccountMoved, FromCoordinator, MembershipContext
from node.aggregation.contribution import AccountStore, Contributions
from node.aggregation.log_check import LogCheck
from node.aggregation.membership import Membership
from node.aggregation.ring_cache import PublicRings
from node.aggregation.ring_subscriber import NAME, RingSubscriber
from node.aggregation.spot_checks import REFUSED_LAYOUT, SpotChecks
from node.aggregation.start_review import SeatStore, StartReview
from node.metering.log import MeteringLog, Subscription
from node.metering.physical_limits import PhysicalLimits
from node.metering.registers import Registers, RegisterSet
from node.metrics import NodeMetrics
from node.process_start import ProcessStart
from node.security.module import SecurityModule
from node.storage.errors import StoreError
from node.storage.repositories.beacon import BeaconRepository
from node.storage.repositories.ring_seats import RingSeat
from node.trust import TrustStore
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.effects import EpochRefused
from protocol.dcnet.machines.masks import Fleet
from protocol.dcnet.setup.beacon import ListEntry
from protocol.dcnet.setup.calendar import CalendarPolicy, NewestEpoch, check_calendar, check_start
from protocol.dcnet.setup.crowd import part_of
from protocol.dcnet.setup.epoch import (
    Policy,
    VerifyMember,
    call_digest,
    check_call,
    join_text,
    registration_grid,
    ring_timing,
    verify_layout,
)
from protocol.dcnet.setup.schema import Schema
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.errors import RemoteProtocolError
from protocol.link import LinkContext
from protocol.log_limit import LogLimiter
from protocol.metering.interval import RegistrationGrid

log = logging.getLogger(__name__)
_EARLY_MAX = 16  # messages of a ring that wait for its spot checks: what a greeting brings is fewer
_LIMIT_LINE_S = 900.0
_FOR_MEMBERSHIPS = (
    wire.Deals, wire.Appoint, wire.HeadAt, wire.Result, wire.Relay, wire.Expelled, wire.LeftOut, wire.Inquiry,
    wire.DisputedPair, wire.DisputedDeal, wire.PresenceRequest,
)  # fmt: skip
_SLEEP_S_MAX = 60.0  # bounds the harm of a clock that is set


class EpochStore(AttendanceStore, Protocol):
    """What attendance and the newest epoch are kept in; see node.storage.repositories.attendance."""

    def newest_epoch(self, gateway: str) -> NewestEpoch | None: ...  # noqa: D102
    async def put_newest_epoch(self, gateway: str, newest: NewestEpoch) -> None: ...  # noqa: D102


class SheetStore(Protocol):
    """What price sheets are kept in; see node.storage.repositories.price_sheets.  Every method raises StoreError."""

    def is_listed(self, gateway: str, digest: bytes) -> bool: ...  # noqa: D102
    async def note(self, gateway: str, digests: Sequence[bytes], now_s: int, keep_s: int) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochServices:
    """What the epochs of all gateways of a process share."""

    suite: Suite
    link: LinkContext
    accounts: AccountStore
    attendance: EpochStore
    metrics: NodeMetrics
    trust: TrustStore
    policy: Policy
    beacon: BeaconRepository
    list_key: bytes
    listen: str
    public_host: str | None
    relay: bool
    seats: SeatStore
    sheets: SheetStore
    log_check: LogCheck | None = None  # None: in simulations without an enrolment log
    limit_returns: bool = True  # False: members come back into totals as often as a head likes
    start: ProcessStart = field(default_factory=ProcessStart)
    calendar: CalendarPolicy = field(default_factory=CalendarPolicy)
    crowd: CrowdPolicy = field(default_factory=CrowdPolicy)
    billing: BillingRules = field(default_factory=BillingRules)
    clock: Callable[[], float] = time.time
    fleet: Fleet = field(default_factory=Fleet)
    rings: PublicRings = field(default_factory=PublicRings)
    epoch_over: Callable[[], None] = lambda: None


@dataclass(slots=True)
class _Epoch:
    """
    An epoch that we joined: the call of its newest try, our secrets, its tasks, the list that we showed our value for,
    and the membership once the layout is verified.
    """

    call: wire.EpochCall
    secrets: EpochSecrets
    nonce: bytes  # of this process, never stored
    entries: tuple[ListEntry, ...] = ()
    check: SpotChecks | None = None
    list_: wire.EpochList | None = None
    is_spot_checked: bool = False
    early: list[wire.Message] = field(default_factory=list)  # of the ring, while spot checks are not answered
    nursery: trio.Nursery | None = None
    membership: Membership | None = None
    are_sheets_noted: bool = False
    end_s: float = 0.0  # when its keys go
    moved: trio.Event = field(default_factory=trio.Event)  # of this end


class Epochs:
    """
    Those of one gateway.

    It stands in `area`; `devices` are its meters, behind fuses of `fuse_a` A.  `post` sends a message to the
    coordinator, `ask` asks it the `question`; `account_moved` says that a round was settled, `use_grid` gets the
    registration periods of each new epoch.  `serve_in` a nursery before anything is received.
    """

    def __init__(
        self, services: EpochServices, module: SecurityModule, area: str, metering: MeteringLog,
        devices: Sequence[str], *, fuse_a: int,
        post: Callable[[wire.Message], None], ask: Callable[[], None], account_moved: Callable[[], None],
        use_grid: Callable[[RegistrationGrid], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._services = services
        self._module = module
        self._area = area
        self._beacon = Beacon(
            module.identity, services.beacon, services.crowd, partial(services.suite.verify, services.list_key),
            module.random, services.clock,
        )  # fmt: skip
        self._metering = metering
        self._devices = devices
        self._limit_lines = LogLimiter(_LIMIT_LINE_S, trio.current_time)
        self._fuse_a = fuse_a
        self._post = post
        self._ask = ask
        self._on_account_moved = account_moved
        self._review = AccountReview(
            StartReview(services.start), module.identity, services.suite, services.list_key, services.seats,
            services.metrics, self._has_ring, self._leave, self._now_s,
        )  # fmt: skip
        self._use_grid = use_grid
        self._grid: RegistrationGrid | None = None  # of the newest call
        self._epochs: dict[int, _Epoch] = {}
        self._account: Contributions | None = None
        self._schema: Schema | None = None
        self._cursor: Subscription | None = None
        self._subscriber: RingSubscriber | None = None
        self._nursery: trio.Nursery | None = None

    def serve_in(self, nursery: trio.Nursery) -> None:
        """Run the epochs' tasks there."""
        self._nursery = nursery

    @property
    def schema(self) -> Schema | None:
        """The registers that the account is kept in; None before the first call."""
        return self._schema

    def register_scaler(self, obis: str) -> int | None:
        """The scaler of a register in the account; None before the first call, or where it is not in it."""
        slots = () if self._schema is None else self._schema.slots
        return next((slot.scaler for slot in slots if slot.obis == obis), None)

    @property
    def newest_epoch(self) -> int:
        """The highest epoch whose layout was verified, -1 before the first."""
        return max((number for number, each in self._epochs.items() if each.membership is not None), default=-1)

    @property
    def rings(self) -> Iterator[tuple[wire.EpochCall, Membership]]:
        """The rings that it has a seat in, each with its epoch's call."""
        return ((each.call, each.membership) for each in self._epochs.values() if each.membership is not None)

    @property
    def is_carrying(self) -> bool:
        """Whether energy of missed rounds is still to be released."""
        return self._account is not None and self._account.is_carrying

    @property
    def is_waiting(self) -> bool:
        """Whether it may not come back into a total yet."""
        return any(each.membership is not None and each.membership.is_waiting for each in self._epochs.values())

    @property
    def is_reviewed(self) -> bool:
        """Whether the account was held against the coordinator's record since the start."""
        return self._review.start.is_done

    def question(self) -> wire.LastContributionRequest | None:
        """What the coordinator is to be asked; see node.aggregation.account_review."""
        return self._review.question(self._account)

    def refused(self, epoch: int) -> None:
        """The coordinator has refused a message about an epoch: it may not know it any more."""
        if self._has_ring(epoch):
            self._review.doubted = epoch
            self._ask()

    def _has_ring(self, number: int) -> bool:
        epoch = self._epochs.get(number)
        return epoch is not None and epoch.membership is not None

    async def receive(self, message: wire.Message) -> None:
        """The coordinator's message about an epoch or a ring.  Raises RemoteProtocolError where it is refused."""
        match message:
            case wire.EpochCall():
                await self._on_call(message)
            case wire.EpochList():
                await self._on_list(message)
            case wire.EpochLayout():
                await self._on_layout(message)
            case wire.SpotCheckAnswer():
                await self._on_spot_checks(message)
            case wire.LogProof():
                await self._on_log_proof(message)
            case wire.LastContribution():
                await self._on_last(message)
            case _ if isinstance(message, _FOR_MEMBERSHIPS):
                epoch = self._epochs.get(message.epoch)
                if epoch is not None and epoch.membership is not None:
                    epoch.membership.post(FromCoordinator(message))
                elif epoch is not None and epoch.check is not None and len(epoch.early) < _EARLY_MAX:
                    epoch.early.append(message)

    # --- the account --------------------------------------------------------------------------------------------------

    async def _on_last(self, message: wire.LastContribution) -> None:
        try:
            if self._account is not None and await self._review.take(self._account, message):
                self._account_moved()
        except StoreError as error:
            self._store_failed(error)

    def _now_s(self) -> int:
        """The registration time of the period that has begun, metering time; 0 before the first call."""
        return 0 if self._grid is None else self._grid.registration_s(self._grid.index_at(self._services.clock()))

    def _leave(self, number: int) -> None:
        if (epoch := self._epochs.get(number)) is not None:
            self._drop_epoch(epoch)

    def _account_moved(self) -> None:
        self._on_account_moved()
        for epoch in self._epochs.values():
            if epoch.membership is not None:
                epoch.membership.post(AccountMoved())

    def _store_failed(self, error: StoreError) -> None:
        self._services.metrics.store_error()
        log.error("gateway %s does not contribute: %s", self._module.identity, error)

    def _is_possible(self, limits: PhysicalLimits, registers: Registers) -> bool:
        exceeded = limits.exceeded(registers)
        if exceeded is not None:
            self._services.metrics.noted("reading_over_limit")
            if self._limit_lines.is_due(str(exceeded)):  # a meter that sends every second would fill the log
                log.error(
                    "gateway %s: register %s is beyond what a fuse of %d A carries; held back until it is possible. Is"
                    " the meter's fuse_a right, was it exchanged?", self._module.identity, exceeded, self._fuse_a,
                )  # fmt: skip
        return exceeded is None

    def _publish(self, registers: Registers) -> bool:
        """
        Hand registers to the newest ring of their registration time; False where there is none.

        One reading, one ring: in two of different members the totals' difference would show it.
        """
        now_s = self._services.clock()
        for epoch in reversed(self._epochs.values()):
            round_ = registration_grid(epoch.call).index_of(registers.interval_s, epoch.call.rounds)
            if round_ is not None and epoch.membership is not None:
                # A round before the one that was opened last is over; its energy is in the registers that follow.
                if round_ >= ring_timing(epoch.call).round_at(now_s):
                    epoch.membership.reading(round_, registers)
                return True
        return False

    # --- epochs -------------------------------------------------------------------------------------------------------

    async def _on_call(self, call: wire.EpochCall) -> None:
        known = self._epochs.get(call.epoch)
        if known is None:
            known = await self._take_call(call)
        elif call.try_ > known.call.try_:
            self._take_try(known, call)
        elif call != known.call:
            if call.try_ == known.call.try_:
                raise RemoteProtocolError("second_call", "another call for an epoch that was called")
            return  # of an earlier try, late
        if known is None:
            return
        secrets, module, nonce = known.secrets, self._module, known.nonce
        try:
            commitment = (await self._beacon.join(call)).commitment(module.identity)
        except StoreError as error:  # the call comes again
            self._store_failed(error)
            return
        keys = secrets.public_key, module.curve.public, secrets.verify_key
        signature = module.sign(join_text(call_digest(call), module.identity, *keys, nonce, commitment))
        join = wire.Join(call.epoch, call.try_, commitment, keys[0], keys[2], nonce, signature)
        self._post(join)

    async def _take_call(self, call: wire.EpochCall) -> _Epoch | None:
        """Begin an epoch; None where that cannot be yet, and the call comes again."""
        self._check_place(call)
        check_calendar(call, self._services.calendar, self._services.clock())
        schema = check_call(call, self._services.policy, self._fuse_a)
        if self._nursery is None:
            return None
        try:
            check_start(call, self._services.calendar, self._services.attendance.newest_epoch(self._module.identity))
            await self._use_schema(schema, registration_grid(call))
            secrets = self._module.epoch(call.epoch)
        except StoreError as error:
            self._store_failed(error)
            return None
        self._drop_epochs_without_layout()
        self._epochs[call.epoch] = epoch = _Epoch(call, secrets, os.urandom(wire.NONCE_SIZE))
        self._forget(self._module.forget_epochs_before, min(self._epochs))
        await self._nursery.start(self._live, epoch)
        self._grid = registration_grid(call)
        await self._use_grid(self._grid)
        self._review.start.use_grid(self._grid)
        self._ask()
        return epoch

    def _take_try(self, epoch: _Epoch, call: wire.EpochCall) -> None:
        """Commit afresh: nothing but the try and who is left out of it may have changed."""
        if epoch.membership is not None or replace(epoch.call, try_=call.try_, rejected=call.rejected) != call:
            raise RemoteProtocolError("second_call", "another call for an epoch that was called")
        self._check_place(call)
        epoch.call, epoch.entries, epoch.check, epoch.is_spot_checked = call, (), None, False

    def _check_place(self, call: wire.EpochCall) -> None:
        """Area and part are ours: under a name of its choice a coordinator could choose who is split from whom."""
        identity = self._module.identity
        if call.area != self._area or part_of(call.area, identity, call.split_bits) != call.part:
            raise RemoteProtocolError("foreign_part", "a call of another area, or of another part of ours")
        if identity in call.rejected:
            raise RemoteProtocolError("rejected_member", "our value did not come in time, we wait for the next epoch")

    async def _on_list(self, message: wire.EpochList) -> None:
        epoch = self._epochs.get(message.epoch)
        if epoch is None or epoch.call.try_ != message.try_:
            raise RemoteProtocolError("uncalled_list", "a list of a try that was not called, or is over")
        try:
            reveal, epoch.entries = await self._beacon.reveal(epoch.call, message)
            epoch.list_ = message
        except StoreError as error:  # the list comes again
            self._store_failed(error)
            return
        self._post(reveal)

    async def _use_schema(self, schema: Schema, grid: RegistrationGrid) -> None:
        """The registers that epochs are about, from the first call on.  Raises StoreError: then nothing has begun."""
        schema, services = schema.without_noise(), self._services
        if self._schema is not None:
            if self._schema != schema:
                # The account is kept in the old schema's registers; a new one is an operator's decision, not a guess.
                raise RemoteProtocolError("schema_changed", "this gateway's account is kept under another schema")
            return
        try:
            registers = RegisterSet(schema, self._devices)
        except (ValueError, KeyError, StopIteration) as error:
            expected = "expected OBIS codes, units of the DLMS table and an energy"
            raise RemoteProtocolError(
                "unknown_schema", f"a schema of registers that no meter has; {expected}"
            ) from error
        cursor = self._cursor = self._cursor or await self._metering.subscribe(NAME)
        attendance = None
        if services.limit_returns:
            attendance = GatewayAttendance(services.attendance, self._module.identity)
            await attendance.start(grid.registration_s(grid.index_at(services.clock())))
        account = Contributions(
            services.accounts, self._module.identity, schema, self._module.blinding,
            keep_committed_s=services.billing.keep_s, random_bits=self._module.random_bits, cursor=cursor,
            attendance=attendance, review=self._review.start,
        )  # fmt: skip
        newest = services.attendance.newest_epoch(self._module.identity)
        if newest is not None:
            await self._review.hold_against_keys(account, newest.epoch, self._module.newest_bound())
        # After what cannot be read has been tried: then the next call tries again.
        self._account, self._schema = account, schema
        limits = PhysicalLimits(schema, self._fuse_a, account.last_registers)
        self._subscriber = RingSubscriber(
            account, registers, cursor, self._publish, self._store_failed, partial(self._is_possible, limits)
        )
        await self._subscriber.start()

    async def _on_layout(self, layout: wire.EpochLayout) -> None:
        epoch = self._epochs.get(layout.epoch)
        if epoch is None or epoch.nursery is None or self._account is None or not epoch.entries:
            raise RemoteProtocolError("uncalled_layout", "a layout of an epoch that was not called")
        if epoch.membership is not None:
            self._deal(epoch)  # the coordinator has none of ours: it was restarted
            return
        services, module = self._services, self._module
        try:
            view, position = verify_layout(
                epoch.call, epoch.entries, layout, module.identity, epoch.secrets.public_key, services.policy,
                self._trusts(epoch.call),
            )  # fmt: skip
        except RemoteProtocolError as error:
            await self._keep_evidence(epoch, error, layout)
            raise
        if epoch.check is None:
            epoch.check = SpotChecks(epoch.call, epoch.entries, layout, view, position, module.random_bits)
        if epoch.check.chosen and not epoch.is_spot_checked:
            self._post(epoch.check.request())
        else:
            await self._ask_log(epoch, epoch.check)

    async def _on_spot_checks(self, answer: wire.SpotCheckAnswer) -> None:
        """Only now that those of other rings hold, too, anything is dealt to ours."""
        epoch = self._epochs.get(answer.epoch)
        if epoch is None or epoch.check is None or epoch.membership is not None or answer.try_ != epoch.call.try_:
            return
        try:
            epoch.check.verify(answer, self._trusts(epoch.call))
        except RemoteProtocolError as error:
            await self._refuse_layout(epoch, error, answer)
            raise
        epoch.is_spot_checked = True
        await self._ask_log(epoch, epoch.check)

    async def _ask_log(self, epoch: _Epoch, check: SpotChecks) -> None:
        """Only now that all of ours are in the log for everybody to see, anything is dealt."""
        log_check = self._services.log_check
        if log_check is None:
            await self._begin_ring(epoch, check)
            return
        try:
            self._post(log_check.request(self._module.identity, epoch.call.epoch))
        except StoreError as error:  # the layout comes again
            self._store_failed(error)

    async def _on_log_proof(self, proof: wire.LogProof) -> None:
        epoch, log_check = self._epochs.get(proof.epoch), self._services.log_check
        if epoch is None or epoch.check is None or epoch.membership is not None or log_check is None:
            return
        if epoch.check.chosen and not epoch.is_spot_checked:
            return
        try:
            is_logged = await log_check.take(self._module.identity, proof, epoch.check.layout.members)
        except StoreError as error:  # the layout comes again
            self._store_failed(error)
            return
        except RemoteProtocolError as error:
            await self._refuse_layout(epoch, error, proof)
            raise
        if is_logged is not None:
            self._services.metrics.noted("history_logged" if is_logged else "history_not_logged")
        await self._begin_ring(epoch, epoch.check)

    async def _note_refused(self, number: int) -> None:
        """The store knows each number that the keys are bound in, or it would look older than they are."""
        store, identity = self._services.attendance, self._module.identity
        try:
            newest = store.newest_epoch(identity)
            await store.put_newest_epoch(identity, NewestEpoch(number, 0 if newest is None else newest.start_s))
        except StoreError as error:
            self._store_failed(error)

    async def _refuse_layout(self, epoch: _Epoch, error: RemoteProtocolError, answer: wire.Message) -> None:
        """Asked again, it could be answered until that suits: under this number there is no other layout."""
        await self._note_refused(epoch.call.epoch)
        try:
            self._module.fix_layout(epoch.call.epoch, REFUSED_LAYOUT)
        except StoreError as failed:
            self._store_failed(failed)
        self._drop_epoch(epoch)
        if epoch.check is not None:
            await self._keep_evidence(epoch, error, epoch.check.layout, answer)

    async def _keep_evidence(self, epoch: _Epoch, error: RemoteProtocolError, *messages: wire.Message) -> None:
        """Once for an epoch: call, list and what did not hold."""
        log_check, list_ = self._services.log_check, epoch.list_
        if log_check is None or list_ is None:
            return
        epoch.list_ = None
        told = epoch.call, list_, *messages
        try:
            await log_check.keep_evidence(self._module.identity, epoch.call.epoch, str(error), told)
        except StoreError as failed:
            self._store_failed(failed)

    def _trusts(self, call: wire.EpochCall) -> VerifyMember:
        """Certificates count that hold to the epoch's end."""
        return partial(self._services.trust.check, until_s=registration_grid(call).time_s(call.rounds))

    async def _begin_ring(self, epoch: _Epoch, check: SpotChecks) -> None:
        services, module, layout, view = self._services, self._module, check.layout, check.view
        if epoch.nursery is None or self._account is None:
            return
        position = check.position
        start = NewestEpoch(layout.epoch, epoch.call.interval_start_s)
        try:
            await self._beacon.layout_held(epoch.call, epoch.entries)
            await services.attendance.put_newest_epoch(module.identity, start)
            await services.seats.keep(
                module.identity, RingSeat(view.epoch, view.ring, position, view.digest, view.result_key)
            )
        except StoreError as error:  # the layout comes again
            self._store_failed(error)
            return
        if self._has_ring(layout.epoch):  # by another copy of the layout, meanwhile
            return
        try:
            module.fix_layout(layout.epoch, view.digest)
        except StoreError as error:  # of the keys
            self._store_failed(error)
            return
        ring = services.rings.share(view, layout)
        epoch.secrets.bind(ring.view, position)

        def verify_member(other: int, text: bytes, signature: bytes) -> None:
            identity = ring.view.members[other].identity
            services.trust.check(identity, text, signature, ring.certificates[identity], ring.intermediates)

        context = MembershipContext(
            services.suite, module, services.link, self._account, services.metrics, services.clock,
            registration_grid(epoch.call), self._post, self._account_moved, verify_member, services.listen,
            services.public_host, services.relay, partial(self._epoch_refused, epoch), services.fleet, ring.commitments,
            partial(self._note_price_sheets, epoch),
        )  # fmt: skip
        first_round = max(0, registration_grid(epoch.call).index_at(services.start.started_s) + 1)
        epoch.membership = Membership(context, ring.view, epoch.secrets, epoch.nonce, first_round)
        epoch.nursery.start_soon(epoch.membership.run)
        self._end_before(epoch)
        self._deal(epoch)
        for message in epoch.early:
            epoch.membership.post(FromCoordinator(message))
        epoch.early.clear()
        if self._subscriber is not None:
            self._subscriber.publish_again()

    def _epoch_refused(self, epoch: _Epoch, record: EpochRefused) -> None:
        """
        Leave an epoch of two ends of one round for good: without its keys, also after a restart.

        Both ends are public and stand in the log, as bytes of the wire: with the epoch's result key each is proof.
        """
        ends = [wire.encode(each).hex() for each in (record.first, record.second)]
        log.error(
            "gateway %s leaves epoch %d: the coordinator signed two results of round %d, %s and %s",
            self._module.identity, epoch.call.epoch, record.first.round, *ends,
        )  # fmt: skip
        self._forget(self._module.forget_epoch, epoch.call.epoch)
        if self._nursery is not None:  # not before the membership has said what follows
            self._nursery.start_soon(self._drop_soon, epoch)

    async def _drop_soon(self, epoch: _Epoch) -> None:
        await trio.lowlevel.checkpoint()
        self._drop_epoch(epoch)

    async def _note_price_sheets(self, epoch: _Epoch) -> None:
        """Keep the call's list, now that a total of its epoch was opened: everybody in it was shown the same."""
        if epoch.are_sheets_noted:
            return
        call, services = epoch.call, self._services
        too_many = await services.sheets.note(
            self._module.identity, call.price_sheets, call.interval_start_s, services.billing.keep_s
        )
        epoch.are_sheets_noted = True
        if too_many:
            services.metrics.noted("price_sheets_over_limit")
            log.warning(
                "gateway %s: epoch %d lists %d price sheets more than a day may have, which are not noted",
                self._module.identity, call.epoch, too_many,
            )  # fmt: skip

    def _deal(self, epoch: _Epoch) -> None:
        self._post(epoch.secrets.deal())

    async def _live(self, epoch: _Epoch, task_status: trio.TaskStatus[None]) -> None:
        """An epoch from its call to its last result; then its keys go, from memory and from disk (forward secrecy)."""
        epoch.end_s = ring_timing(epoch.call).open_at_s(epoch.call.rounds)
        async with trio.open_nursery() as epoch.nursery:
            task_status.started()
            while (left_s := epoch.end_s - self._services.clock()) > 0:
                with trio.move_on_after(min(left_s, _SLEEP_S_MAX)):
                    await epoch.moved.wait()
                epoch.moved = trio.Event()
            await self._keep_history(epoch)
            self._drop_epoch(epoch)
        # Its context calls back with the epoch: a cycle would wait, keys and all, for the garbage collector.
        epoch.membership = None
        self._ask()

    async def _keep_history(self, epoch: _Epoch) -> None:
        log_check, membership = self._services.log_check, epoch.membership
        leaf = None if membership is None else membership.history_leaf
        if log_check is None or membership is None or leaf is None:
            return
        try:
            await log_check.keep_history(self._module.identity, epoch.call.epoch, membership.view.ring, leaf)
        except StoreError as error:
            self._store_failed(error)

    def _end_before(self, new: _Epoch) -> None:
        """Where an epoch with a ring begins before others end, these end then: they get no more readings."""
        start_s = ring_timing(new.call).open_at_s(0)
        for epoch in self._epochs.values():
            if epoch is not new and epoch.call.epoch < new.call.epoch and epoch.end_s > start_s:
                epoch.end_s = start_s
                epoch.moved.set()

    def _drop_epoch(self, epoch: _Epoch) -> None:
        if epoch.nursery is not None:
            epoch.nursery.cancel_scope.cancel()
        if self._epochs.get(epoch.call.epoch) is epoch:
            del self._epochs[epoch.call.epoch]
        self._forget(self._module.forget_epoch, epoch.call.epoch)
        self._services.epoch_over()

    def _forget(self, forget: Callable[[int], None], number: int) -> None:
        """Keys that the disk does not let go are tried again with the next call."""
        try:
            forget(number)
        except StoreError as error:
            self._store_failed(error)

    def _drop_epochs_without_layout(self) -> None:
        """Whoever calls anew has given the earlier call up; so calls without end cost us nothing."""
        for epoch in list(self._epochs.values()):
            if epoch.membership is None:
                self._drop_epoch(epoch)
