"""Returns are counted over real sockets: who comes back too often waits, hears results, and loses nothing."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import trio

from loadtest.network import Network
from protocol.dcnet.setup.rings import positions_of

if TYPE_CHECKING:
    from protocol.dcnet.machines.effects import Ended
    from tests.integration.conftest import Ledger


AWAY = "ESTK0000000007"


def opened(network: Network, since: int, *, is_in: bool) -> list[Ended]:
    """The totals after the first `since` ends of rounds that the gateway AWAY is in, or is not in."""
    members = network.members()
    ended = [each for each in network.ended()[since:] if each.roster]
    return [each for each in ended if is_in == (AWAY in _roster(members[each.epoch, each.ring], each.roster))]


def _roster(members: tuple[str, ...], roster: int) -> list[str]:
    return [members[position] for position in positions_of(roster)]


def tokens(network: Network, node: str) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{network.directory / node / 'registers.sqlite'}?mode=ro", uri=True)) as store:
        return dict(store.execute("SELECT gateway, tokens FROM attendance"))


async def test_a_gateway_that_comes_back_too_often_waits_and_the_ring_goes_on(network: Network, ledger: Ledger) -> None:
    network.rounds, network.period_s = 400, 1.5
    network.policy = network.policy.model_copy(update={"limit_returns": True})
    addresses: list[str] = []
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        away = await network.start_node(nursery, 7, 1, "away", addresses.append)  # first: no ring forms without it
        await network.start_node(nursery, 0, 7, "steady")
        await network.wait_until(lambda: opened(network, 0, is_in=True))

        def waits() -> bool:
            page = httpx.get(f"{addresses[0]}/metrics", timeout=120).text if addresses else ""
            assert not page or re.search(r"^stromkreis_node_returns_limited 1\.0$", page, re.MULTILINE)
            return re.search(r"^stromkreis_node_waiting_gateways 1\.0$", page, re.MULTILINE) is not None

        # Within four hours of metering time, 16 rounds, one token comes back: on a slow machine it leaves more often.
        for _ in range(30):
            away.cancel()
            seen = len(network.ended())
            await network.wait_until(lambda: opened(network, seen, is_in=False))  # noqa: B023
            addresses.clear()
            away = await network.start_node(nursery, 7, 1, "away", addresses.append)
            seen = len(network.ended())
            await network.wait_until(lambda: opened(network, seen, is_in=True) or waits())  # noqa: B023
            if not opened(network, seen, is_in=True):
                break
        assert tokens(network, "away")[AWAY] == 0
        seen = len(network.ended())
        await network.wait_until(lambda: opened(network, seen, is_in=False)[1:])
        await network.wait_until(lambda: opened(network, seen, is_in=True))  # a token later
        nursery.cancel_scope.cancel()
    assert ledger.check(network)
    assert network.flown("steady", "away").is_conserved
