"""
What a durable contribution costs: gateways that all contribute at once, round after round, into one store.

Each round is taken sealed, as a node keeps it, and unsealed, in turn and on the same disk: the ratio is the price of
encryption at rest.  A temporary folder in memory acknowledges without a disk, which makes that price look largest.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from loadtest.bench.measure import Row, Spread, cpu_us
from loadtest.unsealed import Unsealed
from node.storage.cipher import Cipher, StorageCipher
from node.storage.engine import Store
from node.storage.repositories.accounts import AccountRepository, ContributionRecord
from protocol.dcnet.discipline.carried_energy import EnergyAccount

_REGISTERS = (1, 61_803_398_874, 2_718_281_828, 1_414)
_VECTOR = bytes(8 * len(_REGISTERS))


@asynccontextmanager
async def _accounts(path: Path, cipher: Cipher) -> AsyncIterator[AccountRepository]:
    store = Store(path, cipher)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield AccountRepository(store)
        nursery.cancel_scope.cancel()
    store.close()


async def _round(accounts: AccountRepository, gateways: int, number: int) -> float:
    """All gateways contribute and, when that is durable, settle: the time in ms."""
    energies = tuple(EnergyAccount(each, each, 900 * number) for each in _REGISTERS)
    record = ContributionRecord(1, number, 0, 900 * number, 1, False, _REGISTERS, _VECTOR, (), energies)

    async def contribute(gateway: str) -> None:
        await accounts.contribute(gateway, record)
        await accounts.settle(gateway, record, included=True)

    began_s = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for index in range(gateways):
            nursery.start_soon(contribute, f"gateway-{index}")
    return 1000 * (time.perf_counter() - began_s)


async def rounds(folder: Path, gateways: int, count: int) -> tuple[list[float], list[float]]:
    """The times of `count` rounds in ms, sealed and unsealed; each began right after the other's."""
    sealed: list[float] = []
    unsealed: list[float] = []
    async with (
        _accounts(folder / "sealed.db", StorageCipher(os.urandom(32))) as ours,
        _accounts(folder / "unsealed.db", Unsealed()) as peer,
    ):
        for number in range(-1, count):  # the first one warms up
            for accounts, took_ms in ((ours, sealed), (peer, unsealed)):
                took_ms.append(await _round(accounts, gateways, number + 1))
    return sealed[1:], unsealed[1:]


def rows(*, quick: bool = False) -> list[Row]:
    """Whole rounds with their flushes by the clock, and the cipher alone."""
    gateways, count = (200, 5) if quick else (1000, 20)
    with tempfile.TemporaryDirectory() as folder:
        sealed, unsealed = trio.run(rounds, Path(folder), gateways, count)
    cipher, row, value = StorageCipher(os.urandom(32)), ("ESTK0000000001", 1, 5, 900), bytes(70)
    kept = cipher.seal("contribution", row, value)
    times = 2_000 if quick else 20_000
    return [
        Row(
            f"{gateways} gateways contribute and settle, sealed", "ms", Spread.of(sealed), "unsealed",
            Spread.of(unsealed), Spread.of([peer / ours for ours, peer in zip(sealed, unsealed, strict=True)]),
            clock="wall", note="group commits of the node's store on this disk",
        ),
        Row(
            "sealing a contribution of 70 bytes", "µs",
            Spread.of([cpu_us(lambda: cipher.seal("contribution", row, value), times) for _ in range(5)]),
        ),
        Row(
            "opening it", "µs",
            Spread.of([cpu_us(lambda: cipher.open("contribution", row, kept), times) for _ in range(5)]),
        ),
    ]  # fmt: skip
