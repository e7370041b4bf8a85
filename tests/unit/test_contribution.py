"""A gateway's account: every watt hour goes into one opened total, whatever order results and epochs come in."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from node.aggregation.contribution import Contribution, Contributions, SupersededError
from node.metering.registers import Registers
from node.storage.cipher import StorageCipher
from node.storage.engine import Statement, Store
from node.storage.errors import StoreError
from node.storage.repositories.accounts import AccountRepository
from protocol.dcnet.machines.effects import Attempted, Progress, Settled
from protocol.dcnet.machines.member_attempt import Resume
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, VERIFIED_SCHEMA, WORD_MODULUS, Schema

GATEWAY = "ESTK0000000001"
OLD: Any = SimpleNamespace(epoch=0, size=8, noise=(), committed=(), bits=())
NEW: Any = SimpleNamespace(epoch=1, size=8, noise=(), committed=(), bits=())


@asynccontextmanager
async def account(path: Path, schema: Schema = DEFAULT_SCHEMA) -> AsyncIterator[Contributions]:
    """An account on a store of its own; leaving is a crash as far as the next one can tell."""
    async with trio.open_nursery() as nursery:
        store = Store(path, StorageCipher(bytes(32)))
        nursery.start_soon(store.run)
        yield Contributions(AccountRepository(store), GATEWAY, schema, lambda: 1)
        nursery.cancel_scope.cancel()
    store.close()


def store_of(mine: Contributions) -> Store:
    assert isinstance(mine._accounts, AccountRepository)
    return mine._accounts._store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registers.sqlite"


def registers(interval: int, energy: int, feed_in: int = 0, power: int = 0) -> Registers:
    return Registers(900 * interval, (1, energy, feed_in, power))


def words(contribution: Contribution | None) -> list[int]:
    assert contribution is not None
    return [word - WORD_MODULUS if word >> 63 else word for word in map(int, contribution.vector)]


async def share(contributions: Contributions, view: RingView, round_: int, attempt: int = 0) -> None:
    await contributions.attempted(view, Attempted(round_, attempt, Progress.SHARED))


async def test_the_first_reading_is_the_zero_and_stays_it(path: Path) -> None:
    async with account(path) as mine:
        assert mine.build(OLD, 0, registers(0, 5)) is None
        await mine.first_reading((1, 100, 7, 3))
        await mine.first_reading((1, 999, 9, 9))
        assert words(mine.build(OLD, 1, registers(1, 130, 8, -40))) == [1, 30, 1, -40]
    async with account(path) as mine:
        await mine.first_reading((1, 500, 500, 0))
        assert words(mine.build(OLD, 2, registers(2, 131, 7))) == [1, 31, 0, 0]


async def test_what_did_not_open_is_carried_and_what_opened_is_not(path: Path) -> None:
    async with account(path) as mine:
        await mine.first_reading((1, 100, 0, 0))
        mine.build(OLD, 0, registers(0, 110))
        await share(mine, OLD, 0)
        await mine.settled(OLD, Settled(0, included=False))
        assert words(mine.build(OLD, 1, registers(1, 125))) == [1, 25, 0, 0]
        await share(mine, OLD, 1)
        await mine.settled(OLD, Settled(1, included=True))
        assert words(mine.build(OLD, 2, registers(2, 126)))[1] == 1
        assert mine.build(OLD, 2, registers(1, 126)) is not None  # the same round: what was built for it
        assert mine.build(OLD, 3, registers(1, 127)) is None  # an interval that was contributed


async def test_a_register_that_falls_is_told_and_not_contributed(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with account(path) as mine:
        await mine.first_reading((1, 987654321, 0, 0))
        assert mine.build(OLD, 0, registers(0, 987654320)) is None
        assert "1-0:1.8.0" in caplog.text
        assert "98765432" not in caplog.text
        assert words(mine.build(OLD, 1, registers(1, 987654399)))[1] == 78


async def test_a_round_gets_the_vector_that_is_durable_for_it_after_a_restart(path: Path) -> None:
    async with account(path) as mine:
        await mine.first_reading((1, 100, 0, 0))
        mine.build(OLD, 4, registers(4, 110, 0, 77))
        await share(mine, OLD, 4, 1)
    async with account(path) as mine:
        assert mine.resume(0) == Resume(4, 1, Progress.SHARED, settled=False)
        assert mine.resume(1) is None
        assert words(mine.build(OLD, 4, registers(4, 500, 0, 500))) == [1, 10, 0, 77]
        assert mine.build(OLD, 5, registers(5, 111)) is None  # not before the result of round 4 is known
        await share(mine, OLD, 4, 2)
        await mine.settled(OLD, Settled(4, included=True))
        assert words(mine.build(OLD, 5, registers(5, 111)))[1] == 1


async def test_the_next_epoch_waits_for_the_last_result_of_the_old_one(path: Path) -> None:
    async with account(path) as mine:
        await mine.first_reading((1, 100, 0, 0))
        mine.build(OLD, 9, registers(9, 150))
        await share(mine, OLD, 9)
        assert not mine.is_free_for(1)
        assert mine.is_free_for(0)
        assert mine.build(NEW, 0, registers(10, 151)) is None
    async with account(path) as mine:  # nor after a restart
        assert mine.unsettled == (0, 9)
        assert mine.build(NEW, 0, registers(10, 151)) is None
        await mine.settle(0, 9, included=True)
        await mine.settle(0, 9, included=False)  # a second answer changes nothing
        assert mine.is_free_for(1)
        assert words(mine.build(NEW, 0, registers(10, 151)))[1] == 1


async def test_what_was_built_on_an_account_that_has_moved_never_leaves(path: Path) -> None:
    async with account(path) as mine:
        await mine.first_reading((1, 100, 0, 0))
        mine.build(OLD, 9, registers(9, 150))
        assert words(mine.build(NEW, 0, registers(10, 160)))[1] == 60
        with pytest.raises(SupersededError):  # the old epoch's head was late: its round's energy is in the new one
            await share(mine, OLD, 9)
        await share(mine, NEW, 0)
        await mine.settle(1, 0, included=True)
        assert mine.build(OLD, 9, registers(9, 150)) is None


async def test_two_epochs_that_contribute_at_the_same_moment_cannot_both(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with account(path) as mine:
        await mine.first_reading((1, 100, 0, 0))
        mine.build(OLD, 9, registers(9, 150))
        done: list[str] = []
        writing, write = trio.Event(), store_of(mine).write

        async def watched(statements: Any) -> None:
            writing.set()
            await write(statements)

        monkeypatch.setattr(store_of(mine), "write", watched)

        async def attempt(name: str, view: RingView, round_: int) -> None:
            try:
                await share(mine, view, round_)
            except SupersededError:
                return
            done.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, "old", OLD, 9)
            await writing.wait()
            mine.build(NEW, 0, registers(10, 160))
            nursery.start_soon(attempt, "new", NEW, 0)
        assert done == ["old"]
        await mine.settle(0, 9, included=True)
        with pytest.raises(SupersededError):
            await share(mine, NEW, 0)
        assert words(mine.build(NEW, 0, registers(10, 160)))[1] == 10


async def test_a_write_that_fails_leaves_the_account_as_it_was(path: Path) -> None:
    async with account(path) as mine:
        await mine.first_reading((1, 100, 0, 0))
        mine.build(OLD, 0, registers(0, 110))
        full = "CREATE TRIGGER full BEFORE {} BEGIN SELECT RAISE(ABORT, 'full'); END"
        await store_of(mine).write([Statement(full.format("INSERT ON contribution"), ())])
        with pytest.raises(StoreError):
            await share(mine, OLD, 0)
        assert (mine.unsettled, mine.resume(0)) == (None, None)
        await store_of(mine).write([Statement("DROP TRIGGER full", ())])
        assert words(mine.build(OLD, 1, registers(1, 120)))[1] == 20
        await share(mine, OLD, 1)
        await store_of(mine).write([Statement(full.format("UPDATE ON baseline"), ())])
        with pytest.raises(StoreError):
            await mine.settled(OLD, Settled(1, included=True))
        assert mine.unsettled == (0, 1)
        await store_of(mine).write([Statement("DROP TRIGGER full", ())])
        await mine.settled(OLD, Settled(1, included=True))
        assert words(mine.build(OLD, 2, registers(2, 121)))[1] == 1


async def cancelled(call: Callable[[], Awaitable[None]], mine: Contributions) -> None:
    """Cancel a call while its write is under way, as the end of an epoch does, and wait until that is on the disk."""
    written = store_of(mine).counters.transactions
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        while not mine._lock.locked():
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    while store_of(mine).counters.transactions == written:
        await trio.sleep(0.001)


async def test_disk_and_account_agree_also_where_the_task_was_cancelled(path: Path) -> None:
    """An epoch's tasks end in the middle of a write: the next epoch goes on with the very same account."""
    async with account(path, VERIFIED_SCHEMA) as mine:
        await mine.first_reading((1, 100, 0, 0))
        mine.build(OLD, 9, registers(9, 150))
        await cancelled(lambda: share(mine, OLD, 9), mine)
        begun = mine.unsettled
        await cancelled(lambda: mine.settle(0, 9, included=True), mine)
        assert (begun, mine.unsettled) == ((0, 9), None)
        await mine.settle(0, 9, included=True)
        assert words(mine.build(NEW, 0, registers(10, 151)))[1] == 1


async def test_what_is_over_a_range_is_released_like_missed_energy(path: Path) -> None:
    """Ranges of [0, 2^5) and [0, 2^4): of 100 units of import and 16 of feed-in 31 and 15 go out at once."""
    narrow: Any = SimpleNamespace(epoch=0, size=8, noise=(), committed=(1, 2), bits=(5, 4))
    opened = []
    async with account(path, VERIFIED_SCHEMA) as mine:
        await mine.first_reading((1, 1000, 50, 0))
        for round_ in range(3):
            opened.append(words(mine.build(narrow, round_, registers(round_, 1100, 66, 5))))
            await share(mine, narrow, round_)
            await mine.settled(narrow, Settled(round_, included=True))
    async with account(path, VERIFIED_SCHEMA) as mine:  # and over a restart
        opened.append(words(mine.build(narrow, 3, registers(3, 1101, 66, 5))))
        await share(mine, narrow, 3)
        await mine.settled(narrow, Settled(3, included=False))
        opened.append(words(mine.build(narrow, 4, registers(4, 1101, 66, 5))))
    assert opened == [[1, 31, 15, 5], [1, 5, 1, 5], [1, 5, 0, 5], [1, 1 + 5, 0, 5], [1, 4, 0, 5]]
