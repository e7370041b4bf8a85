"""What a scenario's events do to the processes, for real: signals, cut namespaces, deleted data."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import trio

from loadtest.account import accounts_of
from loadtest.demo.processes import DemoError
from loadtest.scenarios.books import Books
from loadtest.scenarios.http_get import get
from loadtest.scenarios.installation import Installation, Process
from loadtest.scenarios.scenario import ACTIVE, COORDINATORS, EVERYBODY, Action, Event

_QUOTA_PERIOD_S = 0.1  # as the kernel's processor quotas have it
_PLACED_POLL_S = 0.3
_ROLL_TIMEOUT_S = 600.0
_RINGS_MAX = 1_000


@dataclass(slots=True)
class Fault:
    """An event that was carried out; times are Unix seconds, `ended_s` None while it lasts."""

    event: Event
    processes: tuple[str, ...]
    gateways: frozenset[str]
    began_s: float
    ended_s: float | None = None


@dataclass(slots=True)
class Faults:
    """Carries out events; `lost` are the first registers of accounts whose stores were deleted, by gateway."""

    installation: Installation
    books: Books
    period_s: float
    say: Callable[[str], None]
    look: Callable[[], None]
    done: list[Fault] = field(default_factory=list)
    lost: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    async def carry_out(self, event: Event) -> None:
        """Do it, and undo it in its time."""
        processes = await self._targets(event)
        if not processes:
            self.say(f"round {event.round}: {event.action} meets no process")
            return
        gateways = self.installation.members(processes)
        fault = Fault(event, tuple(each.name for each in processes), gateways, time.time())
        self.done.append(fault)
        self.say(f"round {event.round}: {event.action}, {_told(processes, len(gateways))}")
        self.look()  # what a process took until now
        match event.action:
            case Action.KILL | Action.KILL_HEADS:
                await self._each(processes, self.installation.kill)
                await self._start_again(processes, event)
            case Action.HANG:
                await self._each(processes, self.installation.hang)
                await self._start_again(processes, event)
            case Action.TERMINATE:
                await self.installation.stop(processes)
                await self._start_again(processes, event)
            case Action.ROLL:
                for process in processes:
                    await self._roll(process)
            case Action.CUT:
                await self.installation.site.cut(fault.processes, 1)
                await trio.sleep((event.rounds or 1.0) * self.period_s)
                await self.installation.site.cut(fault.processes, 0)
            case Action.STARVE:
                with trio.move_on_after((event.rounds or 1.0) * self.period_s):
                    await starve(processes, event.share)
            case Action.LOSE_VOLUME:
                await self._each(processes, self.installation.kill)
                await trio.to_thread.run_sync(self._lose, processes)
                await self._start_again(processes, event)
            case Action.BACK_UP:
                for process in processes:
                    await self._run(process, "backup", str(self._backup(process)))
            case Action.RESTORE:
                await self._restore(processes, event)
        fault.ended_s = time.time()

    async def _targets(self, event: Event) -> list[Process]:
        if event.target == COORDINATORS:
            return self.installation.all_coordinators
        if event.target == ACTIVE:
            return await self.installation.active()
        nodes = [
            each
            for each in self.installation.nodes
            if event.target == EVERYBODY or (each.node is not None and each.node.group == event.target)
        ]
        if event.action is not Action.KILL_HEADS:
            return nodes
        heads = await self._heads()
        return [each for each in nodes if self.installation.members([each]) & heads]

    async def _heads(self) -> frozenset[str]:
        """The gateways that head a ring just now, as the coordinators tell everybody."""
        heads = set()
        for process in await self.installation.active():
            answer = await get(f"{process.url}/api/v1/rings?limit={_RINGS_MAX}", self.installation.site.hub)
            if answer is None or answer[0] != HTTPStatus.OK:
                raise DemoError(f"{process.name} does not tell its rings; its log says why")
            heads |= {each["head"]["gateway"] for each in json.loads(answer[1])["items"] if each["head"] is not None}
        return frozenset(heads)

    async def _each(self, processes: Sequence[Process], do: Callable[[Process], object]) -> None:
        async with trio.open_nursery() as nursery:
            for process in processes:
                nursery.start_soon(do, process)  # type: ignore[arg-type]

    async def _start_again(self, processes: Sequence[Process], event: Event) -> None:
        if event.rounds is not None:
            await trio.sleep(event.rounds * self.period_s)
        for process in processes:
            await self.installation.start_process(process)

    async def _roll(self, process: Process) -> None:
        await self.installation.stop([process])
        await self.installation.start_process(process)
        path = "/readyz" if process.node is None else "/readyz/placed"
        with trio.move_on_after(_ROLL_TIMEOUT_S):
            while not await self.installation.is_ready(process, path):
                await trio.sleep(_PLACED_POLL_S)
            return
        raise DemoError(f"{process.name} was not ready again within {_ROLL_TIMEOUT_S:g} s; its log says why")

    def _lose(self, processes: Sequence[Process]) -> None:
        for process in processes:
            for gateway, account in accounts_of(process.data).items():
                self.lost.setdefault(gateway, []).append(account.first)
            shutil.rmtree(process.data)
            self.installation.give_new_keys(process)

    async def _restore(self, processes: Sequence[Process], event: Event) -> None:
        await self._each(processes, self.installation.kill)
        await trio.to_thread.run_sync(self.books.read)  # what the restore takes out of the database
        for process in processes:
            backup = self._backup(process)
            if not backup.exists():
                raise DemoError(f"round {event.round}: {event.action} of {process.name}: back it up before")
            shutil.rmtree(process.data)
            await self._run(process, "restore", str(backup))
        await self._start_again(processes, event)

    def _backup(self, process: Process) -> Path:
        return self.installation.work / f"{process.name}-backup"

    async def _run(self, process: Process, *arguments: str) -> None:
        done = await trio.run_process(
            self.installation.command(process, *arguments), capture_stdout=True, capture_stderr=True, check=False,
            stdin=b"",
        )  # fmt: skip
        if done.returncode:
            said = (done.stdout + done.stderr).decode("utf-8", "replace")[-2000:]
            raise DemoError(f"stromkreis {' '.join(arguments)} of {process.name} failed: {said}")


async def starve(processes: Sequence[Process], share: float) -> None:
    """Let processes run for `share` of the time only, until cancelled; then they run on."""

    def send(what: signal.Signals) -> None:
        for each in processes:
            if each.child is not None and each.is_up:
                each.child.process.send_signal(what)

    try:
        while True:
            send(signal.SIGSTOP)
            await trio.sleep(_QUOTA_PERIOD_S * (1 - share))
            send(signal.SIGCONT)
            await trio.sleep(_QUOTA_PERIOD_S * share)
    finally:
        send(signal.SIGCONT)


def _told(processes: Sequence[Process], gateways: int) -> str:
    names = ", ".join(each.name for each in processes[:4]) + (", ..." if len(processes) > 4 else "")
    return f"{names} ({gateways:,} gateways)" if gateways else names
