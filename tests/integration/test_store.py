"""The round ledger on real databases."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from coordinator.storage import packing
from coordinator.storage.engine import Database, fault_of
from coordinator.storage.epochs import EpochRecord, RingLayout
from coordinator.storage.store import Store
from coordinator.storage.tables import rings
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, Schema
from protocol.errors import LocalProtocolError, StromkreisError
from protocol.wire import Outcome

START = 1_700_000_100
NORTH = EpochRecord(7, "Nordring", DEFAULT_SCHEMA, rounds=96, interval_start_s=START, interval_s=900)
SOUTH = replace(NORTH, epoch=8, area="Südhang")
MEMBERS = tuple(f"ESTK01{n:08d}" for n in range(12))
LAYOUT = [RingLayout(7, 0, MEMBERS[:4]), RingLayout(7, 1, MEMBERS[4:8])]
SOUTHERN = [RingLayout(8, 0, MEMBERS[8:])]


def words(*numbers: int) -> tuple[int, ...]:
    return tuple(number % 2**64 for number in numbers)


def opened(ring: int, round_: int = 0, total: tuple[int, ...] = (3, 10, 0, -5), **changes: Any) -> Ended:
    made = Ended(
        7, ring, round_, Outcome.OPENED, attempt=0, term=5, expected=0b1111, roster=0b1011, total=words(*total),
        verified=True, reason="", opened_s=1_700_000_000.125, ended_s=1_700_000_000.15625,
    )  # fmt: skip
    return replace(made, **changes)


def void(ring: int, round_: int = 0, **changes: Any) -> Ended:
    made = Ended(
        7, ring, round_, Outcome.VOID, attempt=2, term=2, expected=0, roster=0, total=(), verified=False,
        reason="no total in time", opened_s=1_700_000_000.0, ended_s=1_700_000_009.0,
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture
def store(any_store: Store) -> Store:
    any_store.epochs.add(NORTH, LAYOUT)
    any_store.epochs.add(SOUTH, SOUTHERN)
    return any_store


def test_epochs_come_back_as_they_were(store: Store) -> None:
    assert store.epochs.latest() == [NORTH, SOUTH]
    assert store.epochs.last_number() == 8
    assert store.epochs.layout(7) == LAYOUT
    with pytest.raises(LocalProtocolError, match="exists"):
        store.epochs.add(replace(NORTH, rounds=1), [])
    later = replace(NORTH, epoch=9)
    with pytest.raises(SQLAlchemyError):
        store.epochs.add(later, [RingLayout(9, 0, ()), RingLayout(9, 0, ())])
    assert store.epochs.last_number() == 8  # all or nothing
    store.epochs.add(later, [])
    assert store.epochs.latest() == [later, SOUTH]


def test_a_round_ends_once(store: Store) -> None:
    first = opened(0)
    assert store.rounds.record(first)
    for late in (first, void(0), opened(0, total=(4, 9, 9, 9))):
        assert not store.rounds.record(late)
    assert store.rounds.get(7, 0, 0) == first
    assert store.rounds.get(7, 0, 1) is None
    assert store.rounds.record(void(1))
    assert not store.rounds.record(opened(1))
    assert store.rounds.get(7, 1, 0) == void(1)
    assert store.rounds.of_epoch(7) == [first, void(1)]


def test_a_batch_tells_for_each(store: Store) -> None:
    store.rounds.record(opened(0, 3))
    batch: list[Ended] = [opened(0, 3), void(1), opened(0), opened(1), opened(0, 1)]
    assert store.rounds.record_many(batch) == [False, True, True, False, True]
    assert store.rounds.get(7, 1, 0) == void(1)
    assert store.rounds.record_many([]) == []


def test_a_failing_batch_writes_nothing(store: Store) -> None:
    with pytest.raises(SQLAlchemyError):
        store.rounds.record_many([opened(0), opened(99)])  # there is no ring 99
    with pytest.raises(LocalProtocolError, match="no epoch 99"):
        store.rounds.record_many([opened(0), opened(0, epoch=99)])
    assert store.rounds.get(7, 0, 0) is None


def test_exactly_once_among_threads(store: Store) -> None:
    """Eight writers end the same 30 rounds of 2 rings, each its own way and order: every round has one winner."""
    wins: list[tuple[int, Ended]] = []
    start = threading.Barrier(8)

    def writer(number: int) -> None:
        mine: list[Ended] = [
            void(ring, round_) if number % 2 else opened(ring, round_, (3, number, 0, 0))
            for round_ in range(30)
            for ring in range(2)
        ]
        mine = mine[::-1] if number % 3 else mine
        start.wait()
        for at in range(0, len(mine), 7):
            batch = mine[at : at + 7]
            wins.extend(
                (number, ended) for ended, won in zip(batch, store.rounds.record_many(batch), strict=True) if won
            )

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 60
    kept = {(e.ring, e.round): e for e in store.rounds.of_epoch(7)}
    assert len(kept) == 60
    for _, ended in wins:
        assert kept[ended.ring, ended.round] == ended
    for round_, total in enumerate(store.totals.totals(0, 2**40)):  # no writer's rings were lost in another's sum
        rings = [each for each in kept.values() if each.round == round_ and each.outcome is Outcome.OPENED]
        sums = tuple(map(sum, zip(*(each.total for each in rings), strict=True))) or None
        assert (total.words, total.opened, total.void) == (sums, len(rings), 2 - len(rings))


def test_totals_add_rings_to_areas(store: Store) -> None:
    huge = 2**63 - 1
    store.rounds.record_many([
        opened(0, 0, (3, huge, 1, -5)), opened(1, 0, (4, huge, 2, 15), roster=0b1111, attempt=1),
        opened(0, 0, (3, 7, 0, 1), epoch=8), opened(0, 1), void(1, 1, attempt=0),
    ], enrolled={"Nordring": 9, "Südhang": 4})  # fmt: skip
    totals = store.totals
    assert store.epochs.areas() == ["Nordring", "Südhang"]
    first, second = totals.totals(START, START + 1800, area="Nordring")
    assert first.words == (7, 2 * huge, 3, 10)  # exact, beyond 64 bits
    assert (first.present, first.members, first.opened, first.void, first.rings) == (7, 8, 2, 0, 2)
    assert (first.schema, first.interval_s, first.retries) == (DEFAULT_SCHEMA, 900, 1)
    assert first.latencies_s == (0.03125, 0.03125)
    assert first.complete
    assert first.verified
    assert (second.opened, second.void, second.present, second.words) == (1, 1, 3, (3, 10, 0, -5))
    everywhere, incomplete = totals.totals(START, START + 1800)
    assert everywhere.words == (10, 2 * huge + 7, 3, 11)
    assert (everywhere.members, everywhere.enrolled, everywhere.rings, everywhere.complete) == (12, 13, 3, True)
    assert (incomplete.members, incomplete.rings, incomplete.complete) == (12, 3, False)
    (only,) = totals.totals(START, START + 9000, limit=1)
    assert only == everywhere
    assert totals.totals(0, START) == []
    assert totals.last_interval_start_s() == START + 900
    assert totals.last_interval_start_s(area="Südhang") == START


def test_an_interval_of_void_rounds_has_no_total(store: Store) -> None:
    store.rounds.record(void(0, epoch=8))
    (total,) = store.totals.totals(0, 2**62, area="Südhang")
    assert (total.words, total.present, total.complete, total.verified) == (None, 0, False, False)


def test_one_unverified_ring_makes_the_sum_unverified(store: Store) -> None:
    store.rounds.record_many([opened(0), opened(1, verified=False)])
    (total,) = store.totals.totals(0, 2**62)
    assert not total.verified


def test_schemas_are_not_added_up(store: Store) -> None:
    store.epochs.add(replace(NORTH, epoch=9, schema=Schema(DEFAULT_SCHEMA.slots[:2])), [RingLayout(9, 0, MEMBERS[:4])])
    store.rounds.record_many([opened(0), opened(0, total=(3, 5), epoch=9)])
    assert sorted(t.words or () for t in store.totals.totals(0, 2**62)) == [(3, 5), (3, 10, 0, -5)]


def test_an_epoch_cut_short_is_not_awaited(store: Store) -> None:
    store.rounds.record_many([opened(0), opened(1)])
    store.epochs.add(replace(NORTH, epoch=9, interval_start_s=START + 900), [RingLayout(9, 0, MEMBERS[:8])])
    store.rounds.record(opened(0, epoch=9))
    first, second = store.totals.totals(0, 2**62, area="Nordring")
    assert (first.rings, first.members, first.complete) == (2, 8, True)
    assert (second.rings, second.members, second.complete) == (1, 8, True)


def test_rounds_by_page(store: Store) -> None:
    store.rounds.record_many([opened(ring, round_) for ring in range(2) for round_ in range(4)])
    store.rounds.record_many([void(1, 4), opened(0, 0, epoch=8)])
    pages, before = [], None
    while page := store.rounds.page(limit=3, before=before):
        pages.extend(page)
        before = page[-1].key
    assert [record.key for record in pages] == sorted((record.key for record in pages), reverse=True)
    assert len(pages) == 10
    southern, empty, partial = pages[:3]
    assert (southern.area, southern.members, southern.ended.term) == ("Südhang", MEMBERS[8:], 5)
    assert empty.missing == (0, 1, 2, 3)
    assert (partial.missing, partial.interval_start_s) == ((2,), START + 2700)
    assert [r.ended.round for r in store.rounds.page(limit=9, epoch=7, ring=0)] == [3, 2, 1, 0]
    assert [r.key for r in store.rounds.page(limit=9, outcome="void", area="Nordring")] == [(7, 4, 1)]


def test_what_was_recorded_outlives_the_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'coordinator.sqlite'}"
    first = Store(url)
    first.epochs.add(NORTH, LAYOUT)
    first.rounds.record(opened(0))
    first.close()
    second = Store(url)
    assert second.rounds.get(7, 0, 0) == opened(0)
    with second.database.read() as connection:
        pragma: Callable[[str], object] = lambda name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()  # noqa: E731
        assert (pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys")) == ("wal", 2, 1)
    second.close()


def test_what_the_log_says_of_a_fault_holds_no_value(any_store: Store) -> None:
    any_store.epochs.add(NORTH, LAYOUT)
    row = {"epoch": NORTH.epoch, "ring": 0, "size": 4242, "members": ["ESTK0000004242"]}
    with pytest.raises(SQLAlchemyError) as caught, any_store.database.write() as connection:
        connection.execute(rings.insert(), row)
    assert "4242" in str(caught.value)
    assert "unique" in fault_of(caught.value).lower()
    assert "4242" not in fault_of(caught.value)
    assert fault_of(SQLAlchemyError("SELECT 4242")) == "SQLAlchemyError"


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    store.epochs.add(NORTH, LAYOUT)
    with (
        store.database.write() as connection
    ):  # the limit holds for this pooled connection, which the next call takes again
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(SQLAlchemyError, match="full"):
        store.rounds.record_many([opened(ring, round_) for ring in range(2) for round_ in range(600)])
    assert store.rounds.of_epoch(7) == []
    store.close()


def test_a_second_writer_waits(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.sqlite"
    store = Store(f"sqlite:///{path}")
    store.epochs.add(NORTH, LAYOUT)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(store.rounds.record(opened(0))))
    waiting.start()
    assert store.epochs.areas() == ["Nordring"]  # readers do not wait
    assert answers == []
    other.execute("COMMIT")
    waiting.join()
    other.close()
    assert answers == [True]
    store.close()


@given(st.lists(st.integers(0, 2**64 - 1), max_size=8))
def test_words(numbers: list[int]) -> None:
    assert packing.unpack_words(packing.pack_words(numbers)) == tuple(numbers)


@given(st.integers(0, 2**300))
def test_positions(bitmap: int) -> None:
    assert packing.unpack_positions(packing.pack_positions(bitmap)) == bitmap


def test_no_secret_of_the_url_is_in_the_databases_name() -> None:
    for url in (
        "postgresql+psycopg://user:hunter2@127.0.0.1:1/x",
        "postgresql+psycopg://127.0.0.1:1/x?user=user&password=hunter2",
    ):
        database = Database(url)
        assert "127.0.0.1:1/x" in database.name
        assert "hunter2" not in database.name
        with pytest.raises(StromkreisError, match="cannot be opened") as caught:
            Store(url)
        assert "hunter2" not in str(caught.value)
        database.close()
