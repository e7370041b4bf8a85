"""
A subscriber of the metering log: a load curve as CSV, one line for each quarter hour of each meter.

    python examples/metering_log_subscriber.py DIRECTORY [QUARTER_HOURS]

A simulated meter is read over TCP, a quarter hour a second, and logged as a gateway does it.  The subscriber has a task
of its own and a durable cursor: run it again, or kill it and run it again, and the file goes on where it ended, without
a line twice.  In a node the same `write_load_curve` is started for each gateway by
`node.fleet.run(config, subscribe=lambda log, nursery: nursery.start_soon(write_load_curve, log, path))`.
"""

import os
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random

import trio

from loadtest.meters.sml import Register, SmlMeter
from loadtest.meters.sml_server import serve
from node.lmn.profiles import profile_of_url
from node.lmn.runtime import run_meters
from node.metering.delivery import MeterDelivery
from node.metering.log import MeteringLog
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol.metering.interval import RegistrationGrid
from protocol.metering.obis import Obis
from protocol.metering.units import WATT_HOUR

IMPORT = Obis(1, 0, 1, 8, 0, 255)


async def write_load_curve(log: MeteringLog, path: Path) -> None:
    """Append each value of a registration time to a file; the cursor follows when the line is on the disk."""
    subscription = await log.subscribe("load curve", from_beginning=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+", encoding="ascii") as file:
        file.seek(0)
        written = {line.rsplit(",", 2)[0] for line in file}  # killed between line and cursor, it comes again
        async for entry in subscription.entries():
            for reading in entry.readings:
                if reading.obis != IMPORT or reading.registration_s is None:
                    continue
                begins = datetime.fromtimestamp(reading.registration_s, UTC)
                key = f"{reading.meter},{begins:%Y-%m-%dT%H:%MZ}"
                if key not in written and reading.value is not None:
                    timely = "on time" if reading.on_time else "late"  # within 1 % of the period: a bill needs it
                    file.write(f"{key},{reading.value}e{reading.scaler} Wh,{timely}\n")
                    written.add(key)
            file.flush()
            os.fsync(file.fileno())
            await subscription.advance(entry.position)


def registers(now: datetime) -> list[Register]:
    """What the simulated meter shows: it counts tenths of a watt hour, eight each second."""
    return [(IMPORT, int(now.timestamp() * 8), -1, WATT_HOUR)]


async def main(directory: Path, quarter_hours: int) -> None:
    """Read, log and subscribe for some quarter hours of a second each."""
    directory.mkdir(parents=True, exist_ok=True)
    key = directory / "storage.key"  # a gateway's security module holds it
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(32))
    store = Store(directory / "metering.sqlite", StorageCipher(key.read_bytes()))
    log = MeteringLog(MeteringLogRepository(store), "ESTK0000000001", time.time)
    origin_ms = int(key.stat().st_mtime) * 1000  # metering time begins in 2026 with the directory
    lapse = RegistrationGrid(origin_ms, period_ms=1000, metering_start_s=1_767_225_600, interval_s=900)
    delivery = MeterDelivery(log, time.time, lapse)
    async with trio.open_nursery() as nursery:
        meter = SmlMeter("1STK0000000001", registers)
        port = await nursery.start(partial(serve, [meter], lambda: datetime.now(UTC)))
        nursery.start_soon(store.run)
        nursery.start_soon(write_load_curve, log, directory / "load_curve.csv")
        profile = profile_of_url(f"sml+tcp://127.0.0.1:{port}", meter.device, {})
        nursery.start_soon(partial(run_meters, [profile], delivery.deliver, delivery, clock=time.time, rng=Random()))
        await trio.sleep(quarter_hours + 0.5)
        nursery.cancel_scope.cancel()
    store.close()


if __name__ == "__main__":
    if len(sys.argv) not in {2, 3}:
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY [QUARTER_HOURS]")
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 5)
