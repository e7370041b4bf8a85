"""What gateways say of each other: it outlives the coordinator, counts once an epoch, and no liar makes it grow."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from coordinator.events import Event, MisbehaviourReported, StatusChanged, StoreFailed
from coordinator.gwa.misbehaviour import MisbehaviourReports
from coordinator.metrics import CoordinatorMetrics
from coordinator.storage.misbehaviour import KEEP_DAYS, REPORTED_MAX, MisbehaviourRepository, StoredReport
from coordinator.storage.store import Store

NOW_S = 1_772_000_000.0
NOW_MS = 1_772_000_000_000
DAY_MS = 86_400_000


def said(
    reporter: str, reported: str, epoch: int = 1, misbehaviour: str = "corrupt_sum", ms: int = NOW_MS
) -> StoredReport:
    return StoredReport(reporter, reported, misbehaviour, "north", 1, epoch, 0, 7, ms, ms)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "coordinator.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{path}")
    yield made
    made.close()


@pytest.fixture
def reports(store: Store) -> MisbehaviourRepository:
    return store.misbehaviour


def test_it_is_counted_once_an_epoch_and_read_from_a_reopened_store(
    reports: MisbehaviourRepository, path: Path
) -> None:
    for epoch, ms in ((1, 0), (1, 10), (2, 20), (2, 30), (5, 40)):  # said again in an epoch: after a restart
        reports.write([said("ALICE", "MALLORY", epoch, ms=NOW_MS + ms)], NOW_MS + ms)
    reports.write([said("BOB", "MALLORY", 5, ms=NOW_MS + 50), said("ALICE", "MALLORY", 5, "bad_deal")], NOW_MS + 50)
    again = Store(f"sqlite:///{path}")
    found = again.misbehaviour.page(limit=10)
    assert [(each.reporter, each.misbehaviour, each.epochs, each.epoch) for each in found] == [
        ("BOB", "corrupt_sum", 1, 5), ("ALICE", "corrupt_sum", 3, 5), ("ALICE", "bad_deal", 1, 5)
    ]  # fmt: skip
    assert (found[1].first_ms, found[1].last_ms) == (NOW_MS, NOW_MS + 40)
    again.close()


def test_a_head_that_accuses_everybody_in_every_epoch_fills_no_table(reports: MisbehaviourRepository) -> None:
    reports.write([said("HONEST", "LIAR")], NOW_MS)
    for epoch in range(1, 9):
        batch = [said("LIAR", f"VICTIM{epoch * 40 + n}", epoch, ms=NOW_MS + epoch) for n in range(80)]
        reports.write(batch, NOW_MS + epoch)
    assert reports.count() == REPORTED_MAX + 1
    kept = reports.page(limit=1000, reporter="LIAR")
    assert {each.epoch for each in kept} == {8}, "what it said last"
    assert reports.page(limit=10, reporter="HONEST") == [said("HONEST", "LIAR")]


def test_what_was_not_repeated_is_forgotten(reports: MisbehaviourRepository) -> None:
    reports.write([said("ALICE", "MALLORY"), said("BOB", "MALLORY")], NOW_MS)
    reports.write([said("BOB", "MALLORY", 2, ms=NOW_MS + DAY_MS)], NOW_MS + DAY_MS)
    reports.write([], NOW_MS + KEEP_DAYS * DAY_MS + 1)
    assert [each.reporter for each in reports.page(limit=10)] == ["BOB"]


async def test_it_waits_for_a_database_that_fails(
    reports: MisbehaviourRepository, path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.gwa.misbehaviour.RETRY_S", 0.01)
    with sqlite3.connect(path) as database:
        trigger = "CREATE TRIGGER refuse BEFORE INSERT ON misbehaviour_reports BEGIN SELECT RAISE(FAIL, 'full'); END"
        database.execute(trigger)
    metrics = CoordinatorMetrics(CollectorRegistry())
    failed: list[StoreFailed] = []
    turned = trio.Event()

    def emit(event: Event) -> None:
        match event:
            case StoreFailed():
                failed.append(event)
            case StatusChanged():
                turned.set()

    taken = MisbehaviourReports(reports, metrics, lambda: NOW_S, emit)
    taken.add(MisbehaviourReported("ALICE", "MALLORY", "wrong_seed", "north", 1, 0, 7))
    nursery.start_soon(taken.run)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    with trio.fail_after(120):
        while not failed:
            await trio.sleep(0.01)
        taken.add(MisbehaviourReported("BOB", "MALLORY", "wrong_seed", "north", 1, 0, 8))
        assert (reports.count(), turned.is_set()) == (0, False)
        with sqlite3.connect(path) as database:
            database.execute("DROP TRIGGER refuse")
        await turned.wait()
        while reports.count() < 2:
            await trio.sleep(0.01)
    assert failed[0] == StoreFailed("misbehaviour reports cannot be written, they wait", "full")
    assert {each.reporter for each in reports.page(limit=10)} == {"ALICE", "BOB"}
    assert value("stromkreis_misbehaviour_reports_total", misbehaviour="wrong_seed") == 2
