"""What a node keeps on disk says nothing of readings, and forgets what it deleted: files searched, log included."""

import base64
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path

import msgpack
import pytest
import trio

from loadtest.households import Household, Registers
from loadtest.network import Network
from loadtest.unsealed import Unsealed
from node.storage.cipher import Cipher, StorageCipher, StorageKeys, store_cipher
from node.storage.engine import Store
from node.storage.errors import SealError, StoreError
from node.storage.repositories.accounts import AccountRepository, ContributionRecord
from node.storage.repositories.bills import BillRepository, CommittedValue
from protocol.dcnet.discipline.carried_energy import EnergyAccount
from protocol.dcnet.setup.ranges import FUSE_A_MAX

CIPHER = StorageCipher(bytes(32))
GATEWAY = "ESTK0000000001"
OBIS = "1-0:1.8.0*255"
START, STEP = 61_803_398_874_989, 27_182_818  # of a register; of an interval, within what the largest fuse carries


def planted(meter: Household, q: int) -> Registers:
    """Registers with values of six bytes and differences of eight digits, which turn up in no file by chance."""
    number, q = int(meter.meter_id[6:]), max(q, 0)
    return Registers(START * (number + 1) + q * (STEP + 7 * number), 3 * START + number, 1_732)


def forms(value: int) -> list[bytes]:
    """How a file may hold an integer: text, msgpack, both byte orders, base64 and hexadecimal of them, scaled."""
    found = []
    for scaled in (value, value * 10, value // 10, value // 1000, value // 10_000):
        size = (scaled.bit_length() + 7) // 8
        least = [scaled.to_bytes(size, order) for order in ("little", "big")]  # within every wider field
        found += [str(scaled).encode(), msgpack.packb(scaled), *least, *(each.hex().encode() for each in least)]
        found += [base64.b64encode(scaled.to_bytes(8, order))[:10] for order in ("little", "big")]
        if size > 3:  # a word of a vector; fewer octets before zeros turn up by chance
            found += [scaled.to_bytes(8, order) for order in ("little", "big")]
        found.append(f"{scaled // 1000}.{scaled % 1000:03}".encode())
    return [form for form in found if len(form) >= _length_min(form)]


def _length_min(form: bytes) -> int:
    """Shorter ones turn up by chance: four octets in a file of random ones, seven digits in one of hexadecimal keys."""
    if form.isdigit() or set(form) <= set(b"0123456789abcdef"):
        return 8
    return 7 if form.replace(b".", b"").isdigit() else 5


def contents(directory: Path) -> bytes:
    return b"\n".join(each.read_bytes() for each in sorted(directory.rglob("*")) if each.is_file())


def found_in(files: bytes, values: set[int]) -> set[int]:
    return {value for value in values if any(form in files for form in forms(value))}


def readings_of(quarters: range) -> dict[str, set[int]]:
    registers, energies = set(), set()
    for number in (0, 3, 7):  # of eight gateways; a search for all takes minutes
        shown = [START * (number + 1) + q * (STEP + 7 * number) for q in quarters]
        registers |= {*shown, 3 * START + number}
        energies |= {n * (STEP + 7 * number) for n in range(1, 6)}
    return {"registers": registers, "energies": energies}


@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "unsealed"])
async def test_a_planted_reading_is_found_in_no_file_of_the_node(
    network: Network, monkeypatch: pytest.MonkeyPatch, *, is_sealed: bool
) -> None:
    def cipher_of(keys: StorageKeys) -> Cipher:
        return store_cipher(keys) if is_sealed else Unsealed()

    network.cipher_of, network.verified, network.rounds, network.period_s = cipher_of, True, 6, 2.0
    network.fuse_a = FUSE_A_MAX
    monkeypatch.setattr(Household, "registers", planted)
    asked: list[Store] = []
    truncate_log = Store.truncate_log
    monkeypatch.setattr(Store, "truncate_log", lambda store: asked.append(store) or truncate_log(store))
    directory = network.directory / "node"
    copies: list[bytes] = []
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(lambda: [each for each in network.ended() if each.total][1:])
        copies.append(contents(directory))
        begun = max(each.epoch for each in network.ended())
        await network.wait_until(lambda: [each for each in network.ended() if each.epoch > begun and each.total])
        copies.append(contents(directory))  # over an epoch's end
        await network.wait_until(lambda: asked)
        assert (directory / "registers.sqlite-wal").exists()
        nursery.cancel_scope.cancel()
    copies.append(contents(directory))
    readings = readings_of(range(int((time.time() - network.origin_unix_s) / network.period_s) + 2))
    assert min(map(len, readings.values())) >= 9
    found = {kind: {v for copy in copies for v in found_in(copy, values)} for kind, values in readings.items()}
    if is_sealed:
        assert found == {"registers": set(), "energies": set()}
    else:  # the search can find
        assert len(found["registers"]) > 3
        assert found["energies"]


