"""
The node's durable store: one SQLite file and one writer for all gateways of the process.

A write returns when it is on the disk (WAL, synchronous=FULL).  What many gateways want to write at the same moment
shares one transaction and one flush, so that thousands of gateways cost what a few do.  A write that fails fails for
everybody who waited for that transaction, and nothing of it counts as durable.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from protocol.errors import StromkreisError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS baseline (
  gateway TEXT PRIMARY KEY, first BLOB NOT NULL, opened BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contribution (
  gateway TEXT NOT NULL, epoch INTEGER NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
  interval_s INTEGER NOT NULL, progress INTEGER NOT NULL, settled INTEGER NOT NULL, included INTEGER NOT NULL,
  registers BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (gateway, epoch, round)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reading (
  gateway TEXT NOT NULL, device TEXT NOT NULL, obis TEXT NOT NULL, interval_s INTEGER NOT NULL,
  value TEXT NOT NULL, scaler INTEGER NOT NULL, unit INTEGER, status INTEGER, received_ms INTEGER NOT NULL,
  PRIMARY KEY (gateway, device, obis, interval_s)) WITHOUT ROWID;
"""


class StoreError(StromkreisError):
    """The store could not be read or written: what was wrong, in which file, and what to do."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement with its parameters; they are never shown."""

    sql: str
    parameters: tuple[Any, ...] = field(repr=False)


@dataclass(slots=True)
class _Batch:
    statements: list[Statement] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)
    error: StoreError | None = None


class Store:
    """Open with a path; `run` must be running in a nursery for `write` to return."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._batch = _Batch()
        self._wanted = trio.Event()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "busy_timeout=5000"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> StoreError:
        return StoreError(
            f"{self._path}: SQLite says '{error}'; free disk space or mend the permissions, nothing was contributed"
        )

    def read(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query; used at start-up.  Raises StoreError."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from error

    async def write(self, statements: Sequence[Statement]) -> None:
        """Return when the statements are durable, all or none.  Raises StoreError: then none is."""
        batch = self._batch
        batch.statements += statements
        self._wanted.set()
        await batch.done.wait()
        if batch.error is not None:
            raise batch.error

    async def run(self) -> None:
        """The writer: one transaction after the other, each with whatever was asked for meanwhile."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            batch, self._batch = self._batch, _Batch()
            try:
                await trio.to_thread.run_sync(self._commit, batch.statements)
            except StoreError as error:
                batch.error = error
            finally:
                batch.done.set()

    def _commit(self, statements: Sequence[Statement]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for each in statements:
                self._connection.execute(each.sql, each.parameters)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise self._error(error) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
