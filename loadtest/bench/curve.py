"""
A ring of 64 gateways over CURVE on loopback, in one process, and how long one of its rounds takes.

Only the coordinator's process is left out: its round book answers at once.  A round's time is by the clock, from the
round's opening to the total at the round book.  So it contains what 64 gateways compute one after the other on this
machine's cores, where each has its own in the field, and two flushes of the store to disk (shares and reveals).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry

from loadtest.bench.gateways import Ledger, Process, Ring, bench_schema, registers, wait_until
from loadtest.bench.measure import Row, Spread, Target
from node.aggregation.membership import Membership
from node.aggregation.surroundings import FromCoordinator
from node.metrics import NodeMetrics
from node.store import Store
from protocol import wire
from protocol.dcnet.book import Announce, BookInstruction, Record
from protocol.dcnet.rings import Timing
from protocol.dcnet.suite import StandardSuite
from protocol.link import LinkContext

N = 64
PERIOD_S = 1.0
_SEED = bytes(32)


async def play(folder: Path, rounds: int) -> list[float]:
    """Run a ring for `rounds` rounds and give the milliseconds of each; raises ValueError where a sum is not exact."""
    suite = StandardSuite()
    clock = trio.current_time
    begin_s = clock() + 2.0
    timing = Timing.spread(begin_s, PERIOD_S)
    ring = Ring.grow(suite, _SEED, 0, N, timing)
    ring.deal()
    book = ring.book(suite, _SEED, clock())
    took_ms: list[float] = []
    members: list[Membership] = []
    ledger = Ledger(N)
    store = Store(folder / "ring.sqlite")

    def carry_out(instructions: list[BookInstruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Record(ended):
                    ledger.check(ended)
                    if ended.outcome is wire.Outcome.OPENED:
                        took_ms.append(1e3 * (ended.ended_s - ended.opened_s))
                case Announce(position, message):
                    if isinstance(message, wire.Appoint):
                        position = ring.view.head_of(message.term)
                    for each in members if position is None else [members[position]]:
                        each.post(FromCoordinator(message))

    def to_coordinator(position: int, message: wire.Message) -> None:
        if isinstance(message, wire.HeadAt):
            for each in members:
                each.post(FromCoordinator(message))
        else:
            carry_out(book.receive(position, message, clock()))

    async with trio.open_nursery() as nursery, LinkContext(max_sockets=4 * N) as link:
        nursery.start_soon(store.run)
        process = Process(suite, link, store, NodeMetrics(CollectorRegistry()), clock, bench_schema())
        for index in range(N):
            members.append(
                await process.gateway(ring, index, lambda message, index=index: to_coordinator(index, message))  # type: ignore[misc]
            )
        for each in members:
            nursery.start_soon(each.run)
        carry_out(book.start())
        for round_ in range(rounds):
            for index, each in enumerate(members):
                each.reading(round_, registers(index, round_))
            await wait_until(clock, timing.open_at_s(round_ + 1) - 0.05 * PERIOD_S)
        nursery.cancel_scope.cancel()
    store.close()
    return took_ms


def rows(*, quick: bool = False) -> list[Row]:
    """The round's time; the first rounds warm up."""
    count, warm_up = (10, 3) if quick else (40, 5)
    with tempfile.TemporaryDirectory() as folder:
        took_ms = trio.run(play, Path(folder), count + warm_up)
    if len(took_ms) < count:
        raise ValueError(f"only {len(took_ms)} of {count + warm_up} rounds were opened: the machine is overloaded")
    return [
        Row(
            f"ring round over CURVE on loopback, {N} members in one process, 16 slots", "ms",
            Spread.of(took_ms[warm_up:]), target=Target("ours", 50, at_least=False), clock="wall",
            note="the node's drivers, links and store on disk; from the opening to the total at the round book",
        )
    ]  # fmt: skip
