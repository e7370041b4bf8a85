"""
One smart meter gateway: its meters, its link to the coordinator, its place in the rings.

A gateway is one nursery.  The coordinator calls epochs; the gateway checks each call and layout against its own
policy and trust (protocol.dcnet.setup.epoch), keeps a membership for every living epoch, and hands each quarter hour's
registers to the one that the interval belongs to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import trio

from node.aggregation.bills import BillingRules, Bills, BillStore
from node.aggregation.context import AccountMoved, FromCoordinator, MembershipContext
from node.aggregation.contribution import AccountStore, Contributions
from node.aggregation.membership import Membership
from node.lmn.counters import CounterStore
from node.lmn.pairing import PairingStore
from node.lmn.profiles import MeterProfile
from node.lmn.runtime import Backoff, run_meters
from node.lmn.session import LmnStores
from node.metering.registers import RegisterSet
from node.metrics import NodeMetrics
from node.ring_cache import PublicRings
from node.security.module import SecurityModule
from node.storage.errors import StoreError
from node.trust import TrustStore
from protocol import wire
from protocol.dcnet.billing.bill import request_digest
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.masks import Fleet
from protocol.dcnet.setup.epoch import (
    Policy,
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
from protocol.link import Connection, Inbox, LinkContext
from protocol.metering.interval import RegistrationGrid
from protocol.metering.reading import Reading

log = logging.getLogger(__name__)
_OUTBOX = 64  # messages to the coordinator that wait for the link; more are dropped, deadlines repeat what matters
_HELLO_S = 10.0
_ASK_ACCOUNT_S = 5.0
_SLEEP_S_MAX = 60.0  # bounds the harm of a clock that is set


@dataclass(frozen=True, slots=True)
class Shared:
    """What all gateways of a process share."""

    suite: Suite
    link: LinkContext
    accounts: AccountStore
    bills: BillStore
    counters: CounterStore
    metrics: NodeMetrics
    trust: TrustStore
    policy: Policy
    listen: str
    public_host: str | None
    relay: bool
    billing: BillingRules = field(default_factory=BillingRules)
    backoff: Backoff = field(default_factory=Backoff)
    clock: Callable[[], float] = time.time
    fleet: Fleet = field(default_factory=Fleet)
    rings: PublicRings = field(default_factory=PublicRings)
    pairings: PairingStore | None = None
    epoch_over: Callable[[], None] = lambda: None


@dataclass(slots=True)
class _Epoch:
    """An epoch that we joined: the call, our secrets, its tasks, and the membership once the layout is verified."""

    call: wire.EpochCall
    secrets: EpochSecrets
    nursery: trio.Nursery | None = None
    membership: Membership | None = None


class Gateway:
    """One gateway; `run` serves until cancelled."""

    def __init__(
        self, shared: Shared, module: SecurityModule, endpoint: str, coordinator_key: bytes,
        profiles: Sequence[MeterProfile],
    ) -> None:  # fmt: skip
        self.identity = module.identity
        self._shared = shared
        self._module = module
        self._endpoint = endpoint
        self._coordinator_key = coordinator_key
        self._profiles = profiles
        self._epochs: dict[int, _Epoch] = {}
        self._inbox: Inbox[wire.Message, bytes] = shared.link.inbox(_OUTBOX)  # posted is what goes to the coordinator
        self._nursery: trio.Nursery | None = None
        self._registers: RegisterSet | None = None
        self._contributions: Contributions | None = None
        self._grid: RegistrationGrid | None = None
        self._timed = trio.Event()
        self._bills = Bills(
            shared.bills, self.identity, Pedersen(shared.suite.group), module.blinding, shared.trust, shared.billing
        )
        self._is_billing = False
        self.ready = False

    async def run(self) -> None:
        """Serve until cancelled."""
        connection = self._shared.link.connect(self._endpoint, self._coordinator_key, self._module.curve)
        async with connection, trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._serve, connection)
            await self._timed.wait()
            await self._read_meters()

    async def _serve(self, connection: Connection) -> None:
        """Hear the coordinator, say what is to be said, and repeat what it may have missed or forgotten."""
        self._inbox.follow(connection)
        greet_s = ask_s = trio.current_time()
        connects = 1  # the first is no reconnection
        while True:
            now_s = trio.current_time()
            if now_s >= greet_s:
                greet_s = now_s + _HELLO_S
                self._greet()
            if now_s >= ask_s:
                ask_s = now_s + _ASK_ACCOUNT_S
                self._ask_account()
            match await self._inbox.receive(min(greet_s, ask_s) - now_s):
                case None:
                    pass
                case bytes() as data:
                    await self._hear(data)
                case message:
                    await self._say(connection, message)
            if connection.counters.connects > connects:
                self._shared.metrics.reconnected(connection.counters.connects - connects)
                connects = connection.counters.connects

    def _greet(self) -> None:
        """Say that we are here; again and again, since the coordinator may have been restarted."""
        known = max((number for number, each in self._epochs.items() if each.membership is not None), default=-1)
        self._to_coordinator(wire.Hello(wire.VERSION, known))

    def _ask_account(self) -> None:
        """A contribution whose ring is gone, and its result unheard: ask, and contribute nothing before the answer."""
        unsettled = None if self._contributions is None else self._contributions.unsettled
        if unsettled is not None:
            epoch = self._epochs.get(unsettled[0])
            if epoch is None or epoch.membership is None:
                self._to_coordinator(wire.ContributionStatusRequest(*unsettled))

    async def _on_account(self, message: wire.ContributionStatus) -> None:
        epoch = self._epochs.get(message.epoch)
        if self._contributions is None or (epoch is not None and epoch.membership is not None):
            return  # while a ring lives its member hears the RESULT, which is signed: this is the coordinator's word
        try:
            await self._contributions.settle(message.epoch, message.round, included=bool(message.included))
        except StoreError as error:
            self._store_failed(error)
            return
        self._account_moved()

    def _account_moved(self) -> None:
        for epoch in self._epochs.values():
            if epoch.membership is not None:
                epoch.membership.post(AccountMoved())

    def _store_failed(self, error: StoreError) -> None:
        self._shared.metrics.store_error()
        log.error("gateway %s does not contribute: %s", self.identity, error)

    async def _say(self, connection: Connection, message: wire.Message) -> None:
        data = wire.encode(message)
        await connection.send(data)
        self._shared.metrics.sent(len(data))

    def _to_coordinator(self, message: wire.Message) -> None:
        if not self._inbox.post(message):
            self._shared.metrics.dropped("outbox")

    # --- meters --------------------------------------------------------------------------------------------------

    async def _read_meters(self) -> None:
        seed = Random(self.identity)  # jitter only: gateways must not hammer in step
        await run_meters(
            self._profiles, self._deliver, self, clock=self._shared.clock, rng=seed, backoff=self._shared.backoff,
            stores=LmnStores(self._shared.counters, self._shared.pairings),
        )  # fmt: skip

    def next_reading_time(self, now_s: float) -> float:
        """The meters' schedule: the newest epoch's quarter hours."""
        return now_s + 3600.0 if self._grid is None else self._grid.next_time_s(now_s)

    async def _deliver(self, readings: list[Reading]) -> None:
        if self._registers is None or self._contributions is None:
            return
        now_s = self._shared.clock()
        calls = [epoch.call for epoch in self._epochs.values()]
        if not calls:
            return
        # All epochs share one grid of quarter hours, so the newest call names the interval for each of them.
        grid = registration_grid(calls[-1])
        registers = self._registers.take(grid.registration_s(grid.index_at(now_s)), readings)
        if registers is None:
            return
        try:
            await self._contributions.first_reading(registers.values)
        except StoreError as error:
            self._store_failed(error)
            return
        for epoch in reversed(list(self._epochs.values())):
            round_ = registration_grid(epoch.call).index_of(registers.interval_s, epoch.call.rounds)
            if round_ is not None and epoch.membership is not None:
                epoch.membership.reading(round_, registers)
                # One reading, one ring: in two of different members the totals' difference would show it.
                return

    # --- the coordinator -----------------------------------------------------------------------------------------

    async def _hear(self, data: bytes) -> None:
        self._shared.metrics.received(len(data))
        try:
            await self._dispatch(wire.decode(data, wire.FROM_COORDINATOR))
        except RemoteProtocolError as error:
            self._shared.metrics.protocol_error(error.reason)
            log.warning("gateway %s refuses the coordinator's message: %s", self.identity, error)
        except StoreError as error:  # its own rows: the other gateways of the process go on
            self._store_failed(error)

    async def _dispatch(self, message: wire.Message) -> None:
        match message:
            case wire.EpochCall():
                await self._on_call(message)
            case wire.EpochLayout():
                self._on_layout(message)
            case wire.ContributionStatus():
                await self._on_account(message)
            case wire.BillRequest():
                self._on_bill_request(message)
            case wire.Refused():
                log.info("gateway %s is told for epoch %d: %s", self.identity, message.epoch, message.reason)
            case wire.Deals() | wire.Appoint() | wire.HeadAt() | wire.Result() | wire.Relay() | wire.Expelled():
                epoch = self._epochs.get(message.epoch)
                if epoch is not None and epoch.membership is not None:
                    epoch.membership.post(FromCoordinator(message))

    def _on_bill_request(self, request: wire.BillRequest) -> None:
        """One at a time, beside the rounds; who is told nothing asks again."""
        if self._is_billing or self._nursery is None:
            self._shared.metrics.dropped("bills")
            return
        self._is_billing = True
        self._nursery.start_soon(self._bill, request)

    async def _bill(self, request: wire.BillRequest) -> None:
        metrics = self._shared.metrics
        try:
            bill = await self._bills.answer(request)
        except RemoteProtocolError as error:
            metrics.bill("declined")
            log.warning("gateway %s declines a bill: %s", self.identity, error)
            digest = request_digest(request.tariff, request.intervals)
            self._to_coordinator(wire.BillDeclined(digest, error.reason))
        except StoreError as error:
            metrics.store_error()
            log.error("gateway %s does not answer a bill: %s", self.identity, error)
        else:
            if bill is not None:
                metrics.bill("answered")
                log.info("gateway %s answers a bill", self.identity)
                self._to_coordinator(bill)
        finally:
            self._is_billing = False

    async def _on_call(self, call: wire.EpochCall) -> None:
        known = self._epochs.get(call.epoch)
        if known is not None:
            if known.call != call:
                raise RemoteProtocolError("second_call", "another call for an epoch that was called")
        else:
            schema = check_call(call, self._shared.policy)
            if self._nursery is None:
                return
            self._use_schema(schema)
            secrets = self._module.epoch(call.epoch)
            self._drop_epochs_without_layout()
            self._epochs[call.epoch] = known = _Epoch(call, secrets)
            self._module.forget_epochs_before(min(self._epochs))
            await self._nursery.start(self._live, known)
            self._grid = registration_grid(call)
            self._timed.set()
            self._ask_account()
        text = join_text(call_digest(call), self.identity, known.secrets.public_key, self._module.curve.public)
        self._to_coordinator(wire.Join(call.epoch, known.secrets.public_key, self._module.sign(text)))

    def _use_schema(self, schema: Schema) -> None:
        schema = schema.without_noise()
        if self._registers is None:
            try:
                registers = RegisterSet(schema, [profile.device for profile in self._profiles])
            except (ValueError, KeyError, StopIteration) as error:
                expected = "expected OBIS codes, units of the DLMS table and an energy"
                raise RemoteProtocolError(
                    "unknown_schema", f"a schema of registers that no meter has; {expected}"
                ) from error
            self._contributions = Contributions(
                self._shared.accounts, self.identity, schema, self._module.blinding,
                keep_committed_s=self._shared.billing.keep_s, random_bits=self._module.random_bits,
            )  # fmt: skip
            self._registers = registers  # after the account: where that cannot be read, the next call tries again
        elif self._registers.schema != schema:
            # The account is kept in the old schema's registers; a new one needs an operator's decision, not a guess.
            raise RemoteProtocolError("schema_changed", "this gateway's account is kept under another schema")

    def _on_layout(self, layout: wire.EpochLayout) -> None:
        epoch = self._epochs.get(layout.epoch)
        if epoch is None or epoch.nursery is None or self._contributions is None:
            raise RemoteProtocolError("uncalled_layout", "a layout of an epoch that was not called")
        if epoch.membership is not None:
            self._deal(epoch)  # the coordinator has none of ours: it was restarted
            return
        shared = self._shared
        view, position = verify_layout(
            epoch.call, layout, self.identity, epoch.secrets.public_key, shared.policy, shared.trust.check
        )
        self._module.fix_layout(layout.epoch, view.digest)
        ring = shared.rings.share(view, layout)
        epoch.secrets.bind(ring.view, position)

        def verify_member(other: int, text: bytes, signature: bytes) -> None:
            identity = ring.view.members[other].identity
            shared.trust.check(identity, text, signature, ring.certificates[identity], ring.intermediates)

        context = MembershipContext(
            shared.suite, self._module, shared.link, self._contributions, shared.metrics, shared.clock,
            self._to_coordinator, self._account_moved, verify_member, shared.listen, shared.public_host, shared.relay,
            shared.fleet, ring.commitments,
        )  # fmt: skip
        epoch.membership = Membership(context, ring.view, epoch.secrets)
        epoch.nursery.start_soon(epoch.membership.run)
        self._deal(epoch)
        self.ready = True

    def _deal(self, epoch: _Epoch) -> None:
        commitments, sealed = epoch.secrets.deal()
        self._to_coordinator(wire.Deal(epoch.call.epoch, commitments, sealed))

    async def _live(self, epoch: _Epoch, task_status: trio.TaskStatus[None]) -> None:
        """An epoch from its call to its last result; then its keys go, from memory and from disk (forward secrecy)."""
        end_s = ring_timing(epoch.call).open_at_s(epoch.call.rounds)
        async with trio.open_nursery() as epoch.nursery:
            task_status.started()
            while (left_s := end_s - self._shared.clock()) > 0:
                await trio.sleep(min(left_s, _SLEEP_S_MAX))
            self._drop_epoch(epoch)
        self._ask_account()

    def _drop_epoch(self, epoch: _Epoch) -> None:
        if epoch.nursery is not None:
            epoch.nursery.cancel_scope.cancel()
        if self._epochs.get(epoch.call.epoch) is epoch:
            del self._epochs[epoch.call.epoch]
        self._module.forget_epoch(epoch.call.epoch)
        self._shared.epoch_over()

    def _drop_epochs_without_layout(self) -> None:
        """Whoever calls anew has given the earlier call up; so calls without end cost us nothing."""
        for epoch in list(self._epochs.values()):
            if epoch.membership is None:
                self._drop_epoch(epoch)
