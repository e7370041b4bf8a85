"""A gateway's range proofs: each holds, is made once, waits for the round to be settled, and tells nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import wait_all_tasks_blocked

from node.aggregation.contribution import Contributions
from node.aggregation.range_proofs import RangeProofs
from node.metering.registers import Registers
from node.metrics import NodeMetrics
from node.storage.cipher import StorageCipher
from node.storage.engine import Statement, Store
from node.storage.errors import StoreError
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.bills import BillRepository
from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen, blinding_of
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.crypto.range_proof import check_range
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.dcnet.machines.range_draw import range_text
from protocol.dcnet.setup.ranges import committed_bits
from protocol.dcnet.setup.schema import VERIFIED_SCHEMA

GATEWAY = "ESTK0000000001"
GROUP = Edwards25519()
PEDERSEN = Pedersen(GROUP)
BITS = committed_bits(VERIFIED_SCHEMA, 63, 900)
VIEW: Any = SimpleNamespace(epoch=7, size=8, noise=(), committed=(1, 2), bits=BITS)
REQUEST = wire.RangeRequest(7, 2, 5, 4, b"d" * 32, 900 * 5, 900, 63)
MOVED = 1234


class Gateway:
    """A gateway's account, with one contribution, and its range proofs."""

    def __init__(self, store: Store, nursery: trio.Nursery) -> None:
        self.store = store
        self.posted: list[wire.RangeProof] = []
        self.entropy = 0
        self.schema: Any = VERIFIED_SCHEMA
        self.registry = CollectorRegistry()
        draw = Random(1)
        self.account = Contributions(
            AccountRepository(store), GATEWAY, VERIFIED_SCHEMA, lambda: blinding_of(GROUP, uniform=draw.randbytes(64))
        )
        self.proofs = RangeProofs(
            BillRepository(store), GATEWAY, PEDERSEN, lambda: self.schema, 63, NodeMetrics(self.registry),
            self.posted.append, self._entropy,  # type: ignore[arg-type]
        )  # fmt: skip
        nursery.start_soon(self.proofs.run)

    def _entropy(self, count: int) -> bytes:
        self.entropy += count
        return Random(self.entropy).randbytes(count)

    async def contribute(self, round_: int = 5, energy: int = 1000 + MOVED) -> None:
        built = self.account.build(VIEW, round_, Registers(900 * round_, (1, energy, 50, 0)))
        assert built is not None
        self.blindings = built.blindings
        await self.account.attempted(VIEW, Attempted(round_, 0, Progress.SHARED))

    async def asked(self, request: wire.RangeRequest) -> wire.RangeProof:
        before = len(self.posted)
        self.proofs.receive(request)
        with trio.fail_after(120):
            while len(self.posted) == before:
                await trio.sleep(0.01)
        return self.posted[-1]

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def gateway(path: Path) -> AsyncIterator[Gateway]:
    async with trio.open_nursery() as nursery:
        store = Store(path / "registers.sqlite", StorageCipher(bytes(32)))
        nursery.start_soon(store.run)
        mine = Gateway(store, nursery)
        await mine.account.first_reading((1, 1000, 50, 0))
        yield mine
        nursery.cancel_scope.cancel()
    store.close()


def holds(mine: Gateway, answer: wire.RangeProof | None) -> None:
    assert answer is not None
    assert (answer.epoch, answer.ring, answer.round, answer.position) == (7, 2, 5, 4)
    assert len(answer.proofs) == 2
    for slot, value, blinding, bits, proof in zip((1, 2), (MOVED, 0), mine.blindings, BITS, answer.proofs, strict=True):
        commitment = PEDERSEN.commit(value, blinding)
        check_range(PEDERSEN, commitment, bits, range_text(b"d" * 32, 2, 5, 4, slot, commitment, bits), proof)


async def test_what_was_committed_to_is_proved_and_the_proof_is_made_once(tmp_path: Path) -> None:
    async with gateway(tmp_path) as mine:
        await mine.contribute()
        await mine.account.settle(7, 5, included=True)
        answer = await mine.asked(REQUEST)
        holds(mine, answer)
        used = mine.entropy
        assert await mine.asked(REQUEST) == answer
        assert mine.entropy == used > 0
        assert mine.counted("stromkreis_node_ring_events_total", event="range_proved") == 1


async def test_a_request_that_comes_before_the_result_waits_for_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as mine:
        await mine.contribute()
        mine.proofs.receive(REQUEST)
        await wait_all_tasks_blocked()
        assert mine.posted == []
        await mine.account.settle(7, 5, included=True)
        mine.proofs.account_moved()
        with trio.fail_after(120):
            while not mine.posted:
                await trio.sleep(0.01)
        holds(mine, mine.posted[0])


async def test_what_cannot_be_proved_is_said_so(tmp_path: Path) -> None:
    """Also a range that is narrower than the connection: its proof would tell what was used."""
    async with gateway(tmp_path) as mine:
        nothing = wire.RangeProof(7, 2, 5, 4, ())
        assert await mine.asked(REQUEST) == nothing  # never contributed
        await mine.contribute()
        await mine.account.settle(7, 5, included=True)
        assert await mine.asked(replace(REQUEST, fuse_a=62)) == nothing
        assert await mine.asked(replace(REQUEST, interval_s=1)) == nothing  # a range in which 1234 is not
        mine.schema = None
        assert await mine.asked(REQUEST) == nothing
        mine.schema = VERIFIED_SCHEMA
        await mine.store.write([Statement("UPDATE committed SET value=NULL", ())])  # as a bill does
        assert await mine.asked(REQUEST) == nothing
        assert mine.counted("stromkreis_node_ring_events_total", event="range_not_proved") == 5
        assert mine.entropy == 0


async def test_an_interval_of_a_second_is_no_way_to_a_narrow_range(tmp_path: Path) -> None:
    """Whether a value lies in a range is itself an answer: the range is never smaller than a quarter hour's."""
    async with gateway(tmp_path) as mine:
        await mine.contribute(energy=1000)  # nothing was used: 0 lies in every range
        await mine.account.settle(7, 5, included=True)
        assert await mine.asked(replace(REQUEST, interval_s=899)) == wire.RangeProof(7, 2, 5, 4, ())


async def test_requests_beyond_the_bound_are_dropped(tmp_path: Path) -> None:
    async with gateway(tmp_path) as mine:
        await mine.contribute()
        for round_ in range(40):
            mine.proofs.receive(replace(REQUEST, round=round_))
        assert mine.counted("stromkreis_node_dropped_events_total", queue="range_proofs") == 8


async def test_a_store_that_cannot_be_read_costs_the_answer_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(tmp_path) as mine:
        await mine.contribute()
        await mine.account.settle(7, 5, included=True)

        def failing(*_: object) -> None:
            raise StoreError("the disk is gone")

        with monkeypatch.context() as broken:
            broken.setattr(BillRepository, "committed", failing)
            mine.proofs.receive(REQUEST)
            await wait_all_tasks_blocked()
        assert mine.posted == []
        assert mine.counted("stromkreis_node_store_errors_total") == 1
        holds(mine, await mine.asked(REQUEST))
