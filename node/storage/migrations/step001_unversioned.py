"""The tables that a store had before it had a version; a store with them is taken over as it is."""

from __future__ import annotations

import sqlite3
from typing import Final

from node.storage.errors import SchemaError

_TABLES: Final = {
    "baseline": """(
      gateway TEXT PRIMARY KEY, first BLOB NOT NULL, opened BLOB NOT NULL) WITHOUT ROWID""",
    "contribution": """(
      gateway TEXT NOT NULL, epoch INTEGER NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
      interval_s INTEGER NOT NULL, progress INTEGER NOT NULL, settled INTEGER NOT NULL, included INTEGER NOT NULL,
      registers BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (gateway, epoch, round)) WITHOUT ROWID""",
    "committed": """(
      gateway TEXT NOT NULL, obis TEXT NOT NULL, interval_s INTEGER NOT NULL, value INTEGER, bill BLOB,
      PRIMARY KEY (gateway, obis, interval_s)) WITHOUT ROWID""",
    "bill": """(
      gateway TEXT NOT NULL, request BLOB NOT NULL, tariff BLOB NOT NULL, until_s INTEGER NOT NULL,
      amount BLOB NOT NULL, blinding BLOB NOT NULL, PRIMARY KEY (gateway, request)) WITHOUT ROWID""",
    "counter": "(name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID",
    "taken": """(
      receiver TEXT NOT NULL, sender TEXT NOT NULL, number INTEGER NOT NULL,
      PRIMARY KEY (receiver, sender)) WITHOUT ROWID""",
    "lmn_pairing": "(meter TEXT PRIMARY KEY, origin BLOB NOT NULL, pairing BLOB NOT NULL) WITHOUT ROWID",
}


def upgrade(connection: sqlite3.Connection) -> None:
    """0 -> 1.  Raises SchemaError where a table is there with other columns, or tables of something else are."""
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")}
    if foreign := sorted(there - _TABLES.keys()):
        raise SchemaError(f"it has no version and a table {foreign[0]!r}: not a store of this program; name another")
    for name, definition in _TABLES.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {name} {definition}")
        found, expected = _columns(connection, name), _columns_of(name, definition)
        if found != expected:
            raise SchemaError(
                f"its table {name} has the columns {', '.join(found)}; expected {', '.join(expected)}, as the last"
                " release without versions wrote it: start that one first"
            )


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def _columns_of(table: str, definition: str) -> list[str]:
    empty = sqlite3.connect(":memory:")
    try:
        empty.execute(f"CREATE TABLE {table} {definition}")
        return _columns(empty, table)
    finally:
        empty.close()
