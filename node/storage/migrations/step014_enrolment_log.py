"""Tables `log_head`, `ring_history`, `evidence`: the enrolment log's newest head, a ring's history, refused layouts."""

from __future__ import annotations

import sqlite3

from node.storage.cipher import Cipher


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  the tables are empty
    """Make the tables, empty."""
    connection.execute(
        "CREATE TABLE log_head (gateway TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL,"
        " time_ms INTEGER NOT NULL, signature BLOB NOT NULL) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE evidence (number INTEGER PRIMARY KEY AUTOINCREMENT, gateway TEXT NOT NULL,"
        " epoch INTEGER NOT NULL, time_ms INTEGER NOT NULL, reason TEXT NOT NULL, messages BLOB NOT NULL)"
    )
    connection.execute("CREATE INDEX evidence_by_gateway ON evidence (gateway, number)")
    connection.execute(
        "CREATE TABLE ring_history (gateway TEXT PRIMARY KEY, epoch INTEGER NOT NULL, ring INTEGER NOT NULL,"
        " leaf BLOB NOT NULL) WITHOUT ROWID"
    )
