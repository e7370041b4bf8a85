"""
Entries of the gateways' logs: table `gateway_log`, a row for each entry, its content sealed.

The calibration log has no statement that deletes or changes a row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgpack

from node.storage.cipher import Cipher
from node.storage.engine import Statement, Store
from node.storage.errors import StoreError
from protocol.errors import LocalProtocolError
from protocol.logs.chain import ChainedEntry
from protocol.logs.events import Log

Read = Callable[..., list[tuple[Any, ...]]]
"""See node.storage.engine.Store.read."""


class GatewayLogReader:
    """What was written.  All logs have entries of one form; those of the calibration log are chained and signed."""

    def __init__(self, read: Read, cipher: Cipher) -> None:
        self._read = read
        self._cipher = cipher

    def newest_number(self, gateway: str, which: Log) -> int:
        """The number of the newest entry, 0 where there is none.  Raises StoreError."""
        ((number,),) = self._read(
            "SELECT coalesce(max(number), 0) FROM gateway_log WHERE gateway=? AND log=?", gateway, which.value
        )
        return int(number)

    def newest(self, gateway: str, which: Log) -> ChainedEntry | None:
        """The newest entry, None where there is none.  Raises StoreError, SealError."""
        number = self.newest_number(gateway, which)
        found = self.entries(gateway, which, after=number - 1, limit=1) if number else []
        return found[0] if found else None

    def entries(self, gateway: str, which: Log, *, after: int = 0, limit: int = 1000) -> list[ChainedEntry]:
        """Up to `limit` entries with numbers above `after`, in order.  Raises StoreError, SealError."""
        rows = self._read(
            "SELECT number, sealed FROM gateway_log WHERE gateway=? AND log=? AND number>? ORDER BY number LIMIT ?",
            gateway, which.value, after, limit,
        )  # fmt: skip
        return [self._opened(gateway, which, number, sealed) for number, sealed in rows]

    def gateways(self) -> list[str]:
        """The gateways that have entries, in order.  Raises StoreError."""
        return [name for (name,) in self._read("SELECT DISTINCT gateway FROM gateway_log ORDER BY gateway")]

    def _opened(self, gateway: str, which: Log, number: int, sealed: bytes) -> ChainedEntry:
        content = self._cipher.open("gateway_log", (gateway, which.value, number), sealed)
        at_ms, event, parameters, previous, signature = msgpack.unpackb(content)
        return ChainedEntry(gateway, number, at_ms, event, parameters, previous, signature)


class GatewayLogRepository(GatewayLogReader):
    """The logs of all gateways of a store."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.read, store.cipher)
        self.store = store

    def append(self, which: Log, entry: ChainedEntry) -> Statement:
        """The statement that adds an entry; a number that is there already is refused by the store."""
        row = entry.gateway, which.value, entry.number
        content = msgpack.packb((entry.at_ms, entry.event, dict(entry.parameters), entry.previous, entry.signature))
        sealed = self._cipher.seal("gateway_log", row, content)
        return Statement("INSERT INTO gateway_log VALUES (?,?,?,?)", (*row, sealed))

    def keep_newest(self, gateway: str, which: Log, last_deleted: int) -> Statement:
        """The statement that deletes entries up to a number.  Raises LocalProtocolError for the calibration log."""
        if which is Log.CALIBRATION:
            raise LocalProtocolError("the calibration log is never shortened")
        return Statement(
            "DELETE FROM gateway_log WHERE gateway=? AND log=? AND number<=?", (gateway, which.value, last_deleted)
        )


@contextmanager
def read_beside(path: Path, cipher: Cipher) -> Iterator[GatewayLogReader]:
    """The logs in the store of a node, which may be running.  Raises StoreError where it is none."""

    def read(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        try:
            return connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{path}: SQLite says '{error}'; expected the store of a node of this release") from error

    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: SQLite says '{error}'; expected the store of a node") from error
    with closing(connection):
        yield GatewayLogReader(read, cipher)
