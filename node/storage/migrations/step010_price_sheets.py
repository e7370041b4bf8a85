"""Table `price_sheet`: the tariffs that calls have listed."""

from __future__ import annotations

import sqlite3

from node.storage.cipher import Cipher


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  digests are public
    """Make the table, empty: a bill waits for the first call that lists its tariff."""
    connection.execute(
        "CREATE TABLE price_sheet (gateway TEXT NOT NULL, digest BLOB NOT NULL, listed_s INTEGER NOT NULL,"
        " PRIMARY KEY (gateway, digest)) WITHOUT ROWID"
    )
