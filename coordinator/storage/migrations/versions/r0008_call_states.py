"""Column `epoch_calls.state`: a restart goes on with an epoch that is called and has no rings yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """A column, empty in every call that is there."""
    op.add_column("epoch_calls", sa.Column("state", sa.LargeBinary))
