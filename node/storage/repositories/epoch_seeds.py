"""
Epoch seeds of the file-backed security modules, in a SQLite file of their own beside the keys.

A seed is deleted when its epoch is over, and overwritten with it (secure_delete; no journal on disk that could keep
it).  Losing one in a power cut costs the gateway the rest of that epoch and nothing else, so no flush is waited for.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from node.storage.errors import SchemaError, StoreError
from node.storage.migrations import EPOCH_SEED_STEPS, migrate


class EpochSeedRepository:
    """
    Seeds by gateway and epoch, the layout that each is bound to, and the newest epoch that a gateway was bound in.

    Every method raises StoreError.  Not for threads: one connection, in autocommit.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.touch(mode=0o600)
            path.chmod(0o600)
            self._connection = sqlite3.connect(path, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise self._error(error) from error
        try:
            for pragma in ("secure_delete=ON", "journal_mode=MEMORY", "synchronous=NORMAL", "busy_timeout=5000"):
                self._connection.execute(f"PRAGMA {pragma}")
            migrate(self._connection, EPOCH_SEED_STEPS)
        except SchemaError as error:
            self._connection.close()
            raise StoreError(f"{path}: {error}") from None
        except sqlite3.Error as error:
            self._connection.close()
            raise self._error(error) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def seed(self, gateway: str, epoch: int) -> bytes | None:
        """The epoch's seed; None where it was never made, or is deleted."""
        rows = self._execute("SELECT seed FROM seed WHERE gateway=? AND epoch=?", gateway, epoch)
        return rows[0][0] if rows else None

    def add(self, gateway: str, epoch: int, seed: bytes, end_s: float | None) -> None:
        """Keep the seed of a new epoch, which is over at `end_s` (Unix time, s)."""
        sql = "INSERT INTO seed (gateway, epoch, seed, end_s) VALUES (?, ?, ?, ?)"
        self._execute_unflushed(sql, gateway, epoch, seed, end_s)

    def newest_bound(self, gateway: str) -> int | None:
        """The newest epoch that the gateway was bound to a layout in; it stays when the seed goes."""
        rows = self._execute("SELECT epoch FROM bound WHERE gateway=?", gateway)
        return rows[0][0] if rows else None

    def bind(self, gateway: str, epoch: int, layout: bytes) -> bool:
        """Bind the epoch's seed to a layout for good; False where it has another, or there is no seed."""
        self._execute("UPDATE seed SET layout=? WHERE gateway=? AND epoch=? AND layout IS NULL", layout, gateway, epoch)
        if self._execute("SELECT layout FROM seed WHERE gateway=? AND epoch=?", gateway, epoch) != [(layout,)]:
            return False
        self._execute(
            "INSERT INTO bound VALUES (?, ?) ON CONFLICT DO UPDATE SET epoch=MAX(epoch, excluded.epoch)", gateway, epoch
        )
        return True

    def delete(self, gateway: str, epoch: int) -> None:
        """Delete the seed of one epoch."""
        self._execute_unflushed("DELETE FROM seed WHERE gateway=? AND epoch=?", gateway, epoch)

    def delete_before(self, gateway: str, epoch: int) -> None:
        """Delete the seeds of all earlier epochs."""
        self._execute_unflushed("DELETE FROM seed WHERE gateway=? AND epoch<?", gateway, epoch)

    def delete_ended(self, gateway: str, now_s: int) -> None:
        """Delete the seeds of all epochs that are over."""
        self._execute_unflushed("DELETE FROM seed WHERE gateway=? AND end_s<=?", gateway, now_s)

    def delete_gateway(self, gateway: str) -> None:
        """Delete whatever there is of a gateway, durably."""
        for table in ("seed", "bound"):
            self._execute(f"DELETE FROM {table} WHERE gateway=?", gateway)  # noqa: S608 - names of our own tables

    def _execute_unflushed(self, sql: str, *parameters: str | float | bytes | None) -> None:
        self._execute("PRAGMA synchronous=OFF")
        try:
            self._execute(sql, *parameters)
        finally:
            self._execute("PRAGMA synchronous=NORMAL")

    def _execute(self, sql: str, *parameters: str | float | bytes | None) -> list[tuple[Any]]:
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> StoreError:
        return StoreError(f"{self._path}: {error}; without it the gateways sit out the rest of the epoch")
