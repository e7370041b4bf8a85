"""A node's data from the time before schema versions: it opens, is sealed, and its open epoch goes on."""

import hmac
import json
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
import trio

from loadtest.network import Network
from loadtest.unsealed import Unsealed
from node.aggregation.contribution import Contributions
from node.metering.registers import Registers
from node.security.module import KeyDirectory
from node.security.storage_key import FILE_NAME
from node.storage.cipher import StorageCipher, store_cipher
from node.storage.engine import Store
from node.storage.errors import StoreError
from node.storage.migrations import EPOCH_SEED_STEPS, STEPS, step001_unversioned
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.attendance import AttendanceRepository
from node.storage.repositories.bills import BillRepository, CommittedValue
from node.storage.repositories.counters import CounterRepository
from node.storage.repositories.pairings import PairingRepository
from protocol.dcnet.crypto.group import Edwards25519
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.dcnet.setup.schema import VERIFIED_SCHEMA
from protocol.errors import RemoteProtocolError
from protocol.wire import Outcome

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "node_store_v0"
EXPECTED = json.loads((DATA / "expected.json").read_text())
GATEWAYS = ("ESTK0000000001", "ESTK0000000002")
IMPORT, EXPORT = "1-0:1.8.0*255", "1-0:2.8.0*255"
CIPHER = StorageCipher(bytes(32))
COMMITMENT_KEY = b"c" * 32
VIEW: Any = SimpleNamespace(epoch=7, size=8, noise=(), committed=(1, 2), bits=(19, 19))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    shutil.copytree(DATA, tmp_path / "node", ignore=shutil.ignore_patterns("*.md", "*.json"))
    return tmp_path / "node"


def secrets_of(directory: Path) -> Iterator[tuple[str, bytes]]:
    """What must not be found after the migration: every energy, the bill, the pairing."""
    for name in GATEWAYS:
        known = EXPECTED[name]
        at = known["first"]
        for moved in known["moves"]:
            at += moved
            yield "register", struct.pack("<q", at)
            yield "contribution", struct.pack("<q", moved)
            yield "committed value", moved.to_bytes(4, "big")  # as SQLite keeps an integer
        yield "baseline", struct.pack("<q", known["first"])
    bill = EXPECTED[GATEWAYS[0]]["bill"]
    yield "amount", bytes.fromhex(bill["amount"])
    yield "blinding", bytes.fromhex(bill["blinding"])
    pairing = bytes.fromhex(EXPECTED["pairing"]["renewed"])
    for start in range(0, len(pairing) - 24, 24):  # in pieces: a long value goes over several pages
        yield "pairing", pairing[start : start + 24]


def found_in(directory: Path) -> set[str]:
    files = b"\n".join(each.read_bytes() for each in directory.rglob("*") if each.is_file())
    return {what for what, secret in secrets_of(directory) if secret in files}


def blinding(gateway: str, obis: str, interval_s: int) -> int:
    """As the release without versions derived it from the gateway's commitment key."""
    text = b"stromkreis/1 Pedersen blinding\0" + f"{gateway} {obis} {interval_s}".encode()
    return int.from_bytes(hmac.digest(COMMITMENT_KEY, text, "sha512"), "little") % Edwards25519.order


