"""The durable store on real files: what was acknowledged is there, whatever is killed, full or refused."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from node.records import Baseline, Contribution, ContributionState, EpochEnd, EpochState, Record, Register, Settled
from node.store import Store, StoreError
from protocol.errors import LocalProtocolError

WATCHDOG_S = 30
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateways.db"


def register(gateway: str = "g", value: int = 1, measured_at_ms: int = 0, obis: str = "1-0:1.8.0*255") -> Register:
    return Register(gateway=gateway, device="1EBZ0100000001", obis=obis, value=value, scaler=-1, unit="Wh", status=None,
                    measured_at_ms=measured_at_ms, received_at_ms=measured_at_ms)  # fmt: skip


def contribution(
    gateway: str = "g", round_: int = 0, state: ContributionState = ContributionState.SHARED
) -> Contribution:
    return Contribution(gateway=gateway, epoch=1, ring="north/2", round=round_, attempt=0, interval=round_,
                        vector=bytes(64), registers=bytes(64), state=state)  # fmt: skip


def settled(gateway: str = "g", round_: int = 0, opened: bool = True) -> Settled:
    return Settled(gateway=gateway, epoch=1, ring=7, round=round_, attempt=1, interval=round_, opened=opened,
                   vector=round_.to_bytes(8, "little"), registers=bytes(8), settled_at_ms=round_)  # fmt: skip


def epoch_state(gateway: str = "g", epoch: int = 1, state: bytes = b"secret") -> EpochState:
    return EpochState(gateway=gateway, epoch=epoch, ring=7, position=3, state=state)


async def test_what_was_written_is_there_after_reopening(path: Path) -> None:
    top = (1 << 64) - 1
    records: list[Record] = [
        register(value=1), register(value=top, measured_at_ms=9), register(obis="1-0:2.8.0*255", value=-(1 << 63)),
        Baseline(gateway="g", slot=0, value=top), Baseline(gateway="g", slot=1, value=-5),
        Baseline(gateway="other", slot=0, value=3), contribution(), epoch_state(), settled(),
        contribution(round_=1, state=ContributionState.OPENED),
    ]  # fmt: skip
    async with Store.open(path) as store:
        await store.write(records)
    async with Store.open(path) as store:
        state = await store.load("g")
        assert set(state.registers) == {records[1], records[2]}
        assert state.baseline == {0: top, 1: -5}
        assert state.contributions == (records[6],)
        assert state.epochs == (records[7],)
        assert await store.settled("g") == (records[8],)
        assert (await store.load("other")).baseline == {0: 3}
        assert (await store.load("nobody")).epochs == ()
        assert await store.gateways() == ("g", "other")
        await store.write([Baseline(gateway="g", slot=0, value=8), contribution(state=ContributionState.SERVED)])
        state = await store.load("g")
        assert state.baseline[0] == 8
        assert [kept.state for kept in state.contributions] == [ContributionState.SERVED]
    assert path.stat().st_mode & 0o077 == 0


async def test_writes_that_wait_share_a_transaction_and_are_bounded(path: Path) -> None:
    async with Store.open(path) as store, trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(store.write, [contribution(f"g{number}"), register(f"g{number}")])
        await trio.testing.wait_all_tasks_blocked()
    assert (store.counters.writes, store.counters.records) == (1000, 2000)
    assert store.counters.transactions <= 3

    async with Store.open(path, queue_writes=4) as store, trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(store.write, [contribution(f"g{number}", round_=1)])
        most = 0
        while nursery.child_tasks:
            most = max(most, store.queued)
            await trio.lowlevel.checkpoint()
    assert most <= 4
    assert store.counters.writes == 40
    assert store.counters.transactions >= 10


async def test_a_refused_write_fails_alone_and_whole(path: Path) -> None:
    async with Store.open(path) as store:
        await store.write([settled("bad")])
        failures = []

        async def write_bad() -> None:
            with pytest.raises(StoreError, match=r"gateways\.db.*UNIQUE.*contradicts") as caught:
                await store.write([contribution("bad", round_=5), settled("bad", opened=False)])
            failures.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, [contribution("good before")])
            nursery.start_soon(write_bad)
            nursery.start_soon(store.write, [contribution("good after")])
        assert len(failures) == store.counters.failed == 1
        assert (await store.load("bad")).contributions == ()
        assert [entry.opened for entry in await store.settled("bad")] == [True]
        for gateway in ("good before", "good after"):
            assert len((await store.load(gateway)).contributions) == 1
        with pytest.raises(OverflowError):
            await store.write([Baseline(gateway="g", slot=0, value=1 << 64)])


async def test_a_full_file_fails_the_write_that_does_not_fit_and_recovers_with_room(path: Path) -> None:
    async with Store.open(path) as store:
        await store.write([contribution("g")])
        connection = store._connection
        assert connection is not None
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

        async def write_too_much() -> None:
            with pytest.raises(StoreError, match=r"gateways\.db.*full.*free space"):
                await store.write([epoch_state("large", state=bytes(100_000))])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.write, [contribution("small", round_=1)])
            nursery.start_soon(write_too_much)
            nursery.start_soon(store.write, [contribution("small", round_=2)])
        assert (await store.load("large")).epochs == ()
        assert len((await store.load("small")).contributions) == 2
        connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
        await store.write([epoch_state("large", state=bytes(100_000))])
    async with Store.open(path) as store:
        assert [len(state.state) for state in (await store.load("large")).epochs] == [100_000]


FULL_DISK = """
import resource, sys, trio
from node.records import EpochState
from node.store import Store, StoreError
def record(number, size):
    return [EpochState(gateway=f"g{number}", epoch=1, ring=1, position=0, state=bytes(size))]
