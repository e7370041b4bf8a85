"""Gateways of one process share the making of their masks, through the node's own drivers."""

from pathlib import Path

import trio
from prometheus_client import CollectorRegistry

from loadtest.bench.gateways import Process, Ring, bench_schema
from node.aggregation.context import RELAY
from node.aggregation.membership import Membership
from node.metrics import NodeMetrics
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from protocol import wire
from protocol.dcnet.crypto.suite import Encryptor, StandardSuite
from protocol.dcnet.machines.masks import MaskSchedule
from protocol.dcnet.setup.rings import Timing
from protocol.link import LinkContext

N = 16


class Counting(StandardSuite):
    """Counts the ciphers that are set up."""

    def __init__(self) -> None:
        super().__init__()
        self.set_up = 0

    def encryptor(self, key: bytes, counter: bytes) -> Encryptor:
        self.set_up += 1
        return super().encryptor(key, counter)


def test_the_first_to_hear_of_a_head_makes_the_masks_of_all(tmp_path: Path) -> None:
    suite = Counting()
    ring = Ring.grow(suite, bytes(32), 0, N, Timing.spread(10.0, 10.0))
    ring.deal()
    sent: list[wire.Message] = []
    now_s = 0.0

    async def head_is_at(member: Membership, term: int) -> None:
        await member._on_head_at(wire.HeadAt(1, 0, term, RELAY, bytes(64)))

    async def play() -> None:
        nonlocal now_s
        store = Store(tmp_path / "node.sqlite", StorageCipher(bytes(32)))
        async with trio.open_nursery() as nursery, LinkContext() as link:
            nursery.start_soon(store.run)
            process = Process(suite, link, store, NodeMetrics(CollectorRegistry()), lambda: now_s, bench_schema())
            members = [await process.gateway(ring, ring.view, position, sent.append) for position in range(N)]
            for member in members[1:]:
                await head_is_at(member, 0)
            assert suite.set_up == N * ring.view.k // 2
            alone = MaskSchedule(StandardSuite(), ring.view, ring.secrets[5]).words(7, 0, ring.view.everybody)
            assert members[5]._masks.words(7, 0, ring.view.everybody).tolist() == alone.tolist()
            assert suite.set_up == N * ring.view.k // 2
            now_s = ring.view.timing.open_at_s(ring.view.rounds)  # the epoch is over: a late word about its head
            await head_is_at(members[1], 2)
            nursery.cancel_scope.cancel()
        store.close()

    trio.run(play)
    assert len(sent) == N  # READY, sealed for the head
