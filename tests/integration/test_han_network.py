"""A whole network with a home that looks and a home that attacks: values are the meter's, rounds are not delayed."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from pydantic import SecretStr

from loadtest.network import Network, free_port, started
from node.config import GatewayConfig
from node.fleet import run as run_node
from node.han.digest import Algorithm, make_verifier
from node.han_config import HanAccountConfig, HanConfig
from protocol.wire import Outcome

PASSWORD = "at the kitchen table"
HOSTILE_S = 8.0


def with_home(gateway: GatewayConfig, port: int) -> GatewayConfig:
    verifier = make_verifier("anna", gateway.id.lower(), PASSWORD)
    account = HanAccountConfig(user="anna", ha1_sha256=SecretStr(verifier[Algorithm.SHA256]))
    return gateway.model_copy(update={"han": HanConfig(listen=f"https://127.0.0.1:{port}", accounts=(account,))})


def unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def attack(port: int, count: list[int]) -> None:
    """One hostile device: connects, says nothing, half of a header, wrong passwords, and never reads."""
    kind = 0
    while True:
        kind += 1
        try:
            with trio.move_on_after(2):
                plain = await trio.open_tcp_stream("127.0.0.1", port)
                async with plain:
                    if kind % 4:
                        stream = trio.SSLStream(plain, unchecked())
                        await stream.do_handshake()
                        if kind % 4 == 1:
                            await stream.send_all(b"GET /smgw/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                        elif kind % 4 == 2:
                            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
                        else:
                            wrong = (
                                b'Digest username="anna", realm="x", nonce="x", uri="/smgw/", qop=auth, nc=00000001,'
                                b' cnonce="x", response="00"'
                            )
                            request = b"GET /smgw/ HTTP/1.1\r\nHost: x\r\nAuthorization: " + wrong + b"\r\n\r\n"
                            await stream.send_all(request)
                            await stream.receive_some(1000)
                    await trio.sleep(0.2)
        except (OSError, trio.BrokenResourceError, ssl.SSLError):
            await trio.sleep(0.05)
        count[0] += 1


@pytest.mark.rounds
async def test_a_hostile_home_delays_no_round_and_values_are_the_meters(network: Network) -> None:
    network.rounds = 20
    port, count = free_port(), [0]
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = network.node_config(0, 8, "node")
        gateways = (with_home(config.gateways[0], port), *config.gateways[1:])
        config = config.model_copy(update={"gateways": gateways})
        await started(nursery, partial(run_node, config))
        await network.wait_for_rounds(3)
        before = len(network.ended())
        async with trio.open_nursery() as hostile:
            for _ in range(24):
                hostile.start_soon(attack, port, count)
            await trio.sleep(HOSTILE_S)
            hostile.cancel_scope.cancel()
        during = network.ended()[before:]
        assert len(during) >= HOSTILE_S / network.period_s - 2
        assert [each.outcome for each in during if each.outcome is not Outcome.OPENED] == []
        assert all(each.roster.bit_count() == 8 for each in during)
        assert count[0] > 50
        found = await looked_at(port, gateways[0].id.lower())
        nursery.cancel_scope.cancel()
    rows = {each["obis"]: each for each in found["reading"]["values"]}
    assert int(rows["1-0:1.8.0*255"]["value"]) > 0
    assert found["device"]["is_in_ring"]
    assert found["aggregation"]["households_min"] == 2  # what this laboratory's policy asks for
    energy = [int(each["energy"]) for each in found["intervals"] if each["obis"] == "1-0:1.8.0*255"]
    assert len(energy) >= 5
    registered = [int(each["value"]) for each in found["readings"] if each["obis"] == "1-0:1.8.0*255"]
    assert registered[-1] - registered[0] == sum(energy)


async def looked_at(port: int, gateway: str) -> dict[str, Any]:
    """What the consumer sees, once the failures of others no longer keep it waiting."""
    auth = httpx.DigestAuth("anna", PASSWORD)
    base = f"https://127.0.0.1:{port}/smgw/con/v1/"
    with trio.fail_after(100):
        while True:
            try:
                async with httpx.AsyncClient(verify=unchecked(), base_url=base, auth=auth, timeout=20) as client:
                    answer = await client.get("rts/Meter/")
                    if answer.status_code == 200:
                        meter = answer.json()[0].rpartition("/")[2]
                        return {
                            "reading": (await client.get(f"rts/Reading/{meter}")).json(),
                            "readings": (await client.get(f"exp/Reading/{meter}")).json()["data"]["records"],
                            "intervals": (await client.get(f"exp/Interval/{meter}")).json()["data"]["records"],
                            "device": (await client.get(f"rts/Device/{gateway}")).json(),
                            "aggregation": (await client.get(f"rts/Aggregation/{gateway}")).json(),
                        }
                    assert answer.status_code == 403
            except httpx.TransportError:
                pass
            await trio.sleep(0.5)


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
