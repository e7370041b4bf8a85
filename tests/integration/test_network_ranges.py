"""Range proofs over real sockets: honest gateways prove, one that commits to an impossible value is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import trio

from coordinator.storage.store import Store
from loadtest.network import Network
from node.aggregation.contribution import Contribution, Contributions
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.rings import positions_of
from protocol.dcnet.setup.schema import WORD_MODULUS
from protocol.link.tls import client_context

LIAR = "ESTK0000000003"


async def fetched(network: Network, path: str) -> list[dict[str, Any]]:
    config = network.coordinator_config
    assert config is not None
    context = client_context(config.pki_path / "root.pem")
    async with httpx.AsyncClient(verify=context, timeout=120) as client:
        answer = await client.get(f"{network.web[0]}/api/v1{path}")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def owing(network: Network) -> list[str]:
    assert network.coordinator_config is not None
    store = Store(network.coordinator_config.database_url)
    try:
        return sorted({each.gateway for each in store.range_checks.all() if each.owed})
    finally:
        store.close()


async def metric(network: Network, outcome: str) -> float:
    config = network.coordinator_config
    assert config is not None
    async with httpx.AsyncClient(verify=client_context(config.pki_path / "root.pem"), timeout=120) as client:
        text = (await client.get(f"{network.web[0]}/metrics")).text
    lines = [
        line for line in text.splitlines() if line.startswith(f'stromkreis_range_checks_total{{outcome="{outcome}"')
    ]
    return float(lines[0].split()[1])


async def test_a_gateway_that_pollutes_is_found_and_left_out_and_no_other_is(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Contributions.build

    def polluting(mine: Contributions, *how: Any, **more: Any) -> Contribution | None:
        """It commits to, and shares, a tenth of a kilowatt hour that it would have fed back."""
        built = build(mine, *how, **more)
        if built is None or mine._gateway != LIAR or int(built.vector[1]) >= WORD_MODULUS // 2:
            return built
        vector = np.array(built.vector)
        vector[1] = WORD_MODULUS - 1000
        changed = replace(built, vector=vector)
        mine._built = {key: changed if each is built else each for key, each in mine._built.items()}
        return changed

    monkeypatch.setattr(Contributions, "build", polluting)
    network.verified, network.gateways, network.ring_size, network.rounds = True, 8, 8, 400
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: owing(network) == [LIAR])
        known = len(network.ended())
        await network.wait_until(lambda: len(opened_after(network, known + 4)) >= 3)
        later = opened_after(network, known + 4)
        members = network.members()
        for each in later:
            names = [members[each.epoch, each.ring][position] for position in positions_of(each.roster)]
            assert LIAR not in names
            assert len(names) == 7
            assert each.verified
        rounds = await fetched(network, "/rounds?limit=500")
        unranged = [each for each in rounds if each["unranged"]]
        assert unranged
        assert {member["gateway"] for each in unranged for member in each["unranged"]} == {LIAR}
        totals = await fetched(network, "/totals?from=1970-01-01T00:00:00Z&to=2100-01-01T00:00:00Z&limit=1000")
        assert sum(each["rings"]["unranged"] for each in totals) == len(unranged)
        assert await metric(network, "proved") >= 3
        assert await metric(network, "refused") >= 1
        assert await metric(network, "wrong") == 0
        nursery.cancel_scope.cancel()


def opened_after(network: Network, count: int) -> list[Ended]:
    return [each for each in network.ended()[count:] if each.roster]
