"""An end for the epoch seeds of releases that noted none: a week from now, which no epoch is longer than."""

from __future__ import annotations

import sqlite3
from typing import Final

LONGEST_S: Final = 168 * 3600
"""What a node admits at most (`node.policy.epoch_hours_max`)."""


def upgrade(connection: sqlite3.Connection) -> None:
    """Give seeds without an end one, so that they do not outlive their epoch for want of a later one."""
    connection.execute("UPDATE seed SET end_s = strftime('%s', 'now') + ? WHERE end_s IS NULL", (LONGEST_S,))
