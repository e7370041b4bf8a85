"""
What a durable write costs: gateways that all write at once, round after round, into one store.

    python -m loadtest.bench.store [--gateways 1000] [--rounds 20] [--folder FOLDER]

The folder decides: a file system in memory acknowledges without a disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import trio

from node.storage.engine import Statement, Store

WRITE = "INSERT INTO contribution VALUES (?, 1, ?, 0, ?, 1, 0, 0, ?, ?)"


async def rounds(folder: Path, gateways: int, count: int) -> dict[str, float]:
    """Return writes per second, transactions, and the time until all gateways of a round are durable in ms."""
    took_ms: list[float] = []
    store = Store(folder / "bench.db")
    async with trio.open_nursery() as background:
        background.start_soon(store.run)
        began_s = time.perf_counter()
        for number in range(count):
            round_began_s = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for gateway in range(gateways):
                    parameters = f"gateway-{gateway}", number, number, bytes(128), bytes(128)
                    nursery.start_soon(store.write, [Statement(WRITE, parameters)])
            took_ms.append(1000 * (time.perf_counter() - round_began_s))
        took_s = time.perf_counter() - began_s
        background.cancel_scope.cancel()
    took_ms.sort()
    numbers = {
        "writes_per_s": store.counters.writes / took_s,
        "transactions": store.counters.transactions,
        "round_ms_p50": took_ms[len(took_ms) // 2],
        "round_ms_max": took_ms[-1],
        "mb": sum(file.stat().st_size for file in folder.iterdir()) / 1e6,
    }
    store.close()
    return numbers


def main() -> None:
    """Run and print one JSON object."""
    parser = argparse.ArgumentParser(description="What a durable write costs.")
    parser.add_argument("--gateways", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where the store is made; a temporary folder if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(trio.run(rounds, Path(folder), options.gateways, options.rounds), indent=2))


if __name__ == "__main__":
    main()
