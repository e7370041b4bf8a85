"""A whole network with a home that looks and a home that attacks: values are the meter's, rounds are not delayed."""

from __future__ import annotations

import socket
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from pydantic import SecretStr

from loadtest.network import Network, started
from loadtest.ports import free_port
from node.fleet import run as run_node
from node.gateway_config import GatewayConfig
from node.han.digest import Algorithm, make_verifier
from node.han_config import HanAccountConfig, HanConfig
from protocol.wire import Outcome

PASSWORD = "at the kitchen table"
HOSTILE_S = 10.0
_ATTACK = Path(__file__).with_name("hostile_home.py")


def with_home(gateway: GatewayConfig, port: int) -> GatewayConfig:
    verifier = make_verifier("anna", gateway.id.lower(), PASSWORD)
    account = HanAccountConfig(user="anna", ha1_sha256=SecretStr(verifier[Algorithm.SHA256]))
    return gateway.model_copy(update={"han": HanConfig(listen=f"https://127.0.0.1:{port}", accounts=(account,))})


def unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.rounds
async def test_a_hostile_home_delays_neither_rounds_nor_the_consumer(network: Network) -> None:
    network.rounds, network.period_s = 20, 2.0
    port = free_port()
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = network.node_config(0, 8, "node")
        gateways = (with_home(config.gateways[0], port), *config.gateways[1:])
        await started(nursery, partial(run_node, config.model_copy(update={"gateways": gateways})))
        await network.wait_for_rounds(3)
        gateway = gateways[0].id.lower()
        await looked_at(port, gateway)  # has logged in from its address before
        before = len(network.ended())
        command = [sys.executable, str(_ATTACK), str(port), str(HOSTILE_S)]
        attack = await nursery.start(partial(trio.run_process, command, capture_stdout=True))
        await trio.sleep(HOSTILE_S / 2)
        during_attack = await looked_at(port, gateway)
        assert attack.poll() is None
        await trio.sleep(HOSTILE_S / 2)
        during = network.ended()[before:]
        found = await looked_at(port, gateway)
        nursery.cancel_scope.cancel()
    assert len(during) >= HOSTILE_S / network.period_s - 2
    assert [each.outcome for each in during if each.outcome is not Outcome.OPENED] == []
    assert during_attack["device"]["id"] == gateway
    assert found["device"]["is_in_ring"]
    assert found["aggregation"]["households_min"] == 2  # what this laboratory's policy asks for
    assert {each["obis"] for each in found["reading"]["values"]} >= {"1-0:1.8.0*255"}
    energy = [int(each["energy"]) for each in found["intervals"] if each["obis"] == "1-0:1.8.0*255"]
    registered = [int(each["value"]) for each in found["readings"] if each["obis"] == "1-0:1.8.0*255"]
    assert len(energy) >= 5
    assert registered[-1] - registered[0] == sum(energy)


async def looked_at(port: int, gateway: str) -> dict[str, Any]:
    """What the consumer sees from an address of its own."""
    auth = httpx.DigestAuth("anna", PASSWORD)
    base = f"https://127.0.0.1:{port}/smgw/con/v1/"
    transport = httpx.AsyncHTTPTransport(verify=unchecked(), local_address="127.0.0.2", retries=3)
    async with httpx.AsyncClient(transport=transport, base_url=base, auth=auth, timeout=120) as client:
        (uri,) = (await client.get("rts/Meter/")).json()
        meter = uri.rpartition("/")[2]
        return {
            "reading": (await client.get(f"rts/Reading/{meter}")).json(),
            "readings": (await client.get(f"exp/Reading/{meter}")).json()["data"]["records"],
            "intervals": (await client.get(f"exp/Interval/{meter}")).json()["data"]["records"],
            "device": (await client.get(f"rts/Device/{gateway}")).json(),
            "aggregation": (await client.get(f"rts/Aggregation/{gateway}")).json(),
        }


@pytest.mark.rounds
async def test_an_address_that_is_taken_costs_the_home_alone(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    network.rounds = 20
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with trio.open_nursery() as nursery:
            await network.start_meters(nursery)
            await network.start_coordinator(nursery)
            config = network.node_config(0, 8, "node")
            gateways = (with_home(config.gateways[0], taken.getsockname()[1]), *config.gateways[1:])
            await started(nursery, partial(run_node, config.model_copy(update={"gateways": gateways})))
            ended = await network.wait_for_rounds(3)
            nursery.cancel_scope.cancel()
    assert ended[-1].roster.bit_count() == 8
    assert "does not serve its home: cannot listen on https://127.0.0.1" in caplog.text
