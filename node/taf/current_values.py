"""
Current values of one gateway as they run: actual feed-in (TAF 9), grid state (TAF 10), high frequency (TAF 14).

They go by real time and by what telegrams say, not by registration times, and are never billed.  As with billing
periods, a window of time is closed once: values, next window and deliveries in one transaction, from the telegrams in
the metering log.  A limit of TAF 10 that is passed closes a window at once.  What a gateway could not close within
`CATCH_UP_S`, since it stood still, is not made up for: who asks for current values wants current ones.

None of it may hold up meters or rings: a window is at most `READ_S` of telegrams, read between other tasks' turns;
deliveries that wait are few (node.taf.outbox), and those of TAF 14 go behind all others (node.wan.deliveries).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import trio

from node.metering.entries import Entry, LoggedReading, decode_entry
from node.metering.log import MeteringLog
from node.profiles.gateway_profiles import GatewayProfiles
from node.storage.errors import SealError, StoreError
from node.storage.repositories.use_cases import UseCaseRepository
from node.taf import taf09, taf10
from node.taf.details import reading_detail
from node.taf.outbox import Outbox
from node.taf.period_values import unit_of
from node.taf.taf10 import LimitWatch, Side
from node.taf.taf14 import Thinning
from protocol.cosem.delivery import EVENT, Detail, PeriodResult, Row
from protocol.metering.interval import DAY_S
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, mantissa_at
from protocol.profiles.processing import ProcessingProfile, registers_of
from protocol.profiles.use_cases import ActualFeedIn, GridState, HighFrequency

log = logging.getLogger(__name__)
_PRESENT: Final = "present"
CURRENT: Final = frozenset({9, 10, 14})
CATCH_UP_S: Final = 900
BATCH_S: Final = 60
"""Readings of TAF 14 that go together: each delivery is a message of its own."""
READ_S: Final = 300
"""Telegrams before a window's end that are read; a limit that is passed ends a window by then."""
_GRACE_S: Final = 2  # a telegram that was measured before a window's end may be on its way
_LOOK_S: Final = 300.0
_AT_ONCE: Final = 256
_US: Final = 1_000_000
_AHEAD_US: Final = 60 * _US  # of the clock, that positions may be: the log has one order


class _Watch(NamedTuple):
    """The limits of a profile, on the readings of a meter."""

    profile: str
    meter: str
    limits: list[LimitWatch]


