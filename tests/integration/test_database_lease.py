"""One ring service for each database, also after the database has dropped the connection that holds the lock."""

import logging
from pathlib import Path

import pytest
from sqlalchemy import text

from coordinator.storage.engine import Database
from coordinator.storage.lease import exclusive
from protocol.errors import StromkreisError

WHAT = "ring service"


@pytest.fixture
def databases(postgresql: str) -> tuple[Database, Database]:
    """Two processes' view of one database."""
    return Database(postgresql), Database(postgresql)


def drop_the_lock(database: Database) -> None:
    """End the connection that holds the lock, as a restart of the server does."""
    with database.write() as connection:
        held = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        assert [ended for (ended,) in connection.execute(text(held))] == [True]


def test_a_second_one_is_refused_until_the_first_has_ended(databases: tuple[Database, Database]) -> None:
    ours, theirs = databases
    with exclusive(ours, WHAT) as lease:
        lease.check()
        with pytest.raises(StromkreisError, match="another process is the ring service"), exclusive(theirs, WHAT):
            pass
    with exclusive(theirs, WHAT) as lease:
        lease.check()
    for each in databases:
        each.close()


def test_a_lock_that_was_lost_is_taken_again_where_nobody_has_it(
    databases: tuple[Database, Database], caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = databases
    with caplog.at_level(logging.WARNING), exclusive(ours, WHAT) as lease:
        drop_the_lock(theirs)
        lease.check()
        assert "the connection that makes us the ring service was lost" in caplog.text
        with pytest.raises(StromkreisError), exclusive(theirs, WHAT):
            pass
        lease.check()
    for each in databases:
        each.close()


def test_a_lock_that_another_took_meanwhile_ends_the_first(databases: tuple[Database, Database]) -> None:
    ours, theirs = databases
    with exclusive(ours, WHAT) as lease:
        drop_the_lock(theirs)
        with exclusive(theirs, WHAT):
            for _ in range(2):
                with pytest.raises(StromkreisError, match="another process is the ring service"):
                    lease.check()
    for each in databases:
        each.close()


def test_a_file_s_lock_is_the_process_s(tmp_path: Path) -> None:
    ours, theirs = (Database(f"sqlite:///{tmp_path / 'c.sqlite'}") for _ in range(2))
    with exclusive(ours, WHAT) as lease:
        lease.check()
        with pytest.raises(StromkreisError, match="stop that one first"), exclusive(theirs, WHAT):
            pass
    with exclusive(theirs, WHAT):
        pass
    for each in (ours, theirs):
        each.close()
