"""Distributed noise over real sockets: announced, added, told; and a gateway that wants more of it stays away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from coordinator.storage.store import Store
from loadtest.account import accounts_of
from loadtest.households import households
from loadtest.network import Network, lapse_policy
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, Noise, signed
from protocol.link.tls import client_context
from protocol.wire import Outcome

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger


async def test_totals_are_noisy_and_say_so_and_who_wants_more_noise_takes_no_part(
    network: Network, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    network.noise_epsilon, network.gateways, network.ring_size = 1.0, 10, 10
    network.policy = lapse_policy(noise_epsilon_max=1.0)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "content")
        network.policy = lapse_policy(noise_epsilon_max=0.5)
        nursery.start_soon(network.start_node, nursery, 8, 2, "strict")
        with trio.fail_after(120):
            while "weak_noise" not in caplog.text or sum(e.outcome is Outcome.OPENED for e in network.ended()) < 4:
                await trio.sleep(0.2)
        opened = ledger.check(network)
        assert network.coordinator_config is not None
        async with httpx.AsyncClient(verify=client_context(network.coordinator_config.pki_path / "root.pem")) as client:
            span = {"from": "1970-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
            totals = (await client.get(f"{network.web[0]}/api/v1/totals", params=span)).json()["items"]
        nursery.cancel_scope.cancel()
    total = next(each for each in totals if each["rings"]["opened"])
    store = Store(network.coordinator_config.database_url)
    schema = store.epochs.latest()[0].schema
    store.close()
    assert schema.without_noise().restricted_to() == DEFAULT_SCHEMA.without_power()
    assert [noise for _, noise in schema.noise] == [Noise(10**6, 60_000), Noise(10**6, 60_000)]
    assert all(each.total[0] == each.roster.bit_count() <= 8 for each in opened)
    # Eight households draw some 750 Wh in a quarter hour; noise of 8.5 kWh is what tells noisy totals from bare ones.
    assert max(abs(signed(word)) for each in opened for word in each.total[1:]) > 20_000
    assert [value["noise"] and value["noise"]["epsilon"] for value in total["values"]] == [None, 1.0, 1.0]
    assert 84_700 < total["values"][1]["noise"]["deviation"] < 85_000
    accounts = accounts_of(network.directory / "content")
    assert len(accounts) == 8
    homes = households(network.meters_config())
    for gateway, account in accounts.items():  # it stands at what the meter showed, without noise
        shown = [homes[int(gateway[-2:])].registers(q)[:2] for q in range(200)]
        assert tuple(each.register for each in account.energies[1:3]) in shown
