"""
Readings, contributions, committed values, bills and keys of meters are sealed (see node.storage.cipher).

What was there in the clear is overwritten: the store has secure_delete, and its engine empties the log after the steps.
`key_check` holds one sealed value, by which a store is refused that was sealed under another key.
"""

from __future__ import annotations

import sqlite3
import struct

import msgpack

from node.storage.cipher import Cipher

_TABLES = (
    """CREATE TABLE sealed_contribution (
      gateway TEXT NOT NULL, epoch INTEGER NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
      interval_s INTEGER NOT NULL, progress INTEGER NOT NULL, settled INTEGER NOT NULL, included INTEGER NOT NULL,
      content BLOB NOT NULL, PRIMARY KEY (gateway, epoch, round)) WITHOUT ROWID""",
    """CREATE TABLE sealed_committed (
      gateway TEXT NOT NULL, obis TEXT NOT NULL, interval_s INTEGER NOT NULL, value BLOB, bill BLOB,
      PRIMARY KEY (gateway, obis, interval_s)) WITHOUT ROWID""",
    """CREATE TABLE sealed_bill (
      gateway TEXT NOT NULL, request BLOB NOT NULL, tariff BLOB NOT NULL, until_s INTEGER NOT NULL,
      content BLOB NOT NULL, PRIMARY KEY (gateway, request)) WITHOUT ROWID""",
    "CREATE TABLE key_check (sealed BLOB NOT NULL)",
)


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:
    """Seal readings, contributions, committed values, bills and keys of meters."""

    def seal(column: str, value: bytes | None, *row: str | int | bytes) -> bytes | None:
        return None if value is None else cipher.seal(column, row, value)

    # Functions of SQL, so that no table has to fit into memory.
    connection.create_function("seal", -1, seal)
    connection.create_function("pair", 2, lambda one, other: msgpack.packb((one, other)))
    connection.create_function("word", 1, lambda value: None if value is None else struct.pack("<q", value))
    for each in _TABLES:
        connection.execute(each)
    connection.execute(
        "INSERT INTO sealed_contribution"
        " SELECT gateway, epoch, round, attempt, interval_s, progress, settled, included,"
        " seal('contribution', pair(registers, vector), gateway, epoch, round, interval_s) FROM contribution"
    )
    connection.execute(
        "INSERT INTO sealed_committed SELECT gateway, obis, interval_s,"
        " seal('committed', word(value), gateway, obis, interval_s), bill FROM committed"
    )
    connection.execute(
        "INSERT INTO sealed_bill SELECT gateway, request, tariff, until_s,"
        " seal('bill', pair(amount, blinding), gateway, request) FROM bill"
    )
    for table in ("contribution", "committed", "bill"):
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"ALTER TABLE sealed_{table} RENAME TO {table}")
    connection.execute(
        "UPDATE baseline SET first=seal('baseline.first', first, gateway),"
        " opened=seal('baseline.opened', opened, gateway)"
    )
    connection.execute("UPDATE lmn_pairing SET pairing=seal('lmn_pairing', pairing, meter, origin)")
    connection.execute("INSERT INTO key_check VALUES (seal('key_check', x''))")
    for function, arguments in (("seal", -1), ("pair", 2), ("word", 1)):
        connection.create_function(function, arguments, None)
