"""A gateway of a network that gets profiles of its own, and the totals with and without it."""

from __future__ import annotations

import json
from typing import Any

import httpx

from coordinator.process import OPERATOR_TOKEN_FILE
from coordinator.storage.profile_sets import ProfileSetState
from coordinator.storage.store import Store
from loadtest.network import Network
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.rings import positions_of
from protocol.link.tls import client_context
from protocol.profiles.template import filled

AWAY = "ESTK0000000007"


def with_away(network: Network, after: int, *, is_in: bool) -> list[Ended]:
    """The totals of epochs behind `after` that the gateway AWAY is in, or is not in."""
    members = network.members()
    opened = [each for each in network.ended() if each.roster and each.epoch > after]
    return [
        each
        for each in opened
        if is_in == (AWAY in [members[each.epoch, each.ring][position] for position in positions_of(each.roster)])
    ]


async def roll_out(network: Network, document: dict[str, Any]) -> int:
    """Returns when AWAY has taken the set: the newest epoch that has rings then."""
    config = network.coordinator_config
    assert config is not None
    token = (config.data_dir / OPERATOR_TOKEN_FILE).read_text().strip()
    text = filled(json.dumps(document), AWAY)
    trust = client_context(config.pki_path / "root.pem")
    async with httpx.AsyncClient(base_url=network.web[0], verify=trust, timeout=60.0) as client:
        answer = await client.post(
            "/api/v1/profile-sets", content=text, headers={"Authorization": f"Bearer {token}"}
        )  # fmt: skip
    assert answer.status_code == 202, answer.text
    store = Store(config.database_url)

    def is_taken() -> bool:
        newest = store.profile_sets.newest(AWAY)
        return newest is not None and (newest.version, newest.state) == (document["version"], ProfileSetState.TAKEN)

    await network.wait_until(is_taken)
    store.close()
    return max((epoch for epoch, _ in network.members()), default=-1)
