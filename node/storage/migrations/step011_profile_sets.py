"""Table `profile_set`: the administrator's profile sets, sealed."""

from __future__ import annotations

import sqlite3

from node.storage.cipher import Cipher


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  the table is empty
    """Make the table, empty."""
    connection.execute(
        "CREATE TABLE profile_set (gateway TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL,"
        " PRIMARY KEY (gateway, version)) WITHOUT ROWID"
    )
