"""
Reads all meters of a gateway: one task per bus, each meter at its time, each fault kept where it happened.

Intuition: a bus is a link and everyone on it.  Meters that can be asked are asked one after the other when the
schedule says (the quarter hour, or a second of accelerated time); meters that push are taken as they come.  What
comes out goes to `deliver` and nowhere else.

Complications, and why they are here:
- A bus that is silent is asked again after a growing, jittered, bounded wait, so that a thousand gateways after a
  power cut do not hammer in step; the next quarter hour ends the waiting, because its value is the one that counts.
- A driver may have a defect.  Its bus is closed, the fault is counted by name, and it starts again after the wait;
  the other buses never notice.  Only `InvariantError` and faults of `deliver` are let through: those are not the
  meter's, and going on would make guesses of readings.
- A fault is counted every time and an event once a quarter hour: noise must not flood a log.  What fell (a counter,
  a clock) is an event every time.
- A register that may not be billed (no check sum, an impulse, a meter in error) is handed on and is an event: it will
  be missing from the gateway's account.
- On a radio link the neighbours' meters are heard too, which is no fault; on a wire an unknown meter is one.
- Where several meters push on one bus, or unknown ones are heard on it, the bus is never silent: each meter's own
  silence is watched beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from random import Random
from typing import Protocol

import trio

from node.lmn.arrival import ArrivalStream
from node.lmn.events import FaultThrottle, LmnEvent, log_event
from node.lmn.faults import Fault, caught, where
from node.lmn.links import open_link, parse_link
from node.lmn.metrics import LMN_ERRORS, LMN_READINGS
from node.lmn.profiles import ANY_METER, MeterProfile
from node.lmn.registry import DRIVERS
from node.lmn.session import Batch, Clock, Driver, LmnStores, PollSession, PushSession
from node.lmn.timestamps import MonotonicWatch, localized
from node.metering.interval import Arrival, next_border_s
from protocol.errors import InvariantError, LocalProtocolError, RemoteProtocolError, StromkreisError
from protocol.metering.interval import RegistrationGrid, next_start
from protocol.metering.obis import is_cumulative
from protocol.metering.reading import Reading, is_billable

Deliver = Callable[[list[Reading], Arrival], Awaitable[None]]


class NotLoggedError(StromkreisError):
    """What `deliver` raises for readings that it could not make durable: the meter is asked, or sends, again."""


OpenLink = Callable[[str], Awaitable[trio.abc.Stream]]
_SLEEP_S_MAX = 60.0  # bounds the harm of a clock that is set
_IDLE_MAX_S = 60.0  # a link unused for longer is opened anew: one that died unnoticed costs a time-out when it counts
_TICK_S = 0.001  # a schedule that computes in floating point may name one time twice; this far on it cannot


class Schedule(Protocol):
    """When meters are to be asked."""

    def next_reading_time(self, now_s: float) -> float:
        """The first reading time later than `now_s`, in seconds of the runtime's clock."""

    def next_border(self, now_s: float) -> float:
        """The next moment from which on values count for another reading time; see `node.metering.interval`."""


