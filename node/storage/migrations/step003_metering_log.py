"""The metering log: entries, blocks of closed days, its subscribers' cursors, the registration periods in force."""

from __future__ import annotations

import sqlite3
from typing import Final

from node.storage.cipher import Cipher

_STATEMENTS: Final = (
    """CREATE TABLE metering_entry (
      bucket INTEGER NOT NULL, gateway TEXT NOT NULL, position INTEGER NOT NULL, meter TEXT NOT NULL,
      registered INTEGER NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (bucket, gateway, position)) WITHOUT ROWID""",
    # With a row id: a block of 3 KB fills a page of it, and would spill out of one of an index.
    """CREATE TABLE metering_block (
      gateway TEXT NOT NULL, meter TEXT NOT NULL, obis TEXT NOT NULL, day INTEGER NOT NULL, sealed BLOB NOT NULL,
      UNIQUE (gateway, meter, obis, day))""",
    """CREATE TABLE metering_cursor (
      gateway TEXT NOT NULL, subscriber TEXT NOT NULL, position INTEGER NOT NULL,
      PRIMARY KEY (gateway, subscriber)) WITHOUT ROWID""",
    """CREATE TABLE registration_grid (
      gateway TEXT PRIMARY KEY, start_ms INTEGER NOT NULL, period_ms INTEGER NOT NULL,
      metering_start_s INTEGER NOT NULL, interval_s INTEGER NOT NULL) WITHOUT ROWID""",
)


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  the tables are empty
    """Make the tables, empty."""
    for statement in _STATEMENTS:
        connection.execute(statement)
