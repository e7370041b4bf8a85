"""A coordinator that is stopped in each phase of an epoch's making, and started anew on the same files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio

from coordinator.rings.epochs import AreaEpoch
from loadtest.network import Network

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger

MOMENTS = {"call": "invite", "join": "join", "deal": "deal"}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_an_epoch_whose_making_was_cut_off_costs_no_second_call(
    network: Network, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, moment: str
) -> None:
    """Four gateways have heard the call, have joined, or have dealt, and the others not yet."""
    network.rounds = 120
    caplog.set_level(logging.INFO)
    method = getattr(AreaEpoch, MOMENTS[moment])
    reached = trio.Event()
    first: set[str] = set()
    is_back = False

    def hesitating(epoch: AreaEpoch, identity: str, *rest: object) -> object:
        if len(first) < 4:
            first.add(identity)
        elif not is_back and identity not in first:
            reached.set()
            return []
        return method(epoch, identity, *rest)

    monkeypatch.setattr(AreaEpoch, MOMENTS[moment], hesitating)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        coordinator = await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        with trio.fail_after(120):
            await reached.wait()
        await trio.sleep(0.3)  # they have heard it
        await coordinator.stop()
        is_back = True
        await network.start_coordinator(nursery)
        await network.wait_until(lambda: [each for each in network.ended() if each.roster == 0xFF][2:])
        nursery.cancel_scope.cancel()
    assert "second_call" not in caplog.text
    assert "second_layout" not in caplog.text
    assert "no gateway of area" not in caplog.text
    assert ledger.check(network)
    assert network.flown("node").is_conserved
