"""Whole networks over real sockets: sums that are exact, and what comes back after something was taken away."""

import time
from pathlib import Path

import pytest
import trio

from loadtest.network import Network
from protocol.wire import Outcome


def opened(ended):
    return [each for each in ended if each.outcome is Outcome.OPENED]


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path, origin_unix_s=float(int(time.time())), period_s=1.0)


async def test_every_gateway_is_in_the_totals_and_epochs_follow_without_a_gap(network: Network) -> None:
    network.rounds = 6
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        ended = await network.wait_for_rounds(9)
        nursery.cancel_scope.cancel()
    assert {each.epoch for each in ended} == {0, 1}
    assert [each.round for each in ended if each.epoch == 0] == list(range(6))
    full = [each for each in opened(ended) if each.roster == 0xFF]
    assert len(full) >= 5
    assert all(each.total[0] == each.roster.bit_count() for each in opened(ended))


async def test_rings_run_through_the_coordinators_relay(network: Network) -> None:
    network.relay = True
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 4, "a")
        await network.start_node(nursery, 4, 4, "b")
        with trio.fail_after(40):
            while len(opened(network.ended())) < 3:
                await trio.sleep(0.2)
        nursery.cancel_scope.cancel()


async def test_totals_are_verified_where_the_gateways_commit(network: Network) -> None:
    network.verified = True
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        with trio.fail_after(40):
            while len(opened(network.ended())) < 3:
                await trio.sleep(0.2)
        ended = network.ended()
        nursery.cancel_scope.cancel()
    assert all(each.verified for each in opened(ended))


async def test_a_restarted_coordinator_goes_on_with_the_epoch(network: Network) -> None:
    network.rounds = 120
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        coordinator = await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        before = await network.wait_for_rounds(3)
        coordinator.cancel()
        await trio.sleep(0.5)
        await network.start_coordinator(nursery)
        seen = len(await network.wait_for_rounds(len(before)))
        with trio.fail_after(40):
            while not [e for e in opened(network.ended())[len(before) :] if e.term > 0]:
                await trio.sleep(0.2)
        ended = network.ended()
        nursery.cancel_scope.cancel()
    assert len(ended) > seen
    assert {each.epoch for each in ended} == {0}
    assert ended[: len(before)] == before