async def test_a_gateway_whose_row_was_altered_stays_out_and_the_others_go_on(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    network.rounds = 200
    async with trio.open_nursery() as nursery:
        await network.start_meters(nursery)
        await network.start_coordinator(nursery)
        async with trio.open_nursery() as before:
            scope = await network.start_node(before, 0, 8, "node")
            await network.wait_until(lambda: [each for each in network.ended() if each.roster == 0xFF])
            scope.cancel()
        with closing(sqlite3.connect(network.directory / "node" / "registers.sqlite")) as attacker:
            attacker.execute("UPDATE baseline SET opened=first WHERE gateway='ESTK0000000003'")
            attacker.commit()
        seen = len(network.ended())
        await network.start_node(nursery, 0, 8, "node")
        await network.wait_until(
            lambda: [each for each in network.ended()[seen:] if each.roster.bit_count() == 7 and each.total]
        )
        nursery.cancel_scope.cancel()
    assert "gateway ESTK0000000003 does not contribute" in caplog.text
    assert "a value of baseline.opened does not open in its row" in caplog.text


@asynccontextmanager
async def opened(path: Path, cipher: Cipher) -> AsyncIterator[Store]:
    store = Store(path, cipher)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield store
        nursery.cancel_scope.cancel()
    store.close()


def record(number: int) -> ContributionRecord:
    secret = STEP + number
    energies = (EnergyAccount(1, 1), EnergyAccount(secret, secret, 900 * number))
    return ContributionRecord(
        1, number, 0, 900 * number, 1, False, (1, secret), secret.to_bytes(8, "little"), (), energies
    )


async def live(accounts: AccountRepository, rounds: int, first: int = 0) -> set[int]:
    """Contribute and settle, from round `first` on; return what is deleted by now."""
    for number in range(first, first + rounds):
        await accounts.contribute(GATEWAY, record(number))
        await accounts.settle(GATEWAY, record(number), included=True)
    return {STEP + number for number in range(rounds - 1)}


async def until_truncated(store: Store, count: int) -> None:
    with trio.fail_after(120):
        while store.counters.truncations < count:
            await trio.sleep(0.002)


async def test_what_was_deleted_is_gone_from_the_log_at_the_epochs_end(tmp_path: Path) -> None:
    async with opened(tmp_path / "registers.sqlite", Unsealed()) as store:
        accounts = AccountRepository(store)
        deleted = await live(accounts, 96)
        assert len(found_in(contents(tmp_path), deleted)) == 95  # the fault, and that the search can find
        before = store.counters.truncations
        store.truncate_log()
        await until_truncated(store, before + 1)
        assert found_in(contents(tmp_path), deleted) == set()
        assert (tmp_path / "registers.sqlite-wal").stat().st_size == 0
        await accounts.contribute(GATEWAY, record(200))


async def test_what_was_deleted_is_gone_from_the_log_when_the_writer_stops(tmp_path: Path) -> None:
    async with opened(tmp_path / "registers.sqlite", Unsealed()) as store:
        deleted = await live(AccountRepository(store), 20)
    assert (tmp_path / "registers.sqlite").exists()
    assert found_in(contents(tmp_path), deleted) == set()


async def test_what_was_deleted_before_a_kill_is_gone_after_the_next_start(tmp_path: Path) -> None:
    path, killed = tmp_path / "registers.sqlite", tmp_path / "killed"
    killed.mkdir()
    async with opened(path, Unsealed()) as store:
        deleted = await live(AccountRepository(store), 20)
        for each in (path, path.with_name(path.name + "-wal")):  # as kill -9 leaves them
            (killed / each.name).write_bytes(each.read_bytes())
    assert len(found_in(contents(killed), deleted)) == 19
    store = Store(killed / path.name, Unsealed())
    assert found_in(contents(killed), deleted) == set()
    store.close()


async def test_writes_go_on_while_the_log_is_emptied_and_while_it_cannot_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "registers.sqlite"
    async with opened(path, CIPHER) as store:
        accounts = AccountRepository(store)
        rounds = count(step=20)  # more than are lived through at once
        for _ in range(20):
            store.truncate_log()
            await live(accounts, 3, next(rounds))
        await until_truncated(store, 2)
        await live(accounts, 2, next(rounds))
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN")
            other.execute("SELECT * FROM contribution").fetchall()
            await live(accounts, 3, next(rounds))
            store.truncate_log()
            with trio.fail_after(120):
                while "another process reads it" not in caplog.text:
                    await live(accounts, 1, next(rounds))
            await live(accounts, 20, next(rounds))
            before = store.counters.truncations
        await live(
            accounts, 1, next(rounds)
        )  # the reader is gone: the write after it empties the log, nobody asks again
        await until_truncated(store, before + 1)
        assert caplog.text.count("another process reads it") == 1
    assert path.with_name("registers.sqlite-wal").exists() is False


async def test_a_row_in_another_rows_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registers.sqlite"
    async with opened(path, CIPHER) as store:
        accounts, bills = AccountRepository(store), BillRepository(store)
        for gateway in ("a", "b"):
            await accounts.begin(gateway, (1, STEP))
            await accounts.contribute(gateway, record(1))
            await accounts.settle(
                gateway, record(1), included=True, committed=[CommittedValue(OBIS, STEP, 1)], keep_committed_s=900
            )
    swaps: list[tuple[str, Callable[[], object]]] = [
        ("UPDATE baseline SET opened=first WHERE gateway='a'", lambda: accounts.account("a")),
        ("UPDATE baseline SET first=(SELECT first FROM baseline WHERE gateway='b') WHERE gateway='a'",
         lambda: accounts.account("a")),
        ("UPDATE contribution SET interval_s=interval_s+900 WHERE gateway='a'",
         lambda: accounts.last_contribution("a")),
        ("UPDATE contribution SET content=(SELECT content FROM contribution WHERE gateway='b') WHERE gateway='a'",
         lambda: accounts.last_contribution("a")),
        ("UPDATE committed SET interval_s=interval_s+900 WHERE gateway='a'",
         lambda: bills.committed("a", OBIS, 0, 10**6)),
    ]  # fmt: skip
    for sql, read in swaps:
        whole = path.read_bytes()
        with closing(sqlite3.connect(path)) as attacker:
            attacker.execute(sql)
            attacker.commit()
        async with opened(path, CIPHER) as store:
            accounts, bills = AccountRepository(store), BillRepository(store)
            with pytest.raises(SealError, match="does not open in its row") as refused:
                read()
            assert isinstance(refused.value, StoreError)
            assert accounts.account("b") is not None  # the other gateway goes on
            assert bills.committed("b", OBIS, 0, 10**6) == {900: CommittedValue(OBIS, STEP, 1)}
        path.write_bytes(whole)
