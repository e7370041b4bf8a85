"""
The processes of a fleet on one machine: those of its gateways, and the one that keeps all round ledgers.

Each is started with its part on the command line, takes one command a line (JSON) on its standard input, and answers
in lines on its standard output.  `fleet` is who commands.  A process of gateways grows its rings, links every gateway
to the round ledgers, and then runs their memberships as a node does.  They say what they hear while they hear
it, so that whoever waits knows what for.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from loadtest.bench.gateways import (
    EnergyCheck,
    MeteredGateway,
    Process,
    Ring,
    bench_schema,
    curve_pair,
    ring_ledger,
    wait_until,
)
from loadtest.bench.link import cpu_s, resident_kb
from node.aggregation.context import FromCoordinator
from node.metrics import NodeMetrics
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite, derive
from protocol.dcnet.machines.effects import LedgerEffect, Persist, RoundEnded, ToMember, ToRing
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.setup.rings import RingView, Timing
from protocol.link import Inbox, LinkContext, Listener

RING = 64
CHURN = 0.05
_SEED = bytes(32)
_BOOKS = curve_pair(derive(_SEED, "ledgers"))
_AT_ONCE = 100  # handshakes that a process starts together
_RINGS_AT_ONCE = 4  # whose members connect to their heads together
_NEVER = Timing(
    first_open_s=float("inf"), period_s=1.0, gather_s=0.0, share_s=0.0, confirm_s=0.0, reveal_s=0.0, silent_s=0.0,
    void_s=0.0,
)  # fmt: skip


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


def grow(suite: StandardSuite, gateways: int, numbers: range) -> list[Ring]:
    """Those of the fleet's rings; when their rounds are is not known yet."""
    all_sizes = sizes(gateways)
    return [Ring.grow(suite, _SEED, number, all_sizes[number], _NEVER) for number in numbers]


def say(**what: Any) -> None:
    """One line to whoever commands."""
    print(json.dumps(what), flush=True)


async def commands() -> AsyncIterator[dict[str, Any]]:
    """The commands received, one by one."""
    async for line in trio.wrap_file(sys.stdin):
        yield json.loads(line)


class Costs:
    """What the process has used since it began to be a fleet's."""

    def __init__(self) -> None:
        gc.collect()
        self._empty_kb, self._began_cpu_s = resident_kb(), cpu_s()

    def say(self) -> None:
        """Resident memory in KB and CPU time in s, both since then, to whoever commands."""
        say(costs={"kb": resident_kb() - self._empty_kb, "cpu_s": cpu_s() - self._began_cpu_s})


