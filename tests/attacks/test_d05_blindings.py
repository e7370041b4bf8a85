"""D5: a key that lives as long as the gateway opens every stored commitment of the past; and what D2 made of it."""

import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from node.aggregation.contribution import Contribution, Contributions
from node.metering.registers import Registers
from node.security.module import KeyDirectory
from node.storage.cipher import store_cipher
from node.storage.engine import Store
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.bills import BillRecord, BillRepository
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.dcnet.setup.schema import VERIFIED_SCHEMA

SUITE = StandardSuite()
GROUP = SUITE.group
PEDERSEN = Pedersen(GROUP)
NAME = "ESTK0000000001"
IMPORT = "1-0:1.8.0*255"
READING_MAX = 500  # of the test: a search over all readings stays short


def view(epoch: int) -> Any:
    return SimpleNamespace(epoch=epoch, size=24, noise=(), committed=(1, 2), bits=(19, 19))


@asynccontextmanager
async def gateway(directory: Path) -> AsyncIterator[tuple[Contributions, Store]]:
    keys = KeyDirectory(directory / "keys", SUITE)
    store = Store(directory / "registers.sqlite", store_cipher(keys), blinding_key=keys.retired_commitment_key)
    keys.forget_commitment_keys()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        module = keys.open(NAME)
        yield Contributions(AccountRepository(store), NAME, VERIFIED_SCHEMA, module.blinding), store
        nursery.cancel_scope.cancel()
    store.close()
    keys.close()


async def contribute(mine: Contributions, epoch: int, round_: int, energy: int) -> Contribution:
    built = mine.build(view(epoch), round_, Registers(900 * (round_ + 1), (1, energy, 0, 0)))
    assert built is not None
    await mine.attempted(view(epoch), Attempted(round_, 0, Progress.SHARED))
    return built


def committed(built: Contribution) -> bytes:
    """What the coordinator stores of it, for the import register."""
    return PEDERSEN.commit(int(built.vector[1]), built.blindings[0])


def small_logarithm(point: bytes) -> int | None:
    """X where `point` is X·G with a reading's size, found as the attack found it: by trying."""
    positive = negative = GROUP.multiply_base(0)
    base = GROUP.multiply_base(1)
    for x in range(READING_MAX + 1):
        if point == positive:
            return x
        if point == negative:
            return -x
        positive, negative = GROUP.add(positive, base), GROUP.subtract(negative, base)
    return None


def secrets_in(directory: Path) -> list[bytes]:
    """Every run of 32 bytes that the JSON files of a key directory name, and every other file's first and last."""
    found = []
    for path in directory.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        found += [data[:32], data[-32:]]
        if path.suffix == ".json":
            for value in json.loads(data).values():
                if isinstance(value, str) and len(value) == 64:
                    found.append(bytes.fromhex(value))
    return [each for each in found if len(each) == 32]


def derived(key: bytes, interval_s: int) -> int:
    """A blinding as the first edition derived it."""
    text = b"stromkreis/1 Pedersen blinding\0" + f"{NAME} {IMPORT} {interval_s}".encode()
    return int.from_bytes(hmac.digest(key, text, "sha512"), "little") % GROUP.order


def opened_by(keys: list[bytes], stored: dict[int, bytes]) -> int:
    """How many commitments the thief of `keys` opens."""
    count = 0
    for interval_s, commitment in stored.items():
        for key in keys:
            mask = GROUP.multiply(derived(key, interval_s), PEDERSEN.blinding_generator)
            if small_logarithm(GROUP.subtract(commitment, mask)) is not None:
                count += 1
                break
    return count


async def day(directory: Path, rounds: int) -> dict[int, bytes]:
    """Quarter hours of a gateway, all in opened totals: the coordinator's commitments by interval."""
    stored, energy, draw = {}, 10_000, Random(rounds)
    async with gateway(directory) as (mine, _):
        await mine.first_reading((1, energy, 0, 0))
        for round_ in range(rounds):
            energy += draw.randint(1, READING_MAX)
            built = await contribute(mine, 1, round_, energy)
            await mine.settle(1, round_, included=True)
            stored[built.registers.interval_s] = committed(built)
    return stored


