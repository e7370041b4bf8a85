"""
The demo's child processes: started with a log each, waited for, killed on purpose, and never left behind.

Three things keep orphans from living on.  Leaving `children` stops them all, whatever the reason, and kills those that
do not stop.  Each child holds one end of a pipe as its standard input and stops when the other end is gone, so even a
demo that is killed takes them along.  They run in sessions of their own, so that Ctrl-C reaches the demo only, which
then stops them in order (a coordinator that goes first leaves gateways asking).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio

from protocol.errors import StromkreisError

PROGRAM = (sys.executable, "-m", "stromkreis")
_TAIL_LINES = 12
_POLL_S = 0.1


class DemoError(StromkreisError):
    """A run of processes could not go on; the text names the process, its log and the log's last lines."""


@dataclass(slots=True)
class Child:
    """One process; `ends` is set before it is stopped on purpose."""

    name: str
    log: Path
    ready_url: str | None
    process: trio.Process
    ends: bool = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def failure(self, what: str) -> DemoError:
        """What went wrong, with the end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        tail = "\n".join(f"  | {line}" for line in lines) or "  | (nothing)"
        return DemoError(f"{self.name} {what}; the end of its log {self.log}:\n{tail}")


@dataclass(slots=True)
class Usage:
    """CPU time and proportional memory of a process; both 0 where /proc does not tell."""

    cpu_s: float = 0.0
    memory_kb: int = 0


@asynccontextmanager
async def children(log_dir: Path, *, stop_timeout_s: float = 10.0) -> AsyncIterator[Children]:
    """
    Processes that end with this context.

    `stop_timeout_s` is how long they have to stop by themselves; raising it helps a slow disk, and delays Ctrl-C.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    async with trio.open_nursery() as nursery:
        group = Children(log_dir, stop_timeout_s, nursery)
        try:
            yield group
        finally:
            await group.stop(group.started)


@dataclass(slots=True)
class Children:
    """The processes of one run; made by `children`."""

    log_dir: Path
    stop_timeout_s: float
    _nursery: trio.Nursery
    started: list[Child] = field(default_factory=list)

    async def start(
        self, name: str, arguments: Sequence[str], *, ready_url: str | None = None, program: Sequence[str] = PROGRAM
    ) -> Child:
        """Run the program with ARGUMENTS; its end raises DemoError here unless it was wanted."""
        log = self.log_dir / f"{name}.log"
        environ = {**os.environ, "STROMKREIS_LIFELINE": "stdin", "PYTHONUNBUFFERED": "1"}
        with log.open("ab") as output:
            process = await trio.lowlevel.open_process(
                [*program, *arguments],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environ, start_new_session=True,
            )  # fmt: skip
        child = Child(name, log, ready_url, process)
        self.started.append(child)
        self._nursery.start_soon(self._watch, child)
        return child

    async def _watch(self, child: Child) -> None:
        code = await child.process.wait()
        if not child.ends:
            raise child.failure(f"ended by itself with {_told(code)}")

    async def until_ready(self, children: Sequence[Child], timeout_s: float) -> None:
        """Wait until the `/readyz` of each says 200.  Raises DemoError at the deadline."""
        async with httpx.AsyncClient(timeout=5.0, verify=False) as client:  # noqa: S501 - our own child on loopback
            for child in children:
                with trio.move_on_after(timeout_s):
                    while not await _is_ready(client, child.ready_url):
                        await trio.sleep(_POLL_S)
                    continue
                raise child.failure(f"was not ready within {timeout_s:g} s")

    async def kill(self, child: Child) -> None:
        """SIGKILL, and wait for the end: no goodbye, no flush."""
        child.ends = True
        child.process.kill()
        await child.process.wait()

    async def stop(self, children: Sequence[Child]) -> None:
        """SIGTERM to all of them; SIGKILL to those that are still there at the deadline.  Not to be cancelled."""
        living = [child for child in children if child.process.poll() is None]
        for child in living:
            child.ends = True
            child.process.send_signal(signal.SIGTERM)
        with trio.CancelScope(shield=True):
            with trio.move_on_after(self.stop_timeout_s):
                for child in living:
                    await child.process.wait()
            for child in living:
                if child.process.poll() is None:
                    child.process.kill()
                    await child.process.wait()


async def _is_ready(client: httpx.AsyncClient, url: str | None) -> bool:
    if url is None:
        return True
    try:
        return (await client.get(url)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _told(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def usage(pid: int) -> Usage:
    """What a process has used so far (Linux: /proc/PID/stat and smaps_rollup; elsewhere, or when gone, zeros)."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return Usage()
    memory_kb = next((int(line.split()[1]) for line in rollup if line.startswith("Pss:")), 0)
    return Usage(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), memory_kb)


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
