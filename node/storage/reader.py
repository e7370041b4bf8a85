"""
Reading a store in a worker thread, on a connection of its own: long queries must not hold up the event loop.

What is read is what was committed.  One query at a time; who needs more at once opens more.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from node.storage.cipher import Cipher
from node.storage.engine import Store
from node.storage.errors import StoreError


class StoreReader:
    """`read` and `cipher` of a store, for any thread.  Raises StoreError where the file cannot be opened."""

    def __init__(self, store: Store) -> None:
        self.cipher: Cipher = store.cipher
        self._path = store.path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: SQLite says '{error}'; expected the node's store") from error

    def read(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query.  Raises StoreError."""
        try:
            with self._lock:
                return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: SQLite says '{error}'; check the disk") from error

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