class CurrentValues:
    """One gateway's; `run` serves until cancelled, `take` is told of every telegram."""

    def __init__(
        self, metering: MeteringLog, profiles: GatewayProfiles, repository: UseCaseRepository, outbox: Outbox,
        clock: Callable[[], float], made: Callable[[], None],
    ) -> None:  # fmt: skip
        self._metering = metering
        self._profiles = profiles
        self._repository = repository
        self._outbox = outbox
        self._clock = clock
        self._made = made
        self._watches: list[_Watch] = []
        self._watched: list[tuple[ProcessingProfile, str | None]] = []
        self._passed: dict[str, int] = {}  # by profile: when (Unix, s) a register had passed a limit
        self._due = trio.Event()

    def take(self, entry: Entry) -> None:
        """See whether a telegram passes a limit; what follows is done by `run`."""
        for profile, meter, watches in self._watches:
            for each in entry.readings:
                passed = [watch.take(each) for watch in watches] if each.meter == meter else []  # all of them, always
                if any(passed):
                    self._passed.setdefault(profile, each.measured_ms // 1000 + 1)
                    self._due.set()

    async def run(self) -> None:
        """Close the windows that are due, again and again.  What the store refuses is tried again later."""
        while True:
            changed, self._due = self._profiles.changed, trio.Event()
            try:
                pause_s = await self.close_due()
            except StoreError as error:
                log.error("gateway %s does not close its current values: %s", self._metering.gateway, error)
                pause_s = _LOOK_S
            with trio.move_on_after(pause_s):
                async with trio.open_nursery() as nursery:
                    for each in (changed, self._due):
                        nursery.start_soon(cancel_after, each, nursery.cancel_scope)

    async def close_due(self) -> float:
        """Close every window that is due; how long until the next one is (s).  Raises StoreError."""
        gateway, now_s = self._metering.gateway, self._clock()
        current = self._profiles.current
        now = datetime.fromtimestamp(now_s, UTC)
        profiles = [each for each in self._profiles.processing(now) if each.use_case.taf in CURRENT]
        self._watch(profiles, now)
        starts = self._repository.next_starts(gateway) if profiles else {}
        pause_s = _LOOK_S
        for each in profiles:
            if each.id not in starts and current is not None:
                starts[each.id] = int(max(current.issued_at, each.valid_from).timestamp()) - 1
                await self._repository.store.write([self._repository.begin(gateway, each.id, starts[each.id])])
            try:
                pause_s = min(pause_s, await self._close_profile(each, starts[each.id], now_s))
            except SealError as error:
                log.error("gateway %s does not close profile %s: %s", gateway, each.id, error)
        return pause_s

    def _watch(self, profiles: Sequence[ProcessingProfile], now: datetime) -> None:
        """Watch the limits of TAF 10, at first from the sides on which registers were last."""
        watched = [(each, self._device(each, now)) for each in profiles if isinstance(each.use_case, GridState)]
        if watched == self._watched:
            return
        self._watched, self._watches = watched, []
        for each, device in watched:
            if isinstance(each.use_case, GridState) and device is not None:
                sides = self._sides(each)
                watches = [
                    LimitWatch(limit, sides.get(Obis.parse(limit.obis), Side.INSIDE)) for limit in each.use_case.limits
                ]
                self._watches.append(_Watch(each.id, device, watches))

    def _device(self, profile: ProcessingProfile, moment: datetime) -> str | None:
        """The meter that measures at a moment, by its name in the log."""
        devices = self._profiles.devices_of(profile)
        for each, device in zip(profile.meters, devices, strict=True):
            if each.exchange is None or each.exchange.at > moment:
                return device
        return None

    def _sides(self, profile: ProcessingProfile) -> dict[Obis, Side]:
        """Where the registers of TAF 10 were at the end of the last window."""
        last = self._repository.newest(self._metering.gateway, profile.id)
        sides = {each.value: each for each in Side}
        return {each.obis: sides[each.what] for each in (last.details if last else ()) if each.what in sides}

    async def _close_profile(self, profile: ProcessingProfile, start_s: int, now_s: float) -> float:
        """Close what is due of one profile; how long until the next window is (s)."""
        oldest_s = int(now_s) - CATCH_UP_S
        if start_s < oldest_s and (next_end(profile, start_s) or 0) < oldest_s:
            start_s = oldest_s
        while True:
            end_s = next_end(profile, start_s)
            passed_s = self._passed.get(profile.id)
            if passed_s is not None and (end_s is None or passed_s < end_s):
                end_s = max(passed_s, start_s + 1)
            if end_s is None:
                return _LOOK_S
            if now_s < end_s + _GRACE_S:
                return end_s + _GRACE_S - now_s
            self._passed.pop(profile.id, None)
            await self._close(profile, start_s, end_s)
            start_s = end_s

    async def _close(self, profile: ProcessingProfile, start_s: int, end_s: int) -> None:
        gateway, repository = self._metering.gateway, self._repository
        device = self._device(profile, datetime.fromtimestamp(end_s, UTC))
        readings = [] if device is None else await self._readings(device, max(start_s, end_s - READ_S), end_s)
        result = current_result(profile, readings, self._sides(profile), start_s, end_s)
        if result is None:
            await repository.store.write([repository.skip(gateway, profile.id, end_s)])
            return
        statements = self._outbox.drop_oldest(profile)
        if statements:
            log.warning("gateway %s drops current values of profile %s that wait too long", gateway, profile.id)
        waiting = self._outbox.deliveries(profile, result)
        statements += repository.close(gateway, result, waiting)
        statements.append(repository.drop_before(gateway, profile.id, end_s - DAY_S))
        await repository.store.write(statements)
        if waiting:
            self._made()

    async def _readings(self, device: str, from_s: int, end_s: int) -> list[LoggedReading]:
        """What a meter measured from `from_s` up to and without `end_s` (Unix, s), in the order of time."""
        repository, found = self._metering.repository, list[LoggedReading]()
        after, until = from_s * _US - 1, int(self._clock() * _US) + _AHEAD_US
        while True:
            entries = repository.entries(self._metering.gateway, after, until, limit=_AT_ONCE, meter=device)
            for position, data in entries:
                found += () if data is None else decode_entry(position, data).readings
            if len(entries) < _AT_ONCE:
                break
            after = entries[-1][0]
            await trio.lowlevel.checkpoint()
        return sorted(
            (each for each in found if from_s * 1000 <= each.measured_ms < end_s * 1000),
            key=lambda each: (each.measured_ms, each.received_ms),
        )


def next_end(profile: ProcessingProfile, start_s: int) -> int | None:
    """When the window that begins at `start_s` ends (Unix, s); None where nobody asks for another one."""
    use_case = profile.use_case
    period_s = BATCH_S if isinstance(use_case, HighFrequency) else getattr(use_case, "period_s", None)
    ends = [] if period_s is None else [(start_s // period_s + 1) * period_s]
    if isinstance(use_case, ActualFeedIn):
        requested = (-int(-each.timestamp() // 1) for each in use_case.requests)
        ends += [next((each for each in requested if each > start_s), None) or 0]
    return min((each for each in ends if each), default=None)


def current_result(
    profile: ProcessingProfile, readings: Sequence[LoggedReading], sides: Mapping[Obis, Side], start_s: int, end_s: int
) -> PeriodResult | None:
    """
    What TAF 9, 10 or 14 derive from the readings of a window; None where TAF 14 has none.

    `sides` are those of the window before.  Complete: there is a value of every register.
    """
    obis, use_case = Obis.parse(profile.obis), profile.use_case
    wanted = [Obis.parse(each) for each in registers_of(profile)]
    unit, details, rows = unit_of(obis, readings), list[Detail](), list[Row]()
    if isinstance(use_case, HighFrequency):
        rows = _thinned(use_case, obis, profile.scaler, unit, readings)
    else:
        found: dict[Obis, Side] = {}
        if isinstance(use_case, GridState):
            events, found = taf10.evaluate(use_case, readings, sides)
            details += [reading_detail(side.value, EVENT, reading) for reading, side in events]
        for each in wanted:
            newest, side = taf09.newest(readings, each), found.get(each)
            if newest is not None:
                details.append(reading_detail(_PRESENT if side is None else side.value, "", newest))
    if not rows and isinstance(use_case, HighFrequency):
        return None
    known = {each.obis for each in details}
    return PeriodResult(
        profile.id, use_case.taf, profile.metering_point, obis, profile.scaler, unit,
        getattr(use_case, "period_s", None) or profile.registration_period_s, start_s, end_s,
        is_complete=bool(rows) or known >= set(wanted), is_billable=False, rows=tuple(rows), details=tuple(details),
    )  # fmt: skip


def _thinned(
    parameters: HighFrequency, obis: Obis, scaler: int, unit: int, readings: Sequence[LoggedReading]
) -> list[Row]:  # fmt: skip
    """One reading in each period, at the second in which it was measured."""
    thinning = Thinning(parameters, obis)
    return [
        Row(
            each.measured_ms // 1000, mantissa_at(each.value or 0, each.scaler, scaler),
            each.quality is Quality.VALID and each.unit == unit, each.status,
        )
        for each in readings
        if thinning.take(each)
    ]  # fmt: skip


async def cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    """For a task that waits for one of several events."""
    await event.wait()
    scope.cancel()
