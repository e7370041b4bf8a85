"""
Distributed noise end to end: gateways' accounts on a real store, a ring of the real machines, and what comes out.

Opened totals minus truth must have the two-sided geometric distribution when just as many members add noise as are
taken to be honest; and the accounts must know nothing of it.
"""

import math
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import trio

from loadtest.ring import LocalRing, RingSize
from node.aggregation.contribution import Contributions
from node.metering.registers import Registers
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.repositories.accounts import AccountRepository
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.discipline.carried_energy import EnergyAccount, contribute
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, Kind, Noise, signed

ROUNDS = 660
VOID = 11  # every so many rounds one is void, and its energy is carried
NOISE = {Kind.ENERGY: Noise(1_000_000, 2), Kind.POWER: Noise(3_000_000, 4)}
CRITICAL_8 = 26.12  # chi-square, 8 degrees of freedom, false alarm 0.1 %; the seeds are fixed


def chi_square(noise: list[int], decay: float, edge: int = 4) -> float:
    """Against P[K = k] proportional to decay^|k|, in the bins <= -edge, -edge+1 .. edge-1, >= edge."""
    inner = [(1 - decay) / (1 + decay) * decay ** abs(k) for k in range(-edge + 1, edge)]
    outer = (1 - sum(inner)) / 2
    seen = [sum(max(-edge, min(edge, each)) == k for each in noise) for k in range(-edge, edge + 1)]
    return sum((s - len(noise) * p) ** 2 / (len(noise) * p) for s, p in zip(seen, [outer, *inner, outer], strict=True))


async def test_totals_minus_truth_are_two_sided_geometric_and_no_account_knows(tmp_path: Path) -> None:
    size = RingSize(n=6, k=5, t=4, t_c=4, k_min=4, n_min=5, rounds=ROUNDS)
    ring = LocalRing(StandardSuite(), size, b"noisy".ljust(32))
    schema = replace(
        DEFAULT_SCHEMA, slots=tuple(replace(slot, noise=NOISE.get(slot.kind)) for slot in DEFAULT_SCHEMA.slots)
    )
    noisy = replace(ring.view, corrupt=1, noise=schema.noise)
    assert noisy.honest_min == 4
    draw, meters = random.Random(20), random.Random(21)
    noise: list[list[int]] = [[], [], [], []]
    registers = [[1, meters.randrange(10**6), meters.randrange(10**6), 0] for _ in range(size.n)]
    first = [list(each) for each in registers]
    books = [[EnergyAccount(each, each) for each in mine] for mine in registers]
    flown = [0] * 4
    async with trio.open_nursery() as nursery:
        store = Store(tmp_path / "registers.sqlite", StorageCipher(bytes(32)))
        nursery.start_soon(store.run)
        accounts = [
            Contributions(AccountRepository(store), f"gateway-{i}", DEFAULT_SCHEMA, random_bits=draw.getrandbits)
            for i in range(size.n)
        ]
        for account, values in zip(accounts, first, strict=True):
            await account.first_reading(tuple(values))
        for round_ in range(ROUNDS):
            vectors = []
            for position, (account, values) in enumerate(zip(accounts, registers, strict=True)):
                values[1] += meters.randrange(2000)
                values[2] += meters.randrange(500)
                values[3] = meters.randrange(-5000, 5000)
                view = noisy if position < noisy.honest_min else ring.view  # the others count on nobody's noise
                built = account.build(view, round_, Registers(900 * round_, tuple(values)))
                again = account.build(view, round_, Registers(900 * round_, tuple(values)))
                assert built is not None
                assert again is not None
                assert np.array_equal(built.vector, again.vector)  # a second attempt draws nothing
                vectors.append(built.vector)
            is_void = round_ % VOID == VOID - 1
            total = [0] * 4 if is_void else [signed(word) for word in ring.round(round_, vectors).total]
            async with trio.open_nursery() as settling:
                for account in accounts:
                    settling.start_soon(settle, account, ring.view, round_, not is_void)
            if is_void:
                continue
            for index in range(4):
                truth = 0
                for mine, book in zip(registers, books, strict=True):
                    if schema.slots[index].kind is Kind.ENERGY:
                        moved, book[index] = contribute(book[index], mine[index], 900 * round_, length_s=900)
                        truth += moved
                    else:
                        truth += mine[index]
                noise[index].append(total[index] - truth)
                flown[index] += total[index]
        nursery.cancel_scope.cancel()
    store.close()
    assert not any(noise[0])
    for index, kind in ((1, Kind.ENERGY), (2, Kind.ENERGY), (3, Kind.POWER)):
        decay = math.exp(-float(Fraction(NOISE[kind].epsilon_ppm, 10**6) / NOISE[kind].sensitivity))
        assert chi_square(noise[index], decay) < CRITICAL_8
        assert chi_square(noise[index], decay**2) > 2 * CRITICAL_8  # the test would notice half of the noise
    for index in (1, 2):  # conservation: accounts move by what is true, totals carry that and their own noise
        moved = sum(book[index].contributed - begin[index] for book, begin in zip(books, first, strict=True))
        assert flown[index] == moved + sum(noise[index])
    reopened = Store(tmp_path / "registers.sqlite", StorageCipher(bytes(32)))
    for position, book in enumerate(books):
        kept = Contributions(AccountRepository(reopened), f"gateway-{position}", DEFAULT_SCHEMA)
        assert list(kept._opened or ())[1:3] == book[1:3]
    reopened.close()


async def settle(account: Contributions, view: RingView, round_: int, included: bool) -> None:
    await account.attempted(view, Attempted(round_, 0, Progress.SHARED))
    await account.settle(view.epoch, round_, included=included)


async def test_a_restart_between_durable_and_sent_keeps_the_noise_that_was_drawn(tmp_path: Path) -> None:
    ring = LocalRing(StandardSuite(), RingSize(n=6, k=5, t=4, t_c=4, k_min=4, n_min=5), bytes(32))
    noisy = replace(ring.view, corrupt=1, noise=((1, Noise(1000, 10**6)), (3, Noise(1000, 10**6))))
    vectors = []
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            store = Store(tmp_path / "registers.sqlite", StorageCipher(bytes(32)))
            nursery.start_soon(store.run)
            mine = Contributions(AccountRepository(store), "gateway-0", DEFAULT_SCHEMA)
            await mine.first_reading((1, 1000, 0, 0))
            built = mine.build(noisy, 4, Registers(3600, (1, 1010, 0, 70)))
            assert built is not None
            vectors.append(built.vector)
            await mine.attempted(noisy, Attempted(4, len(vectors) - 1, Progress.SHARED))
            nursery.cancel_scope.cancel()
        store.close()
    assert np.array_equal(vectors[0], vectors[1])
    assert list(map(int, vectors[0]))[1::2] != [10, 70]
