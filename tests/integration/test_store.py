"""The round book on real databases."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from coordinator import store as room
from coordinator.emp.totals import Totals
from coordinator.store import Ended, Epoch, Opened, Ring, Slot, Store, Void
from protocol.errors import LocalProtocolError

SLOTS = (
    Slot("participants", "", "1", 0, "count"),
    Slot("import", "1-0:1.8.0*255", "Wh", -1, "energy"),
    Slot("export", "1-0:2.8.0*255", "Wh", -1, "energy"),
    Slot("power", "1-0:16.7.0*255", "W", 0, "power"),
)
PERIOD_MS = 900_000
EPOCH = Epoch(7, SLOTS, 900, 96, 1_700_000_000_000, 1_700_000_000_000)
MEMBERS = tuple(f"ESTK01{n:08d}" for n in range(12))
LAYOUT = (
    Ring(7, 0, "Nordring", MEMBERS[:4]),
    Ring(7, 1, "Nordring", MEMBERS[4:8]),
    Ring(7, 2, "Südhang", MEMBERS[8:]),
)


def opened(ring: int, round_: int = 0, total: tuple[int, ...] = (3, 10, 0, -5), **changes: object) -> Opened:
    made = Opened(
        7, ring, round_, attempt=0, head=1, roster=(0, 1, 3), expected=4, total=total,
        interval_ms=EPOCH.first_interval_ms + round_ * PERIOD_MS, ended_ms=1_700_000_001_000, latency_us=31_250,
    )  # fmt: skip
    return replace(made, **changes)


def void(ring: int, round_: int = 0) -> Void:
    return Void(
        7, ring, round_, attempt=2, head=2, expected=4, reason="too_few", ended_ms=1_700_000_001_000,
        interval_ms=EPOCH.first_interval_ms + round_ * PERIOD_MS, latency_us=9_000_000,
    )  # fmt: skip


@pytest.fixture
def store(any_store: Store) -> Store:
    any_store.add_epoch(EPOCH, LAYOUT)
    return any_store


def test_epochs_come_back_as_they_were(store: Store) -> None:
    assert store.last_epoch() == EPOCH
    assert store.epoch_rings(7) == list(LAYOUT)
    with pytest.raises(LocalProtocolError, match="exists"):
        store.add_epoch(replace(EPOCH, rounds=1), [])
    later = replace(EPOCH, epoch=8)
    with pytest.raises(SQLAlchemyError):
        store.add_epoch(later, [Ring(8, 0, "Nordring", ()), Ring(8, 0, "Nordring", ())])
    assert store.last_epoch() == EPOCH  # all or nothing


def test_a_round_ends_once(store: Store) -> None:
    first = opened(0)
    assert store.record(first)
    for late in (first, void(0), opened(0, total=(4, 9, 9, 9))):
        assert not store.record(late)
    assert store.ended(7, 0, 0) == first
    assert store.ended(7, 0, 1) is None
    assert store.record(void(1))
    assert not store.record(opened(1))
    assert store.ended(7, 1, 0) == void(1)
    assert store.epoch_outcomes(7) == [first, void(1)]
    assert store.counts() == {"gateways": 0, "opened": 1, "void": 1, "retries": 2}


def test_a_batch_tells_for_each(store: Store) -> None:
    store.record(opened(2))
    batch: list[Ended] = [opened(2), void(1), opened(0), opened(1), opened(0, 1)]
    assert store.record_many(batch) == [False, True, True, False, True]
    assert store.ended(7, 1, 0) == void(1)
    assert store.record_many([]) == []


def test_a_failing_batch_writes_nothing(store: Store) -> None:
    with pytest.raises(SQLAlchemyError):
        store.record_many([opened(0), opened(99)])  # there is no ring 99
    assert store.ended(7, 0, 0) is None


def test_exactly_once_among_threads(store: Store) -> None:
    """Eight writers end the same 20 rounds of 3 rings, each its own way and order: every round has one winner."""
    wins: list[tuple[int, Ended]] = []
    start = threading.Barrier(8)

    def writer(number: int) -> None:
        mine: list[Ended] = [
            void(ring, round_) if number % 2 else opened(ring, round_, (3, number, 0, 0))
            for round_ in range(20)
            for ring in range(3)
        ]
        mine = mine[::-1] if number % 3 else mine
        start.wait()
        for at in range(0, len(mine), 7):
            batch = mine[at : at + 7]
            wins.extend((number, ended) for ended, won in zip(batch, store.record_many(batch), strict=True) if won)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 60
    kept = {(e.ring, e.round): e for e in store.epoch_outcomes(7)}
    assert len(kept) == 60
    for _, ended in wins:
        assert kept[ended.ring, ended.round] == ended


def test_totals_add_rings_to_areas(store: Store) -> None:
    huge = 2**63 - 1
    store.record_many([
        opened(0, 0, (3, huge, 1, -5)), opened(1, 0, (4, huge, 2, 15), roster=(0, 1, 2, 3)), opened(2, 0, (3, 7, 0, 1)),
        opened(0, 1), void(1, 1),
    ])  # fmt: skip
    totals = Totals(store)
    start = EPOCH.first_interval_ms
    assert totals.areas() == ["Nordring", "Südhang"]
    first, second = totals.totals(start, start + 2 * PERIOD_MS, area="Nordring")
    assert first.words == (7, 2 * huge, 3, 10)  # exact, beyond 64 bits
    assert (first.present, first.expected, first.opened, first.void, first.rings) == (7, 8, 2, 0, 2)
    assert first.slots == SLOTS
    assert first.complete
    assert (second.opened, second.void, second.present, second.words) == (1, 1, 3, (3, 10, 0, -5))
    (everywhere,) = totals.totals(start, start + 1)
    assert everywhere.words == (10, 2 * huge + 7, 3, 11)
    (only,) = totals.totals(start, start + 10 * PERIOD_MS, limit=1)
    assert only.interval_ms == start
    assert not totals.totals(start, start + 2 * PERIOD_MS)[1].complete
    assert totals.totals(0, start) == []
    assert totals.last_interval_ms() == start + PERIOD_MS
    assert totals.last_interval_ms(area="Südhang") == start


def test_an_interval_of_void_rounds_has_a_total_of_nothing(store: Store) -> None:
    store.record(void(2))
    (total,) = Totals(store).totals(0, 2**62, area="Südhang")
    assert (total.words, total.present, total.complete) == ((0, 0, 0, 0), 0, True)


def test_epochs_are_not_added_up(store: Store) -> None:
    store.add_epoch(replace(EPOCH, epoch=8, slots=SLOTS[:2]), [Ring(8, 0, "Nordring", MEMBERS[:4])])
    store.record_many([opened(0), opened(0, total=(3, 5), epoch=8)])
    assert [t.words for t in Totals(store).totals(0, 2**62)] == [(3, 10, 0, -5), (3, 5)]


def test_rounds_by_page(store: Store) -> None:
    store.record_many([opened(ring, round_) for ring in range(3) for round_ in range(4)])
    store.record(void(1, 4))
    totals = Totals(store)
    pages, before = [], None
    while page := totals.rounds(limit=5, before=before):
        pages.extend(page)
        before = page[-1].key
    assert [record.key for record in pages] == sorted((record.key for record in pages), reverse=True)
    assert len(pages) == 13
    assert pages[0].missing == MEMBERS[4:8]
    assert pages[1].missing == (MEMBERS[10],)
    assert (pages[1].area, pages[1].size) == ("Südhang", 4)
    assert [r.ended.round for r in totals.rounds(limit=9, ring=2)] == [3, 2, 1, 0]
    assert [r.key for r in totals.rounds(limit=9, state="void", area="Nordring", epoch=7)] == [(7, 4, 1)]


def test_latest_per_ring(store: Store) -> None:
    store.record_many([opened(0, 0), opened(0, 1), void(1, 0)])
    (_, first), (_, second), (ring, third) = Totals(store).latest_per_ring(7)
    assert first is not None
    assert first.ended == opened(0, 1)
    assert second is not None
    assert second.ended == void(1, 0)
    assert (ring, third) == (LAYOUT[2], None)


def test_what_was_recorded_outlives_the_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'coordinator.sqlite'}"
    first = Store(url)
    first.add_epoch(EPOCH, LAYOUT)
    first.record(opened(0))
    first.close()
    second = Store(url)
    assert second.ended(7, 0, 0) == opened(0)
    with second.read() as connection:
        pragma: Callable[[str], object] = lambda name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()  # noqa: E731
        assert (pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys")) == ("wal", 2, 1)
    second.close()


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    store.add_epoch(EPOCH, LAYOUT)
    with store.write() as connection:  # the limit holds for this pooled connection, which the next call takes again
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(SQLAlchemyError, match="full"):
        store.record_many([opened(ring, round_) for ring in range(3) for round_ in range(400)])
    assert store.epoch_outcomes(7) == []
    store.close()


def test_a_second_writer_waits(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.sqlite"
    store = Store(f"sqlite:///{path}")
    store.add_epoch(EPOCH, LAYOUT)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(store.record(opened(0))))
    waiting.start()
    assert Totals(store).areas() == ["Nordring", "Südhang"]  # readers do not wait
    assert answers == []
    other.execute("COMMIT")
    waiting.join()
    other.close()
    assert answers == [True]
    store.close()


@given(st.lists(st.integers(-(2**63), 2**64 - 1), max_size=8))
def test_totals_are_words_mod_2_64(words: list[int]) -> None:
    kept = room.unpack_total(room.pack_total(words))
    assert all(-(2**63) <= k < 2**63 and (k - w) % 2**64 == 0 for k, w in zip(kept, words, strict=True))


@given(st.sets(st.integers(0, 300)))
def test_rosters(positions: set[int]) -> None:
    assert room.unpack_roster(room.pack_roster(tuple(positions))) == tuple(sorted(positions))
