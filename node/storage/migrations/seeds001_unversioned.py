"""The tables that the file of epoch seeds had before it had a version."""

from __future__ import annotations

import sqlite3
from typing import Final

from node.storage.migrations.unversioned import take_over

_TABLES: Final = {
    "seed": "(gateway TEXT, epoch INTEGER, seed BLOB, layout BLOB, PRIMARY KEY (gateway, epoch)) WITHOUT ROWID",
    "bound": "(gateway TEXT PRIMARY KEY, epoch INTEGER) WITHOUT ROWID",
}


def upgrade(connection: sqlite3.Connection) -> None:
    """Take over the tables from the time before versions."""
    take_over(connection, _TABLES)
