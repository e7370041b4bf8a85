"""
What becomes of old entries: values of registration times become day blocks, telegrams between them go.

One task for all gateways of a process.  A gateway's closed day is packed at a moment of the following day that is its
own, so that thousands are not packed at midnight; entries are then deleted by whole quarter hours, once every gateway
here has packed them.  Packing is a subscriber like any other: its cursor is moved in the transaction that writes the
blocks, so a process that is killed in between packs again what was not packed.

A clock may be wrong, above all at a start.  What it says must not delete a year of values, so the position by which
they are old moves on at most four times as fast as time passes, whatever the clock does, and is durable; after a long
stop values stay for some days more.  A gateway whose clock was ahead goes on at positions of later than now, since its
log has one order: it is packed at once and not day by day, until time has come that far.
"""

from __future__ import annotations

import logging
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import trio

from node.metering.entries import LoggedReading, decode_block, decode_entry, encode_block, nearest
from node.metering.history import PACKER
from node.storage.engine import Statement
from node.storage.errors import SealError, StoreError
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol.metering.interval import DAY_S, QUARTER_HOUR_S, day_of, start_of
from protocol.metering.obis import Obis

log = logging.getLogger(__name__)
_US: Final = 1_000_000
_DAY_US: Final = DAY_S * _US
_RETENTION_STEP_US: Final = 4 * QUARTER_HOUR_S * _US  # at each turn
_ENTRIES_MAX: Final = 20_000  # of one gateway in one transaction; more are packed in the next turn


@dataclass(frozen=True, slots=True)
class Retention:
    """
    How long the log keeps what, in seconds of real time.

    `telegrams_s`: readings that are no value of a registration time.  Raising it lets a subscriber be away for longer
    and costs some 100 bytes a telegram.  `values_s`: values of registration times, 32 bytes each.
    """

    telegrams_s: int = 3_600
    values_s: int = 400 * DAY_S


class LogKeeper:
    """
    Keeps the logs of `gateways` within their retention; `run` serves until cancelled.

    `meters` are those that have one of their own, by gateway and meter.
    """

    def __init__(
        self, repository: MeteringLogRepository, gateways: Iterable[str], retention: Retention,
        clock: Callable[[], float], meters: Mapping[tuple[str, str], Retention] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self._repository = repository
        self._retention = retention
        self._meters = meters
        self._clock = clock
        self._packed = {gateway: repository.cursors(gateway).get(PACKER, 0) for gateway in gateways}
        self._swept_day = -1

    def forget(self, gateway: str) -> None:
        """Keep nothing of a gateway any more: it has left, and its rows are deleted."""
        self._packed.pop(gateway, None)

    async def run(self) -> None:
        """Once a quarter hour; what fails is tried again at the next."""
        while True:
            try:
                await self.keep()
            except (StoreError, SealError) as error:
                log.error("the metering log cannot be packed, it grows: %s", error)
            await trio.sleep(QUARTER_HOUR_S)

    async def keep(self) -> None:
        """Do what is due now.  Raises StoreError, SealError."""
        repository, now_us = self._repository, int(self._clock() * _US)
        known = repository.retention_position()
        oldest_us = now_us if known is None else min(now_us, known + _RETENTION_STEP_US)
        await repository.store.write([repository.move_retention(oldest_us), *self._drop_telegrams(now_us)])
        for gateway in list(self._packed):
            await self._pack(gateway, now_us, oldest_us)
            await trio.lowlevel.checkpoint()
        await self._sweep(oldest_us)
        longest_s = max(each.values_s for each in (self._retention, *self._meters.values()))
        statements = [repository.drop_entries(oldest_us - longest_s * _US)]
        if self._packed:
            statements.append(repository.drop_packed(min(self._packed.values()), PACKER))
        await repository.store.write(statements)

    def _drop_telegrams(self, now_us: int) -> list[Statement]:
        telegrams_us = self._retention.telegrams_s * _US
        statements = [self._repository.drop_telegrams(now_us - telegrams_us, but=tuple(self._meters))]
        meters: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
        for meter, retention in self._meters.items():
            meters[retention.telegrams_s].append(meter)
        for telegrams_s, alike in meters.items():
            statements.append(self._repository.drop_telegrams(now_us - telegrams_s * _US, of=alike))
        return statements

    async def _pack(self, gateway: str, now_us: int, oldest_us: int) -> None:
        share = zlib.crc32(gateway.encode()) / 2**32
        last = self._repository.last_position(gateway, now_us + QUARTER_HOUR_S * _US)  # 0, but for a log that is ahead
        until = max(last, start_of(int((now_us - share * _DAY_US) // _DAY_US), 0, _DAY_US) - 1)
        is_complete = self._packed.get(gateway, until) >= until
        while not is_complete and gateway in self._packed:
            found = self._repository.entries(gateway, self._packed[gateway], until, limit=_ENTRIES_MAX, registered=True)
            is_complete = len(found) < _ENTRIES_MAX
            # Past what was found only as far as time has come for certain: a gateway without meters keeps no other's.
            certain = min(until, oldest_us) if is_complete else 0
            position = max([self._packed[gateway], certain, *(each for each, _ in found[-1:])])
            if position > self._packed[gateway]:
                await self._repository.store.write(
                    [
                        self._repository.move_cursor(gateway, PACKER, position),
                        *self._put_blocks(gateway, found),
                        *self._drop_blocks(gateway, oldest_us),
                    ]
                )
                if gateway in self._packed:
                    self._packed[gateway] = position
        if last and gateway in self._packed:
            await self._repository.store.write([self._repository.drop_ahead(gateway, now_us)])

    def _put_blocks(self, gateway: str, found: Sequence[tuple[int, bytes | None]]) -> list[Statement]:
        values: defaultdict[tuple[str, Obis, int], list[LoggedReading]] = defaultdict(list)
        for position, data in found:
            for each in () if data is None else decode_entry(position, data).readings:
                if each.registration_s is not None:
                    values[each.meter, each.obis, day_of(each.registration_s)].append(each)
        statements = []
        for (meter, obis, day), of_day in values.items():
            for _, data in self._repository.blocks(gateway, meter, obis, day, day):
                of_day.extend(decode_block(meter, obis, day, data))
            if kept := nearest(of_day):
                statements.append(self._repository.put_block(gateway, meter, obis, day, encode_block(kept)))
        return statements

    def _drop_blocks(self, gateway: str, oldest_us: int) -> list[Statement]:
        statements = []
        for meter, obis in self._repository.registers(gateway):
            retention = self._meters.get((gateway, meter), self._retention)
            oldest_day = day_of(oldest_us // _US - retention.values_s)
            statements.append(self._repository.drop_blocks(gateway, meter, obis, oldest_day))
        return statements

    async def _sweep(self, oldest_us: int) -> None:
        """Once a day: what gateways have left behind that are not in the configuration any more."""
        day = day_of(oldest_us // _US)
        if day == self._swept_day:
            return
        for gateway in self._repository.gateways():
            if gateway not in self._packed:
                await self._repository.store.write(self._drop_blocks(gateway, oldest_us))
        self._swept_day = day
