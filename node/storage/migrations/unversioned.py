"""Files from the time before versions: their tables are taken over where they are what the last such release wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from node.storage.errors import SchemaError


def take_over(connection: sqlite3.Connection, tables: Mapping[str, str]) -> None:
    """
    Make the `tables` (definitions by name) that are not there.

    Raises SchemaError where one is there with other columns, or a table of something else is.
    """
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")}
    if foreign := sorted(there - tables.keys()):
        raise SchemaError(f"it has no version and a table {foreign[0]!r}: not a store of this program; name another")
    for name, definition in tables.items():
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
