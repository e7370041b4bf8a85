"""The enrolment log's writer: everything is entered once, in the file first, and no database that differs is signed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from coordinator.gwa.log_writer import LOG_FILE, SIGN_AGAIN_S, LogWriter
from coordinator.storage.certificates import CertificateRecord
from coordinator.storage.enrolment_log import LoggedEntry, Unlogged
from coordinator.storage.gateways import GatewayRecord, GatewayStatus
from coordinator.storage.store import Store
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.enrolment_log.entries import Kind, TreeHead
from protocol.enrolment_log.merkle import MerkleTree, check_consistency
from protocol.errors import StromkreisError
from protocol.pki import GATEWAY_TRIPLE

SUITE = StandardSuite()
SEED = b"k" * 32
NOW_S = 1_772_000_000.0


class Bench:
    def __init__(self, directory: Path) -> None:
        self.path = directory / LOG_FILE
        self.store = Store(f"sqlite:///{directory}/coordinator.sqlite")
        self.now_s = NOW_S
        self.writers: list[LogWriter] = []
        self.signed: list[tuple[int, float]] = []

    def writer(self, file: str = LOG_FILE) -> LogWriter:
        sign = SUITE.sign
        key = SUITE.signing_key(SEED)
        made = LogWriter(
            self.store.enrolment_log,
            self.path.with_name(file),
            lambda it: sign(key, it),
            lambda: self.now_s,
            print,
            lambda *head: self.signed.append(head),
        )

        self.writers.append(made)
        return made

    def enrol(self, number: int) -> None:
        name = f"ESTK{number:010}"
        digest = number.to_bytes(32, "big")
        record = GatewayRecord(name, "north", digest, digest, digest, GatewayStatus.ACTIVE, number, None, None)
        triple = [
            CertificateRecord(
                f"{number}{index}", name, role, 1, bytes([index]) + digest, bytes([index]) + digest[1:], 1, 2
            )
            for index, role in enumerate(GATEWAY_TRIPLE)
        ]
        with self.store.gateways.enrolment() as transaction:
            assert transaction.add(record, triple)

    def head(self) -> TreeHead:
        head = self.store.enrolment_log.head()
        assert head is not None
        head.check(lambda text, signature: SUITE.verify(SUITE.verify_key(SEED), text, signature))
        entries = self.entries()
        assert MerkleTree(each.entry.leaf for each in entries[: head.size]).root() == head.root
        return head

    def entries(self) -> list[LoggedEntry]:
        return self.store.enrolment_log.entries(0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for each in made.writers:
        each.close()
    made.store.close()


def test_certificates_revocations_and_histories_are_entered_once(bench: Bench) -> None:
    writer = bench.writer()
    for number in range(3):
        bench.enrol(number)
    writer.enter_all()
    bench.store.gateways.revoke("ESTK0000000001", 5)
    bench.store.enrolment_log.add_history(7, 2, bytes(32))
    bench.store.enrolment_log.add_history(7, 2, b"1" * 32)  # what was kept first stands
    writer.enter_all()
    writer.enter_all()
    told = [(each.entry.kind, each.entry.subject) for each in bench.entries()]
    assert told == [
        *((Kind.CERTIFICATE, f"ESTK{number:010}") for number in range(3)), (Kind.REVOKED, "ESTK0000000001"),
        (Kind.HISTORY, "7/2"),
    ]  # fmt: skip
    assert bench.entries()[-1].entry.digest == bytes(32)
    assert bench.head().size == 5
    digests = [each.entry.digest for each in bench.entries()]
    assert bench.store.enrolment_log.signed([*digests, b"x" * 32]) == set(digests[:3])


def test_each_head_continues_the_one_before(bench: Bench) -> None:
    writer, heads = bench.writer(), []
    for number in range(9):
        bench.enrol(number)
        writer.enter_all()
        heads.append(bench.head())
    tree = MerkleTree(each.entry.leaf for each in bench.entries())
    for old, new in pairwise(heads):
        check_consistency(old.size, old.root, new.size, new.root, tree.consistency_proof(old.size, new.size))


def test_a_head_is_signed_again_before_it_is_old(bench: Bench) -> None:
    writer = bench.writer()
    writer.enter_all()
    assert bench.head().size == 0
    bench.now_s += SIGN_AGAIN_S - 1
    writer.enter_all()
    assert bench.head().time_ms == NOW_S * 1000
    bench.now_s += 1
    writer.enter_all()
    assert bench.head().time_ms == (NOW_S + SIGN_AGAIN_S) * 1000
    assert bench.signed == [(0, NOW_S), (0, NOW_S + SIGN_AGAIN_S)]


def test_a_database_put_back_gets_the_entries_that_it_lacks(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    writer = bench.writer()
    for number in range(5):
        bench.enrol(number)
    writer.enter_all()
    before, entries = bench.head(), bench.entries()
    writer.close()
    with bench.store.database.write() as connection:
        connection.execute(text("DELETE FROM log_entries WHERE number >= 2"))
        connection.execute(text("DELETE FROM log_heads"))
        connection.execute(text("DELETE FROM certificates WHERE gateway_id = 'ESTK0000000004'"))
    bench.writer().enter_all()
    assert bench.entries() == entries
    assert (bench.head().size, bench.head().root) == (before.size, before.root)
    assert "3 entries of the enrolment log were not in the database" in caplog.text


def test_a_database_with_other_entries_is_not_signed(bench: Bench) -> None:
    writer = bench.writer()
    for number in range(3):
        bench.enrol(number)
    writer.enter_all()
    writer.close()
    with bench.store.database.write() as connection:
        connection.execute(text("UPDATE log_entries SET subject = 'ESTK0000000009' WHERE number = 1"))
    with pytest.raises(StromkreisError, match="entry 1 of the enrolment log is not the one in"):
        bench.writer().enter_all()


def test_what_was_in_the_file_when_the_database_failed_is_stored_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = bench.writer()
    bench.enrol(0)
    writer.enter_all()
    bench.enrol(1)

    def fail(*_: object) -> None:
        raise SQLAlchemyError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(bench.store.enrolment_log, "append", fail)
        for _ in range(3):
            with pytest.raises(SQLAlchemyError):
                writer.step()
    bench.enrol(2)
    writer.enter_all()
    assert [each.entry.subject for each in bench.entries()] == [f"ESTK{number:010}" for number in range(3)]
    assert bench.head().size == 3
    writer.close()
    bench.writer().enter_all()


def test_a_line_that_a_crash_has_cut_off_is_written_anew(bench: Bench) -> None:
    writer = bench.writer()
    bench.enrol(0)
    writer.enter_all()
    writer.close()
    with bench.path.open("ab") as file:
        file.write(b'{"number": 1, "kind')
    bench.enrol(1)
    writer = bench.writer()
    writer.enter_all()
    writer.close()
    bench.writer().enter_all()
    assert bench.head().size == 2


def test_a_damaged_file_is_refused_with_the_line(bench: Bench) -> None:
    bench.path.write_bytes(b'{"number": 4}\n')
    with pytest.raises(StromkreisError, match="line 1 is no entry 0 of the enrolment log"):
        bench.writer().enter_all()


def test_of_two_writers_one_stands_by_until_the_other_ends(bench: Bench) -> None:
    first, second = bench.writer(), bench.writer()
    bench.enrol(0)
    first.enter_all()
    bench.enrol(1)
    second.enter_all()
    assert bench.head().size == 1
    first.close()
    second.enter_all()
    assert bench.head().size == 2
    second.close()


def test_a_writer_that_was_away_goes_on_from_what_another_entered(bench: Bench) -> None:
    away, other = bench.writer(), bench.writer("other.jsonl")  # on two machines: no file, and no lock, in common
    bench.enrol(0)
    away.enter_all()
    bench.enrol(1)
    other.enter_all()
    bench.now_s += SIGN_AGAIN_S
    away.enter_all()
    assert bench.head().size == 2
    bench.enrol(2)
    away.enter_all()
    assert bench.head().size == 3
    other.enter_all()
    bench.enrol(3)
    other.enter_all()
    assert [each.number for each in bench.entries()] == [0, 1, 2, 3]
    for each in (away, other):
        each.close()
    for file in (LOG_FILE, "other.jsonl"):  # after a restart, too
        bench.writer(file).enter_all()


def test_of_two_writers_that_enter_at_once_the_second_begins_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, other = bench.writer(), bench.writer("other.jsonl")
    bench.enrol(0)
    away.enter_all()
    bench.enrol(1)
    look = bench.store.enrolment_log.unlogged

    def looked(limit: int) -> list[Unlogged]:
        found = look(limit)
        monkeypatch.undo()
        bench.enrol(2)
        bench.now_s += 1  # another time than the first writer will note
        other.enter_all()
        return found

    monkeypatch.setattr(bench.store.enrolment_log, "unlogged", looked)
    away.enter_all()
    assert bench.head().size == 3
    away.close()
    bench.writer().enter_all()  # its file is not at odds with the database


def test_a_head_of_fewer_entries_never_takes_the_place_of_one_of_more(bench: Bench) -> None:
    writer = bench.writer()
    bench.enrol(0)
    writer.enter_all()
    old = bench.head()
    bench.enrol(1)
    writer.enter_all()
    bench.store.enrolment_log.append((), old)  # who had read before the other wrote
    assert bench.head().size == 2


def test_a_log_whose_file_is_lost_is_taken_from_the_database(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    writer = bench.writer()
    bench.enrol(0)
    writer.enter_all()
    writer.close()
    bench.path.unlink()
    bench.enrol(1)
    bench.writer().enter_all()
    assert bench.head().size == 2
    assert "the rest is taken from there" in caplog.text
