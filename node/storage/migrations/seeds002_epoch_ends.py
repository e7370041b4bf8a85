"""Column `end_s` of the epoch seeds: when a seed's epoch is over; NULL for those from before."""

from __future__ import annotations

import sqlite3


def upgrade(connection: sqlite3.Connection) -> None:
    """Note when the epoch of each seed is over."""
    connection.execute("ALTER TABLE seed ADD COLUMN end_s REAL")
