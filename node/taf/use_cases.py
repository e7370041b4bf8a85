"""
The use cases of one gateway as they run: billing periods are closed, once, and become results and deliveries.

A subscriber of the metering log sees how far metering time has come.  When a period's last value is in the log, and the
registration time behind it too, or a day later whatever is there, the period is evaluated by the profile that is in
force, and closed: result, next period, deliveries and the log's cursor in one transaction.  Killed at any moment before
it, the gateway finds the period open and closes it; after it, closed, with deliveries that wait.

Our reading where BSI TR-03109-1 leaves it open: a period counts under a profile that is valid when it begins, and the
first one is the one in which the set was issued, or the first that begins while the profile is valid.  `aggregated`
recipients get nothing from here: rings make their totals (node.aggregation).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

import trio

from node.metering.entries import Entry
from node.metering.log import MeteringLog, Subscription
from node.profiles.gateway_profiles import GatewayProfiles
from node.storage.errors import SealError, StoreError
from node.storage.repositories.use_cases import UseCaseRepository, WaitingDelivery
from node.taf.evaluate import evaluate
from node.taf.period_values import period_values
from node.taf.result import Result
from protocol.cosem.delivery import PeriodResult, Row, canonical_name
from protocol.metering.interval import DAY_S
from protocol.metering.obis import Obis
from protocol.profiles.processing import Delivery, ProcessingProfile

log = logging.getLogger(__name__)
NAME: Final = "use cases"
LATE_S: Final = DAY_S
"""For so long after its end (metering time) a period waits for its last value."""
BY_PERIODS: Final = frozenset({1, 2, 3, 4, 6, 7, 8})
"""Use cases that a billing period's values decide; TAF 5 wants events that nobody sends yet, 9 to 14 are immediate."""
_LOOK_S: Final = 300.0
_BEHIND_US_MAX: Final = 3_600_000_000
_evaluations: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("evaluations")


class Random(Protocol):
    """Draws octets: the security module."""

    def random(self, size: int) -> bytes: ...  # noqa: D102


