"""Tries of the beacon with the values shown, the most gateways of an area in a day, since when a gateway is here."""

from __future__ import annotations

import sqlite3
from typing import Final

from node.storage.cipher import Cipher

_STATEMENTS: Final = (
    """CREATE TABLE beacon_try (
      gateway TEXT NOT NULL, epoch INTEGER NOT NULL, try INTEGER NOT NULL, sealed BLOB NOT NULL, shown_for BLOB,
      shown_ms INTEGER, PRIMARY KEY (gateway, epoch, try)) WITHOUT ROWID""",
    """CREATE TABLE area_size (
      gateway TEXT NOT NULL, day INTEGER NOT NULL, size INTEGER NOT NULL,
      PRIMARY KEY (gateway, day)) WITHOUT ROWID""",
    """CREATE TABLE known_ids (gateway TEXT PRIMARY KEY, packed BLOB NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE gateway_since (
      gateway TEXT PRIMARY KEY, since_ms INTEGER NOT NULL, is_first INTEGER NOT NULL) WITHOUT ROWID""",
)


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  the tables are empty
    """Make the tables, empty."""
    for statement in _STATEMENTS:
        connection.execute(statement)
