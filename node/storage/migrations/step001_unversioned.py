"""The tables that a store had before it had a version; a store with them keeps its rows."""

from __future__ import annotations

import sqlite3
from typing import Final

from node.storage.cipher import Cipher
from node.storage.migrations.unversioned import take_over

_TABLES: Final = {
    "baseline": """(
      gateway TEXT PRIMARY KEY, first BLOB NOT NULL, opened BLOB NOT NULL) WITHOUT ROWID""",
    "contribution": """(
      gateway TEXT NOT NULL, epoch INTEGER NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
      interval_s INTEGER NOT NULL, progress INTEGER NOT NULL, settled INTEGER NOT NULL, included INTEGER NOT NULL,
      registers BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (gateway, epoch, round)) WITHOUT ROWID""",
    "committed": """(
      gateway TEXT NOT NULL, obis TEXT NOT NULL, interval_s INTEGER NOT NULL, value INTEGER, bill BLOB,
      PRIMARY KEY (gateway, obis, interval_s)) WITHOUT ROWID""",
    "bill": """(
      gateway TEXT NOT NULL, request BLOB NOT NULL, tariff BLOB NOT NULL, until_s INTEGER NOT NULL,
      amount BLOB NOT NULL, blinding BLOB NOT NULL, PRIMARY KEY (gateway, request)) WITHOUT ROWID""",
    "counter": "(name TEXT PRIMARY KEY, next INTEGER NOT NULL) WITHOUT ROWID",
    "taken": """(
      receiver TEXT NOT NULL, sender TEXT NOT NULL, number INTEGER NOT NULL,
      PRIMARY KEY (receiver, sender)) WITHOUT ROWID""",
    "lmn_pairing": "(meter TEXT PRIMARY KEY, origin BLOB NOT NULL, pairing BLOB NOT NULL) WITHOUT ROWID",
}


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001
    """Take over the tables from the time before versions."""
    take_over(connection, _TABLES)