class Books:
    """The process of the round ledgers: one listener, a ledger for each ring."""

    def __init__(self, rings: list[Ring], suite: StandardSuite, clock: Callable[[], float]) -> None:
        self._suite = suite
        self._clock = clock
        self._views = [ring.view for ring in rings]
        self._energy_checks = [EnergyCheck(view.size) for view in self._views]
        self._books: list[RoundLedger] = []
        self._places: dict[bytes, Hashable] = {
            pair.public: (ring.view.ring, position) for ring in rings for position, pair in enumerate(ring.curves)
        }
        self._heads: dict[int, wire.HeadAt] = {}
        self._listener: Listener | None = None
        self._next_timer_s = float("inf")

    async def run(self, link: LinkContext) -> None:
        """Serve until cancelled."""
        async with link.listen("tcp://127.0.0.1:*", _BOOKS, self._places.get) as listener:
            self._listener = listener
            say(endpoint=listener.endpoint)
            while True:
                with trio.move_on_after(max(0.0, self._next_timer_s - self._clock())):
                    place, data = await listener.receive()
                    assert isinstance(place, tuple)  # noqa: S101 - the name that our own table gave
                    ring, position = place
                    self._hear(ring, position, wire.decode(data, wire.FROM_GATEWAY))
                    continue
                for number, ledger in enumerate(self._books):
                    self._carry_out(number, ledger.on_timer(self._clock()))
                self._next_timer_s = min((ledger.next_timer_s() for ledger in self._books), default=float("inf"))

    async def appoint(self, when: Timing) -> None:
        """Everybody is linked to us: the rings may begin, a few at a time."""
        self._views = [replace(view, timing=when) for view in self._views]
        self._books = [ring_ledger(self._suite, _SEED, view, self._clock()) for view in self._views]
        self._next_timer_s = when.open_at_s(0) + when.void_s
        for number, ledger in enumerate(self._books):
            while number - len(self._heads) >= _RINGS_AT_ONCE:
                await trio.sleep(0.01)
            self._carry_out(number, ledger.start())

    def _hear(self, ring: int, position: int, message: wire.Message) -> None:
        match message:
            case wire.Hello():  # somebody came, or came back
                say(hello=1)
                if (address := self._heads.get(ring)) is not None:
                    self._carry_out(ring, [ToMember(position, address)])
            case wire.HeadAt():
                self._heads[ring] = message
                say(head=1)
                self._carry_out(ring, [ToRing(message)])
            case _:
                self._carry_out(ring, self._books[ring].receive(position, message, self._clock()))

    def _carry_out(self, ring: int, instructions: list[LedgerEffect]) -> None:
        view = self._views[ring]
        for each in instructions:
            match each:
                case Persist(RoundEnded(ended)):
                    self._energy_checks[ring].check(ended)
                    say(
                        round=ended.round, ring=ring, opened=ended.outcome is wire.Outcome.OPENED, reason=ended.reason,
                        took_s=ended.ended_s - ended.opened_s, expected=ended.expected.bit_count(),
                        included=ended.roster.bit_count(),
                    )  # fmt: skip
                case ToMember(_, message) | ToRing(message):
                    targets = range(view.size) if isinstance(each, ToRing) else [each.position]
                    if isinstance(message, wire.Appoint):
                        targets = [view.head_of(message.term)]
                    data = wire.encode(message)
                    for target in targets:
                        if self._listener is not None:
                            self._listener.send((ring, target), data)


async def keep(options: argparse.Namespace) -> None:
    """Be the process of the round ledgers."""
    suite, costs = StandardSuite(), Costs()
    rings = grow(suite, options.gateways, range(len(sizes(options.gateways))))
    ledgers = Books(rings, suite, time.time)
    del rings
    async with LinkContext() as link, trio.open_nursery() as nursery:
        nursery.start_soon(ledgers.run, link)
        async for command in commands():
            if "timing" in command:
                nursery.start_soon(ledgers.appoint, timing(**command["timing"]))
            else:
                costs.say()
        nursery.cancel_scope.cancel()


class Gateway:
    """One gateway of a process: its link to the round ledgers, its membership once it is known when rounds are."""

    def __init__(self, process: Process, endpoint: str, ring: Ring, position: int) -> None:
        self.ring = ring
        self.position = position
        self.metered: MeteredGateway | None = None
        self._process = process
        self._endpoint = endpoint
        self._scope = trio.CancelScope()
        self._sit_down = trio.Event()
        self._view: RingView | None = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until it crashes; one task speaks and hears."""
        with self._scope:
            link = self._process.link
            outbox: Inbox[wire.Message, bytes] = link.inbox(64)
            keys = self.ring.curves[self.position]
            async with link.connect(self._endpoint, _BOOKS.public, keys) as connection:
                await connection.send(wire.encode(wire.Hello(wire.VERSION, -1, -1)))
                task_status.started()
                del task_status  # or it keeps the nursery and the task that started us
                await self._sit_down.wait()
                if self._view is None:
                    return
                outbox.follow(connection)

                def speak(message: wire.Message) -> None:
                    outbox.post(message)

                metered = await self._process.metered(self.ring, self._view, self.position, speak)
                member = metered.member
                async with trio.open_nursery() as nursery:
                    self.metered = metered
                    nursery.start_soon(member.run)
                    while True:
                        match await outbox.receive(float("inf")):
                            case None:
                                pass
                            case bytes() as data:
                                member.post(FromCoordinator(wire.decode(data, wire.FROM_COORDINATOR)))
                            case message:
                                await connection.send(wire.encode(message))

    def join(self, view: RingView) -> None:
        """The ring's rounds are known: take the place in it."""
        self._view = view
        self._sit_down.set()

    def crash(self) -> None:
        """Go away: tasks and connections are gone at once, without a farewell."""
        self._scope.cancel()


