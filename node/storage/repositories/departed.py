"""What a store has of one gateway, deleted: every table with a column `gateway`, and what its meters have."""

from __future__ import annotations

from collections.abc import Iterable

from node.storage.engine import Statement, Store

METER_TABLES = {"taken": "receiver", "lmn_pairing": "meter"}
"""Tables of meters, with the column that names the meter."""
SHARED_TABLES = frozenset({"counter", "key_check"})
"""Tables that have nothing of a single gateway: numbers that were sent must never be sent again, whoever is here."""


class DepartedRepository:
    """Deletes gateways.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def delete(self, gateway: str, meters: Iterable[str]) -> None:
        """
        Delete every row of a gateway, and those of its `meters` (names and ids); overwritten on the disk.

        Durable on return; the write-ahead log is emptied once the store's writer rests.  Twice is no error.
        """
        statements = [
            Statement(f"DELETE FROM {table} WHERE gateway=?", (gateway,))  # noqa: S608 - names of our own tables
            for (table,) in self._store.read(
                "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c"
                " WHERE m.type='table' AND c.name='gateway' ORDER BY m.name"
            )
        ]
        statements += [
            Statement(f"DELETE FROM {table} WHERE {column}=?", (meter,))  # noqa: S608
            for table, column in METER_TABLES.items()
            for meter in sorted(set(meters))
        ]
        await self._store.write(statements)
        self._store.truncate_log()
