"""A running node's readiness while its coordinator, or its ring's head, goes and comes back."""

import httpx
import trio

from loadtest.network import Network
from protocol.link import Keypair, LinkContext


async def text_of(client: httpx.AsyncClient, check: str) -> str:
    return (await client.get(f"/readyz/{check}")).text


async def until(client: httpx.AsyncClient, check: str, expected: str) -> None:
    """Wait for the check's text to begin so."""
    with trio.fail_after(60):
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
            with trio.fail_after(20):
                while known.is_connected:
                    await trio.sleep(0.01)
