"""Databases of earlier versions, opened by this one."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from prometheus_client import CollectorRegistry
from sqlalchemy import inspect, text

from coordinator.config import CoordinatorConfig
from coordinator.epoch_config import EpochConfig
from coordinator.metrics import CoordinatorMetrics
from coordinator.rings.numbers import EpochNumbers
from coordinator.service import Coordinator
from coordinator.storage.engine import Database
from coordinator.storage.irrevocable import IrrevocableLog
from coordinator.storage.schema import status, upgrade
from coordinator.storage.store import Store
from coordinator.storage.tables import metadata
from protocol.errors import StromkreisError
from protocol.link import Keypair, LinkContext
from protocol.wire import Outcome

DATA = Path(__file__).parent.parent / "data" / "coordinator"
REVISIONS = [f"{number:04}" for number in range(1, 19)]
LATEST = REVISIONS[-1]


@pytest.fixture(params=["sqlite", "postgresql"])
def unversioned(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database as the last version without revisions left it; tests/data/coordinator/README.md."""
    dump = (DATA / f"unversioned.{request.param}.sql").read_text()
    if request.param == "sqlite":
        path = tmp_path / "coordinator.sqlite"
        with closing(sqlite3.connect(path)) as file:
            file.executescript(dump)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("postgresql")
    database = Database(url)
    with database.write() as connection:
        connection.exec_driver_sql(dump.replace("%", "%%"))
    database.close()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'coordinator.sqlite'}"
    url: str = request.getfixturevalue("postgresql")
    return url


@pytest.fixture
def store(unversioned: str) -> Iterator[Store]:
    made = Store(unversioned)
    yield made
    made.close()


def test_an_unversioned_database_is_recognised_and_upgraded(unversioned: str) -> None:
    before = status(unversioned)
    assert (before.found, before.latest, before.is_newer) == ("0001", LATEST, False)
    assert [revision for revision, _ in before.pending] == REVISIONS[1:]
    assert all(text.endswith(".") for _, text in before.pending)
    assert upgrade(unversioned) == before
    after = status(unversioned)
    assert (after.found, after.pending) == (LATEST, ())
    assert upgrade(unversioned) == after


def test_asking_for_the_status_makes_no_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'coordinator.sqlite'}"
    for ask in (status, upgrade):
        assert (ask(url).found, [revision for revision, _ in ask(url).pending]) == (
            None,
            REVISIONS,
        )
    assert list(tmp_path.iterdir()) == []


def test_what_an_unversioned_database_held_is_there(store: Store) -> None:
    (epoch,) = store.epochs.latest()
    ended = store.rounds.of_epoch(epoch.epoch)
    assert len(ended) == 20
    assert len(store.epochs.states()) == 1
    assert store.gateways.count_by_area() == {"north": 10}
    assert store.bills.counts(area="north") == {"asked": 10, "verified": 0, "refused": 0, "declined": 0}
    assert len(store.rounds.committed("north", 0, 2**40)) == 20
    kinds = sorted(each.misbehaviour for each in store.misbehaviour.page(limit=10))
    assert kinds == ["bad_deal", "corrupt_sum", "wrong_seed"]
    totals = store.totals.totals(0, 2**40, area="north")
    assert len(totals) == 10
    for round_, total in enumerate(totals):
        rings = [each for each in ended if each.round == round_ and each.outcome is Outcome.OPENED]
        assert total.words == tuple(map(sum, zip(*(each.total for each in rings), strict=True)))
        assert (total.opened, total.void, total.rings, total.verified) == (2, 0, 2, True)
        assert (total.present, total.members, total.enrolled) == (sum(e.roster.bit_count() for e in rings), 10, 10)
        latencies = pytest.approx(sorted(each.ended_s - each.opened_s for each in rings), abs=1e-6)
        assert sorted(total.latencies_s) == latencies


async def test_a_coordinator_gives_up_an_epoch_of_an_earlier_protocol(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Gateways of this release know nothing of it either; what ended stays, and its keys go."""
    (epoch,) = store.epochs.latest()
    before = store.rounds.of_epoch(epoch.epoch)
    config = CoordinatorConfig(areas=("north",), data_dir=tmp_path, epoch=EpochConfig(verified=True))
    metrics, irrevocable = CoordinatorMetrics(CollectorRegistry()), IrrevocableLog(config.irrevocable_path)
    numbers = EpochNumbers(epoch.epoch + 1)
    coordinator = Coordinator(config, store, [], metrics, bytes(32), irrevocable, numbers, clock=lambda: 0.0)
    assert coordinator.areas.epoch(epoch.epoch) is None
    assert f"epoch {epoch.epoch} does not go on, another release has kept it" in caplog.text
    async with (
        LinkContext() as link,
        link.listen("tcp://127.0.0.1:*", Keypair.generate(), coordinator.admission.authorise) as listener,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(coordinator.serve, listener)
        with trio.fail_after(120):
            while store.epochs.states():
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    assert store.rounds.of_epoch(epoch.epoch) == before
    assert len(store.totals.totals(0, 2**40, area="north")) == 10


def test_a_new_database_has_the_tables_that_the_program_declares(empty: str) -> None:
    assert status(empty).found is None
    with closing(Store(empty)) as made:
        assert _differences(made) == []


def test_an_upgraded_database_has_the_tables_that_the_program_declares(store: Store) -> None:
    assert _differences(store) == []


def test_a_newer_database_is_refused_and_left_alone(empty: str) -> None:
    Store(empty).close()
    database = Database(empty)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (Store, upgrade):
        with pytest.raises(StromkreisError, match=rf"revision 9999, newer than {LATEST}.*start the version"):
            attempt(empty)
    assert (status(empty).found, status(empty).is_newer, status(empty).pending) == ("9999", True, ())
    database.close()


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(unversioned: str) -> None:
    database = Database(unversioned)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE area_totals (epoch INTEGER)"))  # in the way of revision 0003
    with pytest.raises(StromkreisError, match=r"cannot be opened.*area_totals"):
        Store(unversioned)
    with database.read() as connection:
        tables = set(inspect(connection).get_table_names())
    assert "accusations" in tables
    assert not {"misbehaviour_reports", "alembic_version"} & tables
    database.close()


def test_processes_that_start_together_upgrade_once(unversioned: str) -> None:
    start, failures = threading.Barrier(4), []

    def open_it() -> None:
        start.wait()
        try:
            Store(unversioned).close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with closing(Store(unversioned)) as made:
        assert made.misbehaviour.count() == 3
        assert len(made.totals.totals(0, 2**40)) == 10


def _differences(store: Store) -> list[object]:
    with store.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))
