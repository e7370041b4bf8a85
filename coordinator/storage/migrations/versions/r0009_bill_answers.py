"""Columns of `bills` for answers by stages and by amounts; `blinding` becomes `answer`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Bills that are there have an exact amount and no energy; their blinding stays what it is."""
    op.execute("ALTER TABLE bills RENAME COLUMN blinding TO answer")
    op.add_column("bills", sa.Column("energy", sa.String(40)))
    for name in ("register_scaler", "quantum_bits", "averaged"):
        op.add_column("bills", sa.Column(name, sa.Integer))
