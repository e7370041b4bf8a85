"""
Table `area_totals`: the sum over an area's rings of one round, kept from now on as its rings end the round.

Filled here from the rings' rounds that have ended, one epoch after the other, so that a year of them needs no memory.
How many gateways an area had then follows from when they were enrolled and revoked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
_WORD_SIZE, _SUM_SIZE = 8, 16
_LATENCY_US_MAX = 2**32 - 1


def upgrade() -> None:
    """Make the table and fill it."""
    area_totals = op.create_table(
        "area_totals",
        sa.Column("epoch", sa.BigInteger, sa.ForeignKey("epochs.epoch"), primary_key=True, autoincrement=False),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("area", sa.String(64), nullable=False),
        sa.Column("interval_start_s", sa.BigInteger, nullable=False, index=True),
        sa.Column("enrolled", sa.Integer),
        sa.Column("opened", sa.Integer, nullable=False),
        sa.Column("void", sa.Integer, nullable=False),
        sa.Column("verified", sa.Integer, nullable=False),
        sa.Column("present", sa.Integer, nullable=False),
        sa.Column("retries", sa.Integer, nullable=False),
        sa.Column("sums", sa.LargeBinary, nullable=False),
        sa.Column("latencies", sa.LargeBinary, nullable=False),
        sa.Index("area_totals_by_area", "area", "interval_start_s"),
    )
    connection = op.get_bind()
    for epoch, area in connection.execute(sa.text("SELECT epoch, area FROM epochs ORDER BY epoch")).all():
        if rows := list(_totals(connection, epoch, area)):
            connection.execute(area_totals.insert(), rows)


def _totals(connection: sa.Connection, epoch: int, area: str) -> Iterator[dict[str, Any]]:
    members = connection.execute(
        sa.text("SELECT enrolled_ms, revoked_ms FROM gateways WHERE area = :area"), {"area": area}
    ).all()
    ended = connection.execute(
        sa.text("SELECT * FROM ring_rounds WHERE epoch = :epoch ORDER BY round, ended_s, ring"), {"epoch": epoch}
    ).mappings()
    by_round: dict[int, list[sa.RowMapping]] = {}
    for row in ended:
        by_round.setdefault(row["round"], []).append(row)
    for round_, rows in by_round.items():
        opened = [row for row in rows if row["total"] is not None]
        at_ms = rows[0]["ended_s"] * 1000
        words = [struct.unpack(f"<{len(row['total']) // _WORD_SIZE}q", row["total"]) for row in opened]
        sums = [sum(column) for column in zip(*words, strict=True)] or [0] * _slots(connection, epoch)
        yield {
            "epoch": epoch, "round": round_, "area": area, "interval_start_s": rows[0]["interval_start_s"],
            "enrolled": sum(
                since_ms <= at_ms and (until_ms is None or until_ms > at_ms) for since_ms, until_ms in members
            ),
            "opened": len(opened), "void": len(rows) - len(opened),
            "verified": sum(bool(row["verified"]) for row in opened),
            "present": sum(row["present"] for row in rows), "retries": sum(row["attempt"] for row in rows),
            "sums": b"".join(value.to_bytes(_SUM_SIZE, "little", signed=True) for value in sums),
            "latencies": b"".join(struct.pack("<I", _latency_us(row)) for row in opened),
        }  # fmt: skip


def _latency_us(row: sa.RowMapping) -> int:
    latency_s: float = row["ended_s"] - row["opened_s"]
    return min(max(round(latency_s * 1_000_000), 0), _LATENCY_US_MAX)


def _slots(connection: sa.Connection, epoch: int) -> int:
    """How many words a total of this epoch has: the slots of its schema, a JSON document."""
    schema = connection.scalar(sa.text("SELECT schema FROM epochs WHERE epoch = :epoch"), {"epoch": epoch})
    slots: list[object] = json.loads(schema or b"[]")
    return len(slots)
