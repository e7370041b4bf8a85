"""
10,000 gateways in rings of 64, every one with its own CURVE connections: one full round with 5 % churn.

    python -m loadtest.bench.fleet [--gateways 10000] [--workers 3] [--period 30] [--share 6]

Worker processes run the gateways as a node does (see `gateways`; a node's 20,000 file descriptors are why there are
several), a process of its own keeps all round books.  Every gateway has two connections of its own: to its ring's head
and to the round books.  One round goes before, which everybody plays; then, in the measured one, 5 % crash as it opens
(their connections close, nobody tells anybody) and the 5 % that crashed as the first one opened are back, restarted
from the store.  The round's time is by the clock, from its opening to the last ring's total: it contains the wait for
the shares of those who will never send any, `--share` seconds by configuration, but where a ring has lost nobody.

Memory is what the workers' and the round books' resident sets grew by, per gateway, after the last round.  Every total
is held against the registers of its roster.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from loadtest.bench.gateways import Ledger, Process, Ring, bench_schema, curve_pair, registers, wait_until
from loadtest.bench.link import cpu_s, resident_kb
from loadtest.bench.measure import Row, Spread, Target
from loadtest.bench.table import machine, now, write_json
from node.aggregation.membership import Membership
from node.aggregation.surroundings import FromCoordinator
from node.metrics import NodeMetrics
from node.store import Store
from protocol import wire
from protocol.dcnet.book import Announce, BookInstruction, Record, RoundBook
from protocol.dcnet.rings import Timing
from protocol.dcnet.suite import StandardSuite, derive
from protocol.errors import RemoteProtocolError
from protocol.link import Connection, LinkContext, Listener

RING = 64
CHURN = 0.05
ROUNDS = 2
_SEED = bytes(32)
_BOOKS = curve_pair(derive(_SEED, "books"))
_AT_ONCE = 200  # handshakes that a worker starts together


def sizes(gateways: int) -> list[int]:
    """The rings' sizes: as few rings as hold everybody, sizes differing by at most one."""
    count = -(-gateways // RING)
    base, extra = divmod(gateways, count)
    return [base + (index < extra) for index in range(count)]


def crashed(ring: int, n: int, round_: int) -> frozenset[int]:
    """Who crashes as a round opens: 5 % of the fleet, others in each round, never the head."""
    due = int((ring + 1) * n * CHURN) - int(ring * n * CHURN)
    return frozenset(1 + (7 * round_ + index * (n - 1) // due) % (n - 1) for index in range(due))


def timing(first_open_s: float, period_s: float, share_s: float) -> Timing:
    """Waits for a machine that computes thousands of gateways one after the other; only `share_s` is ever used up."""
    return Timing(
        first_open_s=first_open_s, period_s=period_s, gather_s=0.2 * period_s, share_s=share_s,
        confirm_s=0.25 * period_s, reveal_s=0.25 * period_s, silent_s=0.9 * period_s, void_s=0.95 * period_s,
    )  # fmt: skip


class Books:
    """The process of the round books: one listener, a book for each ring."""

    def __init__(self, rings: list[Ring], suite: StandardSuite, clock: Any) -> None:
        self._clock = clock
        self._rings = rings
        self._ledgers = [Ledger(ring.view.size) for ring in rings]
        self._books: list[RoundBook] = [ring.book(suite, _SEED, clock()) for ring in rings]
        self._places: dict[bytes, Hashable] = {
            pair.public: (ring.view.ring, position) for ring in rings for position, pair in enumerate(ring.curves)
        }
        self._heads: dict[int, wire.HeadAt] = {}
        self.took_s: list[list[float]] = [[] for _ in range(ROUNDS)]
        self.included = [0] * ROUNDS
        self.void: list[str] = []
        self._listener: Listener | None = None

    async def run(self, link: LinkContext, endpoint_to: Path) -> None:
        """Serve until every ring has ended every round."""
        async with link.listen("tcp://127.0.0.1:*", _BOOKS, self._places.get) as listener:
            self._listener = listener
            endpoint_to.write_text(listener.endpoint, encoding="ascii")
            while not all(len(book.ended) >= ROUNDS for book in self._books):
                due_s = min(book.next_timer_s() for book in self._books)
                with trio.move_on_after(max(0.0, due_s - self._clock())):
                    place, data = await listener.receive()
                    assert isinstance(place, tuple)  # noqa: S101 - the name that our own table gave
                    ring, position = place
                    self._hear(ring, position, wire.decode(data, wire.FROM_GATEWAY))
                    continue
                for number, book in enumerate(self._books):
                    self._carry_out(number, book.on_timer(self._clock()))

    def _hear(self, ring: int, position: int, message: wire.Message) -> None:
        match message:
            case wire.Hello():  # somebody came, or came back; with the first head the ring begins
                if (address := self._heads.get(ring)) is not None:
                    self._carry_out(ring, [Announce(position, address)])
                elif position == 0:
                    self._carry_out(ring, self._books[ring].start())
            case wire.HeadAt():
                self._heads[ring] = message
                self._carry_out(ring, [Announce(None, message)])
            case _:
                self._carry_out(ring, self._books[ring].receive(position, message, self._clock()))

    def _carry_out(self, ring: int, instructions: list[BookInstruction]) -> None:
        view = self._rings[ring].view
        for each in instructions:
            match each:
                case Record(ended):
                    self._ledgers[ring].check(ended)
                    if ended.outcome is wire.Outcome.OPENED:
                        self.took_s[ended.round].append(ended.ended_s - ended.opened_s)
                        self.included[ended.round] += ended.roster.bit_count()
                    else:
                        self.void.append(ended.reason)
                case Announce(position, message):
                    if isinstance(message, wire.Appoint):
                        position = view.head_of(message.term)
                    data = wire.encode(message)
                    for target in range(view.size) if position is None else [position]:
                        if self._listener is not None:
                            self._listener.send((ring, target), data)


class Worker:
    """A process of gateways: all of some rings."""

    def __init__(self, process: Process, endpoint: str) -> None:
        self._process = process
        self._endpoint = endpoint
        self._scopes: dict[tuple[int, int], trio.CancelScope] = {}
        self._members: dict[tuple[int, int], Membership] = {}

    async def gateway(self, ring: Ring, position: int, *, task_status: trio.TaskStatus[None]) -> None:
        """One gateway until it crashes: its connection to the round books and its membership."""
        key = ring.view.ring, position
        with trio.CancelScope() as scope:
            self._scopes[key] = scope
            link = self._process.link
            outbox_send, outbox = trio.open_memory_channel[wire.Message](64)
            async with link.connect(self._endpoint, _BOOKS.public, ring.curves[position]) as connection:
                member = await self._process.gateway(ring, position, outbox_send.send_nowait)
                self._members[key] = member
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(member.run)
                    nursery.start_soon(self._hear, connection, member)
                    await connection.send(wire.encode(wire.Hello(wire.VERSION, -1)))
                    task_status.started()
                    async for message in outbox:
                        await connection.send(wire.encode(message))

    async def _hear(self, connection: Connection, member: Membership) -> None:
        while True:
            try:
                member.post(FromCoordinator(wire.decode(await connection.receive(), wire.FROM_COORDINATOR)))
            except RemoteProtocolError:
                continue

    def crash(self, ring: int, position: int) -> None:
        """Take a gateway away: its tasks and its connections are gone at once."""
        self._scopes.pop((ring, position)).cancel()
        self._members.pop((ring, position))

    def read(self, round_: int) -> None:
        """Everybody's meters have been read."""
        for (_, position), member in self._members.items():
            member.reading(round_, registers(position, round_))


async def work(number: int, options: argparse.Namespace) -> dict[str, float]:
    """Be a worker: its share of the rings, for both rounds."""
    suite = StandardSuite()
    clock = time.time
    when = timing(options.begin, options.period, options.share)
    empty_kb, began_cpu_s = resident_kb(), cpu_s()
    mine = [(ring, n) for ring, n in enumerate(sizes(options.gateways)) if ring % options.workers == number]
    rings = [Ring.grow(suite, _SEED, ring, n, when) for ring, n in mine]
    for ring in rings:
        ring.deal()
    setup_cpu_s = cpu_s() - began_cpu_s
    count = sum(n for _, n in mine)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "node.sqlite")
        async with trio.open_nursery() as nursery, LinkContext(max_sockets=4 * count + 64) as link:
            nursery.start_soon(store.run)
            process = Process(suite, link, store, NodeMetrics(CollectorRegistry()), clock, bench_schema())
            worker = Worker(process, options.endpoint)
            places = [(ring, position) for ring in rings for position in range(ring.view.size)]
            for start in range(0, len(places), _AT_ONCE):
                async with trio.open_nursery() as starting:
                    for ring, position in places[start : start + _AT_ONCE]:
                        starting.start_soon(partial(nursery.start, worker.gateway, ring, position))
            print("ready", f"{when.first_open_s - clock():.1f} s before the first round", file=sys.stderr, flush=True)
            cpu_rounds = []
            for round_ in range(ROUNDS):
                await wait_until(clock, when.open_at_s(round_) - 0.1 * options.period)
                worker.read(round_)
                await wait_until(clock, when.open_at_s(round_) - 0.01)
                began_cpu_s = cpu_s()
                for ring in rings:
                    for position in crashed(ring.view.ring, ring.view.size, round_):
                        worker.crash(ring.view.ring, position)
                await wait_until(clock, when.open_at_s(round_) + 0.6 * options.period)
                cpu_rounds.append(cpu_s() - began_cpu_s)
                for ring in rings if round_ + 1 < ROUNDS else ():  # the next round finds them back
                    for position in crashed(ring.view.ring, ring.view.size, round_):
                        await nursery.start(worker.gateway, ring, position)
            used_kb = resident_kb()
            nursery.cancel_scope.cancel()
        store.close()
    return {"gateways": count, "kb": used_kb - empty_kb, "setup_cpu_s": setup_cpu_s, "round_cpu_s": cpu_rounds[-1]}


async def keep(options: argparse.Namespace, endpoint_to: Path) -> dict[str, Any]:
    """Be the process of the round books."""
    suite = StandardSuite()
    empty_kb = resident_kb()
    when = timing(options.begin, options.period, options.share)
    rings = [Ring.grow(suite, _SEED, ring, n, when) for ring, n in enumerate(sizes(options.gateways))]
    books = Books(rings, suite, time.time)
    async with LinkContext() as link:
        await books.run(link, endpoint_to)
        kb = resident_kb() - empty_kb
    return {"kb": kb, "took_s": books.took_s, "included": books.included, "void": books.void}


def run(options: argparse.Namespace) -> list[Row]:
    """Start the processes, wait for them, and make the rows."""
    options.begin = time.time() + options.lead
    arguments = [f"--{name}={getattr(options, name)}" for name in ("gateways", "workers", "period", "share", "begin")]
    command = [sys.executable, "-m", "loadtest.bench.fleet", *arguments]
    with tempfile.TemporaryDirectory() as folder:
        endpoint_to = Path(folder) / "endpoint"
        processes = [subprocess.Popen([*command, f"--books={endpoint_to}"], stdout=subprocess.PIPE, text=True)]  # noqa: S603
        try:
            while not endpoint_to.is_file() or not endpoint_to.read_text():
                if processes[0].poll() is not None:
                    raise RuntimeError("the process of the round books has died")
                time.sleep(0.1)
            endpoint = f"--endpoint={endpoint_to.read_text()}"
            processes += [
                subprocess.Popen([*command, endpoint, f"--worker={number}"], stdout=subprocess.PIPE, text=True)  # noqa: S603
                for number in range(options.workers)
            ]
            books, *workers = [json.loads(process.communicate()[0]) for process in processes]
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
    rings = len(sizes(options.gateways))
    took_s = books["took_s"][-1]
    if len(took_s) < rings:
        raise RuntimeError(
            f"{rings - len(took_s)} of {rings} rings did not open the measured round: {books['void'][:3]}"
        )
    gone = sum(len(crashed(ring, n, ROUNDS - 1)) for ring, n in enumerate(sizes(options.gateways)))
    memory_kb = (books["kb"] + sum(each["kb"] for each in workers)) / options.gateways
    is_whole = options.gateways >= 10_000
    note = f"{rings} rings, {options.workers} processes of gateways and one of round books, {gone} gateways crash"
    return [
        Row(
            f"{options.gateways} gateways, a full round with 5 % churn, until the last total", "s",
            Spread.of([max(took_s)]), target=Target("ours", 10, at_least=False) if is_whole else None, clock="wall",
            note=f"{note}; {options.share:g} s of it wait for them; {books['included'][-1]} gateways in the totals",
        ),
        Row("  a ring's time to its total", "s", Spread.of(took_s), clock="wall"),
        Row(
            "  memory a gateway, with its part of the round books' process", "KB", Spread.of([memory_kb]), clock="",
            target=Target("ours", 200, at_least=False) if is_whole else None,
            note=f"of it {books['kb'] / options.gateways:.0f} KB in the process of the round books",
        ),
        Row(
            "  CPU a gateway for the round, sockets and disk included", "µs",
            Spread.of([1e6 * sum(each["round_cpu_s"] for each in workers) / options.gateways]),
        ),
        Row(
            "  CPU a gateway for the epoch's set-up", "µs",
            Spread.of([1e6 * sum(each["setup_cpu_s"] for each in workers) / options.gateways]),
        ),
    ]  # fmt: skip


def main() -> int:
    """Run the fleet, or be one of its processes."""
    parser = argparse.ArgumentParser(description="10,000 gateways on one machine.")
    parser.add_argument("--gateways", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--period", type=float, default=30.0, help="seconds between the rounds")
    parser.add_argument("--share", type=float, default=6.0, help="seconds that a head waits for shares")
    parser.add_argument("--lead", type=float, default=90.0, help="seconds for set-up and handshakes")
    parser.add_argument("--begin", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", default="", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--books", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.books is not None:
        print(json.dumps(trio.run(keep, options, options.books)))
        return 0
    if options.worker is not None:
        print(json.dumps(trio.run(work, options.worker, options)))
        return 0
    about = machine() | {"date": now(), "load_start": os.getloadavg()[0], "quick": False}
    rows = run(options)
    write_json(Path("out/bench/fleet.json"), "A fleet on one machine", rows, about | {"load_end": os.getloadavg()[0]})
    for row in rows:
        verdict = {True: "  met", False: "  MISSED", None: ""}[row.met]
        print(f"{row.what:76} {row.ours.median:10.4g} {row.unit}{verdict}  {row.note}")
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
