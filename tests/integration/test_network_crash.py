"""Exactly once after a crash: a node killed between "durable" and "sent", in both orders, loses and repeats nothing."""

import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
import trio

from loadtest.children import config_file, process
from loadtest.network import Network
from protocol.dcnet.machines.effects import Ended
from protocol.wire import Outcome

MOMENTS = [f"{progress}-{stage}" for progress in ("SHARED", "SERVED") for stage in ("before", "after", "sent")]


def has_ended(child: subprocess.Popen[bytes]) -> bool:
    return child.poll() is not None


def with_all(network: Network, seen: int) -> list[Ended]:
    return [each for each in network.ended()[seen:] if each.roster == 0xFF]


async def test_a_node_killed_at_every_moment_between_durable_and_sent_counts_once(network: Network) -> None:
    network.rounds = 300
    network.origin_unix_s += 25  # all of them are in the first epoch, however slowly a process starts
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        config = str(config_file(network, 6, 2, "dying"))
        script = str(Path(__file__).with_name("dying_node.py"))
        await network.start_node(nursery, 0, 6, "steady")
        for moment in MOMENTS:
            with process(network, script, moment, "0", config) as child:
                await network.wait_until(partial(has_ended, child))
                assert child.returncode == -signal.SIGKILL
        seen = len(network.ended())
        with process(network, "-m", "stromkreis", "node", "--config", config):
            await network.wait_until(lambda: with_all(network, seen)[1:])
        nursery.cancel_scope.cancel()
    flown = network.flown("steady", "dying")
    assert flown.gateways == 8
    assert flown.is_conserved
    assert flown.opened[0] > 0


@pytest.mark.parametrize("moment", ["SHARED-sent", "SERVED-sent"])
async def test_killed_in_an_epochs_last_round_a_node_counts_once(network: Network, moment: str) -> None:
    network.rounds = 9
    network.origin_unix_s += 8
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 6, "steady")
        config = config_file(network, 6, 2, "dying")
        script = str(Path(__file__).with_name("dying_node.py"))
        with process(network, script, moment, "8", str(config)) as child:
            await network.wait_until(lambda: child.poll() is not None)
        # Only now: the epoch in which it died is over, and its ring is gone.
        died = max(each.epoch for each in network.ended())
        await network.wait_until(
            lambda: [e for e in network.ended() if e.epoch > died and e.outcome is Outcome.OPENED][1:], 90
        )
        seen = len(network.ended())
        with process(network, "-m", "stromkreis", "node", "--config", str(config)):
            await network.wait_until(lambda: with_all(network, seen)[1:])
        nursery.cancel_scope.cancel()
    flown = network.flown("steady", "dying")
    assert flown.gateways == 8
    assert flown.is_conserved
