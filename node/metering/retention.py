"""
What becomes of old entries: values of registration times become day blocks, telegrams between them go.

One task for all gateways of a process.  A gateway's closed day is packed at a moment of the following day that is its
own, so that thousands are not packed at midnight; entries are then deleted by whole quarter hours, once every gateway
here has packed them.  Packing is a subscriber like any other: its cursor is moved in the transaction that writes the
blocks, so a process that is killed in between packs again what was not packed.
"""

from __future__ import annotations

import logging
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import trio

from node.metering.entries import DAY_S, LoggedReading, day_of, decode_block, decode_entry, encode_block, nearest
from node.metering.log import PACKER
from node.storage.errors import SealError, StoreError
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol.metering.interval import QUARTER_HOUR_S, start_of
from protocol.metering.obis import Obis

log = logging.getLogger(__name__)
_US: Final = 1_000_000
_DAY_US: Final = DAY_S * _US
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
    """Keeps the logs of `gateways` within their retention; `run` serves until cancelled."""

    def __init__(
        self, repository: MeteringLogRepository, gateways: Iterable[str], retention: Retention,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._repository = repository
        self._retention = retention
        self._clock = clock
        self._packed = {gateway: repository.cursors(gateway).get(PACKER, 0) for gateway in gateways}

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
        await repository.store.write(
            [repository.drop_entries(now_us - self._retention.telegrams_s * _US, registered=False)]
        )
        for gateway in self._packed:
            await self._pack(gateway, now_us)
            await trio.lowlevel.checkpoint()
        oldest_us = now_us - self._retention.values_s * _US  # of a gateway that is not here any more, too
        statements = [repository.drop_entries(oldest_us, registered=True)]
        if self._packed:
            statements.append(repository.drop_packed(min(self._packed.values()), PACKER))
        await repository.store.write(statements)

    async def _pack(self, gateway: str, now_us: int) -> None:
        share = zlib.crc32(gateway.encode()) / 2**32
        until = start_of(int((now_us - share * _DAY_US) // _DAY_US), 0, _DAY_US) - 1
        while (after := self._packed[gateway]) < until:
            found = self._repository.entries(gateway, after, until, limit=_ENTRIES_MAX, registered=True)
            position = found[-1][0] if len(found) == _ENTRIES_MAX else until
            values: defaultdict[tuple[str, Obis, int], list[LoggedReading]] = defaultdict(list)
            for each_position, data in found:
                for each in () if data is None else decode_entry(each_position, data).readings:
                    if each.registration_s is not None:
                        values[each.meter, each.obis, day_of(each.registration_s)].append(each)
            statements = [self._repository.move_cursor(gateway, PACKER, position)]
            for (meter, obis, day), of_day in values.items():
                for _, data in self._repository.blocks(gateway, meter, obis, day, day):
                    of_day.extend(decode_block(meter, obis, day, data))
                if kept := nearest(of_day):
                    statements.append(self._repository.put_block(gateway, meter, obis, day, encode_block(kept)))
            oldest_day = day_of(now_us // _US - self._retention.values_s)
            for meter, obis in self._repository.registers(gateway):
                statements.append(self._repository.drop_blocks(gateway, meter, obis, oldest_day))
            await self._repository.store.write(statements)
            self._packed[gateway] = position
