"""The versions of the node's store: older ones come along, step by step and whole, later ones are refused unchanged."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.errors import SchemaError, StoreError
from node.storage.migrations import STEPS, migrate

CIPHER = StorageCipher(bytes(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registers.sqlite"


def raw(path: Path, *statements: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [row for each in statements for row in connection.execute(each)]


def test_a_new_store_has_the_newest_version(path: Path) -> None:
    Store(path, CIPHER).close()
    assert raw(path, "PRAGMA user_version") == [(len(STEPS),)]


def test_a_later_version_is_refused_and_stays_as_it_was(path: Path) -> None:
    raw(path, "CREATE TABLE later (value)", f"PRAGMA user_version={len(STEPS) + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreError) as refused:
        Store(path, CIPHER)
    said = str(refused.value)
    assert str(path) in said
    assert f"has version {len(STEPS) + 1}, this release knows versions up to {len(STEPS)}; run the release" in said
    assert path.read_bytes() == before
    with pytest.raises(StoreError, match="has version"):  # not "another process has it open": the lock is free again
        Store(path, CIPHER)


def test_tables_of_another_program_are_refused(path: Path) -> None:
    raw(path, "CREATE TABLE songs (title)")
    with pytest.raises(StoreError, match=r"registers\.sqlite: it has no version and a table 'songs'.*name another"):
        Store(path, CIPHER)
    assert raw(path, "SELECT name FROM sqlite_schema") == [("songs",)]


def test_tables_of_an_unknown_release_are_refused(path: Path) -> None:
    raw(path, "CREATE TABLE baseline (gateway, first)")
    with pytest.raises(StoreError, match=r"columns gateway, first; expected gateway, first, opened.*start that one"):
        Store(path, CIPHER)
    assert raw(path, "PRAGMA user_version") == [(0,)]


def make_first(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE first (value)")


def make_second(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE second (value)")


def fail_half_way(connection: sqlite3.Connection) -> None:
    make_second(connection)
    raise SchemaError("no further")


def test_a_step_that_fails_leaves_the_version_before_it(path: Path) -> None:
    tables = "SELECT name FROM sqlite_schema"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(SchemaError, match="no further"):
            migrate(connection, (make_first, fail_half_way))
        assert connection.execute(tables).fetchall() == [("first",)]
        assert migrate(connection, (make_first, make_second)) == 1
        assert connection.execute(tables).fetchall() == [("first",), ("second",)]
        assert migrate(connection, (make_first, make_second)) == 2
