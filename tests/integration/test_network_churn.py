"""Gateways that go, come and miss rounds: every total exact, no energy lost or twice, no key left behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from loadtest.network import Network
from protocol.wire import Outcome

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger


async def test_gateways_that_miss_rounds_carry_their_energy(network: Network, ledger: Ledger) -> None:
    network.rounds = 60
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 6, "steady")
        away = await network.start_node(nursery, 6, 2, "away")
        await network.wait_until(lambda: [e for e in network.ended() if e.roster == 0xFF])
        away.cancel()
        seen = len(network.ended())
        await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster.bit_count() == 6][2:])
        await network.start_node(nursery, 6, 2, "away")
        seen = len(network.ended())
        await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster == 0xFF][1:])
        nursery.cancel_scope.cancel()
    assert ledger.check(network)
    flown = network.flown("steady", "away")
    assert flown.gateways == 8
    assert flown.is_conserved
    assert flown.opened[0] > 0


async def test_epochs_follow_without_a_gap_and_their_seeds_do_not_stay(
    network: Network, ledger: Ledger, tmp_path: Path
) -> None:
    network.rounds = 14  # the next one is called in its second half
    seeds = {}
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 7, "node")
        await network.wait_until(lambda: network.ended()[1:])
        seeds = epoch_seeds(tmp_path / "node" / "keys")
        late = await network.start_node(nursery, 7, 1, "late")  # has to wait for the next epoch
        first = network.ended()[0].epoch  # one that too few join is called anew
        await network.wait_until(lambda: [e for e in network.ended() if e.epoch > first and e.roster == 0xFF])
        late.cancel()  # and leaves
        second = min(e.epoch for e in network.ended() if e.epoch > first)
        await network.wait_until(
            lambda: [e for e in network.ended() if e.epoch > second and e.outcome is Outcome.OPENED]
        )
        await network.wait_until(lambda: min(epoch for _, epoch in epoch_seeds(tmp_path / "node" / "keys")) > second)
        on_disk = b"".join(path.read_bytes() for path in (tmp_path / "node" / "keys").iterdir())
        nursery.cancel_scope.cancel()
    opened = ledger.check(network)
    rounds = [(e.epoch, e.round) for e in network.ended()]
    assert rounds[:28] == [(first, r) for r in range(14)] + [(second, r) for r in range(14)]
    assert {e.epoch for e in opened} > {first, second}
    assert network.flown("node", "late").is_conserved
    assert [key for key in seeds if key[1] == first]
    for (_, epoch), seed in seeds.items():
        if epoch == first:
            assert seed not in on_disk
            assert seed.hex().encode() not in on_disk


def epoch_seeds(keys: Path) -> dict[tuple[str, int], bytes]:
    import sqlite3

    connection = sqlite3.connect(f"file:{keys / 'epochs.sqlite'}?mode=ro", uri=True)
    rows = connection.execute("SELECT gateway, epoch, seed FROM seed").fetchall()
    connection.close()
    return {(gateway, epoch): seed for gateway, epoch, seed in rows}
