"""
What reading many SML meters costs one process: N meters, each on a TCP connection of its own, each asked once a second.

    python -m loadtest.bench.sml_meters [meters] [seconds]

The simulated meters run in a process of their own, so the CPU time measured is the reader's alone.  `cpu_share` is CPU
seconds per second on one core; `late_s` is how long an answer took from the moment its request was due.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import trio

from loadtest.meters.sml import Register, SmlMeter
from loadtest.meters.sml_server import serve
from node.lmn.sml.client import SmlClient
from node.lmn.sml.driver import SmlLink
from node.lmn.sml.readings import server_id
from protocol.metering.obis import Obis
from protocol.metering.units import WATT, WATT_HOUR

_TIMEOUT_S = 10.0


def _now() -> datetime:
    return datetime.now(UTC)


def _device(number: int) -> str:
    return f"1STK00{number:08d}"


def _registers(now: datetime) -> list[Register]:
    energy = int(now.timestamp())
    return [
        (Obis(1, 0, 1, 8, 0, 255), energy, -1, WATT_HOUR),
        (Obis(1, 0, 2, 8, 0, 255), energy // 2, -1, WATT_HOUR),
        (Obis(1, 0, 16, 7, 0, 255), 4321, -1, WATT),
    ]


async def _serve(count: int) -> None:
    meters = [SmlMeter(_device(number), _registers) for number in range(count)]
    async with trio.open_nursery() as nursery:
        print(await nursery.start(partial(serve, meters, _now)), flush=True)


class _Run:
    def __init__(self, count: int, seconds: int) -> None:
        self.count = count
        self.seconds = seconds
        self.readings_count = 0
        self.late_s: list[float] = []
        self.began = trio.Event()
        self.begin = 0.0

    async def gateway(self, number: int, port: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            link = SmlLink(stream, _now)
            client = SmlClient(b"bench", server_id=server_id(_device(number)))
            task_status.started()
            await self.began.wait()
            for second in range(self.seconds):
                due = self.begin + second + number / self.count
                await trio.sleep_until(due)
                found = await link.ask_readings(client.get_list(), _TIMEOUT_S)
                self.readings_count += len(found)
                self.late_s.append(trio.current_time() - due)

    async def all(self, port: int) -> float:
        """CPU seconds from the first request to the last answer; the connections are made before."""
        async with trio.open_nursery() as nursery:
            for number in range(self.count):
                await nursery.start(self.gateway, number, port)
            cpu_s = process_time()
            self.begin = trio.current_time()
            self.began.set()
        return process_time() - cpu_s


def run(count: int, seconds: int) -> dict[str, Any]:
    """Read `count` meters for `seconds` and say what it cost."""
    command = [sys.executable, "-m", "loadtest.bench.sml_meters", "serve", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - ourselves
        try:
            port = int(server.stdout.readline()) if server.stdout is not None else 0
            bench = _Run(count, seconds)
            before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            cpu_s = trio.run(bench.all, port)
            after_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        finally:
            server.terminate()
    return {
        "meters": count,
        "seconds": seconds,
        "readings": bench.readings_count,
        "cpu_share": round(cpu_s / seconds, 3),
        "cpu_us_per_request": round(cpu_s / (seconds * count) * 1e6),
        "late_s_p50": round(median(bench.late_s), 4),
        "late_s_max": round(max(bench.late_s), 3),
        "memory_kib_per_meter": round((after_kib - before_kib) / count, 1),
    }


def main() -> None:
    """Print the result as JSON, or serve the meters of a run."""
    if sys.argv[1:2] == ["serve"]:
        trio.run(_serve, int(sys.argv[2]))
        return
    count, seconds = (int(text) for text in (sys.argv[1:] + ["1000", "10"][len(sys.argv) - 1 :])[:2])
    print(json.dumps(run(count, seconds), indent=2))


if __name__ == "__main__":
    main()
