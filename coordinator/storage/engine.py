"""
The coordinator's database: connections and transactions on SQLAlchemy Core, for the repositories of this package.

SQLite serves one machine; PostgreSQL by URL serves more.  What is answered is durable: SQLite runs in WAL mode with
synchronous=FULL (NORMAL may lose the last commits on a power cut, and a gateway that received "opened" never carries
that energy again).

All calls block: run them through `coordinator.threads`.  Writers take SQLite's write lock at BEGIN, because a
transaction that begins by reading cannot wait for the lock later; it fails at once instead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from protocol.errors import StromkreisError


class Database:
    """
    One database; safe to use from several threads.

    Its transactions raise sqlalchemy.exc.SQLAlchemyError where the database fails: then nothing was written.
    """

    def __init__(self, url: str) -> None:
        """
        `url` is an SQLAlchemy URL (`sqlite:///path`, `postgresql+psycopg://...`); connects at the first transaction.

        Raises StromkreisError for a URL that names no database that there is a driver for.
        """
        self._bind(open_engine(url), None)
        self.observe_write: Callable[[float], None] | None = None
        """Hears how long each writing transaction took (s), in the thread that wrote."""

    def _bind(self, engine: Engine, fence: Callable[[Connection], None] | None) -> None:
        self.engine = engine
        self._writer = engine.execution_options(stromkreis_writes=True)
        self._fence = fence

    def fenced(self, fence: Callable[[Connection], None]) -> Database:
        """The same database; `fence` begins each writing transaction, and what it raises ends that."""
        made = Database.__new__(Database)
        made._bind(self.engine, fence)
        made.observe_write = self.observe_write
        return made

    @property
    def name(self) -> str:
        """Its URL without what may be secret, the password and the query: what an error or a log line may say."""
        return self.engine.url.set(query={}).render_as_string(hide_password=True)

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One writing transaction: committed at the end, rolled back by an exception."""
        begun_s = time.monotonic()
        with self._writer.begin() as connection:
            if self._fence is not None:
                self._fence(connection)
            yield connection
        if self.observe_write is not None:
            self.observe_write(time.monotonic() - begun_s)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One reading transaction: all of its queries see the same state."""
        with self.engine.begin() as connection:
            yield connection

    def insert(self, table: Any) -> Any:
        """An INSERT of the dialect in use, which knows ON CONFLICT."""
        return (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert(table)


def open_engine(url: str) -> Engine:
    """
    An engine whose SQLite connections are durable, wait for each other, and begin writes by taking the lock.

    Raises StromkreisError for a URL that names no database we have a driver for; its text may hold a password and is
    not repeated.
    """
    try:
        # Room for all that may ask at once, the web's threads included: a viewer's slow query keeps no round waiting.
        engine = create_engine(url, pool_pre_ping=True, max_overflow=20, connect_args=_postgres_timeouts(make_url(url)))
    except (ArgumentError, ImportError) as error:
        raise StromkreisError(
            f"no database by that URL ({type(error).__name__}); expected a URL such as sqlite:///PATH or"
            " postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        ) from error
    if engine.dialect.name == "sqlite":
        if engine.url.database not in (None, "", ":memory:"):
            _restrict_permissions(Path(str(engine.url.database)))

        @event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver's own BEGIN comes too late, at the first write
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def _on_begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get("stromkreis_writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_timeouts(url: URL) -> dict[str, str]:
    """
    PostgreSQL gives up instead of waiting for ever: on a lock or a query after a minute, on a dead network earlier.

    What the URL says of these itself is left as it is.  Source: PostgreSQL documentation, "Parameter Key Words" of
    libpq, and `statement_timeout`.
    """
    if url.get_backend_name() != "postgresql":
        return {}
    wanted = {"connect_timeout": "10", "tcp_user_timeout": "30000", "options": "-c statement_timeout=60s"}
    return {name: value for name, value in wanted.items() if name not in url.query}


def _restrict_permissions(path: Path) -> None:
    """Nobody else's to read, whatever the umask: it holds living epochs' keys.  SQLite gives its log the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def fault_of(error: SQLAlchemyError) -> str:
    """What the database said, for the log: the driver's first line, without the statement and its values."""
    words = str(error.orig).splitlines() if isinstance(error, DBAPIError) else []
    return words[0] if words else type(error).__name__
