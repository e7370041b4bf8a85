"""
The use cases of one gateway as they run: spans of metering time are closed, once, and become results and deliveries.

A subscriber of the metering log sees how far metering time has come.  When a span's last value is in the log, and the
registration time behind it too, or a day later whatever is there, the span is evaluated by the profile that is in
force, and closed: result, next span, deliveries and the log's cursor in one transaction.  Killed at any moment before
it, the gateway finds the span open and closes it; after it, closed, with deliveries that wait.

Our reading where BSI TR-03109-1 leaves it open: a span counts under a profile that is valid when it begins, and the
first one is the one in which the set was issued, or the first that begins while the profile is valid (node.taf.spans).
TAF 12 ends a span early where the credit's standing has changed.  Values that are no registration's (TAF 9, 10, 14) are
another matter: node.taf.current_values.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import trio

from node.metering.entries import Entry
from node.metering.log import MeteringLog, Subscription
from node.profiles.gateway_profiles import GatewayProfiles
from node.storage.errors import SealError, StoreError
from node.storage.repositories.use_cases import UseCaseRepository
from node.taf.current_values import CurrentValues, cancel_after
from node.taf.details import account_of, make_result
from node.taf.evaluate import evaluate_span
from node.taf.outbox import Outbox, Random
from node.taf.period_values import period_values
from node.taf.result import Account, Result
from node.taf.spans import first_start, span_from
from node.taf.taf12 import opening_account
from protocol.errors import LocalProtocolError
from protocol.metering.interval import DAY_S
from protocol.profiles.processing import ProcessingProfile
from protocol.profiles.use_cases import ControlEvents, Prepaid

log = logging.getLogger(__name__)
NAME: Final = "use cases"
LATE_S: Final = DAY_S
"""For so long after its end (metering time) a period waits for its last value."""
BY_REGISTRATION: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13})
"""Use cases that values of registration times decide."""
_LOOK_S: Final = 300.0
_BEHIND_US_MAX: Final = 3_600_000_000
_evaluations: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("evaluations")


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
        self._metering_time = metering_time
        self._made = made
        self._outbox = Outbox(metering.gateway, repository, random, clock)
        self._current_values = CurrentValues(metering, profiles, repository, self._outbox, clock, made)
        self._newest: dict[str, int] = {}  # by meter: the newest registration time that was heard
        self._next_end_s = 0
        self._position = 0
        self._due = trio.Event()
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        """Close what is due, again and again.  What the store refuses is tried again later."""
        while self._profiles.current is None:  # it costs nothing without profiles
            await self._profiles.changed.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._current_values.run)
            await self._run()

    async def _run(self) -> None:
        while True:
            changed, self._due = self._profiles.changed, trio.Event()
            try:
                if self._subscription is None:
                    await self._subscribe()
                await self.close_due()
            except StoreError as error:
                log.error("gateway %s does not close its billing periods: %s", self._metering.gateway, error)
            with trio.move_on_after(_LOOK_S):
                async with trio.open_nursery() as nursery:
                    for each in (changed, self._due):
                        nursery.start_soon(cancel_after, each, nursery.cancel_scope)

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
        self._current_values.take(entry)
        if self._newest and max(self._newest.values()) > self._next_end_s:
            self._due.set()
        elif self._subscription is not None and entry.position - self._subscription.position > _BEHIND_US_MAX:
            await self._subscription.advance(entry.position)

    async def close_due(self) -> None:
        """Close every period that is due.  Raises StoreError: then the rest stays open."""
        gateway = self._metering.gateway
        current = self._profiles.current
        profiles = (
            [] if current is None else [each for each in current.processing if each.use_case.taf in BY_REGISTRATION]
        )
        starts = self._repository.next_starts(gateway)
        begun = [] if current is None else [
            self._repository.begin(gateway, each.id, first_start(each, current.issued_at))
            for each in profiles if each.id not in starts
        ]  # fmt: skip
        if begun:
            await self._repository.store.write(begun)
            starts = self._repository.next_starts(gateway)
        self._next_end_s = 2**62
        for each in profiles:
            try:
                await self._close_profile(each, starts[each.id])
            except (SealError, LocalProtocolError) as error:  # its values cannot be read; the others' can
                log.error("gateway %s does not close a period of profile %s: %s", gateway, each.id, error)

    async def _close_profile(self, profile: ProcessingProfile, next_start_s: int) -> None:
        while True:
            start_s, end_s = span_from(profile, next_start_s)
            if not self._is_due(profile, end_s):
                self._next_end_s = min(self._next_end_s, end_s)
                if isinstance(profile.use_case, Prepaid):
                    await self._close_early(profile, profile.use_case, start_s)
                return
            if profile.is_valid_at(datetime.fromtimestamp(start_s, UTC)):
                await self._close(profile, *await self._derive(profile, start_s, end_s))
            else:
                await self._repository.store.write([self._repository.skip(self._metering.gateway, profile.id, end_s)])
                if profile.valid_to is not None and start_s >= profile.valid_to.timestamp():
                    return
            next_start_s = end_s

    def _is_due(self, profile: ProcessingProfile, end_s: int) -> bool:
        heard = self._heard(profile)
        now = max([heard, self._metering_time() or 0, *self._newest.values()])
        return heard > end_s or now >= end_s + LATE_S

    def _heard(self, profile: ProcessingProfile) -> int:
        """The newest registration time of its meters; one that was exchanged says nothing any more."""
        return max(self._newest.get(each or "", 0) for each in self._profiles.devices_of(profile))

    async def _close_early(self, profile: ProcessingProfile, prepaid: Prepaid, start_s: int) -> None:
        """End the span of TAF 12 at the newest registration time where the credit's standing has changed by it."""
        heard = self._heard(profile)
        end_s = (heard - 1) // profile.registration_period_s * profile.registration_period_s
        self._next_end_s = min(self._next_end_s, heard)  # the next registration time is looked at too
        if end_s <= start_s or not profile.is_valid_at(datetime.fromtimestamp(start_s, UTC)):
            return
        derived, unit = await self._derive(profile, start_s, end_s)
        before = self._account(profile)
        known = opening_account(prepaid, profile.scaler, None) if before is None else before
        if derived.account is not None and derived.account.standing is not known.standing:
            await self._close(profile, derived, unit)

    def _account(self, profile: ProcessingProfile) -> Account | None:
        if not isinstance(profile.use_case, Prepaid):
            return None
        return account_of(profile, self._repository.newest(self._metering.gateway, profile.id))

    async def _derive(self, profile: ProcessingProfile, start_s: int, end_s: int) -> tuple[Result, int]:
        """What a profile says of a span, and the unit."""
        devices = self._profiles.devices_of(profile)
        # The value after a control may come later than the first registration time behind it.
        until_s = end_s + LATE_S if isinstance(profile.use_case, ControlEvents) else end_s
        values, unit = period_values(self._metering.registered, profile, devices, start_s, until_s)
        # In a thread of its own: the month's end comes for all gateways at once, and rounds must not wait.
        derived = await trio.to_thread.run_sync(
            evaluate_span, profile, values, start_s, end_s, self._account(profile), limiter=_one_at_a_time()
        )
        return derived, unit

    async def _close(self, profile: ProcessingProfile, derived: Result, unit: int) -> None:
        result, gateway = make_result(profile, derived, unit), self._metering.gateway
        waiting = self._outbox.deliveries(profile, result)
        statements = self._repository.close(gateway, result, waiting)
        kept_s = derived.end_s - profile.retention_days * DAY_S
        statements.append(self._repository.drop_before(gateway, profile.id, kept_s))
        if self._subscription is not None:
            statements.append(self._subscription.move(self._position))
        await self._repository.store.write(statements)
        if self._subscription is not None:
            self._subscription.moved(self._position)
        if waiting:
            self._made()
        log.info("gateway %s closed a period of profile %s", gateway, profile.id)


def _one_at_a_time() -> trio.CapacityLimiter:
    try:
        return _evaluations.get()
    except LookupError:
        _evaluations.set(trio.CapacityLimiter(1))
        return _evaluations.get()
