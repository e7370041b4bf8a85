"""The node's durable store on real files: what was acknowledged is there, whatever is killed, full or refused."""

import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.storage.cipher import StorageCipher
from node.storage.engine import Statement, Store
from node.storage.errors import StoreError

WATCHDOG_S = 120
CIPHER = StorageCipher(bytes(32))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateways.db"


@asynccontextmanager
async def opened(path: Path, **arguments: Any) -> AsyncIterator[Store]:
    store = Store(path, CIPHER, **arguments)
    try:
        with trio.fail_after(WATCHDOG_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.run)
                yield store
                nursery.cancel_scope.cancel()
    finally:
        store.close()


def contribution(gateway: str = "g", round_: int = 0, vector: bytes = bytes(64)) -> Statement:
    return Statement("INSERT INTO contribution VALUES (?, 1, ?, 0, ?, 1, 0, 0, ?)",
                     (gateway, round_, round_, vector))  # fmt: skip


def rounds(store: Store, gateway: str) -> list[int]:
    return [
        number for (number,) in store.read("SELECT round FROM contribution WHERE gateway=? ORDER BY round", gateway)
    ]


async def test_writes_that_wait_share_a_transaction_and_are_bounded(path: Path) -> None:
    async with opened(path) as store:
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(store.write, [contribution(f"g{number}")])
        assert store.counters.writes == 1000
        assert store.counters.transactions <= 3
    assert path.stat().st_mode & 0o077 == 0
    async with opened(path, queue_writes=4) as store:
        assert store.read("SELECT COUNT(*) FROM contribution") == [(1000,)]
        most = 0
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(store.write, [contribution(f"g{number}", round_=1)])
            while nursery.child_tasks:
                most = max(most, store.queued)
                await trio.lowlevel.checkpoint()
        assert most <= 4
        assert store.counters.transactions >= 10


@pytest.mark.parametrize(
    "bad", [contribution("bad"), Statement("INSERT INTO baseline VALUES (?, ?, ?)", ("bad", b"", None)),
            Statement("UPDATE contribution SET round=?", (1 << 64,)), Statement("SELECT ?", ())]
)  # fmt: skip
async def test_a_refused_write_fails_alone_and_whole(path: Path, bad: Statement) -> None:
    async with opened(path) as store:
        await store.write([contribution("bad")])

        async def write_bad() -> None:
            with pytest.raises(StoreError, match=r"gateways\.db.*contradicts.*nothing was contributed"):
                await store.write([contribution("bad", round_=5), bad])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, [contribution("before")])
            nursery.start_soon(write_bad)
            nursery.start_soon(store.write, [contribution("after")])
        assert store.counters.failed == 1
        assert [rounds(store, gateway) for gateway in ("bad", "before", "after")] == [[0], [0], [0]]


async def test_a_full_disk_fails_one_write_and_the_store_recovers_with_room(path: Path) -> None:
    async with opened(path) as store:
        await store.write([contribution("small")])
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")

        async def write_too_much() -> None:
            with pytest.raises(StoreError, match=r"gateways\.db.*full.*free disk space.*nothing was contributed"):
                await store.write([contribution("large", vector=bytes(100_000))])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, [contribution("small", round_=1)])
            nursery.start_soon(write_too_much)
            nursery.start_soon(store.write, [contribution("small", round_=2)])
        assert (rounds(store, "large"), rounds(store, "small")) == ([], [0, 1, 2])
        store._connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
        await store.write([contribution("large", vector=bytes(100_000))])
    async with opened(path) as store:
        assert rounds(store, "large") == [0]


