"""Table `han_secret`: the gateways' HAN keys and the verifiers of passwords that were set at home, sealed."""

from __future__ import annotations

import sqlite3

from node.storage.cipher import Cipher


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  the table is empty
    """Make the table, empty."""
    connection.execute(
        "CREATE TABLE han_secret (gateway TEXT NOT NULL, name TEXT NOT NULL, sealed BLOB NOT NULL,"
        " PRIMARY KEY (gateway, name)) WITHOUT ROWID"
    )
