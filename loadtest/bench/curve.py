"""
A ring of 64 gateways over CURVE on loopback, in two processes, and how long one of its rounds takes.

The head and half of the members are in one process, the other half in the second: this machine has two cores, and what
64 gateways compute in the field at once they compute here one after the other.  Only the coordinator's process is left
out; its round ledger is in the head's process and answers at once.  A round's time is by the clock, from its opening to
the total at the round ledger, and contains two flushes of each process's store to disk (shares and reveals).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry

from loadtest.bench.gateways import EnergyCheck, Process, Ring, bench_schema, registers, ring_ledger, wait_until
from loadtest.bench.measure import Row, Spread, Target
from node.aggregation.context import FromCoordinator
from node.aggregation.membership import Membership
from node.metrics import NodeMetrics
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import LedgerEffect, Persist, RoundEnded, ToMember, ToRing
from protocol.dcnet.setup.rings import Timing
from protocol.link import LinkContext

N = 64
PERIOD_S = 1.0
_SEED = bytes(32)


async def play(folder: Path, rounds: int) -> list[float]:
    """Run a ring for `rounds` rounds and give the milliseconds of each; raises ValueError where a sum is not exact."""
    begin_s = time.monotonic() + 4.0
    ring = Ring.grow(StandardSuite(), _SEED, 0, N, Timing.spread(begin_s, PERIOD_S))
    ledger = ring_ledger(StandardSuite(), _SEED, ring.view, time.monotonic())
    energy_check = EnergyCheck(N)
    took_ms: list[float] = []
    members: list[Membership] = []
    command = [sys.executable, "-m", "loadtest.bench.curve", str(begin_s), str(rounds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as other:  # noqa: S603 - ourselves

        def carry_out(instructions: list[LedgerEffect]) -> None:
            for instruction in instructions:
                match instruction:
                    case Persist(RoundEnded(ended)):
                        energy_check.check(ended)
                        if ended.outcome is wire.Outcome.OPENED:
                            took_ms.append(1e3 * (ended.ended_s - ended.opened_s))
                    case ToMember(position, message) if not isinstance(message, wire.Appoint):
                        if position < len(members):
                            members[position].post(FromCoordinator(message))
                    case ToMember(_, message) | ToRing(message):
                        if (head := ring.view.head_of(ledger.term)) < len(members):
                            members[head].post(FromCoordinator(message))

        def to_coordinator(position: int, message: wire.Message) -> None:
            if isinstance(message, wire.HeadAt) and other.stdin is not None:
                other.stdin.write(wire.encode(message).hex().encode() + b"\n")
                other.stdin.flush()
                for each in members:
                    each.post(FromCoordinator(message))
            else:
                carry_out(ledger.receive(position, message, time.monotonic()))

        try:
            await _half(folder, ring, range(N // 2), rounds, members, to_coordinator, lambda: carry_out(ledger.start()))
        finally:
            other.terminate()
    return took_ms


async def _half(
    folder: Path,
    ring: Ring,
    positions: Iterable[int],
    rounds: int,
    members: list[Membership],
    to_coordinator: Callable[[int, wire.Message], None],
    begin: Callable[[], object],
) -> None:
    """Run the gateways at `positions` for all rounds, with their registers at each one's time."""
    ring.deal()
    store = Store(folder / "ring.sqlite", StorageCipher(os.urandom(32)))
    view = ring.view
    async with trio.open_nursery() as nursery, LinkContext(max_sockets=4 * N) as link:
        nursery.start_soon(store.run)
        metrics = NodeMetrics(CollectorRegistry())
        process = Process(StandardSuite(), link, store, metrics, time.monotonic, bench_schema())
        for position in positions:
            members.append(await process.gateway(ring, view, position, partial(to_coordinator, position)))
        for each in members:
            nursery.start_soon(each.run)
        begin()
        for round_ in range(rounds):
            for position, each in zip(positions, members, strict=True):
                each.reading(round_, registers(position, round_))
            await wait_until(time.monotonic, view.timing.open_at_s(round_ + 1) - 0.05 * PERIOD_S)
        nursery.cancel_scope.cancel()
    store.close()


async def _be_the_other_half(folder: Path, begin_s: float, rounds: int) -> None:
    """The second process: it reads the head's address from its standard input."""
    ring = Ring.grow(StandardSuite(), _SEED, 0, N, Timing.spread(begin_s, PERIOD_S))
    members: list[Membership] = []

    async def listen() -> None:
        async for line in trio.wrap_file(sys.stdin):
            for each in members:
                each.post(FromCoordinator(wire.decode(bytes.fromhex(line), wire.FROM_COORDINATOR)))

    async with trio.open_nursery() as nursery:
        await _half(
            folder, ring, range(N // 2, N), rounds, members, lambda _position, _message: None,
            lambda: nursery.start_soon(listen),
        )  # fmt: skip


def rows(*, quick: bool = False) -> list[Row]:
    """The round's time; the first rounds warm up."""
    count, warm_up = (10, 3) if quick else (40, 5)
    with tempfile.TemporaryDirectory() as folder:
        took_ms = trio.run(play, Path(folder), count + warm_up)
    if len(took_ms) < count // 2:
        raise ValueError(f"only {len(took_ms)} of {count + warm_up} rounds were opened: the machine is overloaded")
    return [
        Row(
            f"ring round over CURVE on loopback, {N} members in two processes, 16 slots", "ms",
            Spread.of(took_ms[warm_up:]), target=Target("ours", 50, at_least=False), clock="wall",
            note="the node's drivers, links and store on disk; from the opening to the total at the round ledger",
        )
    ]  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as own:
        trio.run(_be_the_other_half, Path(own), float(sys.argv[1]), int(sys.argv[2]))