async def test_it_keeps_its_data_and_its_open_epoch(directory: Path) -> None:
    store = Store(directory / "registers.sqlite", CIPHER, blinding_key=lambda _: COMMITMENT_KEY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        accounts, bills, counters = AccountRepository(store), BillRepository(store), CounterRepository(store)
        assert tuple(accounts.gateways()) == GATEWAYS
        for name in GATEWAYS:
            known = EXPECTED[name]
            account, last = accounts.account(name), accounts.last_contribution(name)
            assert account is not None
            assert last is not None
            assert account.first == (1, known["first"], known["export"], 0)
            opened = (1, known["at"] - known["moves"][7], known["export"], known["power"] - 1)
            assert tuple(each.contributed for each in account.energies) == opened
            assert not any(each.carried for each in account.energies)
            returns = AttendanceRepository(store).attendance(name)
            assert returns is not None
            assert returns.tokens == 4  # what the store did not count is not held against it
            assert (last.epoch, last.round, last.attempt, last.interval_s, last.settled) == (7, 8, 0, 7200, False)
            assert last.registers == (1, known["at"], known["export"], known["power"])
            assert last.vector == struct.pack("<4q", 1, known["moves"][7], 0, known["power"])
            carried = [*known["moves"][:2], sum(known["moves"][2:4]), *known["moves"][4:7]]
            assert last.blindings == tuple(blinding(name, obis, 7200) for obis in (IMPORT, EXPORT))
            intervals: dict[int, CommittedValue | None] = {
                interval_s: CommittedValue(IMPORT, moved, blinding(name, IMPORT, interval_s))
                for interval_s, moved in zip((900, 1800, 3600, 4500, 5400, 6300), carried, strict=True)
            }
            if name == GATEWAYS[0]:
                intervals |= {900: None, 1800: None}  # they are billed
            assert bills.committed(name, IMPORT, 0, 10**6) == intervals
            assert bills.open_intervals(name) == {7200}
        known = EXPECTED[GATEWAYS[0]]["bill"]
        bill = bills.bill(GATEWAYS[0], bytes.fromhex(known["request"]))
        assert bill is not None
        assert bill.answer == b""  # its message is none of this release
        assert counters.next_number("45535400000001") == 1_772_000_000 + 16_384
        assert counters.taken("wmbus/0") == {"8ISK0112345678": 4711}
        ((origin,),) = store.read("SELECT origin FROM lmn_pairing")
        pairing = EXPECTED["pairing"]
        assert PairingRepository(store).pairing(pairing["meter"], origin) == bytes.fromhex(pairing["renewed"])

        mine = Contributions(accounts, GATEWAYS[0], VERIFIED_SCHEMA, lambda: 1)
        known = EXPECTED[GATEWAYS[0]]
        assert mine.unsettled == (7, 8)
        await mine.attempted(VIEW, Attempted(8, 1, Progress.SERVED))
        await mine.settle(7, 8, included=True)
        built = mine.build(VIEW, 9, Registers(8100, (1, known["at"] + 5, known["export"], 0)))
        assert built is not None
        assert built.vector.tolist() == [1, 5, 0, 0]
        nursery.cancel_scope.cancel()
    store.close()


def test_values_that_wait_for_a_bill_are_not_lost_for_want_of_keys(directory: Path) -> None:
    with pytest.raises(StoreError, match="need keys of their gateways"):
        Store(directory / "registers.sqlite", CIPHER)
    Store(directory / "registers.sqlite", CIPHER, blinding_key=lambda _: COMMITMENT_KEY).close()


async def test_without_the_commitment_key_what_waits_for_a_bill_goes(directory: Path) -> None:
    store = Store(directory / "registers.sqlite", CIPHER, blinding_key=lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        assert BillRepository(store).committed(GATEWAYS[0], IMPORT, 0, 10**6) == {900: None, 1800: None}
        mine = Contributions(AccountRepository(store), GATEWAYS[0], VERIFIED_SCHEMA, lambda: 1)
        await mine.settle(7, 8, included=True)
        assert BillRepository(store).committed(GATEWAYS[0], IMPORT, 2000, 10**6) == {}
        nursery.cancel_scope.cancel()
    store.close()


def test_what_was_in_the_clear_is_in_no_file_afterwards(directory: Path) -> None:
    kinds = {"register", "contribution", "committed value", "baseline", "amount", "blinding", "pairing"}
    assert found_in(directory) == kinds  # the search can find each kind, deleted rows in the log included
    store = Store(directory / "registers.sqlite", CIPHER, blinding_key=lambda _: COMMITMENT_KEY)
    assert (directory / "registers.sqlite-wal").stat().st_size == 0
    assert found_in(directory) == set()
    store.close()
    assert found_in(directory) == set()


def test_the_same_search_finds_it_where_nothing_is_sealed(directory: Path) -> None:
    Store(directory / "registers.sqlite", Unsealed(), blinding_key=lambda _: COMMITMENT_KEY).close()
    assert found_in(directory) >= {"register", "contribution", "baseline", "amount", "blinding", "pairing"}


KILLED = """
import os, signal, sys
from pathlib import Path
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
class Dying(StorageCipher):
    left = int(sys.argv[2])
    def seal(self, *arguments):
        Dying.left -= 1
        if not Dying.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().seal(*arguments)
Store(Path(sys.argv[1]), Dying(bytes(32)), blinding_key=lambda _: b"c" * 32)
"""


@pytest.mark.parametrize("at", [1, 5, 20, 30])
async def test_killed_in_the_middle_of_a_migration_it_begins_anew(directory: Path, at: int) -> None:
    path = directory / "registers.sqlite"
    child = subprocess.run([sys.executable, "-c", KILLED, path, str(at)], cwd=ROOT, check=False)
    assert child.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    await test_it_keeps_its_data_and_its_open_epoch(directory)
    assert found_in(directory) == set()


def test_under_another_key_it_is_refused_and_says_what_to_do(directory: Path) -> None:
    path = directory / "registers.sqlite"
    Store(path, CIPHER, blinding_key=lambda _: COMMITMENT_KEY).close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"registers\.sqlite: it is sealed under another storage key; put the key"):
        Store(path, StorageCipher(b"\1" * 32))
    assert path.read_bytes() == before
    Store(path, CIPHER, blinding_key=lambda _: COMMITMENT_KEY).close()


def test_the_seeds_of_its_open_epoch_are_taken_over(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "keys" / "epochs.sqlite")) as connection:
        seeds = dict(connection.execute("SELECT gateway, seed FROM seed WHERE epoch=7"))
    keys = KeyDirectory(directory / "keys", StandardSuite())
    try:
        for number, name in enumerate(GATEWAYS):
            assert keys.seeds.seed(name, 7) == seeds[name]
            module = keys.open(name)
            module.fix_layout(7, bytes([number]) * 32)
            with pytest.raises(RemoteProtocolError, match="second_layout"):
                module.fix_layout(7, b"\7" * 32)
            module.forget_epoch(7)
            with pytest.raises(RemoteProtocolError, match="past_epoch"):
                module.epoch(7)
    finally:
        keys.close()
    with closing(sqlite3.connect(directory / "keys" / "epochs.sqlite")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(EPOCH_SEED_STEPS),)


