"""
How often each gateway came back into a total (protocol.dcnet.discipline.returns), and when its newest epoch began.

A gateway that has an account here was enrolled beside this store; its returns are counted from now on.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from node.storage.cipher import Cipher

_TOKENS: Final = 4
_NEVER: Final = -(2**62)


def upgrade(connection: sqlite3.Connection, cipher: Cipher) -> None:  # noqa: ARG001  there is nothing to seal
    """Count the returns of gateways into totals, and keep when their epochs began."""
    connection.execute(
        "CREATE TABLE attendance (gateway TEXT PRIMARY KEY, tokens INTEGER NOT NULL, refilled_s INTEGER NOT NULL,"
        " served_s INTEGER NOT NULL, entered_s INTEGER NOT NULL) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE newest_epoch (gateway TEXT PRIMARY KEY, epoch INTEGER NOT NULL, start_s INTEGER NOT NULL)"
        " WITHOUT ROWID"
    )
    connection.execute("INSERT INTO attendance SELECT gateway, ?, 0, ?, ? FROM baseline", (_TOKENS, _NEVER, _NEVER))
