"""The round ledger says nothing that is not durable, whatever the coordinator's disk does."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from coordinator.storage.rounds import RoundRepository
from coordinator.storage.store import Store
from loadtest.network import Network
from node.aggregation.contribution import Contributions
from protocol.dcnet.machines.effects import Ended, Settled
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

    def refusing(rounds: RoundRepository, *arguments: Any) -> list[bool]:
        if full:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return record_many(rounds, *arguments)

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


REFUSE = {
    "sqlite": ["CREATE TRIGGER refuse BEFORE INSERT ON ring_rounds BEGIN SELECT RAISE(FAIL, 'disk is full'); END"],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql "
        "AS $$ BEGIN RAISE EXCEPTION 'disk is full'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON ring_rounds EXECUTE FUNCTION refuse()",
    ],
}


def whole_rounds_from(network: Network, epoch: int) -> bool:
    return len([each for each in network.ended() if each.epoch >= epoch and each.roster == 0xFF]) > 1


async def outage_over_an_epochs_border(network: Network, store: Store, kind: str) -> tuple[list[Ended], int]:
    """No end can be written until the epoch is over by four rounds; the ends before it, and its number."""
    with store.database.write() as connection:
        for statement in REFUSE[kind]:
            connection.execute(text(statement))
    before = network.ended()
    last = max(each.epoch for each in before)
    ends_s = before[-1].opened_s + (network.rounds - before[-1].round + 4) * network.period_s
    await network.wait_until(lambda: time.time() > ends_s)
    assert network.ended() == before
    with store.database.write() as connection:
        on_table = " ON ring_rounds" if kind == "postgresql" else ""
        connection.execute(text(f"DROP TRIGGER refuse{on_table}"))
    await network.wait_until(lambda: [e for e in network.ended() if e.epoch > last and e.roster == 0xFF][2:])
    return before, last


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_no_energy_counts_twice_when_ends_queue_over_an_epochs_border(
    network: Network, ledger: Ledger, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest, kind: str
) -> None:
    """It can be read: what gateways ask about the epoch before is answered, and must wait for the ends in the queue."""
    network.rounds = 6
    network.database = request.getfixturevalue("postgresql") if kind == "postgresql" else None
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        assert network.coordinator_config is not None
        store = Store(network.coordinator_config.database_url)
        for _ in range(4):  # until an opened round was among those that had to wait: the outage begins at any moment
            seen = max((each.epoch for each in network.ended()), default=-1)
            await network.wait_until(partial(whole_rounds_from, network, seen))
            before, last = await outage_over_an_epochs_border(network, store, kind)
            assert "the round ledger cannot be written" in caplog.text
            if [e for e in network.ended() if e.epoch == last and e not in before and e.outcome is Outcome.OPENED]:
                break
        else:
            pytest.fail("no opened round had to wait in four outages")
        store.close()
        nursery.cancel_scope.cancel()
    assert ledger.check(network)
    assert network.flown("node").is_conserved
