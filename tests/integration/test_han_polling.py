"""
Clients that poll the gateway every second, on real sockets and in real time: sessions, files and memory stay flat.

`make acceptance-polling` runs it for an hour, and 72 hours on an injected clock (`test_han_login.py`); CI has a taste.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from node.han.digest import SESSIONS_MAX
from tests.integration.han_home import ANNA, BEN, METERS, Home

ROOT = Path(__file__).parents[2]
DURATION_S = float(os.environ.get("STROMKREIS_POLLING_S", "15"))
LOOK_S = min(10.0, DURATION_S / 10)
GROWTH_MAX = 8 << 20 if DURATION_S >= 600 else 32 << 20  # what a process takes in its first seconds is no leak
"""Bytes of memory between the median of the second tenth and that of the last: an allocator's noise."""
CONNECTIONS = 3
"""One for each poller."""


@dataclass
class Polls:
    """Answers by status, and how long they took (s)."""

    statuses: dict[int, int] = field(default_factory=dict)
    took_s: list[float] = field(default_factory=list)

    async def every_second(self, ask: Callable[[], Any]) -> None:
        begin_s = trio.current_time()
        for number in range(int(DURATION_S)):
            await trio.sleep_until(begin_s + number)
            asked_s = trio.current_time()
            status = (await ask()).status_code
            self.took_s.append(trio.current_time() - asked_s)
            self.statuses[status] = self.statuses.get(status, 0) + 1


async def test_polls_every_second_keep_sessions_files_and_memory_flat(tmp_path: Path) -> None:
    """One client keeps its connection and session, one makes both anew each time, one asks for a load profile."""
    states: list[dict[str, int]] = []
    polls = [Polls() for _ in range(CONNECTIONS)]
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "tests.integration.polled_home", str(tmp_path), str(LOOK_S)]
        process = await nursery.start(
            lambda **more: trio.run_process(command, stdout=subprocess.PIPE, cwd=ROOT, check=False, **more)
        )
        lines = Lines(process.stdout)
        shown: Any = Address((await lines.next())["address"])
        nursery.start_soon(lines.collect, states)
        path = f"/smgw/con/v1/rts/Reading/{METERS[0]}"
        async with Home.client(shown, ANNA) as steady, Home.client(shown, BEN) as profile:

            async def anew() -> httpx.Response:
                async with Home.client(shown, ANNA) as client:
                    return await client.get(path)

            async with trio.open_nursery() as polling:
                polling.start_soon(polls[0].every_second, lambda: steady.get(path))
                polling.start_soon(polls[1].every_second, anew)
                polling.start_soon(
                    polls[2].every_second, lambda: profile.get(f"/smgw/con/v1/exp/Reading/{METERS[1]}?q.count=96")
                )
        process.terminate()
    for each in polls:
        assert each.statuses == {200: int(DURATION_S)}
    report(polls, states)
    tenth = max(1, len(states) // 10)
    early, late = states[tenth : 2 * tenth], states[-tenth:]
    assert max(each["sessions"] for each in states) <= 2 * SESSIONS_MAX
    assert median(late, "files") <= median(early, "files") + 2 * CONNECTIONS
    assert median(late, "bytes") <= median(early, "bytes") + GROWTH_MAX


@dataclass
class Address:
    """Where `Home.client` connects."""

    address: str


class Lines:
    """JSON lines of a process."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._waiting = b""

    async def next(self) -> dict[str, Any]:
        while b"\n" not in self._waiting:
            said = await self._stream.receive_some()
            if not said:
                raise EOFError
            self._waiting += said
        line, _, self._waiting = self._waiting.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    async def collect(self, into: list[dict[str, int]]) -> None:
        try:
            while True:
                into.append(await self.next())
        except EOFError:
            return


def median(states: list[dict[str, int]], name: str) -> int:
    return sorted(each[name] for each in states)[len(states) // 2]


def report(polls: list[Polls], states: list[dict[str, int]]) -> None:
    for name, each in zip(("kept", "anew", "load profile"), polls, strict=True):
        took = sorted(each.took_s)
        percentiles = ", ".join(f"p{part} {took[len(took) * part // 100] * 1000:.0f} ms" for part in (50, 95, 99))
        print(f"{name}: {len(took)} answers, {percentiles}, longest {took[-1] * 1000:.0f} ms")
    for name in ("sessions", "files", "bytes"):
        print(f"{name}: first {states[0][name]}, largest {max(each[name] for each in states)}, last {states[-1][name]}")
