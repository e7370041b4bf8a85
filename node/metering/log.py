"""
The metering log of one gateway: what its meters said, durable before anybody acts on it, in one order for all.

A driver's readings become entries, an entry is written and then handed to the subscribers.  Each subscriber has a
durable cursor: after a crash, wherever it came, it goes on behind the last entry that it has dealt with.  Who can,
moves the cursor in the transaction that makes its own result durable (`Subscription.move`); then nothing is done twice
either.

A gateway has no task and no file of its own for this.  The task that brings a telegram writes it, in one transaction
with whatever other gateways write at that moment, and hands it on.  Positions are the clock's microseconds or more, so
that hardly anything must be read at the start.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import trio

from node.metering.entries import Entry, LoggedReading, decode_entry, encode_entry
from node.metering.history import registered_values
from node.storage.engine import Statement
from node.storage.errors import StoreError
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol.errors import LocalProtocolError
from protocol.metering.obis import Obis

log = logging.getLogger(__name__)
_READ_AT_ONCE = 256

Take = Callable[[Entry], Awaitable[None]]
View = Callable[[Entry], Entry]


class _State(Enum):
    BEING_WRITTEN = 1
    DURABLE = 2
    FAILED = 3


@dataclass(slots=True)
class _Append:
    entry: Entry
    state: _State = _State.BEING_WRITTEN


class Subscription:
    """A subscriber's place in the log; `position` is durable, everything up to it was dealt with."""

    __slots__ = ("_is_behind", "_log", "_seen", "_take", "_view", "name", "position")

    def __init__(self, log: MeteringLog, name: str, position: int, view: View | None = None) -> None:
        self.name = name
        self._view = view
        self.position = position
        self._log = log
        self._seen = position
        self._take: Take | None = None
        self._is_behind = True

    def pending(self, limit: int = _READ_AT_ONCE) -> list[Entry]:
        """The next entries that were not handed out yet.  Raises StoreError."""
        while entries := self._log.read(self._seen, limit):
            self._seen = entries[-1].position
            if readable := [each for each in entries if each.readings]:
                return readable
        return []

    async def entries(self) -> AsyncIterator[Entry]:
        """
        Every entry after the cursor, then those to come, for a subscriber that has a task of its own.

        What is handed out counts as dealt with only once the cursor has been moved.
        """
        while True:
            appended = self._log.appended()
            entries = self.pending()
            for each in entries:
                yield each
            if not entries:
                await appended.wait()

    def move(self, position: int) -> Statement:
        """The statement that moves the cursor, for a transaction of the subscriber's; call `moved` after it."""
        return self._log.repository.move_cursor(self._log.gateway, self.name, position)

    def moved(self, position: int) -> None:
        """The cursor was moved, durably."""
        self.position = max(self.position, position)

    async def advance(self, position: int) -> None:
        """Move the cursor in a transaction of its own.  Raises StoreError: then it is where it was."""
        await self._log.repository.store.write([self.move(position)])
        self.moved(position)

    async def attach(self, take: Take) -> None:
        """
        Have `take` called with every entry after the cursor, now and as they come, one after the other.

        For a subscriber without a task of its own: `take` runs in the task that brings the telegram, so it is short.
        What it raises a StoreError for is handed to it again with the next telegram.

        Raises StoreError where the log cannot be read, or where `take` raised it.
        """
        self._take = take
        if (error := (await self._log.dispatch()).get(self.name)) is not None:
            raise error

    async def catch_up(self) -> None:
        """Hand out what was appended before `attach`; for the log.  Raises StoreError: the next call goes on."""
        while self._is_behind and self._take is not None:
            entries = self.pending()
            for each in entries:
                await self._hand(each, self._take)
            self._is_behind = bool(entries)

    async def hand(self, entry: Entry) -> None:
        """Hand out an entry unless that was done; for the log.  Raises StoreError: it is handed out again."""
        if self._take is not None and not self._is_behind and entry.position > self._seen:
            await self._hand(entry, self._take)

    async def _hand(self, entry: Entry, take: Take) -> None:
        self._seen = max(self._seen, entry.position)
        try:
            await take(entry if self._view is None else self._view(entry))
        except StoreError:
            self._seen, self._is_behind = entry.position - 1, True
            raise


