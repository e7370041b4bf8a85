"""
10,000 gateways in rings of 64, every one with its own CURVE connections: one full round with 5 % churn.

    python -m loadtest.bench.fleet [--gateways 256 1000 4000 10000] [--workers 3] [--share S] [--period S]

Worker processes run the gateways as a node does (a node's 20,000 file descriptors are why there are several), a process
of its own keeps all round ledgers (`fleet_processes`); this one tells them what comes next and waits, aloud, for what
they report.  Every gateway has two connections of its own: to its ring's head and to the round ledgers.

First everybody is set up and linked.  How long the links took says how fast the machine is today, and from that come
the waits: `--share`, how long a head waits for shares, and `--period`, the time between rounds.  Then rounds are
played until one has had everybody in it; in the next one 5 % crash just before it opens (their connections close,
nobody tells anybody); in the one after it, which is measured, another 5 % crash and the former are back, restarted
from the store.

The measured round's time is by the clock, from its opening to the last ring's total.  Its CPU time is that of all
processes from the reading of the meters (half of a gateway's work is done before the opening) to a second after the
last total.
Memory is what the resident sets of all processes, both ends of each link, have grown by after that round, per gateway.
libzmq's queues touch their memory as messages pass, up to some 50 KB an end: a ring link of an epoch of 96 rounds grows
by about half of that.  Every total is held against the registers of its roster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from loadtest.bench.fleet_processes import crashed, keep, sizes, work
from loadtest.bench.gateways import wait_until
from loadtest.bench.measure import Row, Spread, Target
from loadtest.bench.table import machine, now, write_json

_SETTLE_S = 1.0
_CRASH_S = 0.25  # before a round opens; whom a head cannot reach any more it hardly waits for
_PATIENCE_S = 600.0  # for anything; what is waited for is on the screen
_MEASURED_MAX = 3  # rounds with churn until one was opened by every ring; the report says which it was
_WHOLE_ROUND_MAX = 6  # rounds until everybody is in, or the machine is too busy to say anything


class Child:
    """A process of the fleet, and what it has said."""

    def __init__(self, process: trio.Process, hear: Callable[[dict[str, Any]], None]) -> None:
        self._process = process
        self._hear = hear

    async def listen(self) -> None:
        """Pass on what it says.  Raises RuntimeError when it dies."""
        rest = b""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        async for chunk in self._process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))
        raise RuntimeError("a process of the fleet has died; what it said is above")

    async def tell(self, **command: Any) -> None:
        """Give it a command."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        await self._process.stdin.send_all(json.dumps(command).encode() + b"\n")


