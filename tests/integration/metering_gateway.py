"""
A gateway's metering alone, as a process that can be stopped and killed; run by test_metering_process.py.

`metering_gateway.py DIRECTORY METER_URL PERIOD_S ORIGIN_S [MOMENT]` reads a meter and contributes to a ring that opens
at once and is always opened: each contribution is written to `contributed.txt` when it has become durable.  MOMENT is
where it dies of SIGKILL, three registration periods after it started: `logged`, when the reading is durable and nobody
has it; `contributing`, before the contribution and the cursor are; `contributed`, when they are.
"""

import os
import signal
import sys
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import trio

from node.aggregation.contribution import Contributions
from node.aggregation.ring_subscriber import NAME, RingSubscriber
from node.lmn.profiles import profile_of_url
from node.lmn.runtime import Backoff, run_meters
from node.metering.delivery import MeterDelivery
from node.metering.entries import Entry
from node.metering.log import MeteringLog
from node.metering.registers import Registers, RegisterSet
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.errors import StoreError
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol.dcnet.machines.effects import Attempted, Progress, Settled
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, signed
from protocol.metering.interval import RegistrationGrid

GATEWAY = "ESTK0000000001"
VIEW: Any = SimpleNamespace(epoch=0, size=8, noise=(), committed=(), bits=())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(directory: Path, url: str, period_s: float, origin_s: float, moment: str) -> None:
    store = Store(directory / "registers.sqlite", StorageCipher(bytes(32)))
    grid = RegistrationGrid(round(origin_s * 1000), round(period_s * 1000), 900_000, 900)
    third_s = grid.registration_s(grid.index_at(time.time()) + 3)
    log = MeteringLog(MeteringLogRepository(store), GATEWAY, time.time)
    delivery = MeterDelivery(log, time.time, grid)
    ready = trio.Event()
    waiting: list[Registers] = []

    def publish(registers: Registers) -> bool:
        nonlocal ready
        waiting.append(registers)
        ready.set()
        return True

    def failed(error: StoreError) -> None:
        raise error

    async def contribute(account: Contributions) -> None:
        nonlocal ready
        while True:
            await ready.wait()
            ready = trio.Event()
            while waiting:
                registers = waiting.pop(0)
                round_ = (registers.interval_s - 900_000) // 900
                built = account.build(VIEW, round_, registers)
                if built is None:
                    continue
                if moment == "contributing" and registers.interval_s >= third_s:
                    die()
                await account.attempted(VIEW, Attempted(round_, 0, Progress.SHARED))
                await account.settled(VIEW, Settled(round_, included=True))
                with (directory / "contributed.txt").open("a") as told:
                    told.write(f"{round_} {signed(int(built.vector[1]))}\n")
                if moment == "contributed" and registers.interval_s >= third_s:
                    die()

    async def watched(entry: Entry) -> None:
        if moment == "logged" and any((each.registration_s or 0) >= third_s for each in entry.readings):
            die()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        await (await log.subscribe("watched")).attach(watched)
        cursor = await log.subscribe(NAME)
        account = Contributions(AccountRepository(store), GATEWAY, DEFAULT_SCHEMA, cursor=cursor)
        subscriber = RingSubscriber(account, RegisterSet(DEFAULT_SCHEMA, ["meter"]), cursor, publish, failed)
        nursery.start_soon(contribute, account)
        await subscriber.start()
        await run_meters(
            [profile_of_url(url, "meter", {})], delivery.deliver, delivery, clock=time.time, rng=Random(1),
            backoff=Backoff(0.05, 0.1),
        )  # fmt: skip


if __name__ == "__main__":
    path, meter, period, origin, *rest = sys.argv[1:]
    trio.run(main, Path(path), meter, float(period), float(origin), rest[0] if rest else "")
