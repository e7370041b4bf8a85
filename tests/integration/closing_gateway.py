"""
A gateway whose month is over: closes its billing periods, and may kill itself around the transaction that does.

`closing_gateway.py DIRECTORY STAGE`: STAGE is `before` the transaction of the second period, `after` it, or `never`;
then it ends when nothing is due any more.  With `fill` it logs a month of quarter hours first, and ends.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import trio

from node.metering.entries import LoggedReading
from node.metering.log import MeteringLog
from node.profiles.gateway_profiles import GatewayProfiles
from node.security.module import KeyDirectory
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.repositories.metering_log import MeteringLogRepository
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.storage.repositories.use_cases import UseCaseRepository
from node.taf.use_cases import UseCases
from node.trust import TrustStore
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality

GATEWAY = "ESTK0100000001"
METER = f"{GATEWAY}/0"
IMPORT = Obis(1, 0, 1, 8, 0, 255)
OCTOBER_S = 1_790_805_600  # 2026-10-01 00:00 by German legal time
MONTH_COUNT = 31 * 96 + 4  # summer time ends in it
MISSING = frozenset({500, 501, 1_200})  # quarter hours without a value
LATE = frozenset({2_000})


def truth() -> list[int]:
    """The meter's register at each quarter hour of the month and the next one, tenths of a watt hour."""
    value, found = 123_456_789, []
    for index in range(MONTH_COUNT + 2):
        found.append(value)
        value += 1_000 + (index * 7_919) % 4_001
    return found


async def fill(log: MeteringLog) -> None:
    for index, value in enumerate(truth()):
        if index in MISSING:
            continue
        at_s = OCTOBER_S + index * 900
        reading = LoggedReading(
            METER, IMPORT, value, -1, 30, None, at_s * 1000, at_s * 1000, at_s, 0, index not in LATE, Quality.VALID
        )
        await log.append([reading])


async def main(directory: Path, stage: str) -> None:
    store = Store(directory / "registers.sqlite", StorageCipher(bytes(32)))
    now_s = [float(OCTOBER_S)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        log = MeteringLog(MeteringLogRepository(store), GATEWAY, lambda: now_s[0])
        if stage == "fill":
            await fill(log)
        else:
            await close(store, log, directory, stage)
        nursery.cancel_scope.cancel()
    store.close()


async def close(store: Store, log: MeteringLog, directory: Path, stage: str) -> None:
    keys = KeyDirectory(directory / "keys", StandardSuite())
    module = keys.open(GATEWAY)
    trust: Any = TrustStore.__new__(TrustStore)  # nobody is asked: the set is stored already
    profiles = GatewayProfiles(
        ProfileSetRepository(store), module, trust, {METER: METER}, lambda *_, **__: None, lambda: OCTOBER_S
    )
    repository = UseCaseRepository(store)
    end_s = OCTOBER_S + MONTH_COUNT * 900
    cases = UseCases(log, profiles, repository, module, lambda: end_s + 2 * 86_400, lambda: OCTOBER_S, lambda: None)
    write, closed = store.write, []

    async def dying(statements: Any) -> None:
        is_close = any("derived_period VALUES" in each.sql for each in statements)
        closed.extend([1] * is_close)
        if is_close and len(closed) == 2 and stage == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await write(statements)
        if is_close and len(closed) == 2 and stage == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    store.write = dying  # type: ignore[method-assign]
    await cases.close_due()
    keys.close()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2])