class UseCases:
    """
    One gateway's; `run` serves until cancelled.

    `metering_time` is the present one (Unix, s), None while it is not known.  `made` is called when deliveries wait.
    """

    def __init__(
        self, metering: MeteringLog, profiles: GatewayProfiles, repository: UseCaseRepository, random: Random,
        metering_time: Callable[[], int | None], clock: Callable[[], float], made: Callable[[], None],
    ) -> None:  # fmt: skip
        self._metering = metering
        self._profiles = profiles
        self._repository = repository
        self._random = random
        self._metering_time = metering_time
        self._clock = clock
        self._made = made
        self._newest: dict[str, int] = {}  # by meter: the newest registration time that was heard
        self._next_end_s = 0
        self._position = 0
        self._made_us = 0
        self._due = trio.Event()
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        """Close what is due, again and again.  What the store refuses is tried again later."""
        while True:
            changed, self._due = self._profiles.changed, trio.Event()
            if self._profiles.current is None:  # it costs nothing without profiles
                await changed.wait()
                continue
            try:
                if self._subscription is None:
                    await self._subscribe()
                await self.close_due()
            except StoreError as error:
                log.error("gateway %s does not close its billing periods: %s", self._metering.gateway, error)
            with trio.move_on_after(_LOOK_S):
                async with trio.open_nursery() as nursery:
                    for each in (changed, self._due):
                        nursery.start_soon(_cancel_after, each, nursery.cancel_scope)

    async def _subscribe(self) -> None:
        subscription = await self._metering.subscribe(NAME)
        self._position = subscription.position
        self._subscription = subscription
        await subscription.attach(self._take)

    async def _take(self, entry: Entry) -> None:
        """Look how far metering time has come; what follows is not done in the task that reads meters."""
        for each in entry.readings:
            if each.registration_s is not None:
                self._newest[each.meter] = max(each.registration_s, self._newest.get(each.meter, 0))
        self._position = entry.position
        if self._newest and max(self._newest.values()) > self._next_end_s:
            self._due.set()
        elif self._subscription is not None and entry.position - self._subscription.position > _BEHIND_US_MAX:
            await self._subscription.advance(entry.position)

    async def close_due(self) -> None:
        """Close every period that is due.  Raises StoreError: then the rest stays open."""
        gateway = self._metering.gateway
        current = self._profiles.current
        profiles = [] if current is None else [each for each in current.processing if each.use_case.taf in BY_PERIODS]
        starts = self._repository.next_starts(gateway)
        begun = [] if current is None else [
            self._repository.begin(gateway, each.id, _first_start(each, current.issued_at))
            for each in profiles if each.id not in starts
        ]  # fmt: skip
        if begun:
            await self._repository.store.write(begun)
            starts = self._repository.next_starts(gateway)
        self._next_end_s = 2**62
        for each in profiles:
            try:
                await self._close_profile(each, starts[each.id])
            except SealError as error:  # its values cannot be read; the others' can
                log.error("gateway %s does not close a period of profile %s: %s", gateway, each.id, error)

    async def _close_profile(self, profile: ProcessingProfile, next_start_s: int) -> None:
        billing = profile.billing_period
        index = billing.index_at(next_start_s)
        if billing.start_s(index) < next_start_s:  # the profile has other periods now
            index += 1
        while True:
            start_s, end_s = billing.start_s(index), billing.start_s(index + 1)
            if not self._is_due(profile, end_s):
                self._next_end_s = min(self._next_end_s, end_s)
                return
            if profile.is_valid_at(datetime.fromtimestamp(start_s, UTC)):
                await self._close(profile, index, start_s, end_s)
            else:
                await self._repository.store.write([self._repository.skip(self._metering.gateway, profile.id, end_s)])
                if profile.valid_to is not None and start_s >= profile.valid_to.timestamp():
                    return
            index += 1

    def _is_due(self, profile: ProcessingProfile, end_s: int) -> bool:
        devices = self._profiles.devices_of(profile)
        heard = self._newest.get(devices[-1] or "", 0)
        now = max([heard, self._metering_time() or 0, *self._newest.values()])
        return heard > end_s or now >= end_s + LATE_S

    async def _close(self, profile: ProcessingProfile, index: int, start_s: int, end_s: int) -> None:
        devices = self._profiles.devices_of(profile)
        values, unit = period_values(self._metering, profile, devices, start_s, end_s)
        # In a thread of its own: the month's end comes for all gateways at once, and rounds must not wait.
        derived = await trio.to_thread.run_sync(evaluate, profile, values, index, limiter=_one_at_a_time())
        result = make_result(profile, derived, unit)
        gateway = self._metering.gateway
        waiting = self._waiting(profile, result)
        statements = self._repository.close(gateway, result, waiting)
        statements.append(self._repository.drop_before(gateway, profile.id, end_s - profile.retention_days * DAY_S))
        if self._subscription is not None:
            statements.append(self._subscription.move(self._position))
        await self._repository.store.write(statements)
        if self._subscription is not None:
            self._subscription.moved(self._position)
        if waiting:
            self._made()
        log.info("gateway %s closed a billing period of profile %s", gateway, profile.id)

    def _waiting(self, profile: ProcessingProfile, result: PeriodResult) -> list[WaitingDelivery]:
        return [
            WaitingDelivery(
                self._random.random(16).hex(), self._next_us(), profile.id, result.start_s, each.participant,
                each.delivery.value, self._sender(each.delivery),
            )
            for each in profile.recipients
            if each.delivery is not Delivery.AGGREGATED
        ]  # fmt: skip

    def _next_us(self) -> int:
        """The clock's time, but always later than the last: deliveries go out in this order."""
        if not self._made_us:
            self._made_us = max((each.made_us for each in self._repository.waiting(self._metering.gateway)), default=0)
        self._made_us = max(self._made_us + 1, int(self._clock() * 1_000_000))
        return self._made_us

    def _sender(self, delivery: Delivery) -> str:
        """A pseudonym holds for one delivery: two of a household cannot be put together by it."""
        return canonical_name(self._metering.gateway) if delivery is Delivery.DIRECT else self._random.random(16).hex()


def make_result(profile: ProcessingProfile, derived: Result, unit: int) -> PeriodResult:
    """What a use case derived, with what a recipient must know of the profile; by `is_billable` never more than it."""
    rows = tuple(Row(each.at_s, each.value, each.is_valid, each.status) for each in derived.rows)
    return PeriodResult(
        profile.id, profile.use_case.taf, profile.metering_point, Obis.parse(profile.obis), profile.scaler, unit,
        profile.registration_period_s, derived.start_s, derived.end_s, derived.is_complete, profile.is_billable,
        derived.derivation, tuple((each.obis, each.value) for each in derived.registers), rows,
    )  # fmt: skip


def _first_start(profile: ProcessingProfile, issued_at: datetime) -> int:
    """The period in which the set was issued, or the first that begins while the profile is valid."""
    billing = profile.billing_period
    index = max(0, billing.index_at(int(issued_at.timestamp())))
    while billing.start_s(index) < profile.valid_from.timestamp():
        index += 1
    return billing.start_s(index)


def _one_at_a_time() -> trio.CapacityLimiter:
    try:
        return _evaluations.get()
    except LookupError:
        _evaluations.set(trio.CapacityLimiter(1))
        return _evaluations.get()


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
