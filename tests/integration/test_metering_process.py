"""A gateway's process that is stopped or killed while its meter is read: each value counts once, for its own time."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import trio

from loadtest.meters.sml import Register, SmlMeter
from loadtest.meters.sml_server import serve
from node.metering.entries import Entry
from node.metering.log import MeteringLog
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol.dcnet.discipline.carried_energy import EnergyAccount, contribute
from protocol.metering.interval import index_at
from protocol.metering.obis import Obis

GATEWAY = "ESTK0000000001"
IMPORT = Obis(1, 0, 1, 8, 0, 255)
_ROOT = Path(__file__).parents[2]
_SCRIPT = Path(__file__).with_name("metering_gateway.py")


@contextmanager
def gateway(
    directory: Path, url: str, period_s: float, origin_s: float, moment: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [sys.executable, str(_SCRIPT), str(directory), url, str(period_s), str(origin_s), moment]
    with (directory / "gateway.log").open("ab") as output:
        child = subprocess.Popen(
            arguments, stdout=output, stderr=output, env={"PYTHONPATH": str(_ROOT), "PATH": os.environ["PATH"]}
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def logged(directory: Path) -> list[Entry]:
    """What a gateway that has gone has left."""
    store = Store(directory / "registers.sqlite", StorageCipher(bytes(32)))
    try:
        return MeteringLog(MeteringLogRepository(store), GATEWAY, time.time).read(0, 100_000)
    finally:
        store.close()


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(120):
        while not condition():
            await trio.sleep(0.05)


class PushingMeter:
    """A meter that speaks when the test says so."""

    def __init__(self, started_at: datetime) -> None:
        self.value = 0
        self._meter = SmlMeter("1STK0000000001", self._registers, started_at=started_at)
        self._streams: list[trio.SocketStream] = []

    def _registers(self, _now: datetime) -> list[Register]:
        return [(IMPORT, self.value, -1, 30)]

    async def take(self, stream: trio.SocketStream) -> None:
        self._streams.append(stream)
        await trio.sleep_forever()

    async def says(self, value: int) -> float:
        """Send it, and return when that was, Unix time."""
        self.value = value
        now_s = time.time()
        for stream in self._streams:
            await stream.send_all(self._meter.push(datetime.fromtimestamp(now_s, UTC)))
        return now_s

    @property
    def is_heard(self) -> bool:
        return bool(self._streams)


PERIOD_S = 8.0
STOPPED, RESUMED = 5_000_001, 5_000_002
CLOCKS = [
    pytest.param(datetime(2020, 1, 1, tzinfo=UTC), True, id="it counts seconds"),
    pytest.param(datetime(2200, 1, 1, tzinfo=UTC), False, id="it has no clock"),
]


@pytest.mark.parametrize(("started_at", "has_clock"), CLOCKS)
async def test_a_telegram_read_after_a_stall_counts_for_its_own_quarter_hour(
    tmp_path: Path, started_at: datetime, has_clock: bool
) -> None:
    origin_s = float(math.floor(time.time()))
    meter = PushingMeter(started_at)

    def period(moment_s: float) -> int:
        return index_at(moment_s, origin_s, PERIOD_S)

    async def until_share(share: float) -> None:
        """Until so much of a period has gone by."""
        now_s = time.time()
        await trio.sleep(origin_s + (math.floor((now_s - origin_s) / PERIOD_S - share) + 1 + share) * PERIOD_S - now_s)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, meter.take, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with gateway(tmp_path, f"sml+tcp://127.0.0.1:{port}?push=1&interval_s=60", PERIOD_S, origin_s) as child:
            await until(lambda: meter.is_heard)
            while True:  # until this process itself was not late; on a busy machine it may be
                for value in range(3):
                    await until_share(0.2 + 0.1 * value)
                    await meter.says(value)
                await until_share(0.55)
                child.send_signal(signal.SIGSTOP)
                stopped = period(time.time())
                said_s = await meter.says(STOPPED)
                await until_share(0.15)
                child.send_signal(signal.SIGCONT)
                resumed = period(time.time())
                await until_share(0.3)
                answered = period(await meter.says(RESUMED))
                await trio.sleep(0.5)
                if period(said_s + 1.5) == stopped == resumed - 1 and answered == resumed:
                    break
        nursery.cancel_scope.cancel()
    found = {each.value: each for entry in logged(tmp_path) for each in entry.readings if each.obis == IMPORT}
    assert found[STOPPED].registration_s == (900_000 + 900 * stopped if has_clock else None)
    assert found[RESUMED].registration_s == 900_000 + 900 * resumed


@pytest.mark.parametrize("moment", ["logged", "contributing", "contributed"])
async def test_killed_between_log_and_cursor_it_contributes_each_reading_once(tmp_path: Path, moment: str) -> None:
    period_s, origin_s = 1.5, float(math.floor(time.time()))

    def registers(now: datetime) -> list[Register]:
        return [(IMPORT, 1000 + 7 * index_at(now.timestamp(), origin_s, period_s), -1, 30)]

    def contributed() -> list[tuple[int, int]]:
        path = tmp_path / "contributed.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(round_), int(energy)) for round_, energy in (line.split() for line in lines)]

    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve, [SmlMeter("1STK0000000001", registers)], partial(datetime.now, UTC)))
        url = f"sml+tcp://127.0.0.1:{port}"
        with gateway(tmp_path, url, period_s, origin_s, moment) as child:
            await until(lambda: child.poll() is not None)
            assert child.returncode == -signal.SIGKILL
        before = contributed()
        died_in = (logged(tmp_path)[-1].readings[0].registration_s or 0) // 900 - 1000
        with gateway(tmp_path, url, period_s, origin_s):
            await until(lambda: len(contributed()) >= len(before) + 4)
        nursery.cancel_scope.cancel()
    rounds = [round_ for round_, _ in contributed()]
    assert rounds == sorted(set(rounds))  # none twice
    assert died_in in rounds  # what was logged and not contributed was read from the log
    values = {
        (each.registration_s or 0) // 900 - 1000: each.value or 0
        for entry in logged(tmp_path)
        for each in entry.readings
        if each.obis == IMPORT and each.registration_s is not None
    }
    account = EnergyAccount(values[min(values)], values[min(values)])
    for round_, energy in contributed():  # of rounds that were missed on a busy machine it comes in parts
        expected, account = contribute(account, values[round_], 900 * (1000 + round_), length_s=900)
        assert energy == expected