class Fleet:
    """All processes of one run: counts what they report, and wakes whoever waits for it."""

    def __init__(self, options: argparse.Namespace, gateways: int) -> None:
        self.gateways = gateways
        self.rings = len(sizes(gateways))
        self.endpoint = ""
        self.set_up = 0
        self.linked = 0
        self.heads = 0
        self.revived: list[int] = []
        self.costs: list[dict[str, float]] = []
        self.rounds: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        self.workers: list[Child] = []
        self.ledgers: Child
        self._options = options
        self._began_s = time.monotonic()
        self._changed = trio.Event()

    async def start(self, stack: AsyncExitStack, nursery: trio.Nursery) -> None:
        """Start the processes; they end with the stack."""
        for part in ("--ledgers", *(f"--worker={number}" for number in range(self._options.workers))):
            command = [
                sys.executable, "-m", "loadtest.bench.fleet", f"--gateways={self.gateways}",
                f"--workers={self._options.workers}", part,
            ]  # fmt: skip
            process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(process.kill)
            child = Child(process, self._hear)
            nursery.start_soon(child.listen)
            if part == "--ledgers":
                self.ledgers = child
            else:
                self.workers.append(child)

    def _hear(self, said: dict[str, Any]) -> None:
        match said:
            case {"endpoint": endpoint}:
                self.endpoint = endpoint
            case {"gateways": count}:
                self.set_up += count
            case {"hello": _}:
                self.linked += 1
            case {"head": _}:
                self.heads += 1
            case {"revived": round_}:
                self.revived.append(round_)
            case {"costs": costs}:
                self.costs.append(costs)
            case {"round": round_}:
                self.rounds[round_].append(said)
        self._changed.set()
        self._changed = trio.Event()

    async def tell(self, **command: Any) -> None:
        """Command all processes of gateways."""
        for each in self.workers:
            await each.tell(**command)

    async def until(self, what: str, count: Callable[[], int], due: int) -> None:
        """Wait for a count, and say so every other second.  Raises RuntimeError when nothing moves for too long."""
        told_s, before = float("-inf"), -1
        with trio.move_on_after(_PATIENCE_S):
            while True:
                here = count()
                if time.monotonic() - told_s > 2.0 or here >= due:
                    if here != before:
                        self.log(f"{what}: {here:,} of {due:,}")
                    told_s, before = time.monotonic(), here
                if here >= due:
                    return
                with trio.move_on_after(0.5):
                    await self._changed.wait()
        raise RuntimeError(f"waited {_PATIENCE_S:g} s in vain for {what}: {count():,} of {due:,}")

    def log(self, text: str) -> None:
        """Tell whoever watches."""
        print(f"[{time.monotonic() - self._began_s:6.1f} s] {text}", file=sys.stderr, flush=True)

    async def all_costs(self) -> list[dict[str, float]]:
        """What every process has used by now, the round ledgers' first or anywhere."""
        self.costs.clear()
        for each in (self.ledgers, *self.workers):
            await each.tell(costs=True)
        await self.until("processes have reported their costs", lambda: len(self.costs), len(self.workers) + 1)
        return list(self.costs)

    async def play(self, round_: int, opens_s: float, *, churn: bool, back: int | None) -> list[dict[str, Any]]:
        """One round; the gateways that crashed in round `back` come back before it."""
        if back is not None:
            await self.tell(revive=back)
            await self.until(
                "processes have restarted their gateways", lambda: self.revived.count(back), len(self.workers)
            )
        await self.tell(read=round_)
        if churn:
            await self.tell(crash=round_, at_s=opens_s - _CRASH_S)
        await wait_until(time.time, opens_s)
        await self.until(f"round {round_}, rings", lambda: len(self.rounds[round_]), self.rings)
        ended = self.rounds[round_]
        opened = [each for each in ended if each["opened"]]
        reasons = {each["reason"] for each in ended} - {""}
        self.log(
            f"round {round_}: {len(opened)} of {self.rings} rings opened, {sum(each['included'] for each in opened):,} "
            f"gateways in the totals, the last after {max(each['took_s'] for each in ended):.2f} s"
            f"{'; '.join(['', *sorted(reasons)])}"
        )
        return opened