def put_back_in_time(directory: Path) -> None:
    """Make of a stopped node's data what the last release without versions would have left of it."""
    path = directory / "registers.sqlite"
    keys = KeyDirectory(directory / "keys", StandardSuite())
    cipher = store_cipher(keys)
    with closing(sqlite3.connect(path)) as now, closing(sqlite3.connect(directory / "old")) as old:
        step001_unversioned.upgrade(old, cipher)
        for gateway, first, opened in now.execute("SELECT * FROM baseline"):
            zero = cipher.open("baseline.first", (gateway,), first)
            accounts = msgpack.unpackb(cipher.open("baseline.opened", (gateway,), opened))
            contributed = struct.pack(f"<{len(accounts)}q", *(each[0] for each in accounts))
            old.execute("INSERT INTO baseline VALUES (?,?,?)", (gateway, zero, contributed))
        for *row, content in now.execute("SELECT * FROM contribution"):
            gateway, epoch, round_, _, interval_s, *_ = row
            opened = msgpack.unpackb(cipher.open("contribution", (gateway, epoch, round_, interval_s), content))[:2]
            old.execute("INSERT INTO contribution VALUES (?,?,?,?,?,?,?,?,?,?)", (*row, *opened))
        old.commit()
    keys.seeds._execute("ALTER TABLE seed DROP COLUMN end_s")
    keys.seeds._execute("PRAGMA user_version=0")
    keys.close()
    for each in (path, directory / "keys" / FILE_NAME):
        each.unlink()
    (directory / "old").rename(path)


async def test_a_living_network_goes_on_with_it_in_the_next_epoch(network: Network) -> None:
    """Not in the open one: what releases without versions joined by is another protocol's."""
    network.rounds = 20
    directory = network.directory / "away"
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 6, "steady")
        async with trio.open_nursery() as before:
            scope = await network.start_node(before, 6, 2, "away")
            await network.wait_until(lambda: [each for each in network.ended() if each.roster == 0xFF][1:])
            scope.cancel()
        put_back_in_time(directory)
        with closing(sqlite3.connect(directory / "registers.sqlite")) as old:
            assert old.execute("PRAGMA user_version").fetchone() == (0,)
            assert len(old.execute("SELECT vector FROM contribution").fetchall()) >= 2
        seen = len(network.ended())
        await network.start_node(nursery, 6, 2, "away")
        await network.wait_until(lambda: [each for each in network.ended()[seen:] if each.roster == 0xFF][1:])
        nursery.cancel_scope.cancel()
    opened = [each for each in network.ended() if each.outcome is Outcome.OPENED]
    assert max(each.epoch for each in opened if each.roster == 0xFF) > 0
    flown = network.flown("steady", "away")
    assert flown.gateways == 8
    assert flown.is_conserved
    with closing(sqlite3.connect(directory / "registers.sqlite")) as upgraded:
        assert upgraded.execute("PRAGMA user_version").fetchone() == (len(STEPS),)