class Worker:
    """A process of gateways: all of some rings."""

    def __init__(self, process: Process, rings: list[Ring], nursery: trio.Nursery) -> None:
        self._process = process
        self._rings = rings
        self._nursery = nursery
        self._endpoint = ""
        self._gateways: dict[tuple[int, int], Gateway] = {}
        self._views: dict[int, RingView] = {}

    async def connect(self, endpoint: str) -> None:
        """Link every gateway to the round ledgers, some at a time."""
        self._endpoint = endpoint
        places = [(ring, position) for ring in self._rings for position in range(ring.view.size)]
        for start in range(0, len(places), _AT_ONCE):
            await self._start(places[start : start + _AT_ONCE])

    async def _start(self, places: list[tuple[Ring, int]]) -> None:
        async with trio.open_nursery() as starting:
            for ring, position in places:
                gateway = Gateway(self._process, self._endpoint, ring, position)
                self._gateways[ring.view.ring, position] = gateway
                starting.start_soon(self._nursery.start, gateway.run)
                if ring.view.ring in self._views:
                    gateway.join(self._views[ring.view.ring])

    def join(self, when: Timing) -> None:
        """Everybody takes its place."""
        self._views = {ring.view.ring: replace(ring.view, timing=when) for ring in self._rings}
        for (ring, _), gateway in self._gateways.items():
            gateway.join(self._views[ring])

    async def read(self, round_: int) -> None:
        """Everybody's meters are read: each logs its telegram, some at a time, and contributes what was logged."""
        metered = [gateway.metered for gateway in self._gateways.values() if gateway.metered is not None]
        for start in range(0, len(metered), _AT_ONCE):
            async with trio.open_nursery() as reading:
                for each in metered[start : start + _AT_ONCE]:
                    reading.start_soon(each.read, round_)

    def crash(self, round_: int) -> None:
        """Who crashes in this round is gone."""
        for ring, position in self._crashed(round_):
            self._gateways.pop((ring.view.ring, position)).crash()

    async def revive(self, round_: int) -> None:
        """Who crashed in this round is back, from what the store holds."""
        await self._start(self._crashed(round_))

    def _crashed(self, round_: int) -> list[tuple[Ring, int]]:
        return [(ring, i) for ring in self._rings for i in sorted(crashed(ring.view.ring, ring.view.size, round_))]


async def work(options: argparse.Namespace) -> None:
    """Be a process of gateways."""
    suite, costs = StandardSuite(), Costs()
    count = len(sizes(options.gateways))
    rings = grow(suite, options.gateways, range(options.worker, count, options.workers))
    for ring in rings:
        ring.deal()
    members = sum(ring.view.size for ring in rings)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "node.sqlite", StorageCipher(os.urandom(32)))
        async with LinkContext(max_sockets=4 * members + 64) as link, trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            process = Process(suite, link, store, NodeMetrics(CollectorRegistry()), time.time, bench_schema())
            worker = Worker(process, rings, nursery)
            say(gateways=members)
            async for command in commands():
                match command:
                    case {"endpoint": endpoint}:
                        await worker.connect(endpoint)
                    case {"timing": when}:
                        worker.join(timing(**when))
                    case {"read": round_}:
                        await worker.read(round_)
                    case {"crash": round_, "at_s": due_s}:
                        await wait_until(time.time, due_s)
                        worker.crash(round_)
                    case {"revive": round_}:
                        await worker.revive(round_)
                        say(revived=round_)
                    case _:
                        costs.say()
            nursery.cancel_scope.cancel()
        store.close()