async def measure(options: argparse.Namespace, gateways: int) -> list[Row]:
    """One fleet from its set-up to its rows."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        fleet = Fleet(options, gateways)
        await fleet.start(stack, nursery)
        await fleet.until("gateways have agreed on keys and dealt", lambda: fleet.set_up, gateways)
        await fleet.until("round ledgers listen", lambda: int(bool(fleet.endpoint)), 1)
        began_s = time.monotonic()
        await fleet.tell(endpoint=fleet.endpoint)
        await fleet.until("gateways are linked to the round ledgers", lambda: fleet.linked, gateways)
        links_s = time.monotonic() - began_s
        share_s = options.share or 0.5 + links_s
        period_s = options.period or 4 + 2 * links_s + 2 * share_s
        opens_s = time.time() + 4 + 2 * links_s
        when = {"first_open_s": opens_s, "period_s": period_s, "share_s": share_s}
        fleet.log(f"links took {links_s:.1f} s: heads wait {share_s:.1f} s for shares, a round every {period_s:.1f} s")
        await fleet.tell(timing=when)
        await fleet.ledgers.tell(timing=when)
        await fleet.until("heads can be reached", lambda: fleet.heads, fleet.rings)
        for round_ in range(_WHOLE_ROUND_MAX):
            opened = await fleet.play(round_, opens_s + round_ * period_s, churn=False, back=None)
            if sum(each["included"] for each in opened) == gateways:
                break
        else:
            raise RuntimeError(
                f"in {_WHOLE_ROUND_MAX} rounds nobody crashed in, never was everybody there: too much load?"
            )
        round_ += 1
        await fleet.play(round_, opens_s + round_ * period_s, churn=True, back=None)
        lost = 0
        while True:
            before = await fleet.all_costs()
            round_ += 1
            opened = await fleet.play(round_, opens_s + round_ * period_s, churn=True, back=round_ - 1)
            await trio.sleep(_SETTLE_S)
            after = await fleet.all_costs()
            if len(opened) == fleet.rings or lost == _MEASURED_MAX - 1:
                break
            lost += 1
        nursery.cancel_scope.cancel()
    if len(opened) < fleet.rings:
        raise RuntimeError(f"in {_MEASURED_MAX} rounds with churn, rings did not open: too much load? see --share")
    total_cpu_s = sum(each["cpu_s"] for each in after) - sum(each["cpu_s"] for each in before)
    return rows(options, fleet, opened, round_, lost, total_cpu_s, sum(each["kb"] for each in after))


def rows(
    options: argparse.Namespace, fleet: Fleet, opened: list[dict[str, Any]], round_: int, lost: int,
    cpu_s: float, memory_kb: float,
) -> list[Row]:  # fmt: skip
    """A fleet's figures; the plan's targets are for 10,000."""
    gateways, is_whole = fleet.gateways, fleet.gateways >= 10_000
    took_s = [each["took_s"] for each in opened]
    gone = sum(len(crashed(ring, n, round_)) for ring, n in enumerate(sizes(gateways)))
    included = sum(each["included"] for each in opened)
    late = gateways - gone - included
    return [
        Row(
            f"{gateways:,} gateways, a full round with 5 % churn, until the last total", "s", Spread.of([max(took_s)]),
            target=Target("ours", 10, at_least=False) if is_whole else None, clock="wall",
            note=f"{fleet.rings} rings, {options.workers} processes of gateways and one of round ledgers; {gone} "
            f"gateways crash, {included:,} in the totals"
            + (f", {late} too late for them" if late > 0 else "")
            + (f"; {lost} rounds before it were not opened by every ring" if lost else ""),
        ),
        Row("  a ring's time to its total", "s", Spread.of(took_s), clock="wall"),
        Row(
            "  CPU a gateway for the round", "µs", Spread.of([1e6 * cpu_s / gateways]),
            note=f"all processes, from the reading to the result; {cpu_s:.2f} s on {os.cpu_count()} cores",
        ),
        Row(
            "  memory a gateway", "KB", Spread.of([memory_kb / gateways]), clock="",
            target=Target("ours", 200, at_least=False) if is_whole else None,
            note="all processes, both ends of each link",
        ),
    ]  # fmt: skip


def main() -> int:
    """Run the fleets, or be one of a fleet's processes."""
    parser = argparse.ArgumentParser(description="10,000 gateways on one machine.")
    parser.add_argument(
        "--gateways", type=int, nargs="+", default=[256, 1000, 4000, 10_000], help="one fleet after another"
    )
    parser.add_argument("--workers", type=int, default=3, help="processes of gateways")
    parser.add_argument(
        "--share", type=float, default=0.0, help="s that a head waits for shares; 0: by the machine's speed"
    )
    parser.add_argument("--period", type=float, default=0.0, help="s between rounds; 0: by the machine's speed")
    parser.add_argument("--ledgers", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ledgers or options.worker is not None:
        options.gateways = options.gateways[0]
        trio.run(keep if options.ledgers else work, options)
        return 0
    about = machine() | {"date": now(), "load_start": os.getloadavg()[0], "quick": False}
    measured = [row for gateways in options.gateways for row in trio.run(measure, options, gateways)]
    write_json(
        Path("out/bench/fleet.json"), "A fleet on one machine", measured, about | {"load_end": os.getloadavg()[0]}
    )
    for row in measured:
        verdict = {True: "  met", False: "  MISSED", None: ""}[row.met]
        print(f"{row.what:76} {row.ours.median:10.4g} {row.unit}{verdict}  {row.note}")
    return int(any(row.met is False for row in measured))


if __name__ == "__main__":
    sys.exit(main())
