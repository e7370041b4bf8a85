"""Numbers that must never come twice: blocks of invocation counters over restarts of the node."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from node.lmn.counters import BLOCK_SIZE, CounterStore, DurableCounters, VolatileCounters
from node.lmn.drivers import DRIVERS
from node.lmn.profiles import MeterProfile
from node.store import Store, StoreError

TITLE = b"SMG\x00\x00\x00\x00\x01".hex()


async def with_store(path: Path, use: Callable[[Store], Awaitable[list[int]]]) -> list[int]:
    store = Store(path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            taken = await use(store)
            nursery.cancel_scope.cancel()
    finally:
        store.close()
    return taken


async def test_a_restart_goes_on_above_all_that_was_reserved(tmp_path: Path) -> None:
    async def use(store: Store) -> list[int]:
        counters = DurableCounters(store, lambda: 1_000.0)
        return [await counters.reserve("a"), await counters.reserve("a"), await counters.reserve("b", 5)]

    first = await with_store(tmp_path / "s", use)
    second = await with_store(tmp_path / "s", use)
    assert first == [1_000, 1_000 + BLOCK_SIZE, 1_000]
    assert second == [1_000 + 2 * BLOCK_SIZE, 1_000 + 3 * BLOCK_SIZE, 1_005]


async def test_a_lost_store_is_ahead_by_the_clock(tmp_path: Path) -> None:
    async def use(store: Store) -> list[int]:
        return [await DurableCounters(store, lambda: 1_700_000_000.5).reserve("a")]

    assert await with_store(tmp_path / "new", use) == [1_700_000_000]
    volatile = VolatileCounters(lambda: 5.0)
    assert [await volatile.reserve("a", 3), await volatile.reserve("a", 3), await volatile.reserve("b", 3)] == [5, 8, 5]


async def test_tasks_that_reserve_at_once_get_different_blocks(tmp_path: Path) -> None:
    async def use(store: Store) -> list[int]:
        counters, taken = DurableCounters(store, lambda: 0.0), []

        async def one() -> None:
            taken.append(await counters.reserve("a", 10))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
        return taken

    assert sorted(await with_store(tmp_path / "s", use)) == list(range(0, 200, 10))


async def test_nothing_is_sent_where_the_counter_cannot_be_stored() -> None:
    class Broken(CounterStore):
        async def reserve(self, name: str, size: int = BLOCK_SIZE) -> int:
            assert (name, size) == (TITLE, BLOCK_SIZE)
            raise StoreError("the disk is full")

    keys = {"encryption": "00" * 16, "authentication": "11" * 16, "system_title": TITLE}
    profile = MeterProfile(device="X", protocol="dlms", link="tcp://h:1", keys=keys)
    profile.keep_counters_in(Broken())
    ours, theirs = trio.testing.memory_stream_pair()
    ask = DRIVERS["dlms"].ask
    assert ask is not None
    with pytest.raises(StoreError):
        await ask(ours, profile, lambda: 0.0)
    await ours.aclose()
    assert await theirs.receive_some() == b""
