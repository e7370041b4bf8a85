"""The round ledger says nothing that is not durable, whatever the coordinator's disk does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from sqlalchemy.exc import OperationalError

from coordinator.storage.rounds import RoundRepository
from coordinator.storage.store import Store
from loadtest.network import Network
from node.aggregation.contribution import Contributions
from protocol.dcnet.machines.effects import Settled
from protocol.dcnet.setup.rings import RingView
from protocol.wire import Outcome

if TYPE_CHECKING:
    from tests.integration.conftest import Ledger


@pytest.mark.parametrize("relay", [False, True])
async def test_what_members_are_told_is_in_the_database(
    network: Network, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, relay: bool
) -> None:
    network.rounds, network.relay = 60, relay
    network.origin_unix_s += 5
    told: list[tuple[bool, bool]] = []
    full = False
    record_many, settled = RoundRepository.record_many, Contributions.settled

    def refusing(rounds: RoundRepository, batch: Any, commitments: Any) -> list[bool]:
        if full:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return record_many(rounds, batch, commitments)

    async def checked(mine: Contributions, view: RingView, record: Settled) -> None:
        assert network.coordinator_config is not None
        book = Store(network.coordinator_config.database_url)
        ended = book.rounds.get(view.epoch, view.ring, record.round)
        book.close()
        told.append((ended is not None, ended is not None and ended.outcome is Outcome.OPENED))
        await settled(mine, view, record)

    monkeypatch.setattr(RoundRepository, "record_many", refusing)
    monkeypatch.setattr(Contributions, "settled", checked)
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: [e for e in network.ended() if e.roster == 0xFF])
        full = True
        await network.wait_until(lambda: caplog.text.count("the round ledger cannot be written") > 1)
        full = False
        seen = len(network.ended())
        await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster == 0xFF][1:])
        nursery.cancel_scope.cancel()
    assert len(told) > 16
    assert all(durable for durable, _ in told)
    assert ledger.check(network)
    assert network.flown("node").is_conserved
