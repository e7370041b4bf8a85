"""A coordinator's database put back on a living network: its area goes on, and nobody who was revoked comes back."""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from coordinator.gwa.enrolment import Directory
from coordinator.storage.gateways import GatewayStatus
from coordinator.storage.irrevocable import FILE_NAME, IrrevocableLog
from coordinator.storage.store import Store
from loadtest.network import Network
from protocol.dcnet.machines.effects import Ended
from protocol.wire import Outcome

ALL = 0xFF


def copied(network: Network, name: str) -> Path:
    """A copy of the living database, of one moment, epoch keys and all: a snapshot that knows nothing of us."""
    target = network.directory / name
    source = network.directory / "coordinator" / "coordinator.sqlite"
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
    return target


def put_back(network: Network, copy: Path, *, without_log: bool = False) -> None:
    directory = network.directory / "coordinator"
    for path in directory.glob("coordinator.sqlite*"):
        path.unlink()
    shutil.copy2(copy, directory / "coordinator.sqlite")
    if without_log:
        (directory / FILE_NAME).unlink()


def opened(network: Network, *, after: int = -1, roster: int | None = None) -> list[Ended]:
    return [
        each
        for each in network.ended()
        if each.outcome is Outcome.OPENED and each.epoch > after and roster in (None, each.roster)
    ]


def newest_call(network: Network) -> int:
    store = Store(f"sqlite:///{network.directory}/coordinator/coordinator.sqlite")
    try:
        return store.epochs.last_number() or 0
    finally:
        store.close()


@pytest.mark.parametrize("epochs_since", [0, 2], ids=["in the living epoch", "two epochs ago"])
async def test_the_area_goes_on_and_what_is_counted_is_counted_once(network: Network, epochs_since: int) -> None:
    """Before, it stopped for good: 4 rounds opened, 74 were void, and only moving every node's store away helped."""
    network.rounds = 9 if epochs_since else 120
    network.origin_unix_s += 25
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        coordinator = await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: opened(network)[2:])
        copy = await trio.to_thread.run_sync(copied, network, "copy.sqlite")
        first = opened(network)[0].epoch
        await network.wait_until(lambda: opened(network, after=first + epochs_since - 1, roster=ALL)[3:])
        await coordinator.stop()
        before, called = network.ended(), newest_call(network)
        put_back(network, copy)
        await network.start_coordinator(nursery)
        await network.wait_until(lambda: opened(network, after=called, roster=ALL)[2:])
        nursery.cancel_scope.cancel()
    after = [each for each in network.ended() if each.epoch > called]
    lost = {(each.epoch, each.round) for each in before} - {(each.epoch, each.round) for each in network.ended()}
    assert lost or not epochs_since  # they are in no database any more, and in no other total
    for each in network.ended():  # no round of before has another end than the one that its gateways heard
        assert each.epoch > called or each in before
    assert {each.epoch for each in after} == {called + 1}


async def test_without_the_irrevocable_file_gateways_report_the_last_epoch(network: Network) -> None:
    network.rounds = 7
    network.origin_unix_s += 25
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        coordinator = await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: opened(network)[1:])
        copy = await trio.to_thread.run_sync(copied, network, "copy.sqlite")
        with closing(sqlite3.connect(copy)) as connection:  # as `stromkreis backup` leaves it
            connection.execute("DELETE FROM epoch_states")
            connection.commit()
        first = opened(network)[0].epoch
        await network.wait_until(lambda: opened(network, after=first + 1, roster=ALL)[1:])
        await coordinator.stop()
        called = max(each.epoch for each in opened(network))
        put_back(network, copy, without_log=True)
        await network.start_coordinator(nursery)
        await network.wait_until(lambda: opened(network, after=called, roster=ALL)[1:])
        nursery.cancel_scope.cancel()


async def test_whoever_was_revoked_and_what_was_spent_stays_so(network: Network) -> None:
    url = f"sqlite:///{network.directory}/coordinator/coordinator.sqlite"
    irrevocable = IrrevocableLog(network.directory / "coordinator" / FILE_NAME)
    gone = "ESTK0000000003"
    network.rounds = 120
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        coordinator = await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 4, "early")
        copy = await trio.to_thread.run_sync(copied, network, "copy.sqlite")  # before half of them enrolled
        await network.start_node(nursery, 4, 4, "late")
        await network.wait_until(lambda: opened(network)[1:])
        store = Store(url)
        assert Directory(store.gateways, irrevocable).revoke(gone, datetime.now(UTC))
        assert Directory(store.gateways, irrevocable).revoke("ESTK0000000006", datetime.now(UTC))
        revoked = {serial for serial, _ in store.certificates.revoked(0)}
        assert len(revoked) == 6
        store.close()
        await coordinator.stop()
        put_back(network, copy)
        await network.start_coordinator(nursery)
        nursery.cancel_scope.cancel()
    store = Store(url)
    known = {each.gateway_id: each.status for each in store.gateways.page()}
    (token,) = store.gateways.tokens()
    assert known[gone] is known["ESTK0000000006"] is GatewayStatus.REVOKED  # the latter is not in the copy at all
    assert {serial for serial, _ in store.certificates.revoked(0)} == revoked
    assert token.uses_left == 0
    store.close()
