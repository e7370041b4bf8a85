"""Programs of others read a node that reads a meter: what they say lies between two looks at the HAN API."""

from __future__ import annotations

from decimal import Decimal
from functools import partial

import pytest
import trio

from loadtest.network import Network, started
from loadtest.ports import free_port
from node.fleet import run as run_node
from tests.integration.test_han_network import PASSWORD, looked_at, with_home
from tests.interop.han_peers import PPC, PPC_PROGRAM, THEBEN, THEBEN_PROGRAM, needs, read


@pytest.mark.rounds
async def test_peers_read_the_meter_of_a_node_whose_configuration_names_them(network: Network) -> None:
    needs(PPC)
    needs(THEBEN)
    network.rounds, port = 200, free_port()
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = network.node_config(0, 8, "node")
        first = with_home(config.gateways[0], port)
        (account,) = first.han.accounts
        account = account.model_copy(update={"facades": ("ppc", "theben")})
        first = first.model_copy(update={"han": first.han.model_copy(update={"accounts": (account,)})})
        gateways = (first, *config.gateways[1:])
        await started(nursery, partial(run_node, config.model_copy(update={"gateways": gateways})))
        await network.wait_for_rounds(1)
        gateway, address = gateways[0].id.lower(), f"https://127.0.0.1:{port}"
        before = imported((await looked_at(port, gateway))["reading"]["values"])
        theben = await read(THEBEN, THEBEN_PROGRAM, address, ("anna", PASSWORD))
        ppc = await read(PPC, PPC_PROGRAM, address, ("anna", PASSWORD))
        after = imported((await looked_at(port, gateway))["reading"]["values"])
        nursery.cancel_scope.cancel()
    (shown,) = ppc["readings"].values()
    in_kwh = {obis.partition("*")[0]: Decimal(value) for obis, (value, _) in shown.items()}["1-0:1.8.0"]
    in_wh = Decimal(theben["values"]["0100010800ff"]["value"])
    assert 0 < before <= in_wh <= in_kwh * 1000 <= after  # a value is as old as the display interval at most


def imported(values: list[dict[str, str]]) -> Decimal:
    """Active energy drawn, in Wh."""
    (found,) = (each for each in values if each["obis"] == "1-0:1.8.0*255")
    return Decimal(found["value"]).scaleb(int(found["scaler"]))
