"""One enrolled gateway at full speed: it costs the coordinator little memory, few lines, and the ring nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from coordinator.gwa.ca import ROOT_FILE
from coordinator.service import HELLO_S, HELLOS_MAX
from loadtest.network import Network
from node.security.module import KeyDirectory
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.link import LinkContext
from protocol.link.tls import client_context

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger

ROGUE = "ESTK0000000007"


async def test_hellos_and_garbage_at_full_speed(
    network: Network, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    network.rounds = 120
    layouts = 0
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        rogue = await network.start_node(nursery, 7, 1, "rogue")  # first: no ring forms without it
        await network.start_node(nursery, 0, 7, "steady")
        await network.wait_until(lambda: [e for e in network.ended() if e.roster == 0xFF])
        rogue.cancel()
        directory = KeyDirectory(network.directory / "rogue" / "keys", StandardSuite())
        keys = directory.open(ROGUE).curve
        told = json.loads((network.directory / "rogue" / "coordinator.json").read_text())
        endpoint, server = told["endpoint"], bytes.fromhex(told["curve_key"])
        began_s = trio.current_time()
        async with LinkContext(max_sockets=64) as link:
            async with link.connect(endpoint, server, keys) as connection, trio.open_nursery() as hearing:

                @hearing.start_soon
                async def _hear() -> None:
                    nonlocal layouts
                    while True:
                        message = wire.decode(await connection.receive(), wire.FROM_COORDINATOR)
                        layouts += isinstance(message, wire.EpochLayout)

                for _ in range(300):
                    await connection.send(wire.encode(wire.Hello(wire.VERSION, -1, -1)))
                root = client_context(network.directory / "coordinator" / "pki" / ROOT_FILE)
                async with httpx.AsyncClient(verify=root) as client:

                    async def refused() -> float:
                        metrics = (await client.get(f"{network.web[0]}/metrics")).text
                        found = re.findall(r'peer_errors_total\{reason="too_many_hellos"\} (\S+)', metrics)
                        return float(found[0]) if found else 0.0

                    while await refused() < 300 - HELLOS_MAX - (trio.current_time() - began_s) / HELLO_S - 1:
                        await trio.sleep(0.05)
                hearing.cancel_scope.cancel()
            most = HELLOS_MAX + (trio.current_time() - began_s) / HELLO_S
            for _ in range(20):
                async with link.connect(endpoint, server, keys) as connection:
                    await connection.send(b"garbage")
        directory.close()
        seen = len(network.ended())
        await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster.bit_count() == 7][1:])
        nursery.cancel_scope.cancel()
    assert 1 <= layouts <= most + 1
    assert 1 <= caplog.text.count(f"gateway {ROGUE} broke the protocol") <= 2
    assert ledger.check(network)
