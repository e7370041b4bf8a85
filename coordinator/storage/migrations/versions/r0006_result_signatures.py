"""Column `ring_rounds.signature`: the signed RESULT of a round outlives the key that signed it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """A column, empty in every round that is there."""
    op.add_column("ring_rounds", sa.Column("signature", sa.LargeBinary(64)))