@dataclass(frozen=True, slots=True)
class Periodic:
    """Reading times at the multiples of a period: 900 s is the quarter hour, less is accelerated time."""

    period_s: float = 900.0

    def next_reading_time(self, now_s: float) -> float:
        """The next multiple of the period."""
        return next_start(now_s, 0.0, self.period_s)

    def next_border(self, now_s: float) -> float:
        """The next multiple of the period, or the tolerance before it."""
        return next_border_s(RegistrationGrid(0, round(self.period_s * 1000), 0, 1), now_s)


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    Wait min·2^n seconds after n+1 faults in a row, at most max, of that a random half to whole.

    Lower values find a meter sooner and load a shared line more; the bound is how late a repaired bus is noticed.
    """

    min_s: float = 0.5
    max_s: float = 60.0

    def delay_s(self, fault_count: int, rng: Random) -> float:
        """The wait after this many faults in a row (1 is the first)."""
        return min(self.max_s, self.min_s * 2.0 ** min(fault_count - 1, 30)) * rng.uniform(0.5, 1.0)


async def run_meters(
    profiles: Sequence[MeterProfile],
    deliver: Deliver,
    schedule: Schedule,
    *,
    clock: Clock = time.time,
    rng: Random,
    on_event: Callable[[LmnEvent], None] = log_event,
    drivers: Mapping[str, Driver] = DRIVERS,
    backoff: Backoff = Backoff(),
    open_stream: OpenLink = open_link,
    stores: LmnStores | None = None,
) -> None:
    """
    Read the meters of one gateway until cancelled.

    `deliver` gets the readings of one telegram or readout at a time, never an empty list, with what is known of when
    they were measured, and may wait: the bus then waits too.  Where it raises NotLoggedError the meter is asked again,
    a bus that pushes is opened anew, and a driver that acknowledges what is pushed has not done so.

    `clock` gives seconds of the Unix epoch and must run at the speed of trio's clock, but may be set; reception times
    and the schedule are in it.  `rng` jitters the waits.
    `stores` keeps what must outlive the process.
    Raises LocalProtocolError for profiles that contradict each other or cannot be served, before any link is opened.
    """
    run = _Run(deliver, schedule, clock, rng, on_event, backoff, open_stream, MonotonicWatch())
    buses = _buses(profiles, drivers, stores or LmnStores())
    async with trio.open_nursery() as nursery:
        for bus in buses:
            nursery.start_soon(run.listen if bus.pushes else run.ask, bus)
            if bus.pushes and (len(bus.profiles) > 1 or bus.allows_unknown_meters):
                nursery.start_soon(run.watch_silence, bus)
        if listening := [bus for bus in buses if bus.pushes]:
            nursery.start_soon(run.watch_borders, listening)


@dataclass(slots=True)
class _Bus:
    link: str
    driver: Driver
    pushes: bool
    profiles: list[MeterProfile]
    by_meter_id: dict[str, MeterProfile]
    allows_unknown_meters: bool
    poll: PollSession | None = None
    push: PushSession | None = None
    fault_count: int = 0  # in a row
    missing: set[str] = field(default_factory=set)  # devices without a value at the last reading time
    stream: trio.abc.Stream | None = None  # of a bus that is asked
    arrivals: ArrivalStream | None = None  # of a bus that pushes
    heard_s: dict[str, float] = field(default_factory=dict)  # when a pushing device spoke last (trio's time)
    throttle: FaultThrottle = field(default_factory=FaultThrottle)

    async def close(self) -> None:
        """Close the link at once; whatever was still to come on it must not be taken for a later answer."""
        stream, self.stream = self.stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)


def check_profiles(profiles: Sequence[MeterProfile], drivers: Mapping[str, Driver] = DRIVERS) -> None:
    """Raises LocalProtocolError for profiles that contradict each other or that no driver serves."""
    _buses(profiles, drivers, LmnStores())


def _buses(profiles: Sequence[MeterProfile], drivers: Mapping[str, Driver], stores: LmnStores) -> list[_Bus]:
    buses: dict[str, _Bus] = {}
    for profile in profiles:
        driver = drivers.get(profile.protocol)
        if driver is None:
            raise LocalProtocolError(f"no driver {profile.protocol!r} (there are {', '.join(sorted(drivers))})")
        pushes = profile.push or driver.poll is None
        if pushes and driver.push is None:
            raise LocalProtocolError(f"meters with {profile.protocol} do not push")
        bus = buses.get(profile.link)
        if bus is None:
            bus = buses[profile.link] = _Bus(profile.link, driver, pushes, [], {}, parse_link(profile.link).radio)
        if bus.driver is not driver or bus.pushes != pushes:
            raise LocalProtocolError("the meters on one link must share their protocol and their manner")
        meter_id = profile.meter_id or profile.device
        if meter_id in bus.by_meter_id:
            if meter_id == ANY_METER:
                raise LocalProtocolError(f"several meters on {profile.link}: each needs its id= to be distinguished")
            raise LocalProtocolError(f"two meters {meter_id!r} on one link")
        bus.by_meter_id[meter_id] = profile
        bus.profiles.append(profile)
        bus.throttle.ours.add(profile.device)
    for bus in buses.values():
        if bus.pushes and bus.driver.push is not None:
            bus.push = bus.driver.push(bus.profiles, stores)
        elif bus.driver.poll is not None:
            bus.poll = bus.driver.poll(bus.profiles, stores)
    return list(buses.values())


@dataclass(slots=True)
class _Run:
    deliver: Deliver
    schedule: Schedule
    clock: Clock
    rng: Random
    on_event: Callable[[LmnEvent], None]
    backoff: Backoff
    open_stream: OpenLink
    watch: MonotonicWatch

    async def ask(self, bus: _Bus) -> None:
        """Ask every meter of the bus at each reading time."""
        try:
            await self._ask(bus)
        finally:
            await bus.close()

    async def _ask(self, bus: _Bus) -> None:
        at_s = self.clock()
        while True:
            at_s = await self._reading_time_after(at_s)
            # Those that did not answer last time come last: waiting for them must not make the others late.
            order = sorted(bus.profiles, key=lambda profile: profile.device in bus.missing)
            unread = await self._ask_each(bus, order, math.inf)
            # A late retry would make the next quarter hour late for everyone, so it is cut off there.
            until_s = self.schedule.next_reading_time(at_s + _TICK_S)
            while unread and self.clock() < until_s and not self._was_set_back(at_s):
                wait_s = self.backoff.delay_s(bus.fault_count, self.rng)
                await trio.sleep(min(wait_s, until_s - self.clock()))
                if self.clock() < until_s:
                    unread = await self._ask_each(bus, unread, until_s)
            bus.missing = {profile.device for profile in unread}
            for device in bus.missing:
                self._event(bus, "no_value", device)
            if self.schedule.next_reading_time(at_s + _TICK_S) - self.clock() > _IDLE_MAX_S:
                await bus.close()

    async def _reading_time_after(self, last_s: float) -> float:
        """Sleep until the next reading time; it is looked up anew each minute, since clocks and schedules are set."""
        while True:
            if self._was_set_back(last_s):
                last_s = self.clock()
            at_s = self._following(last_s)
            # Waking early by a rounding error of the clocks would read the same quarter hour twice.
            if (left_s := at_s - self.clock()) <= 0:
                return at_s
            await trio.sleep(min(left_s, _SLEEP_S_MAX))

    def _was_set_back(self, last_s: float) -> bool:
        """Whether the clock shows a time before `last_s` that it had shown: to wait for that again might take days."""
        return self.schedule.next_reading_time(self.clock()) < last_s - _TICK_S

    def _following(self, at_s: float) -> float:
        """The next reading time; the last one that is due where several have passed meanwhile."""
        at_s = self.schedule.next_reading_time(at_s + _TICK_S)
        while (later_s := self.schedule.next_reading_time(at_s + _TICK_S)) <= self.clock():
            at_s = later_s
        return at_s

    async def _ask_each(self, bus: _Bus, profiles: Sequence[MeterProfile], until_s: float) -> list[MeterProfile]:
        """One round over the bus; who gave nothing good."""
        unread: list[MeterProfile] = []
        for profile in profiles:
            if bus.stream is None:
                bus.stream = await self._open(bus, until_s)
            if bus.stream is None or not await self._read(bus, bus.stream, profile, until_s):
                unread.append(profile)
                await bus.close()
        return unread

    async def _read(self, bus: _Bus, stream: trio.abc.Stream, profile: MeterProfile, until_s: float) -> bool:
        if bus.poll is None:
            raise InvariantError("a bus without a way to ask is asked")
        asked_s = self.clock()
        batch = await caught(bus.poll.ask(stream, profile, self.clock), until_s - asked_s)
        if isinstance(batch, Fault):
            self._fault(bus, batch, profile.device)
            return False
        # Asked in one quarter hour, answered in the next: if the meter has no time of its own, nobody can say which one
        # the value belongs to.  The log has it, but it is no reading of a quarter hour.
        is_late = self.schedule.next_reading_time(asked_s) <= self.clock()
        if is_late or not batch:
            self._fault(bus, Fault("late" if is_late else "no_reading"), profile.device)
        try:
            return await self._hand_on(bus, batch, asked_s) and not is_late
        except NotLoggedError:
            self._fault(bus, Fault("not_logged"), profile.device)
            return False

    async def listen(self, bus: _Bus) -> None:
        """Take what the bus pushes, open it again when it ends or falls silent."""
        if bus.push is None:
            raise InvariantError("a bus without a way to listen is listened to")
        silence_s = 1.1 * max(
            profile.silence_s for profile in bus.profiles
        )  # a driver's own alarm comes first: it says more
        while True:
            stream = await self._open(bus, math.inf)
            if stream is not None:
                bus.arrivals = ArrivalStream(stream, self.clock, self.schedule.next_border)
                async with bus.arrivals, aclosing(bus.push.listen(bus.arrivals, self.clock)) as batches:
                    while not isinstance(batch := await caught(anext(batches), silence_s), Fault):
                        try:
                            await self._hand_on(bus, batch)
                        except NotLoggedError:
                            batch = Fault("not_logged")
                            break
                bus.arrivals = None
                self._fault(bus, batch, "")
            await trio.sleep(self.backoff.delay_s(bus.fault_count, self.rng))

    async def watch_borders(self, buses: Sequence[_Bus]) -> None:
        """At each border between two reading times, see which lines hold nothing of the time before."""
        while True:
            border_s = self.schedule.next_border(self.clock())
            while (left_s := border_s - self.clock()) > 0:
                await trio.sleep(min(left_s, _SLEEP_S_MAX))
                border_s = min(border_s, self.schedule.next_border(self.clock()))  # a schedule or clock that was set
            for bus in buses:
                if bus.arrivals is not None:
                    bus.arrivals.look()

    async def watch_silence(self, bus: _Bus) -> None:
        """An alarm for each meter that says nothing on a bus where others still speak."""
        began_s = trio.current_time()
        bus.heard_s |= {profile.device: began_s for profile in bus.profiles}
        while True:
            await trio.sleep_until(min(bus.heard_s[each.device] + each.silence_s for each in bus.profiles))
            now_s = trio.current_time()
            for profile in bus.profiles:
                if bus.heard_s[profile.device] + profile.silence_s <= now_s:
                    bus.heard_s[profile.device] = now_s  # and again after as long a silence
                    self._event(bus, "meter_silent", profile.device)

    async def _open(self, bus: _Bus, until_s: float) -> trio.abc.Stream | None:
        stream = await caught(self.open_stream(bus.link), until_s - self.clock())
        if isinstance(stream, Fault):
            self._fault(bus, stream, "")
            return None
        return stream

    async def _hand_on(self, bus: _Bus, batch: Batch, asked_s: float | None = None) -> bool:
        """Route a batch to `deliver`; whether anything of it was good."""
        readings: list[Reading] = []
        heard = False
        for item in batch:
            if isinstance(item, RemoteProtocolError):
                self._fault(bus, Fault(item.reason, where(item)), "")
                continue
            profile = bus.by_meter_id.get(item.device) or bus.by_meter_id.get(ANY_METER)
            if profile is None:
                if not bus.allows_unknown_meters:
                    self._fault(bus, Fault("unknown_device"), item.device)
                continue
            heard = True
            bus.heard_s[profile.device] = trio.current_time()
            if not profile.registers or item.obis in profile.registers:
                named = item if item.device == profile.device else replace(item, device=profile.device)
                zone = profile.zone()
                readings.append(named if zone is None else localized(named, zone))
        if heard:
            bus.fault_count = 0
        for fallen in self.watch.check(readings):
            self._event(bus, fallen.reason, fallen.device, "" if fallen.obis is None else str(fallen.obis), always=True)
        for reading in readings:
            if not is_billable(reading) and reading.obis is not None and is_cumulative(reading.obis):
                self._event(bus, "not_billable", reading.device, reading.quality.value)
        if readings:
            LMN_READINGS.labels(bus.driver.name).inc(len(readings))
            await self.deliver(readings, self._arrival(bus, readings, asked_s))
        return heard

    def _arrival(self, bus: _Bus, readings: Sequence[Reading], asked_s: float | None) -> Arrival:
        if asked_s is not None:
            return Arrival(asked_s, asked=True)
        stamps = [reading.received_at.timestamp() for reading in readings if reading.received_at is not None]
        received_s = min(stamps, default=self.clock())
        return Arrival(received_s if bus.arrivals is None else bus.arrivals.earliest_s(received_s), asked=False)

    def _fault(self, bus: _Bus, fault: Fault, device: str) -> None:
        bus.fault_count += 1
        self._event(bus, fault.reason, device, fault.detail)

    def _event(self, bus: _Bus, kind: str, device: str, detail: str = "", *, always: bool = False) -> None:
        LMN_ERRORS.labels(bus.driver.name, kind).inc()
        if not (always or bus.throttle.should_report(kind, device)):
            return
        self.on_event(LmnEvent(kind, bus.driver.name, device, self.clock(), detail))
