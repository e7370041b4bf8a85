"""Table `range_checks`: range proofs that are waited for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """A new table: of rounds that have ended no proof is asked."""
    op.create_table(
        "range_checks",
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("ring", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("gateway_id", sa.String(14), nullable=False, index=True),
        sa.Column("interval_start_s", sa.BigInteger, nullable=False, index=True),
        sa.Column("interval_s", sa.Integer, nullable=False),
        sa.Column("fuse_a", sa.Integer, nullable=False),
        sa.Column("epoch_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("slots", sa.LargeBinary, nullable=False),
        sa.Column("owed", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(
            ["epoch", "ring", "round"], ["ring_rounds.epoch", "ring_rounds.ring", "ring_rounds.round"]
        ),
    )
