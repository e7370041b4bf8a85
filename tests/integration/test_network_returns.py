"""Returns are counted over real sockets: who comes back too often waits, hears results, and loses nothing."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import trio

from loadtest.network import Network

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger


def tokens(network: Network, node: str) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{network.directory / node / 'registers.sqlite'}?mode=ro", uri=True)) as store:
        return dict(store.execute("SELECT gateway, tokens FROM attendance"))


async def test_a_gateway_that_comes_back_too_often_waits_and_the_ring_goes_on(network: Network, ledger: Ledger) -> None:
    network.rounds = 200
    network.policy = network.policy.model_copy(update={"limit_returns": True})
    addresses: list[str] = []
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 7, "steady")
        away = await network.start_node(nursery, 7, 1, "away")
        await network.wait_until(lambda: [e for e in network.ended() if e.roster == 0xFF])
        assert set(tokens(network, "steady").values()) == {3}  # the first round of all
        name = "ESTK0000000007"
        for _ in range(8):  # within four hours of metering time, 16 rounds, one token comes back
            if tokens(network, "away")[name] == 0:
                break
            away.cancel()
            seen = len(network.ended())
            await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster.bit_count() == 7])  # noqa: B023
            addresses.clear()
            away = await network.start_node(nursery, 7, 1, "away", addresses.append)
            seen = len(network.ended())
            await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster == 0xFF])  # noqa: B023
        assert tokens(network, "away")[name] == 0
        away.cancel()
        seen = len(network.ended())
        await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster.bit_count() == 7])
        addresses.clear()
        await network.start_node(nursery, 7, 1, "away", addresses.append)
        seen = len(network.ended())
        await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster.bit_count() == 7][2:])
        async with httpx.AsyncClient() as client:
            page = (await client.get(f"{addresses[0]}/metrics")).text
        assert re.search(r"^stromkreis_node_waiting_gateways 1\.0$", page, re.MULTILINE)
        assert re.search(r"^stromkreis_node_returns_limited 1\.0$", page, re.MULTILINE)
        await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster == 0xFF], 60)  # a token later
        nursery.cancel_scope.cancel()
    assert ledger.check(network)
    assert network.flown("steady", "away").is_conserved
