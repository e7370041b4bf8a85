"""Table `ring_seat`: what verifies a RESULT after its ring is gone."""

from __future__ import annotations

import sqlite3

from node.storage.cipher import Cipher


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  nothing in it is secret
    """Make the table, empty."""
    connection.execute(
        "CREATE TABLE ring_seat (gateway TEXT NOT NULL, epoch INTEGER NOT NULL, ring INTEGER NOT NULL,"
        " position INTEGER NOT NULL, digest BLOB NOT NULL, result_key BLOB NOT NULL, PRIMARY KEY (gateway, epoch))"
        " WITHOUT ROWID"
    )
