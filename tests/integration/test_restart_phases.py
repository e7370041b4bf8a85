"""A coordinator that is stopped in each phase of an epoch's making, and started anew on the same files."""

import logging

import pytest
import trio

from coordinator.gwa.epochs import AreaEpoch
from loadtest.network import Network

MOMENTS = {"call": "invite", "join": "join", "deal": "deal"}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_an_epoch_whose_making_was_cut_off_costs_no_second_call(
    network: Network, ledger, monkeypatch: pytest.MonkeyPatch, caplog, moment: str
) -> None:
    """At the fifth gateway's call, join or deal: the first ones have heard, and half of them have answered."""
    network.rounds = 120
    caplog.set_level(logging.INFO)
    method = getattr(AreaEpoch, MOMENTS[moment])
    reached, count = trio.Event(), 0

    def counting(epoch: AreaEpoch, identity: str, *rest: object) -> object:
        nonlocal count
        count += 1
        if count == 5:
            reached.set()
        return method(epoch, identity, *rest)

    monkeypatch.setattr(AreaEpoch, MOMENTS[moment], counting)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        coordinator = await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        with trio.fail_after(60):
            await reached.wait()
        await trio.sleep(0.3 if moment == "call" else 0)  # they have heard it
        coordinator.cancel()
        await trio.sleep(0.5)
        await network.start_coordinator(nursery)
        await network.wait_until(lambda: [each for each in network.ended() if each.roster == 0xFF][2:])
        nursery.cancel_scope.cancel()
    assert "second_call" not in caplog.text
    assert "second_layout" not in caplog.text
    assert "no gateway of area" not in caplog.text
    assert ledger.check(network)
    assert network.flown("node").is_conserved
