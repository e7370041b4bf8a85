"""A gateway that leaves for good, in a living network: what it owes is paid, and nothing of it stays, killed or not."""

import signal
import sqlite3
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio

from coordinator.gwa.enrolment import Directory, key_digest
from coordinator.storage.gateways import GatewayRecord
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.storage.store import Store
from loadtest.children import config_file, process
from loadtest.network import Network
from node.leave_records import LeaveRecords, LeaveState
from protocol import pki
from protocol.errors import LocalProtocolError
from protocol.wire import Outcome

LEAVER = "ESTK0000000007"
MOMENTS = ["before-told", "after-told", "keys", "before-left"]


def record(network: Network) -> GatewayRecord:
    assert network.coordinator_config is not None
    store = Store(network.coordinator_config.database_url)
    try:
        return store.gateways.some([LEAVER])[LEAVER]
    finally:
        store.close()


def sealed_account(node: Path) -> bytes:
    with closing(sqlite3.connect(f"file:{node / 'registers.sqlite'}?mode=ro", uri=True)) as database:
        ((first,),) = database.execute("SELECT first FROM baseline WHERE gateway=?", (LEAVER,))
    return bytes(first)


def is_gone(node: Path, *, has_others: bool = True) -> None:
    """No file of the node names the gateway but the one that says that it has left, and no table has a row of it."""
    assert not (node / "keys" / f"{LEAVER}.json").exists()
    for path in (node / "registers.sqlite", node / "keys" / "epochs.sqlite"):
        assert path.exists() is has_others
        if not has_others:
            continue
        with closing(sqlite3.connect(path)) as database:
            tables = database.execute(
                "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c ON c.name='gateway'"
            ).fetchall()
            assert tables
            for (table,) in tables:
                assert not database.execute(f"SELECT 1 FROM {table} WHERE gateway=?", (LEAVER,)).fetchall(), table


async def has_left(node: Path, name: str = LEAVER) -> None:
    while LeaveRecords(node).read()[name].state is not LeaveState.LEFT:
        await trio.sleep(0.1)


async def test_a_gateway_leaves_at_its_epochs_end_and_the_others_go_on(network: Network) -> None:
    network.rounds = 12
    network.origin_unix_s += 20  # every account begins before the first round
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 4, "staying")
        await network.start_node(nursery, 4, 4, "node")
        await network.wait_until(lambda: [each for each in network.ended() if each.roster == 0xFF][1:])
        account = sealed_account(network.directory / "node")
        LeaveRecords(network.directory / "node").ask(LEAVER, 1, discard=False)
        await network.wait_until(lambda: LeaveRecords(network.directory / "node").read()[LEAVER].owes)
        with trio.fail_after(120):
            await has_left(network.directory / "node")
        left = network.ended()
        last = max(each.epoch for each in left)
        await network.wait_until(
            lambda: [e for e in network.ended() if e.epoch > last and e.outcome is Outcome.OPENED and e.roster == 0x7F]
        )
        nursery.cancel_scope.cancel()
    mine = {key for key, members in network.members().items() if LEAVER in members}
    assert [e for e in left if (e.epoch, e.ring) in mine and e.outcome is Outcome.OPENED and e.roster == 0xFF]
    assert not [each for each in network.ended() if each.epoch > last and (each.epoch, each.ring) in mine]
    verdict = network.judged(network.ended())
    assert verdict.exact, verdict
    is_gone(network.directory / "node")
    for path in (network.directory / "node").glob("registers.sqlite*"):
        assert account not in path.read_bytes()  # overwritten, not only unlinked
    found = record(network)
    assert found.left_ms is not None
    await check_refused(network, found)


async def check_refused(network: Network, found: GatewayRecord) -> None:
    """Its certificates are revoked, its id is not released, and another gateway of the id is not enrolled."""
    assert network.coordinator_config is not None
    store = Store(network.coordinator_config.database_url)
    try:
        assert all(each.revoked_ms is not None for each in store.certificates.of_gateway(LEAVER))
        directory = Directory(store.gateways, IrrevocableLog(network.coordinator_config.irrevocable_path))
        with pytest.raises(LocalProtocolError, match="left for good"):
            directory.release(LEAVER, pki.load_certificate(found.certificate).not_valid_before_utc)
    finally:
        store.close()
    assert key_digest(pki.load_certificate(found.certificate).public_key()) == found.key_digest


async def test_killed_at_every_step_a_leave_goes_on_and_nothing_stays(network: Network) -> None:
    network.rounds, network.period_s = 6, 2.0

    def has_ended(child: subprocess.Popen[bytes]) -> bool:
        return child.poll() is not None

    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 6, "staying")
        config = str(config_file(network, 6, 2, "node"))
        script = str(Path(__file__).with_name("leaving_node.py"))
        node = network.directory / "node"
        with process(network, "-m", "stromkreis", "node", "--config", config):
            await network.wait_until(lambda: [each for each in network.ended() if each.roster == 0xFF])
        LeaveRecords(node).ask(LEAVER, 1, discard=True)
        for moment in MOMENTS:
            with process(network, script, moment, config) as child:
                await network.wait_until(partial(has_ended, child))
                assert child.returncode == -signal.SIGKILL, moment
            if moment == "before-told":
                assert record(network).left_ms is not None  # the coordinator knows, the gateway does not know that
        with process(network, "-m", "stromkreis", "node", "--config", config):
            with trio.fail_after(120):
                await has_left(node)
            seen = len(network.ended())
            await network.wait_until(lambda: [e for e in network.ended()[seen:] if e.roster == 0x7F])
        is_gone(node)
        LeaveRecords(node).ask("ESTK0000000006", 1, discard=True)
        with process(network, "-m", "stromkreis", "node", "--config", config), trio.fail_after(120):
            await has_left(node, "ESTK0000000006")
            while (node / "keys" / "storage.key").exists():
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    is_gone(node, has_others=False)