async def main():
    async with Store.open(sys.argv[1]) as store:
        await store.write(record(0, 10))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        refused = []
        async def write(number):
            try:
                await store.write(record(number, 60_000))
            except StoreError as error:
                refused.append(number)
                assert "SQLITE_" in str(error) and "free space" in str(error), error
        async with trio.open_nursery() as nursery:
            for number in range(1, 40):
                nursery.start_soon(write, number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.write(record(99, 10))
        print(*refused)
trio.run(main)
"""


async def test_the_kernel_refusing_to_write_is_told_to_every_writer_concerned(path: Path) -> None:
    process = await trio.run_process(
        [sys.executable, "-c", FULL_DISK, path], capture_stdout=True, check=False, cwd=ROOT
    )
    assert process.returncode == 0
    refused = {int(number) for number in process.stdout.split()}
    assert refused
    async with Store.open(path) as store:
        stored = {int(gateway[1:]) for gateway in await store.gateways()}
    assert stored == {0, 99} | (set(range(1, 40)) - refused)


WRITER = """
import os, sys, trio
from node.records import Baseline, Contribution, ContributionState
from node.store import Store
async def gateway(store, name):
    for number in range(1, 100_000):
        await store.write([
            Contribution(gateway=name, epoch=1, ring=1, round=number, attempt=0, interval=number, vector=bytes(8),
                         registers=bytes(3000), state=ContributionState.SHARED),
            Baseline(gateway=name, slot=0, value=number)])
        os.write(1, f"{name} {number}\\n".encode())
async def main():
    async with Store.open(sys.argv[1]) as store, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(gateway, store, f"g{number}")
trio.run(main)
"""


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_it_keeps_what_it_acknowledged_and_no_half_writes(path: Path, seed: int) -> None:
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

    async def check() -> None:
        async with Store.open(path) as store:
            for gateway, last in acknowledged.items():
                state = await store.load(gateway)
                rounds = [kept.round for kept in state.contributions]
                assert rounds == list(range(1, state.baseline[0] + 1))
                assert state.baseline[0] in (last, last + 1)

    trio.run(check)


async def test_the_commit_is_synced_before_it_is_acknowledged(path: Path) -> None:
    async with Store.open(path) as store:
        connection = store._connection
        assert connection is not None
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)


async def test_an_ended_epoch_leaves_no_trace_in_the_files(path: Path) -> None:
    planted = [random.Random(number).randbytes(24) for number in range(3)]

    def found() -> set[int]:
        content = b"".join(file.read_bytes() for file in path.parent.iterdir())
        return {number for number, value in enumerate(planted) if value in content}

    async with Store.open(path) as store:
        for number, value in enumerate(planted[:2]):
            await store.write([epoch_state(state=bytes(5000) + value), register(measured_at_ms=number)])
        await store.write([epoch_state(epoch=2, state=planted[2])])
        assert found() == {0, 1, 2}
        await store.write([EpochEnd(gateway="g", epoch=1)])
        assert found() == {2}
        assert [state.epoch for state in (await store.load("g")).epochs] == [2]
        await store.write([EpochEnd(gateway="g", epoch=2)])
        assert found() == set()
    assert found() == set()


async def test_pruning_keeps_the_latest_reading_and_what_has_not_ended(path: Path) -> None:
    async with Store.open(path) as store:
        await store.write([register(value=number, measured_at_ms=number) for number in range(12_000)])
        await store.write([register("silent", value=5, measured_at_ms=5), settled(round_=1), settled(round_=2)])
        await store.write([contribution(round_=1), contribution(round_=2, state=ContributionState.VOID)])
        deleted = await store.prune(registers_before_ms=11_000, interval_before=10, settled_before_ms=2)
        assert deleted == 11_000 + 1 + 1
        assert [kept.value for kept in (await store.load("silent")).registers] == [5]
        state = await store.load("g")
        assert [kept.value for kept in state.registers] == [11_999]
        assert [kept.round for kept in state.contributions] == [1]
        assert [entry.round for entry in await store.settled("g")] == [2]


async def test_a_store_belongs_to_one_process_at_a_time(path: Path) -> None:
    async with Store.open(path):
        with pytest.raises(StoreError, match="another process has it open"):
            await Store.open(path).__aenter__()
    async with Store.open(path) as store:
        assert await store.gateways() == ()
    with pytest.raises(LocalProtocolError):
        await store.write([contribution()])


async def test_what_cannot_be_opened_says_why(path: Path) -> None:
    with pytest.raises(StoreError, match=r"no-such-folder.*check that the folder exists"):
        await Store.open(path.parent / "no-such-folder" / "x.db").__aenter__()
    path.write_bytes(b"this is no database" * 400)
    with pytest.raises(StoreError, match=r"SQLITE_NOTADB.*enrol"):
        await Store.open(path).__aenter__()
    path.unlink()
    async with Store.open(path) as store:
        assert store._connection is not None
        store._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="schema version 99"):
        await Store.open(path).__aenter__()


async def test_who_shuts_down_can_still_write_and_exceptions_pass_unwrapped(path: Path) -> None:
    with trio.fail_after(WATCHDOG_S):
        with trio.CancelScope() as scope:
            async with Store.open(path) as store:
                try:
                    scope.cancel()
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await store.write([contribution("last words")])
        assert scope.cancelled_caught

        async def fail() -> None:
            async with Store.open(path):
                raise KeyError("of the body")

        with pytest.raises(KeyError, match="of the body"):
            await fail()
        async with Store.open(path) as store:
            assert len((await store.load("last words")).contributions) == 1
    assert os.listdir(path.parent) == [path.name]
