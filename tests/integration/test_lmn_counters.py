"""Numbers that must never come twice: blocks of invocation counters over restarts of the node."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from loadtest.meters.dlms import DlmsServer, ServerSettings, push_frames
from loadtest.meters.dlms_objects import CosemObjects
from loadtest.meters.wmbus import WirelessMeter, framed
from node.lmn.counters import BLOCK_SIZE, DurableCounters, VolatileCounters
from node.lmn.dlms.security import InvocationCounter, Keys
from node.lmn.hdlc.frame import Address
from node.lmn.mbus.device import DeviceAddress
from node.lmn.profiles import MeterProfile
from node.lmn.registry import DRIVERS
from node.lmn.session import LmnStores
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.errors import StoreError
from node.storage.repositories.counters import CounterRepository
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

KEY = bytes(range(16))
TITLE = b"SMG\x00\x00\x00\x00\x01".hex()


def now() -> datetime:
    return datetime.now(UTC)


async def with_store(path: Path, use: Callable[[Store], Awaitable[list[int]]]) -> list[int]:
    store = Store(path, StorageCipher(bytes(32)))
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
        counters = DurableCounters(CounterRepository(store), lambda: 1_000.0)
        return [await counters.reserve("a"), await counters.reserve("a"), await counters.reserve("b", 5)]

    first = await with_store(tmp_path / "s", use)
    second = await with_store(tmp_path / "s", use)
    assert first == [1_000, 1_000 + BLOCK_SIZE, 1_000]
    assert second == [1_000 + 2 * BLOCK_SIZE, 1_000 + 3 * BLOCK_SIZE, 1_005]


async def test_a_lost_store_is_ahead_by_the_clock(tmp_path: Path) -> None:
    async def use(store: Store) -> list[int]:
        return [await DurableCounters(CounterRepository(store), lambda: 1_700_000_000.5).reserve("a")]

    assert await with_store(tmp_path / "new", use) == [1_700_000_000]
    volatile = VolatileCounters(lambda: 5.0)
    assert [await volatile.reserve("a", 3), await volatile.reserve("a", 3), await volatile.reserve("b", 3)] == [5, 8, 5]


async def test_tasks_that_reserve_at_once_get_different_blocks(tmp_path: Path) -> None:
    async def use(store: Store) -> list[int]:
        counters, taken = DurableCounters(CounterRepository(store), lambda: 0.0), []

        async def one() -> None:
            taken.append(await counters.reserve("a", 10))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
        return taken

    assert sorted(await with_store(tmp_path / "s", use)) == list(range(0, 200, 10))


@pytest.mark.parametrize("protocol", ["wmbus", "dlms"])
async def test_a_telegram_played_back_after_a_restart_is_refused(tmp_path: Path, protocol: str) -> None:
    keys = {"encryption": KEY.hex(), "authentication": KEY.hex()}
    telegram = telegram_of(protocol, KEY, 1)
    assert await with_store(tmp_path / "s", partial(heard, protocol, telegram, keys)) == [5]
    assert await with_store(tmp_path / "s", partial(heard, protocol, telegram, keys)) == []
    assert await with_store(tmp_path / "other", partial(heard, protocol, telegram, keys)) == [5]


@pytest.mark.parametrize("protocol", ["wmbus", "dlms"])
async def test_a_meter_counts_from_the_beginning_under_a_new_key(tmp_path: Path, protocol: str) -> None:
    """Its counters are those of its key; else a meter would be lost for good when its key is exchanged."""
    for key, counters, values in ((KEY, (7, 8), [[5], [5]]), (KEY[::-1], (0, 1, 0), [[5], [5], []])):
        told = {"encryption": key.hex(), "authentication": key.hex()}
        got = [
            await with_store(tmp_path / "s", partial(heard, protocol, telegram_of(protocol, key, counter), told))
            for counter in counters
        ]
        assert got == values


def telegram_of(protocol: str, key: bytes, counter: int) -> bytes:
    """A pushed telegram of the meter 1STK0100000001, sealed under the key with this counter."""
    registers = [(Obis(1, 0, 1, 8, 0, 255), 5, 0, 30)]
    if protocol == "wmbus":
        device = DeviceAddress.from_text("1STK0100000001", 2)
        meter = WirelessMeter(device, lambda _: registers, now, key=key, mode=7, counter=counter)
        return framed(meter.datagram(), "imst")
    objects = CosemObjects("1STK0100000001", lambda _: registers, now)
    pushing = DlmsServer(objects, ServerSettings(keys=Keys(key, key), system_title=b"STK\0\0\0\0\1"))
    pushing.counter = InvocationCounter(counter)
    return push_frames(pushing.notification(sealed=True), Address(1), Address(16))


async def heard(protocol: str, telegram: bytes, keys: dict[str, Any], store: Store) -> list[int]:
    """The values in Wh that a gateway with these keys, just started, takes from a telegram."""
    profile = MeterProfile(
        device="G/0", meter_id="1STK0100000001", protocol=protocol, link="radio://h:1", keys=keys, push=True
    )  # fmt: skip
    push = DRIVERS[protocol].push
    assert push is not None
    session = push([profile], LmnStores(DurableCounters(CounterRepository(store))))
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(telegram)
    await theirs.aclose()
    batches = [batch async for batch in session.listen(ours, time.time)]
    readings = [item for batch in batches for item in batch if isinstance(item, Reading) and item.unit == 30]
    return [reading.value for reading in readings if isinstance(reading.value, int)]


async def test_nothing_is_sent_where_the_counter_cannot_be_stored() -> None:
    class Broken(VolatileCounters):
        async def reserve(self, name: str, size: int = BLOCK_SIZE) -> int:
            assert (name, size) == (TITLE, BLOCK_SIZE)
            raise StoreError("the disk is full")

    keys: dict[str, Any] = {"encryption": "00" * 16, "authentication": "11" * 16, "system_title": TITLE}
    profile = MeterProfile(device="X", protocol="dlms", link="tcp://h:1", keys=keys)
    ours, theirs = trio.testing.memory_stream_pair()
    poll = DRIVERS["dlms"].poll
    assert poll is not None
    with pytest.raises(StoreError):
        await poll([profile], LmnStores(Broken())).ask(ours, profile, lambda: 0.0)
    await ours.aclose()
    assert await theirs.receive_some() == b""
