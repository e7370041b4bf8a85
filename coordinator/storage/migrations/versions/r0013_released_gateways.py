"""Column `gateways.released_ms`: since when a revoked gateway's id may be enrolled again, with other keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Nobody's is."""
    op.add_column("gateways", sa.Column("released_ms", sa.BigInteger))
