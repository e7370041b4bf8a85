"""Where the use cases of processing profiles stand, what they derived, and deliveries that wait."""

from __future__ import annotations

import sqlite3
from typing import Final

from node.storage.cipher import Cipher

_STATEMENTS: Final = (
    """CREATE TABLE use_case_period (
      gateway TEXT NOT NULL, profile TEXT NOT NULL, next_start_s INTEGER NOT NULL,
      PRIMARY KEY (gateway, profile)) WITHOUT ROWID""",
    """CREATE TABLE derived_period (
      gateway TEXT NOT NULL, profile TEXT NOT NULL, start_s INTEGER NOT NULL, end_s INTEGER NOT NULL,
      sealed BLOB NOT NULL, PRIMARY KEY (gateway, profile, start_s)) WITHOUT ROWID""",
    """CREATE TABLE waiting_delivery (
      gateway TEXT NOT NULL, id TEXT NOT NULL, made_us INTEGER NOT NULL, sealed BLOB NOT NULL,
      PRIMARY KEY (gateway, id)) WITHOUT ROWID""",
)


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  the tables are empty
    """Make the tables, empty."""
    for statement in _STATEMENTS:
        connection.execute(statement)
