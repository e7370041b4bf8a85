"""A whole network in which one gateway's controllable systems attack its proxy: rounds go on, others get through."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from loadtest.network import Network, started
from loadtest.ports import free_port
from node.cls_config import ClsConfig
from node.fleet import run as run_node
from node.mdns_config import MdnsConfig
from protocol.wire import Outcome

HOSTILE_S = 8.0
_ATTACK = Path(__file__).with_name("hostile_systems.py")
_ROOT = Path(__file__).parents[2]


@pytest.mark.rounds
async def test_hostile_systems_delay_neither_rounds_nor_other_systems(network: Network) -> None:
    network.rounds, network.period_s = 20, 2.0
    port = free_port()
    at_home = {"cls": ClsConfig(listen=f"127.0.0.1:{port}"), "mdns": MdnsConfig(interfaces=("lo", "none0"))}
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = network.node_config(0, 8, "node")
        gateways = (config.gateways[0].model_copy(update=at_home), *config.gateways[1:])
        await started(nursery, partial(run_node, config.model_copy(update={"gateways": gateways})))
        await network.wait_for_rounds(3)
        before = len(network.ended())
        command = [sys.executable, str(_ATTACK), str(port), str(HOSTILE_S)]
        run = partial(trio.run_process, command, env=os.environ | {"PYTHONPATH": str(_ROOT)})
        attack = await nursery.start(run)
        await trio.sleep(HOSTILE_S / 2)
        assert attack.poll() is None
        assert await greeted(port) == b"\x05\x06"
        await network.wait_for_rounds(before + 3)
        during = network.ended()[before:]
        nursery.cancel_scope.cancel()
    assert [each.outcome for each in during if each.outcome is not Outcome.OPENED] == []


async def greeted(port: int) -> bytes:
    """What another device is answered."""
    with trio.fail_after(60):
        async with await trio.open_tcp_stream("127.0.0.1", port, local_address="127.0.0.2") as stream:
            await stream.send_all(b"\x05\x01\x06")
            return bytes(await stream.receive_some(2))
