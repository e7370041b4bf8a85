"""Over real sockets: who has no profile is in no total, and profiles that change do so with the next epoch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import trio

from loadtest.account import accounts_of
from loadtest.children import config_file, process
from loadtest.network import Network
from loadtest.ring_profiles import ring_profiles
from tests.integration.away_gateway import AWAY, roll_out, with_away


async def test_withdrawn_with_the_next_epoch_and_back_with_a_new_zero(network: Network, tmp_path: Path) -> None:
    """The node is killed between the withdrawal and the epoch that it counts for."""
    network.rounds, network.profile_poll_s = 9, 0.5
    network.policy = network.policy.model_copy(update={"contribute_without_profile": False})
    network.initial_profiles = tmp_path / "profiles.json"
    network.initial_profiles.write_text(json.dumps(ring_profiles()), encoding="utf-8")
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = str(config_file(network, 7, 1, "away"))
        with process(network, "-m", "stromkreis", "node", "--config", config):
            await network.start_node(nursery, 0, 7, "steady")
            await network.wait_until(lambda: with_away(network, -1, is_in=True))
            withdrawn = await roll_out(network, ring_profiles(version=2) | {"processing": [], "wan": []})
        shutil.copytree(tmp_path / "away", tmp_path / "before")
        await network.start_node(nursery, 7, 1, "away")
        await network.wait_until(lambda: with_away(network, withdrawn, is_in=False))
        await roll_out(network, ring_profiles(version=3))
        back = max(epoch for epoch, _ in network.members())
        assert not [each for each in with_away(network, withdrawn, is_in=True) if each.epoch < back]
        await network.wait_until(lambda: with_away(network, withdrawn, is_in=True))
        nursery.cancel_scope.cancel()
    before, after = (accounts_of(tmp_path / name)[AWAY] for name in ("before", "away"))
    assert sum(after.first) > sum(each.contributed for each in before.energies), "what was used meanwhile"
    moved = network.flown("steady", "away").accounts, network.flown("before").accounts
    assert network.flown("steady").opened == tuple(map(sum, zip(*moved, strict=True)))
    told = (tmp_path / "child.log").read_text()
    assert "its profiles (version 2) let nothing more into the totals of area north" in told


async def test_without_a_profile_and_without_the_switch_nobody_takes_part(network: Network) -> None:
    network.policy = network.policy.model_copy(update={"contribute_without_profile": False})
    addresses: list[str] = []
    refused = 'protocol_errors_total{reason="no_profiles"}'
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node", addresses.append)

        def all_refused() -> bool:
            lines = httpx.get(f"{addresses[0]}/metrics", timeout=120).text.splitlines()
            return any(refused in line and float(line.split()[-1]) >= 8 for line in lines)

        await network.wait_until(all_refused)
        assert network.members() == {}
        assert network.ended() == []
        nursery.cancel_scope.cancel()
