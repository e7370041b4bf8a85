"""Tables `firmware_images` and `firmware_orders`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Make the tables, empty."""
    op.create_table(
        "firmware_images",
        sa.Column("version", sa.String(17), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("manifest", sa.LargeBinary, nullable=False),
        sa.Column("image", sa.LargeBinary, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "firmware_orders",
        sa.Column("gateway_id", sa.String(14), sa.ForeignKey("gateways.gateway_id"), primary_key=True),
        sa.Column("version", sa.String(17), sa.ForeignKey("firmware_images.version"), nullable=False, index=True),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("receipt", sa.LargeBinary),
        sa.Column("issued_ms", sa.BigInteger, nullable=False),
        sa.Column("answered_ms", sa.BigInteger),
        sa.CheckConstraint(
            "state IN ('waiting', 'staged', 'running', 'refused', 'rolled_back')", name="firmware_order_state"
        ),
    )