class MeteringLog:
    """
    One gateway's log.

    `clock` is real time (Unix, s).  Entries of one gateway are handed out in the order of their positions.
    """

    __slots__ = (
        "_appended", "_appends", "_best", "_clock", "_dispatching", "_last", "_subscriptions", "_views", "gateway",
        "repository",
    )  # fmt: skip

    def __init__(self, repository: MeteringLogRepository, gateway: str, clock: Callable[[], float]) -> None:
        self.repository = repository
        self.gateway = gateway
        self._clock = clock
        cursors = repository.cursors(gateway).values()
        now_us = int(clock() * 1_000_000)
        self._last = max([now_us, repository.last_position(gateway, now_us), *cursors])  # no entry is behind it
        self._subscriptions: list[Subscription] = []
        self._views: dict[str, View] = {}
        self._appends: list[_Append] = []
        self._dispatching = False
        self._appended: trio.Event | None = None
        # By meter and register: the newest registration time with a durable value, and that value's deviation in ms.
        self._best: dict[str, dict[Obis, tuple[int, int]]] = {}

    # --- writing ------------------------------------------------------------------------------------------------------

    async def append(self, readings: Sequence[LoggedReading]) -> None:
        """
        Return when the readings of one telegram are durable and were handed out.  Raises StoreError: then none is.

        A subscriber that fails is its own affair: what is durable was logged, whoever could do nothing with it.
        Cancelled while it waits: whoever reads the log next finds all of them or none.
        """
        statements, appends = [], []
        nearer: dict[str, dict[Obis, tuple[int, int]]] = {}
        for meter, mine in _by_meter(readings):
            nearer[meter] = self._nearer(meter, mine)
            appends.append(_Append(Entry(self._next_position(), mine)))
            statements.append(
                self.repository.append(
                    self.gateway, self._last, meter, encode_entry(mine), registered=bool(nearer[meter])
                )
            )
        self._appends.extend(appends)
        state = _State.FAILED
        try:
            await self.repository.store.write(statements)
            state = _State.DURABLE
            for meter, found in nearer.items():
                best = self._best.setdefault(meter, {})
                for obis, value in found.items():
                    if value[0] >= best.get(obis, value)[0]:
                        best[obis] = value
        finally:
            for each in appends:
                each.state = state
        if self._appended is not None:
            self._appended.set()
            self._appended = None
        for name, error in (await self.dispatch()).items():
            log.error("gateway %s: the log's subscriber %r gets a telegram again: %s", self.gateway, name, error)

    def _next_position(self) -> int:
        self._last = max(self._last + 1, int(self._clock() * 1_000_000))
        return self._last

    def _nearer(self, meter: str, readings: Sequence[LoggedReading]) -> dict[Obis, tuple[int, int]]:
        """
        The registers whose value is nearer to its registration time than the durable one, with time and deviation.

        By register: a meter may spread its registers over telegrams.  A value only counts as known once it is durable:
        else one that could not be written would keep the next from standing for its registration time.
        """
        known, found = self._best.get(meter, {}), dict[Obis, tuple[int, int]]()
        nearer = (0, 0)  # mostly the same for all registers of a telegram, which then keep one object
        for each in readings:
            registration_s, deviation_ms, obis = each.registration_s, each.deviation_ms, each.obis
            if registration_s is None or deviation_ms is None or each.value is None:
                continue
            deviation_ms = abs(deviation_ms)
            best = found.get(obis) or known.get(obis)
            if best is None or registration_s != best[0] or deviation_ms < best[1]:
                if nearer != (registration_s, deviation_ms):
                    nearer = registration_s, deviation_ms
                found[obis] = nearer
        return found

    async def dispatch(self) -> dict[str, StoreError]:
        """
        Hand out what is durable, in order; by whoever comes first, the others' entries with it.

        Returns the subscribers that failed, and why; they get the same entries again.
        """
        failed: dict[str, StoreError] = {}
        if self._dispatching:
            return failed
        self._dispatching = True
        try:
            for each in self._subscriptions:
                try:
                    await each.catch_up()
                except StoreError as error:
                    failed[each.name] = error
            while self._appends and self._appends[0].state is not _State.BEING_WRITTEN:
                append = self._appends.pop(0)
                for each in self._subscriptions:
                    if append.state is _State.DURABLE:
                        try:
                            await each.hand(append.entry)
                        except StoreError as error:
                            failed[each.name] = error
        finally:
            self._dispatching = False
        return failed

    # --- reading ------------------------------------------------------------------------------------------------------

    def show(self, name: str, view: View) -> None:
        """Have `attach` of the subscription `name`, which is yet to be made, hand out entries as `view` makes them."""
        self._views[name] = view

    async def subscribe(self, name: str, *, from_beginning: bool = False) -> Subscription:
        """
        The subscription of that name, at its durable cursor; a new one begins with what comes from now on.

        `from_beginning`: a new one begins with what the log has.  Raises StoreError, LocalProtocolError for a name that
        has a subscription already.
        """
        if any(each.name == name for each in self._subscriptions):
            raise LocalProtocolError(f"the metering log of {self.gateway} has a subscriber {name!r} already")
        known = self.repository.cursors(self.gateway).get(name)
        position = (0 if from_beginning else self._next_position()) if known is None else known
        subscription = Subscription(self, name, position, self._views.get(name))
        if known is None:
            await subscription.advance(position)
        self._subscriptions.append(subscription)
        return subscription

    def read(self, after: int, limit: int) -> list[Entry]:
        """
        Durable entries behind a position, in order.  Raises StoreError.

        One that does not open has no readings: what was in it is lost, and costs itself alone.
        """
        found = self.repository.entries(self.gateway, after, self._last, limit=limit)
        if lost := sum(data is None for _, data in found):
            log.error("gateway %s: %d entries of its metering log do not open and are lost", self.gateway, lost)
        return [Entry(position, ()) if data is None else decode_entry(position, data) for position, data in found]

    def appended(self) -> trio.Event:
        """Set when the next entry is durable."""
        if self._appended is None:
            self._appended = trio.Event()
        return self._appended

    def registered(self, meter: str, obis: Obis, from_s: int, to_s: int) -> list[LoggedReading]:
        """
        A register's values at the registration times from `from_s` up to and without `to_s` (metering time, Unix, s).

        For each the one that was measured nearest to it, in order.  Raises StoreError, SealError.
        """
        return registered_values(self.repository, self.gateway, self._last, meter, obis, from_s, to_s)


def _by_meter(readings: Sequence[LoggedReading]) -> list[tuple[str, tuple[LoggedReading, ...]]]:
    """A telegram's readings by meter; nearly always there is one."""
    by_meter: dict[str, list[LoggedReading]] = {}
    for each in readings:
        by_meter.setdefault(each.meter, []).append(each)
    return [(meter, tuple(mine)) for meter, mine in by_meter.items()]
