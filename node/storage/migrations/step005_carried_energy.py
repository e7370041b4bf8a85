"""
Accounts say by slot what was contributed, beside the register, and how what is carried is released.

What an account owed before is released from its next contribution on.  One that has contributed gets the time of its
last contribution; whether that opened need not be known, since what it did not open is in the difference.
"""

from __future__ import annotations

import sqlite3
import struct

import msgpack

from node.storage.cipher import Cipher


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:
    """Keep carried energy beside the accounts, which release it slowly."""
    last = dict(
        connection.execute("SELECT gateway, MAX(interval_s) FROM contribution WHERE included=1 GROUP BY gateway")
    )
    for gateway, opened in connection.execute("SELECT gateway, opened FROM baseline").fetchall():
        registers = _words(cipher.open("baseline.opened", (gateway,), opened))
        sealed = cipher.seal("baseline.opened", (gateway,), _accounts(registers, last.get(gateway, -1)))
        connection.execute("UPDATE baseline SET opened=? WHERE gateway=?", (sealed, gateway))
    for *key, content in connection.execute(
        "SELECT gateway, epoch, round, interval_s, content FROM contribution"
    ).fetchall():
        row = tuple(key)
        registers, *others = msgpack.unpackb(cipher.open("contribution", row, content))
        packed = msgpack.packb((registers, *others, _accounts(_words(registers), row[3])))
        connection.execute(
            "UPDATE contribution SET content=? WHERE gateway=? AND epoch=? AND round=?",
            (cipher.seal("contribution", row, packed), *row[:3]),
        )


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}q", data)


def _accounts(registers: tuple[int, ...], interval_s: int) -> bytes:
    """An account each: everything up to the register was contributed, in the interval at `interval_s`."""
    return bytes(msgpack.packb([(each, each, interval_s, 0, 0) for each in registers]))
