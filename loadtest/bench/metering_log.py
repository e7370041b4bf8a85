"""
What a metering log costs: a year of a gateway with many meters, and a quarter hour of many gateways.

The year is written as a node writes it: entries quarter hour by quarter hour, made into day blocks by the log's keeper
each following day.  Its size is that of the whole store on disk, unused pages of past entries included.  The quarter
hour is logged by all gateways at once, as after a registration time, in one store.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from loadtest.bench.measure import Row, Spread, Target
from node.metering.entries import LoggedReading
from node.metering.log import MeteringLog
from node.metering.retention import LogKeeper, Retention
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol.metering.interval import DAY_S, QUARTER_HOUR_S
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality

_GATEWAY = "ESTK0000000001"
_METERS = [f"1STK{number:010d}" for number in range(8)]
_REGISTERS = (Obis(1, 0, 1, 8, 0, 255), Obis(1, 0, 2, 8, 0, 255))
_BEGIN_S = 1_767_225_600  # 2026-01-01
_MONTH_DAYS = 31


@dataclass(slots=True)
class _Clock:
    now_s: float = float(_BEGIN_S)

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def _log_store(folder: Path) -> AsyncIterator[MeteringLogRepository]:
    store = Store(folder / "registers.sqlite", StorageCipher(os.urandom(32)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield MeteringLogRepository(store)
        nursery.cancel_scope.cancel()
    store.close()


def _telegram(meter: str, registration_s: int, late_ms: int = 400) -> list[LoggedReading]:
    measured_ms = registration_s * 1000 + late_ms
    return [
        LoggedReading(
            meter, obis, registration_s * 3, -1, 30, 0x10400, measured_ms, measured_ms, registration_s, late_ms,
            on_time=True, quality=Quality.VALID,
        )
        for obis in _REGISTERS
    ]  # fmt: skip


async def year(folder: Path, days: int) -> tuple[float, list[float]]:
    """The size in MB of so many days of one gateway, and the times in ms of a month's query."""
    clock = _Clock()
    async with _log_store(folder) as repository:
        log = MeteringLog(repository, _GATEWAY, clock)
        keeper = LogKeeper(repository, [_GATEWAY], Retention(), clock)
        for day in range(days):
            async with trio.open_nursery() as nursery:
                for quarter_hour in range(DAY_S // QUARTER_HOUR_S):
                    registration_s = _BEGIN_S + day * DAY_S + quarter_hour * QUARTER_HOUR_S
                    clock.now_s = registration_s + 0.4
                    for meter in _METERS:
                        nursery.start_soon(log.append, _telegram(meter, registration_s))
                    await trio.lowlevel.checkpoint()
            await keeper.keep()
        log = MeteringLog(repository, _GATEWAY, clock)
        end_s = _BEGIN_S + days * DAY_S
        took_ms = []
        for index in range(40):
            begin = time.process_time()
            found = log.registered(_METERS[index % 8], _REGISTERS[0], end_s - _MONTH_DAYS * DAY_S, end_s)
            took_ms.append(1000 * (time.process_time() - begin))
            if len(found) != _MONTH_DAYS * 96:
                raise ValueError(f"a month of {len(found)} quarter hours")
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6, took_ms


async def quarter_hour(folder: Path, gateways: int, count: int) -> list[float]:
    """The times in s in which all gateways log a telegram each, quarter hour after quarter hour."""
    clock, took_s = _Clock(), []
    async with _log_store(folder) as repository:
        logs = [MeteringLog(repository, f"ESTK{number:010d}", clock) for number in range(gateways)]
        for number in range(count):
            clock.now_s = _BEGIN_S + number * QUARTER_HOUR_S + 0.4
            began_s = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for log in logs:
                    nursery.start_soon(log.append, _telegram(_METERS[0], int(clock.now_s)))
            took_s.append(time.perf_counter() - began_s)
    return took_s


def rows(*, quick: bool = False) -> list[Row]:
    """Size and query of a year, and many gateways at once."""
    days, gateways, count = (40, 1_000, 3) if quick else (365, 10_000, 5)
    with tempfile.TemporaryDirectory() as folder:
        size_mb, month_ms = trio.run(year, Path(folder), days)
    with tempfile.TemporaryDirectory() as folder:
        took_s = trio.run(quarter_hour, Path(folder), gateways, count)
    return [
        Row(
            f"{days} days of quarter hours, 8 meters of two registers, encrypted", "MB", Spread.of([size_mb]),
            target=Target("ours", 40, at_least=False), clock="", note="the store's files with all unused pages",
        ),
        Row(
            "a month of one register", "ms", Spread.of(month_ms), target=Target("ours", 5, at_least=False),
            note="2,976 values, of which up to two days from entries",
        ),
        Row(
            f"{gateways:,} gateways log a quarter hour, durable", "s", Spread.of(took_s), clock="wall",
            note="one store; a ring opens 135 s after the quarter hour",
        ),
    ]  # fmt: skip
