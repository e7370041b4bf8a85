"""
The schema's revision: which one a database has, and bringing it up to date (`stromkreis db status|upgrade`).

A database is upgraded when it is opened, under a lock that other processes wait for, in one transaction: either all
revisions are there or the database is as it was.  A database from before there were revisions is recognised by its
tables and taken to be at the first one.  One that a newer program has upgraded is refused: what its columns mean now
nobody here can know.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from coordinator.storage.engine import Database, fault_of
from protocol.errors import StromkreisError

log = logging.getLogger(__name__)
logging.getLogger("alembic").setLevel(logging.WARNING)  # what it says of each revision is said below, once
_SCRIPTS = "coordinator.storage:migrations"
_VERSION_TABLE = "alembic_version"
_UNVERSIONED = "0001"
_UNVERSIONED_TABLE = "ring_rounds"  # in every database from before there were revisions
_LOCK_KEY = 0x5354524F4D  # of PostgreSQL's advisory locks: any number that nothing else in the database uses


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """
    How a database's schema stands: `found` is its revision, None for an empty database; `latest` that of this program.

    `pending` are the revisions that an upgrade would apply, oldest first, each with what it does; `is_newer` says that
    the database was upgraded by a newer program.
    """

    database: str
    found: str | None
    latest: str
    pending: tuple[tuple[str, str], ...]
    is_newer: bool


def status(url: str) -> SchemaStatus:
    """
    How the database at this SQLAlchemy URL stands; changes nothing, and makes no file.

    Raises StromkreisError where it cannot be read.
    """
    if (absent := _absent_file(url)) is not None:
        return absent
    database = Database(url)
    try:
        return read_status(database)
    except SQLAlchemyError as error:
        raise StromkreisError(f"{database.name}: the database cannot be read ({fault_of(error)})") from error
    finally:
        database.close()


def upgrade(url: str) -> SchemaStatus:
    """
    Bring the database at this URL to this program's revision; how it stood before.  A file that is absent stays so.

    Raises StromkreisError where it cannot be opened or written, or is newer than this program.
    """
    if (absent := _absent_file(url)) is not None:
        return absent
    database = Database(url)
    try:
        return upgrade_database(database)
    except SQLAlchemyError as error:
        raise StromkreisError(f"{database.name}: the database cannot be upgraded ({fault_of(error)})") from error
    finally:
        database.close()


def read_status(database: Database) -> SchemaStatus:
    """The same of an open database.  Raises SQLAlchemyError."""
    with database.read() as connection:
        return _status(database, connection)


def upgrade_database(database: Database) -> SchemaStatus:
    """The same of an open database.  Raises SQLAlchemyError, StromkreisError where it is newer than this program."""
    found = read_status(database)
    if found.pending:
        with database.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL statement_timeout = 0"))  # of large tables, or another's upgrade
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            found = _status(database, connection)  # another process may have upgraded it meanwhile
            if found.pending:
                _apply(connection, found)
    if found.is_newer:
        raise StromkreisError(
            f"{found.database}: the schema has revision {found.found}, newer than {found.latest}, the latest that this"
            " program knows; start the version of the program that upgraded it, or restore the backup from before"
        )
    return found


def _apply(connection: Connection, found: SchemaStatus) -> None:
    config = _config()
    config.attributes["connection"] = connection
    if found.found == _UNVERSIONED and not inspect(connection).has_table(_VERSION_TABLE):
        command.stamp(config, _UNVERSIONED)
    command.upgrade(config, "head")
    if found.found is not None:
        log.info("%s: schema upgraded from revision %s to %s", found.database, found.found, found.latest)


def _absent_file(url: str) -> SchemaStatus | None:
    """The status of an SQLite database that is not there yet; connecting to it would make it."""
    try:
        parts = make_url(url)
    except ArgumentError:
        return None  # said by whoever opens it
    if parts.get_backend_name() != "sqlite" or not parts.database or Path(parts.database).exists():
        return None
    return _stands(url, None)


def _status(database: Database, connection: Connection) -> SchemaStatus:
    return _stands(database.name, _found(connection))


def _stands(name: str, found: str | None) -> SchemaStatus:
    scripts = ScriptDirectory.from_config(_config())
    revisions = list(reversed(list(scripts.walk_revisions())))
    known = [each.revision for each in revisions]
    is_newer = found is not None and found not in known
    first = len(known) if is_newer else known.index(found) + 1 if found is not None else 0
    pending = tuple((each.revision, (each.doc or "").split("\n")[0]) for each in revisions[first:])
    return SchemaStatus(name, found, known[-1], pending, is_newer)


def _found(connection: Connection) -> str | None:
    inspector = inspect(connection)
    if inspector.has_table(_VERSION_TABLE):
        revision: str | None = connection.scalar(text(f"SELECT version_num FROM {_VERSION_TABLE}"))  # noqa: S608
        return revision
    return _UNVERSIONED if inspector.has_table(_UNVERSIONED_TABLE) else None


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    return config
