"""Table `profile_sets`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the table, empty."""
    op.create_table(
        "profile_sets",
        sa.Column("gateway_id", sa.String(14), sa.ForeignKey("gateways.gateway_id"), primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.Column("encrypted_to", sa.String(40), nullable=False),
        sa.Column("copy", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("receipt", sa.LargeBinary),
        sa.Column("issued_ms", sa.BigInteger, nullable=False),
        sa.Column("answered_ms", sa.BigInteger),
        sa.CheckConstraint("state IN ('waiting', 'taken', 'refused')", name="profile_set_state"),
    )
