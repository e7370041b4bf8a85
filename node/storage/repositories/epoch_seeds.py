"""
Epoch seeds of the file-backed security modules, in a SQLite file of their own beside the keys.

A seed is deleted when its epoch is over, and overwritten with it (secure_delete).  A transaction's journal holds what
the changed pages held before.  In memory it would go with a process that is killed in the middle of writing, and leave
a file that is half of each; so it is on disk, where the next start finds it, and whatever is deleted is overwritten in
it too, once the transaction is over or was taken back at the start.  Losing a seed in a power cut costs the gateway the
rest of that epoch and nothing else, so only the layout that an epoch is bound to waits for a flush.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from node.storage.errors import SchemaError, StoreError
from node.storage.migrations import EPOCH_SEED_STEPS, migrate

_Parameter = str | float | bytes | None
_PRAGMAS = (
    "secure_delete=ON", "journal_mode=PERSIST", "temp_store=MEMORY", "synchronous=OFF", "busy_timeout=5000",
)  # fmt: skip
"""`synchronous=OFF`: what has to wait for the disk says so (`_flush`), and does it once, not for each statement."""


class EpochSeedRepository:
    """
    Seeds by gateway and epoch, the layout that each is bound to, and the newest epoch that a gateway was bound in.

    Every method raises StoreError.  Not for threads: one connection, in autocommit.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._journal = path.with_name(f"{path.name}-journal")
        with ExitStack() as opened:
            try:
                # For flushing. It is closed after SQLite's own descriptor: each close drops the process's locks.
                self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                opened.callback(os.close, self._file)
                path.chmod(0o600)
                self._connection = sqlite3.connect(path, isolation_level=None)
                opened.callback(self._connection.close)
                for pragma in _PRAGMAS:
                    self._connection.execute(f"PRAGMA {pragma}")
                self._check()
                migrate(self._connection, EPOCH_SEED_STEPS)
            except SchemaError as error:
                raise StoreError(f"{path}: {error}") from None
            except (OSError, sqlite3.Error) as error:
                raise self._error(error) from error
            self._overwrite_journal()
            self._flush()
            self._resources = opened.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._resources.close()

    def seed(self, gateway: str, epoch: int) -> bytes | None:
        """The epoch's seed; None where it was never made, or is deleted."""
        rows = self._execute("SELECT seed FROM seed WHERE gateway=? AND epoch=?", gateway, epoch)
        return rows[0][0] if rows else None

    def add(self, gateway: str, epoch: int, seed: bytes, end_s: float | None) -> None:
        """Keep the seed of a new epoch, which is over at `end_s` (Unix time, s)."""
        sql = "INSERT INTO seed (gateway, epoch, seed, end_s) VALUES (?, ?, ?, ?)"
        self._execute(sql, gateway, epoch, seed, end_s)

    def newest_bound(self, gateway: str) -> int | None:
        """The newest epoch that the gateway was bound to a layout in; it stays when the seed goes."""
        rows = self._execute("SELECT epoch FROM bound WHERE gateway=?", gateway)
        return rows[0][0] if rows else None

    def bind(self, gateway: str, epoch: int, layout: bytes) -> bool:
        """Bind the epoch's seed to a layout for good; False where it has another, or there is no seed."""
        rows, key = "seed WHERE gateway=? AND epoch=?", (gateway, epoch)
        with self._transaction():
            if self._execute(f"SELECT coalesce(layout, ?) FROM {rows}", layout, *key) != [(layout,)]:  # noqa: S608
                return False
            self._execute("UPDATE seed SET layout=? WHERE gateway=? AND epoch=?", layout, *key)
            self._execute(
                "INSERT INTO bound VALUES (?, ?) ON CONFLICT DO UPDATE SET epoch=MAX(epoch, excluded.epoch)", *key
            )
        self._flush()
        return True

    def delete(self, gateway: str, epoch: int) -> None:
        """Delete the seed of one epoch."""
        self._delete("seed WHERE gateway=? AND epoch=?", gateway, epoch)

    def delete_before(self, gateway: str, epoch: int) -> None:
        """Delete the seeds of all earlier epochs."""
        self._delete("seed WHERE gateway=? AND epoch<?", gateway, epoch)

    def delete_ended(self, gateway: str, now_s: int) -> None:
        """Delete the seeds of all epochs that are over."""
        self._delete("seed WHERE gateway=? AND end_s<=?", gateway, now_s)

    def delete_gateway(self, gateway: str) -> None:
        """Delete whatever there is of a gateway, durably."""
        for table in ("seed", "bound"):
            self._execute(f"DELETE FROM {table} WHERE gateway=?", gateway)  # noqa: S608 - names of our own tables
        self._overwrite_journal()
        self._flush()

    def _delete(self, rows: str, *parameters: _Parameter) -> None:
        before = self._connection.total_changes
        self._execute(f"DELETE FROM {rows}", *parameters)  # noqa: S608 - texts of our own
        if self._connection.total_changes != before:
            self._overwrite_journal()

    def _check(self) -> None:
        ((found,), *_) = self._connection.execute("PRAGMA quick_check(1)").fetchall()
        if found != "ok":
            raise StoreError(
                f"{self._path}: the file is damaged ({found.splitlines()[-1]}); move it away: its gateways then sit out"
                " the rest of the epoch. Never put an older copy back"
            )

    def _overwrite_journal(self) -> None:
        """Overwrite what earlier transactions left in the journal: none is going on, and none begins meanwhile."""
        try:
            with self._transaction(), self._journal.open("r+b") as file:
                file.write(bytes(os.fstat(file.fileno()).st_size))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error(error) from error

    def _flush(self) -> None:
        """
        Have all that was written on the disk, then that the journal has ended.

        A journal that looks unfinished after a power cut would take it back.
        """
        try:
            os.fsync(self._file)
            if self._journal.exists():
                with self._journal.open("rb") as file:
                    os.fsync(file)
        except OSError as error:
            raise self._error(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Nobody else writes meanwhile, no other process either; taken back where the block is left early."""
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._execute("ROLLBACK")

    def _execute(self, sql: str, *parameters: _Parameter) -> list[tuple[Any]]:
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> StoreError:
        return StoreError(f"{self._path}: {error}; without it the gateways sit out the rest of the epoch")
