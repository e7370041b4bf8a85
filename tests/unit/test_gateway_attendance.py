"""A gateway's account of returns: one transaction with the contribution, one for all of its epochs, none lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from node.aggregation.attendance import GatewayAttendance
from node.aggregation.contribution import Contributions
from node.metering.registers import Registers
from node.storage.cipher import StorageCipher
from node.storage.engine import Statement, Store
from node.storage.errors import StoreError
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.attendance import AttendanceRepository
from protocol.dcnet.discipline.returns import TOKENS_MAX, Attendance
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.dcnet.setup.calendar import NewestEpoch
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.metering.interval import RegistrationGrid

GATEWAY = "ESTK0000000001"
VIEW: Any = SimpleNamespace(epoch=0, size=8, noise=(), committed=(), bits=())
GRID = RegistrationGrid(0, 900_000, 0, 900)


@asynccontextmanager
async def opened(path: Path, *, is_new: bool = True) -> AsyncIterator[tuple[Store, Contributions]]:
    """The account on a store of its own; leaving is a crash as far as the next one can tell."""
    async with trio.open_nursery() as nursery:
        store = Store(path, StorageCipher(bytes(32)))
        nursery.start_soon(store.run)
        kept = AttendanceRepository(store)
        if is_new:
            await kept.begin(GATEWAY, Attendance.first(0, is_key_new=True))
        attendance = GatewayAttendance(kept, GATEWAY)
        await attendance.start(7200)
        account = Contributions(AccountRepository(store), GATEWAY, DEFAULT_SCHEMA, attendance=attendance)
        await account.first_reading((1, 100, 0, 0))
        yield store, account
        nursery.cancel_scope.cancel()
    store.close()


def returns(account: Contributions) -> Attendance:
    assert account.attendance is not None
    return account.attendance.of_epoch(GRID).attendance


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registers.sqlite"


async def test_a_return_is_paid_with_the_share_and_serving_is_kept(path: Path) -> None:
    async with opened(path) as (_, account):
        account.build(VIEW, 9, Registers(8100, (1, 110, 0, 0)))
        await account.attempted(VIEW, Attempted(9, 0, Progress.SHARED, is_return=True))
        assert returns(account).tokens == TOKENS_MAX - 1
    async with opened(path) as (_, account):  # killed after the share
        assert returns(account) == Attendance(TOKENS_MAX - 1, 8100, entered_s=8100)
        account.build(VIEW, 9, Registers(8100, (1, 110, 0, 0)))
        await account.attempted(VIEW, Attempted(9, 1, Progress.SHARED))
        await account.attempted(VIEW, Attempted(9, 1, Progress.SERVED))
    async with opened(path) as (_, account):
        assert returns(account) == Attendance(TOKENS_MAX - 1, 8100, served_s=8100, entered_s=8100)
        assert account.attendance is not None
        assert account.attendance.of_epoch(GRID).is_in(10)
        assert not account.attendance.of_epoch(GRID).is_in(11)


async def test_a_share_that_is_not_durable_costs_nothing(path: Path) -> None:
    async with opened(path) as (store, account):
        account.build(VIEW, 9, Registers(8100, (1, 110, 0, 0)))
        full = "CREATE TRIGGER full BEFORE INSERT ON contribution BEGIN SELECT RAISE(ABORT, 'full'); END"
        await store.write([Statement(full, ())])
        with pytest.raises(StoreError):
            await account.attempted(VIEW, Attempted(9, 0, Progress.SHARED, is_return=True))
        assert returns(account).tokens == TOKENS_MAX
    async with opened(path) as (_, account):
        assert returns(account).tokens == TOKENS_MAX


async def test_a_key_older_than_its_store_begins_without_returns_and_stays_so(path: Path) -> None:
    async with opened(path, is_new=False) as (_, account):
        assert returns(account) == Attendance(0, 7200)
    async with opened(path, is_new=False) as (_, account):  # started again: it does not wait anew
        assert returns(account) == Attendance(0, 7200)
    async with opened(path) as (_, account):  # nor is a full bucket to be had by enrolling again beside it
        assert returns(account) == Attendance(0, 7200)


async def test_an_old_store_starts_its_returns_anew(path: Path) -> None:
    async with opened(path) as (_, account):
        assert account.attendance is not None
        await account.attendance.start_anew(90_000)
        assert returns(account) == Attendance(0, 90_000)
    async with opened(path) as (_, account):
        assert returns(account) == Attendance(0, 90_000)


async def test_the_newest_epoch_is_kept_over_a_restart(path: Path) -> None:
    async with opened(path) as (store, _):
        assert AttendanceRepository(store).newest_epoch(GATEWAY) is None
        await AttendanceRepository(store).put_newest_epoch(GATEWAY, NewestEpoch(3, 900))
        await AttendanceRepository(store).put_newest_epoch(GATEWAY, NewestEpoch(4, 86_400))
    async with opened(path) as (store, _):
        assert AttendanceRepository(store).newest_epoch(GATEWAY) == NewestEpoch(4, 86_400)


async def test_an_account_of_returns_is_not_read_before_it_is_started(path: Path) -> None:
    async with opened(path, is_new=False) as (store, _):
        with pytest.raises(ValueError, match="started"):
            GatewayAttendance(AttendanceRepository(store), "ESTK0000000002").of_epoch(GRID)
