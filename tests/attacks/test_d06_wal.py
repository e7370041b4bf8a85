"""D6: readings that were deleted, read from the write-ahead log of a store: 95 of 95 quarter hours of a day."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from loadtest.unsealed import Unsealed
from node.aggregation.contribution import Contributions
from node.metering.registers import Registers
from node.storage import engine
from node.storage.engine import Statement, Store
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.bills import BillRecord, BillRepository
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, VERIFIED_SCHEMA, Schema

GATEWAY = "ESTK0000000001"
IMPORT = "1-0:1.8.0*255"
FIRST = 0x5EC2_E700_0000  # registers that occur nowhere by chance


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest between two: what is shown here holds some seconds later otherwise."""
    monkeypatch.setattr(engine, "_TRUNCATION_S_MIN", 0.05)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    """Nothing is sealed: what is in a file can be searched for."""
    store = Store(path, Unsealed())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield store
        nursery.cancel_scope.cancel()
    store.close()


async def live(store: Store, schema: Schema, rounds: int) -> list[int]:
    """Quarter hours that open; the registers, oldest first."""
    mine = Contributions(AccountRepository(store), GATEWAY, schema, lambda: 1)
    view: Any = SimpleNamespace(
        epoch=1, size=24, noise=(), committed=schema.committed, bits=tuple(19 for _ in schema.committed)
    )
    count = len(schema.slots)
    registers = [FIRST + 4096 * n for n in range(rounds + 1)]
    await mine.first_reading((1, registers[0], *(0 for _ in range(count - 2))))
    for round_, register in enumerate(registers[1:]):
        mine.build(view, round_, Registers(900 * (round_ + 1), (1, register, *(0 for _ in range(count - 2)))))
        await mine.attempted(view, Attempted(round_, 0, Progress.SHARED))
        await mine.settle(1, round_, included=True)
    return registers


def contents(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))


async def until_gone(path: Path, values: list[bytes]) -> None:
    with trio.fail_after(120):
        while any(value in contents(path) for value in values):
            await trio.sleep(0.01)


@pytest.mark.parametrize("rounds", [1, 2, 96])
async def test_a_living_store_has_no_register_of_an_earlier_round(tmp_path: Path, rounds: int) -> None:
    """The zero of the account and the last contribution are what the account needs."""
    path = tmp_path / "registers.sqlite"
    async with opened(path) as store:
        registers = [struct.pack("<q", each) for each in await live(store, DEFAULT_SCHEMA, rounds)]
        await until_gone(path, registers[1:-1])
        assert registers[-1] in contents(path)  # the search finds what is there


async def test_a_billed_value_is_in_no_file_either(tmp_path: Path) -> None:
    path = tmp_path / "registers.sqlite"
    async with opened(path) as store:
        await live(store, VERIFIED_SCHEMA, 8)
        bills = BillRepository(store)
        kept = bills.committed(GATEWAY, IMPORT, 0, 10**6)
        assert len(kept) == 8
        value = (4096).to_bytes(8, "little") + (1).to_bytes(32, "little")
        assert value in contents(path)  # the search finds what is there
        bill = BillRecord(bytes(32), bytes(32), 7200, bytes(16))
        await bills.give(GATEWAY, bill, IMPORT, sorted(kept), keep_s=10**6)
        await until_gone(path, [value])


async def test_rows_that_are_only_added_leave_the_log_as_it_is(tmp_path: Path) -> None:
    """Nothing is deleted by them, and a truncation is a flush of the disk."""
    path = tmp_path / "registers.sqlite"
    async with opened(path) as store:
        for day in range(3):
            await store.write([Statement("INSERT INTO area_size VALUES (?,?,?)", (GATEWAY, day, 24))])
        assert not store._is_truncation_due
        before = store.counters.truncations
        await store.write([Statement("DELETE FROM area_size WHERE gateway=? AND day<?", (GATEWAY, 2))])
        with trio.fail_after(120):
            while store.counters.truncations == before:
                await trio.sleep(0.01)
        assert path.with_name(path.name + "-wal").stat().st_size == 0
