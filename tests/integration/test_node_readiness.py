"""A running node's readiness while its coordinator, or its ring's head, goes and comes back."""

from functools import partial
from typing import Any

import httpx
import pytest
import trio

from loadtest.network import Network, started
from loadtest.ports import free_port, free_ports
from node.fleet import run as run_node
from node.gateway import Gateway
from protocol.link import Keypair, LinkContext, LinkError


async def text_of(client: httpx.AsyncClient, check: str) -> str:
    return (await client.get(f"/readyz/{check}")).text


async def until(client: httpx.AsyncClient, check: str, expected: str) -> None:
    """Wait for the check's text to begin so."""
    with trio.fail_after(120):
        while not (await text_of(client, check)).startswith(expected):
            await trio.sleep(0.1)


async def test_readiness_falls_back_without_the_coordinator_and_returns(network: Network) -> None:
    network.rounds = 60
    addresses: list[str] = []
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        coordinator = await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node", addresses.append)
        async with httpx.AsyncClient(base_url=addresses[0]) as client:
            await until(client, "placed", "ok")
            assert "8 of 8 gateways wait" in await text_of(client, "seated") or network.ended()
            await until(client, "seated", "ok")
            await until(client, "round", "ok")
            assert (await client.get("/readyz")).text == "ok\n"
            coordinator.cancel()
            await until(client, "linked", "8 of 8 gateways have no link to the coordinator")
            assert (await client.get("/readyz")).status_code == 503
            assert "stromkreis_node_without_coordinator_gateways 8.0" in (await client.get("/metrics")).text
            await network.start_coordinator(nursery)
            await until(client, "linked", "ok")
        nursery.cancel_scope.cancel()


async def test_members_are_not_ready_while_their_head_is_gone(network: Network) -> None:
    network.rounds, network.period_s = 60, 4.0
    addresses: list[str] = []
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        nodes = [
            await network.start_node(nursery, first, 4, name, addresses.append) for first, name in ((0, "a"), (4, "b"))
        ]
        await network.wait_until(network.ended)
        is_in_second = int(network.head_of(network.ended()[-1])[-1]) >= 4
        async with httpx.AsyncClient(base_url=addresses[not is_in_second]) as client:
            await until(client, "linked", "ok")
            nodes[is_in_second].cancel()
            await until(client, "linked", "4 of 4 have none to the head of their ring")
        nursery.cancel_scope.cancel()


async def test_a_connection_says_whether_its_listener_is_there() -> None:
    server, client, other = (Keypair.generate() for _ in range(3))
    async with LinkContext() as link:
        listener = link.listen("tcp://127.0.0.1:*", server, lambda key: "client" if key == client.public else None)
        async with link.connect(listener.endpoint, server.public, client) as known:
            async with link.connect(listener.endpoint, server.public, other) as unknown:
                seen = [known.is_connected]
                await known.send(b"a")
                seen += [known.is_connected, unknown.is_connected]
                assert seen == [False, True, False]
            await listener.aclose()
            with trio.fail_after(120):
                while known.is_connected:
                    await trio.sleep(0.01)


async def test_a_node_waits_for_a_store_that_another_one_has_open(network: Network) -> None:
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        first = await network.start_node(nursery, 0, 8, "node")
        address, ready = f"http://127.0.0.1:{free_port()}", trio.Event()
        config = network.node_config(0, 8, "node").model_copy(update={"metrics": address})
        nursery.start_soon(partial(run_node, config, ready=lambda _address: ready.set()))
        async with httpx.AsyncClient(base_url=address) as client:
            with trio.fail_after(120):
                while True:
                    try:
                        told = (await client.get("/readyz/started")).text
                        break
                    except httpx.ConnectError:
                        await trio.sleep(0.05)
            assert told.endswith("registers.sqlite: another process has the store open\n")
            assert not ready.is_set()
            first.cancel()
            with trio.fail_after(120):
                await ready.wait()
            await until(client, "started", "ok")
        nursery.cancel_scope.cancel()


async def test_a_node_told_to_stop_while_it_waits_for_its_store_ends(network: Network) -> None:
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        stop = trio.Event()
        stop.set()
        with trio.fail_after(120):
            await run_node(network.node_config(0, 8, "node"), stop=stop)
        nursery.cancel_scope.cancel()


async def test_a_node_told_to_stop_within_a_round_settles_it_first(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Gateway] = []
    run = Gateway.run

    async def noted(gateway: Gateway) -> None:
        made.append(gateway)
        await run(gateway)

    monkeypatch.setattr(Gateway, "run", noted)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        stop, ended = trio.Event(), trio.Event()

        async def node(**options: Any) -> None:
            await run_node(network.node_config(0, 8, "node"), stop=stop, **options)
            ended.set()

        await started(nursery, node)
        with trio.fail_after(120):
            while not any(gateway.is_in_round for gateway in made):
                await trio.sleep(0.001)
            stop.set()
            await ended.wait()
        assert not any(ring.account.unsettled for gateway in made for _, ring in gateway._epochs.rings)
        nursery.cancel_scope.cancel()
    assert network.flown("node").is_conserved


async def test_heads_take_the_ports_of_a_range_until_none_is_left() -> None:
    first, last = ports = free_ports(2)
    endpoint = f"tcp://127.0.0.1:{first}-{last}"
    async with LinkContext() as link:
        keys = Keypair.generate()
        bound = [link.listen(endpoint, keys, lambda _key: None) for _ in range(2)]
        assert [each.endpoint for each in bound] == [f"tcp://127.0.0.1:{port}" for port in ports]
        with pytest.raises(LinkError, match=f"cannot listen on .*{first}-{last}"):
            link.listen(endpoint, keys, lambda _key: None)
