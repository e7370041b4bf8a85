"""
The epochs of one gateway, from the coordinator's call to the last result.

The coordinator calls epochs; each call and layout is checked against the gateway's own policy and trust
(protocol.dcnet.setup.epoch).  A membership is kept for every living epoch, and the registers of each registration time
go to the one that it belongs to.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial

import trio

from node.aggregation.account_basis import ProfiledAccount
from node.aggregation.account_review import AccountReview
from node.aggregation.beacon import Beacon
from node.aggregation.context import AccountMoved, MembershipContext
from node.aggregation.epoch_services import EpochServices
from node.aggregation.joined_epoch import JoinedEpoch
from node.aggregation.layout_checks import LayoutChecks
from node.aggregation.membership import Membership
from node.aggregation.ring_account import RingAccount
from node.aggregation.spot_checks import SpotChecks
from node.aggregation.start_review import StartReview
from node.metering.log import MeteringLog
from node.metering.registers import Registers
from node.security.module import SecurityModule
from node.storage.errors import StoreError
from node.storage.repositories.ring_seats import RingSeat
from protocol import wire
from protocol.dcnet.machines.effects import EpochRefused
from protocol.dcnet.setup.calendar import NewestEpoch, check_calendar, check_start
from protocol.dcnet.setup.crowd import part_of
from protocol.dcnet.setup.epoch import (
    call_digest,
    check_call,
    join_text,
    registration_grid,
    ring_timing,
)
from protocol.errors import RemoteProtocolError
from protocol.metering.interval import RegistrationGrid

log = logging.getLogger(__name__)
_FOR_MEMBERSHIPS = (
    wire.Deals, wire.Appoint, wire.HeadAt, wire.Result, wire.Relay, wire.Expelled, wire.LeftOut, wire.Inquiry,
    wire.DisputedPair, wire.DisputedDeal, wire.PresenceRequest,
)  # fmt: skip
_SLEEP_S_MAX = 60.0  # bounds the harm of a clock that is set


class Epochs:
    """
    Those of one gateway.

    It stands in `area`, behind fuses of `fuse_a` A; `profiled` says what its profiles let into rings.  `post` sends a
    message to the coordinator, `ask` asks it the `question`; `account_moved` says that a round was settled, `use_grid`
    gets the registration periods of each new epoch.  `serve_in` a nursery before anything is received.
    """

    def __init__(
        self, services: EpochServices, module: SecurityModule, area: str, metering: MeteringLog,
        profiled: ProfiledAccount, *, fuse_a: int,
        post: Callable[[wire.Message], None], ask: Callable[[], None], account_moved: Callable[[], None],
        use_grid: Callable[[RegistrationGrid], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._services = services
        self._module = module
        self._area = area
        self._profiled = profiled
        self._beacon = Beacon(
            module.identity, services.beacon, services.crowd, partial(services.suite.verify, services.list_key),
            module.random, services.clock,
        )  # fmt: skip
        self._fuse_a = fuse_a
        self._post = post
        self._ask = ask
        self._on_account_moved = account_moved
        review = AccountReview(
            StartReview(services.start), module.identity, services.suite, services.list_key, services.seats,
            services.metrics, self._has_ring, self._leave, self._now_s, services.beacon, services.clock,
        )  # fmt: skip
        self.account = RingAccount(
            services, module, metering, profiled, fuse_a, review, self._publish, self._store_failed
        )
        self._checks = LayoutChecks(services, module, post, self._begin_ring, self._drop_epoch, self._store_failed)
        self._use_grid = use_grid
        self._grid: RegistrationGrid | None = None  # of the newest call
        self._epochs: dict[int, JoinedEpoch] = {}
        self._nursery: trio.Nursery | None = None
        self.is_leaving = False  # joins no epoch but those whose layout it is bound to: it may have been restarted

    def serve_in(self, nursery: trio.Nursery) -> None:
        """Run the epochs' tasks there; the keys of those that ended while we were down go first."""
        self._forget(self._module.forget_ended_epochs, int(self._services.clock()))
        self._nursery = nursery

    @property
    def newest_epoch(self) -> int:
        """The highest epoch whose layout was verified, -1 before the first."""
        return max((number for number, each in self._epochs.items() if each.membership is not None), default=-1)

    @property
    def rings(self) -> Iterator[tuple[wire.EpochCall, Membership]]:
        """The rings that it has a seat in, each with its epoch's call."""
        return ((each.call, each.membership) for each in self._epochs.values() if each.membership is not None)

    @property
    def unfinished(self) -> list[int]:
        """The epochs that it is in, or may be yet."""
        now_s, bound = self._services.clock(), self._module.newest_bound()
        return [
            n for n, each in self._epochs.items() if each.membership is not None or n <= bound or now_s < each.first_s
        ]

    @property
    def is_waiting(self) -> bool:
        """Whether it may not come back into a total yet: its ring's, or where it has none, into a ring."""
        rings = [ring for _, ring in self.rings]
        return any(each.is_waiting for each in rings) if rings else self._beacon.is_spent

    @property
    def is_reviewed(self) -> bool:
        """Whether the account was held against the coordinator's record since the start."""
        return self.account.review.start.is_done

    def refused(self, epoch: int) -> None:
        """The coordinator has refused a message about an epoch: it may not know it any more."""
        if self._has_ring(epoch):
            self.account.review.doubted = epoch
            self._ask()

    def profiles_changed(self) -> None:
        """A profile set was taken: what it ends is noted now, and ends with the next epoch."""
        if self._nursery is not None and self._grid is not None:
            self._nursery.start_soon(self._profiled.review, self.account.called, self._now_s(), self._store_failed)

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
            case wire.LastContribution():
                await self._on_last(message)
            case wire.SpotCheckAnswer() if message.epoch in self._epochs:
                await self._checks.take_spot_checks(self._epochs[message.epoch], message)
            case wire.LogProof() if message.epoch in self._epochs:
                await self._checks.take_log_proof(self._epochs[message.epoch], message)
            case _ if isinstance(message, _FOR_MEMBERSHIPS) and message.epoch in self._epochs:
                self._epochs[message.epoch].hear(message)

    # --- the account --------------------------------------------------------------------------------------------------

    async def _on_last(self, message: wire.LastContribution) -> None:
        try:
            if await self.account.take_answer(message):
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

    async def _take_call(self, call: wire.EpochCall) -> JoinedEpoch | None:
        """Begin an epoch; None where that cannot be yet, and the call comes again."""
        self._check_place(call)
        check_calendar(call, self._services.calendar, self._services.clock())
        check_call(call, self._services.policy, self._fuse_a)
        if self._nursery is None:
            return None
        try:
            check_start(call, self._services.calendar, self._services.attendance.newest_epoch(self._module.identity))
            await self.account.use(call)
            if self.is_leaving and call.epoch > self._module.newest_bound():
                self._ask()
                return None
            secrets = self._module.epoch(call.epoch, ring_timing(call).open_at_s(call.rounds))
        except StoreError as error:
            self._store_failed(error)
            return None
        self._drop_epochs_without_layout()
        self._epochs[call.epoch] = epoch = JoinedEpoch(call, secrets, os.urandom(wire.NONCE_SIZE))
        self._forget(self._module.forget_epochs_before, min(self._epochs))
        await self._nursery.start(self._live, epoch)
        self._grid = registration_grid(call)
        await self._use_grid(self._grid)
        self.account.review.start.use_grid(self._grid)
        self._ask()
        return epoch

    def _take_try(self, epoch: JoinedEpoch, call: wire.EpochCall) -> None:
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

    async def _on_layout(self, layout: wire.EpochLayout) -> None:
        epoch = self._epochs.get(layout.epoch)
        if epoch is None or epoch.nursery is None or self.account.contributions is None or not epoch.entries:
            raise RemoteProtocolError("uncalled_layout", "a layout of an epoch that was not called")
        if epoch.membership is not None:
            self._deal(epoch)  # the coordinator has none of ours: it was restarted
        else:
            await self._checks.take_layout(epoch, layout)

    async def _begin_ring(self, epoch: JoinedEpoch, check: SpotChecks) -> None:
        services, module, layout, view = self._services, self._module, check.layout, check.view
        account = self.account.contributions
        if epoch.nursery is None or account is None or self.account.schema is None:
            return
        position = check.position
        start = NewestEpoch(layout.epoch, epoch.call.interval_start_s)
        try:
            await self.account.use(epoch.call)  # profiles may have changed since the call
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
            services.suite, module, services.link, account, services.metrics, services.clock,
            registration_grid(epoch.call), self._post, self._account_moved, verify_member, services.listen,
            services.public_host, services.relay, partial(self._epoch_refused, epoch), services.fleet, ring.commitments,
            partial(epoch.note_price_sheets, services, module.identity),
        )  # fmt: skip
        first_round = max(0, registration_grid(epoch.call).index_at(services.start.started_s) + 1)
        epoch.membership = Membership(context, ring.view, epoch.secrets, epoch.nonce, first_round)
        epoch.nursery.start_soon(epoch.membership.run)
        self._profiled.ring_begins(epoch.call.interval_start_s)
        self._end_before(epoch)
        self._deal(epoch)
        for message in epoch.early:
            epoch.hear(message)
        epoch.early.clear()
        self.account.publish_again()

    def _epoch_refused(self, epoch: JoinedEpoch, record: EpochRefused) -> None:
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

    async def _drop_soon(self, epoch: JoinedEpoch) -> None:
        await trio.lowlevel.checkpoint()
        self._drop_epoch(epoch)

    def _deal(self, epoch: JoinedEpoch) -> None:
        self._post(epoch.secrets.deal())

    async def _live(self, epoch: JoinedEpoch, task_status: trio.TaskStatus[None]) -> None:
        """An epoch from its call to its last result; then its keys go, from memory and from disk (forward secrecy)."""
        epoch.end_s = ring_timing(epoch.call).open_at_s(epoch.call.rounds)
        async with trio.open_nursery() as epoch.nursery:
            task_status.started()
            while (left_s := epoch.end_s - self._services.clock()) > 0:
                with trio.move_on_after(min(left_s, _SLEEP_S_MAX)):
                    await epoch.moved.wait()
                epoch.moved = trio.Event()
            try:
                await epoch.keep_history(self._services, self._module.identity)
            except StoreError as error:
                self._store_failed(error)
            self._drop_epoch(epoch)
        # Its context calls back with the epoch: a cycle would wait, keys and all, for the garbage collector.
        epoch.membership = None
        self._ask()

    def _end_before(self, new: JoinedEpoch) -> None:
        """Where an epoch with a ring begins before others end, these end then: they get no more readings."""
        start_s = new.first_s
        for epoch in self._epochs.values():
            if epoch is not new and epoch.call.epoch < new.call.epoch and epoch.end_s > start_s:
                epoch.end_s = start_s
                epoch.moved.set()

    def _drop_epoch(self, epoch: JoinedEpoch) -> None:
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
