"""
What a gateway keeps of the enrolment log, and of a coordinator whose word did not hold.

Table `log_head`: the newest tree head that held, one for each gateway, and under `ID confirmed` the head of its node's
configuration that it went on from.  Table `ring_history`: how its last ring's
rounds ended, until the log was seen to say the same.  Table `evidence`: the coordinator's messages of an epoch that was
refused, as they came.  They are public to the members of an area, and no reading is in them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgpack

from node.storage.engine import Statement, Store
from node.storage.errors import StoreError
from protocol.enrolment_log.entries import TreeHead

EVIDENCE_MAX = 8  # of a gateway; the newest stand
EVIDENCE_BYTES_MAX = 2_000_000  # of one: call, list, layout and answer of the largest part


@dataclass(frozen=True, slots=True)
class Evidence:
    """The messages by which a check of an epoch failed, encoded as on the wire, and the reason of the refusal."""

    number: int
    gateway: str
    epoch: int
    time_ms: int
    reason: str
    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RingHistory:
    """How all rounds of a ring ended: `History.leaf`."""

    epoch: int
    ring: int
    leaf: bytes


class EnrolmentLogRepository:
    """Of all gateways of a store.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def head(self, gateway: str) -> TreeHead | None:
        """The newest head that held for a gateway."""
        for row in self._store.read("SELECT size, root, time_ms, signature FROM log_head WHERE gateway=?", gateway):
            return TreeHead(*row)
        return None

    def confirmed(self, gateway: str) -> tuple[int, bytes] | None:
        """Size and root of the confirmed head that a gateway's newest head goes on from, as far as one was."""
        for row in self._store.read("SELECT size, root FROM log_head WHERE gateway=?", f"{gateway} confirmed"):
            return row[0], row[1]
        return None

    async def put_head(self, gateway: str, head: TreeHead, confirmed: tuple[int, bytes] | None = None) -> None:
        """Remember a head that held, and the confirmed one that it goes on from.  Durable on return."""
        sql = "INSERT OR REPLACE INTO log_head VALUES (?,?,?,?,?)"
        statements = [Statement(sql, (gateway, head.size, head.root, head.time_ms, head.signature))]
        if confirmed is not None:
            statements.append(Statement(sql, (f"{gateway} confirmed", *confirmed, head.time_ms, b"")))
        await self._store.write(statements)

    def history(self, gateway: str) -> RingHistory | None:
        """How its last ring's rounds ended, unless the log had the same already."""
        for row in self._store.read("SELECT epoch, ring, leaf FROM ring_history WHERE gateway=?", gateway):
            return RingHistory(*row)
        return None

    async def put_history(self, gateway: str, history: RingHistory) -> None:
        """Remember how a ring's rounds ended, in place of an older one's.  Durable on return."""
        sql = "INSERT OR REPLACE INTO ring_history VALUES (?,?,?,?)"
        await self._store.write([Statement(sql, (gateway, history.epoch, history.ring, history.leaf))])

    async def forget_history(self, gateway: str) -> None:
        """The log has it.  Durable on return."""
        await self._store.write([Statement("DELETE FROM ring_history WHERE gateway=?", (gateway,))])

    async def put_evidence(
        self, gateway: str, epoch: int, time_ms: int, reason: str, messages: Sequence[bytes]
    ) -> None:  # fmt: skip
        """Keep what was refused, of each gateway the newest `EVIDENCE_MAX`.  Durable on return."""
        kept, left = [], EVIDENCE_BYTES_MAX
        for each in messages:
            if len(each) <= left:
                kept.append(each)
                left -= len(each)
        await self._store.write(
            [
                Statement(
                    "INSERT INTO evidence (gateway, epoch, time_ms, reason, messages) VALUES (?,?,?,?,?)",
                    (gateway, epoch, time_ms, reason[:200], msgpack.packb(kept)),
                ),
                Statement(
                    "DELETE FROM evidence WHERE gateway=? AND number NOT IN"
                    " (SELECT number FROM evidence WHERE gateway=? ORDER BY number DESC LIMIT ?)",
                    (gateway, gateway, EVIDENCE_MAX),
                ),
            ]
        )


def read_evidence(path: Path) -> list[Evidence]:
    """All evidence of a store, oldest first, also while its node runs.  Raises StoreError."""
    if not path.exists():
        raise StoreError(f"{path}: no such file; expected the store of a node")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT number, gateway, epoch, time_ms, reason, messages FROM evidence ORDER BY number"
            ).fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: SQLite says '{error}'; expected the store of a node of this release") from error
    return [
        Evidence(number, gateway, epoch, time_ms, reason, tuple(msgpack.unpackb(packed)))
        for number, gateway, epoch, time_ms, reason, packed in rows
    ]
