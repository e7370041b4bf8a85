"""Table `deliveries`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table, empty."""
    op.create_table(
        "deliveries",
        sa.Column("delivery_id", sa.String(32), primary_key=True),
        sa.Column("gateway_id", sa.String(14)),
        sa.Column("state", sa.String(8), nullable=False, index=True),
        sa.Column("reason", sa.String(80), nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.Column("sender", sa.String(66)),
        sa.Column("profile", sa.String(64)),
        sa.Column("taf", sa.Integer),
        sa.Column("start_s", sa.BigInteger, index=True),
        sa.Column("end_s", sa.BigInteger),
        sa.Column("is_complete", sa.Boolean),
        sa.Column("missing", sa.Integer),
        sa.Column("received_ms", sa.BigInteger, nullable=False),
        sa.CheckConstraint("state IN ('new', 'stored', 'refused')", name="delivery_state"),
    )