PREAMBLE = """
import os, resource, sys, trio
from pathlib import Path
from node.storage.cipher import StorageCipher
from node.storage.engine import Statement, Store
from node.storage.errors import StoreError
SQL = "INSERT INTO contribution VALUES (?, 1, ?, 0, 0, 1, 0, 0, ?)"
store = Store(Path(sys.argv[1]), StorageCipher(bytes(32)))
"""
FULL_DISK = (
    PREAMBLE
    + """
refused = []
async def write(number, size):
    try:
        await store.write([Statement(SQL, ("g", number, bytes(size)))])
    except StoreError as error:
        refused.append(number)
        assert "SQLITE_" in str(error) and "free disk space" in str(error), error
async def main():
    async with trio.open_nursery() as background:
        background.start_soon(store.run)
        await write(0, 10)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        async with trio.open_nursery() as nursery:
            for number in range(1, 40):
                nursery.start_soon(write, number, 60_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await write(99, 10)
        background.cancel_scope.cancel()
trio.run(main)
print(*refused)
"""
)
WRITER = (
    PREAMBLE
    + """
async def gateway(name):
    for number in range(1, 100_000):
        await store.write([
            Statement(SQL, (name, number, bytes(3000))),
            Statement("INSERT OR REPLACE INTO baseline VALUES (?, ?, '')", (name, number))])
        os.write(1, f"{name} {number}\\n".encode())
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        for number in range(10):
            nursery.start_soon(gateway, f"g{number}")
trio.run(main)
"""
)


async def test_the_kernel_refusing_to_write_is_told_to_every_writer_concerned(path: Path) -> None:
    process = await trio.run_process([sys.executable, "-c", FULL_DISK, path], capture_stdout=True, cwd=ROOT)
    refused = {int(number) for number in process.stdout.split()}
    assert refused
    async with opened(path) as store:
        assert set(rounds(store, "g")) == {0, 99} | (set(range(1, 40)) - refused)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_it_keeps_acknowledged_writes_whole(path: Path, seed: int) -> None:
    dice = random.Random(seed)
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    acknowledged: dict[str, int] = {}
    lines: Iterator[bytes] = iter(process.stdout)
    for _ in range(dice.randrange(1, 400)):
        gateway, number = next(lines).decode().split()
        acknowledged[gateway] = int(number)
    process.send_signal(signal.SIGKILL)
    for line in lines:
        if line.endswith(b"\n"):
            gateway, number = line.decode().split()
            acknowledged[gateway] = int(number)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    store = Store(path, CIPHER)
    for gateway, last in acknowledged.items():
        ((baseline,),) = store.read("SELECT first FROM baseline WHERE gateway=?", gateway)
        assert rounds(store, gateway) == list(range(1, baseline + 1))
        assert baseline in (last, last + 1)
    store.close()


async def test_a_stopped_writer_finishes_its_transaction_and_fails_the_rest(path: Path) -> None:
    store = Store(path, CIPHER)
    with trio.fail_after(WATCHDOG_S):
        async with trio.open_nursery() as nursery:
            writer = trio.CancelScope()

            async def run() -> None:
                with writer:
                    await store.run()

            outcomes: dict[int, bool] = {}

            async def write(number: int) -> None:
                try:
                    await store.write([contribution("g", round_=number)])
                except StoreError:
                    outcomes[number] = False
                else:
                    outcomes[number] = True

            nursery.start_soon(run)
            for number in range(50):
                nursery.start_soon(write, number)
                await trio.lowlevel.checkpoint()
            writer.cancel()
        with pytest.raises(StoreError, match="writer has stopped"):
            await store.write([contribution("g", round_=99)])
    assert len(outcomes) == 50
    assert rounds(store, "g") == sorted(number for number, durable in outcomes.items() if durable)
    store.close()


async def test_a_commit_is_flushed_and_what_is_deleted_is_overwritten(path: Path) -> None:
    async with opened(path) as store:
        for pragma, value in (("synchronous", 2), ("journal_mode", "wal"), ("secure_delete", 1)):
            assert store._connection.execute(f"PRAGMA {pragma}").fetchone() == (value,)
        planted = random.Random(1).randbytes(32)
        await store.write([contribution(vector=planted)])
        await store.write([Statement("DELETE FROM contribution", ())])
    assert planted not in path.read_bytes()


def test_a_store_belongs_to_one_process_at_a_time(path: Path) -> None:
    store = Store(path, CIPHER)
    with pytest.raises(StoreError, match="another process has it open"):
        Store(path, CIPHER)
    store.close()
    Store(path, CIPHER).close()


def test_what_cannot_be_opened_says_why(path: Path) -> None:
    path.write_bytes(b"this is no database" * 400)
    with pytest.raises(StoreError, match=r"SQLITE_NOTADB.*never put back"):
        Store(path, CIPHER)
    with pytest.raises(StoreError, match=r"check that the folder"):
        Store(path / "below a file" / "x.db", CIPHER)
