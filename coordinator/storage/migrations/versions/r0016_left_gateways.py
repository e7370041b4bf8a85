"""Column `gateways.left_ms`: since when a revoked gateway has left for good, by its own word."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Nobody has."""
    op.add_column("gateways", sa.Column("left_ms", sa.BigInteger))