async def test_the_key_files_open_no_stored_commitment(tmp_path: Path) -> None:
    stored = await day(tmp_path, 6)
    keys = secrets_in(tmp_path / "keys")
    assert keys  # the search finds what there is
    assert opened_by(keys, stored) == 0
    forged = {interval_s: PEDERSEN.commit(7, derived(keys[0], interval_s)) for interval_s in stored}
    assert opened_by(keys, forged) == len(forged)  # and would open what was derived from one of them


async def test_a_billed_value_leaves_nothing_that_opens_its_commitment(tmp_path: Path) -> None:
    """`keys/` and the store together, taken after the bill: neither value nor blinding is there any more."""
    await day(tmp_path, 6)
    async with gateway(tmp_path) as (_, store):
        bills = BillRepository(store)
        before = bills.committed(NAME, IMPORT, 0, 10**6)
        assert all(each is not None and each.blinding for each in before.values())
        bill = BillRecord(bytes(32), bytes(32), 5400, bytes(16))
        await bills.give(NAME, bill, IMPORT, sorted(before), keep_s=10**6)
        assert bills.committed(NAME, IMPORT, 0, 10**6) == dict.fromkeys(before)


@pytest.mark.parametrize("epochs", [(1, 1), (1, 2)])
async def test_a_store_that_is_moved_away_gives_no_difference_of_commitments(
    tmp_path: Path, epochs: tuple[int, int]
) -> None:
    """D2 (a): keys kept, the same quarter hour contributed again from a new baseline; C - C' was reading·G."""
    async with gateway(tmp_path) as (mine, _):
        await mine.first_reading((1, 10_000, 0, 0))
        first = committed(await contribute(mine, epochs[0], 1, 10_321))
    for path in tmp_path.glob("registers.sqlite*"):
        path.rename(path.with_name(f"moved-{path.name}"))
    async with gateway(tmp_path) as (mine, _):
        await mine.first_reading((1, 10_321, 0, 0))
        second = committed(await contribute(mine, epochs[1], 1, 10_321))
    assert small_logarithm(GROUP.subtract(first, second)) is None


@pytest.mark.parametrize("later", [1, 2, 5])
async def test_a_store_that_is_put_back_gives_no_difference_of_commitments(tmp_path: Path, later: int) -> None:
    """D2 (b): the older copy contributes to the same interval, its energy a difference to the older baseline."""
    async with gateway(tmp_path) as (mine, _):
        await mine.first_reading((1, 10_000, 0, 0))
        await contribute(mine, 1, 0, 10_050)
        await mine.settle(1, 0, included=True)
    older = {path.name: path.read_bytes() for path in tmp_path.glob("registers.sqlite*")}
    energy = 10_050
    async with gateway(tmp_path) as (mine, _):
        for round_ in range(1, later + 1):
            energy += 60
            first = committed(await contribute(mine, 1, round_, energy))
            await mine.settle(1, round_, included=True)
    for name, content in older.items():
        (tmp_path / name).write_bytes(content)
    async with gateway(tmp_path) as (mine, _):
        second = committed(await contribute(mine, 1, later, energy))
    assert small_logarithm(GROUP.subtract(first, second)) is None


async def test_a_retry_after_a_restart_repeats_its_commitment(tmp_path: Path) -> None:
    """Otherwise two attempts of one round, both with the same value, would commit to it twice."""
    async with gateway(tmp_path) as (mine, _):
        await mine.first_reading((1, 10_000, 0, 0))
        first = await contribute(mine, 1, 1, 10_321)
    async with gateway(tmp_path) as (mine, _):
        again = mine.build(view(1), 1, Registers(1800, (1, 10_321, 0, 0)))
        assert again is not None
        assert again.blindings == first.blindings
        assert again.vector.tobytes() == first.vector.tobytes()
