"""The gateways' logs: system, consumer and calibration log."""

from __future__ import annotations

import sqlite3

from node.storage.cipher import Cipher


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  the table is empty
    """Make the table of log entries, empty."""
    connection.execute(
        """CREATE TABLE gateway_log (
          gateway TEXT NOT NULL, log TEXT NOT NULL, number INTEGER NOT NULL, sealed BLOB NOT NULL,
          PRIMARY KEY (gateway, log, number)) WITHOUT ROWID"""
    )
