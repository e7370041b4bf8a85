"""The schema as it was before it had versions: a database that has it is taken to be at this revision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "tokens",
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("label", sa.String(80), nullable=False),
        sa.Column("area", sa.String(64)),
        sa.Column("uses_total", sa.Integer, nullable=False),
        sa.Column("uses_left", sa.Integer, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.CheckConstraint("uses_left >= 0 AND uses_left <= uses_total", name="token_uses"),
    )
    op.create_table(
        "gateways",
        sa.Column("gateway_id", sa.String(14), primary_key=True),
        sa.Column("area", sa.String(64), nullable=False, index=True),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("key_digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("curve_key", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("enrolled_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
        sa.Column("token", sa.LargeBinary(32), sa.ForeignKey("tokens.digest")),
        sa.CheckConstraint("status IN ('active', 'revoked')", name="gateway_status"),
    )
    op.create_table(
        "epochs",
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("area", sa.String(64), nullable=False, index=True),
        sa.Column("schema", sa.LargeBinary, nullable=False),
        sa.Column("rounds", sa.Integer, nullable=False),
        sa.Column("interval_start_s", sa.BigInteger, nullable=False),
        sa.Column("interval_s", sa.Integer, nullable=False),
    )
    op.create_table(
        "epoch_calls",
        sa.Column("area", sa.String(64), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "rings",
        sa.Column("epoch", sa.BigInteger, sa.ForeignKey("epochs.epoch"), primary_key=True),
        sa.Column("ring", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("members", sa.JSON, nullable=False),
    )
    _create_rounds()
    _create_bills()
    op.create_table(
        "epoch_states",
        sa.Column("epoch", sa.BigInteger, sa.ForeignKey("epochs.epoch"), primary_key=True, autoincrement=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "accusations",
        sa.Column("accuser", sa.String(14), primary_key=True),
        sa.Column("accused", sa.String(14), primary_key=True),
        sa.Column("lie", sa.String(10), primary_key=True),
        sa.Column("area", sa.String(64), nullable=False),
        sa.Column("epochs", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("ring", sa.Integer, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("first_ms", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False, index=True),
    )


def _create_rounds() -> None:
    op.create_table(
        "ring_rounds",
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("ring", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("outcome", sa.String(6), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("term", sa.Integer, nullable=False),
        sa.Column("expected", sa.LargeBinary, nullable=False),
        sa.Column("roster", sa.LargeBinary, nullable=False),
        sa.Column("present", sa.Integer, nullable=False),
        sa.Column("total", sa.LargeBinary),
        sa.Column("verified", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String(80), nullable=False),
        sa.Column("interval_start_s", sa.BigInteger, nullable=False),
        sa.Column("opened_s", sa.Double, nullable=False),
        sa.Column("ended_s", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["epoch", "ring"], ["rings.epoch", "rings.ring"]),
        sa.CheckConstraint(
            "(outcome = 'opened' AND total IS NOT NULL) OR (outcome = 'void' AND total IS NULL AND present = 0)",
            name="round_outcome",
        ),
        sa.Index("ring_rounds_by_interval", "interval_start_s"),
        sa.Index("ring_rounds_newest", "epoch", "round", "ring"),
    )
    op.create_table(
        "ring_commitments",
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("ring", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("interval_start_s", sa.BigInteger, nullable=False, index=True),
        sa.Column("commitments", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["epoch", "ring", "round"], ["ring_rounds.epoch", "ring_rounds.ring", "ring_rounds.round"]
        ),
    )


def _create_bills() -> None:
    op.create_table(
        "tariffs",
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("published_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "bills",
        sa.Column("gateway_id", sa.String(14), primary_key=True),
        sa.Column("request", sa.LargeBinary(32), primary_key=True),
        sa.Column("area", sa.String(64), nullable=False, index=True),
        sa.Column("tariff", sa.LargeBinary(32), sa.ForeignKey("tariffs.digest"), nullable=False),
        sa.Column("obis", sa.String(32), nullable=False),
        sa.Column("first_s", sa.BigInteger, nullable=False),
        sa.Column("last_s", sa.BigInteger, nullable=False),
        sa.Column("intervals", sa.LargeBinary, nullable=False),
        sa.Column("interval_count", sa.Integer, nullable=False),
        sa.Column("scaler", sa.Integer, nullable=False),
        sa.Column("status", sa.String(8), nullable=False, index=True),
        sa.Column("amount", sa.String(40)),
        sa.Column("blinding", sa.LargeBinary(32)),
        sa.Column("reason", sa.String(80), nullable=False),
        sa.Column("asked_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
        sa.CheckConstraint("status IN ('asked', 'verified', 'refused', 'declined')", name="bill_status"),
    )
