"""Table `account_basis`: which registers a ring account is made of, and until when profiles cover it."""

from __future__ import annotations

import sqlite3

from node.storage.cipher import Cipher


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  the table is empty
    """Make the table, empty."""
    connection.execute(
        "CREATE TABLE account_basis (gateway TEXT PRIMARY KEY, selection BLOB NOT NULL, until_s INTEGER NOT NULL)"
        " WITHOUT ROWID"
    )
