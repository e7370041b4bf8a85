"""A device's program as the scenario sees it: started, listened to line by line, told things, ended with a block."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from loadtest.demo.processes import DemoError

Event = dict[str, Any]
_CHUNK_SIZE = 4_096
_STOP_S = 5.0


class Program:
    """One that runs; `events` are all that it has told so far."""

    def __init__(self, name: str, process: trio.Process, on_event: Callable[[Event], None]) -> None:
        self.name = name
        self.events: list[Event] = []
        self._process = process
        self._on_event = on_event
        self._told = trio.Condition()

    async def send(self, **what: object) -> None:
        """A line on its standard input."""
        if self._process.stdin is None:
            raise RuntimeError(f"{self.name} has no standard input")
        await self._process.stdin.send_all(json.dumps(what).encode() + b"\n")

    async def first(self, event: str, timeout_s: float = 60.0) -> Event:
        """The first event of a name.  Raises DemoError where it does not come."""
        with trio.move_on_after(timeout_s):
            async with self._told:
                while not (found := [each for each in self.events if each["event"] == event]):
                    await self._told.wait()
                return found[0]
        raise DemoError(f"{self.name} did not tell {event!r} within {timeout_s:g} s")

    async def wait(self, count: int) -> None:
        """Return when there are more than `count` events."""
        async with self._told:
            while len(self.events) <= count:
                await self._told.wait()

    async def listen(self) -> None:
        """Take what it tells until its output ends."""
        rest = b""
        if self._process.stdout is None:
            return
        async for data in self._process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                event: Event = json.loads(line)
                self.events.append(event)
                self._on_event(event)
            async with self._told:
                self._told.notify_all()


@asynccontextmanager
async def program(
    module: str, *arguments: str, log_dir: Path, on_event: Callable[[Event], None] = lambda _event: None
) -> AsyncIterator[Program]:
    """`python -m loadtest.ems.devices.MODULE ARGUMENTS`, ended with the block; its errors go to LOG_DIR/MODULE.log."""
    log_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"loadtest.ems.devices.{module}", *arguments]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (log_dir / f"{module}.log").open("ab") as errors:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environ, start_new_session=True
        )
    made = Program(module, process, on_event)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.listen)
            yield made
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            with trio.move_on_after(_STOP_S):
                await process.wait()
            if process.poll() is None:
                process.kill()
                await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
