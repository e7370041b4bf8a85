"""Column `tokens.revoked_ms`: an enrolment token can be revoked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """A column, empty in every token that is there."""
    op.add_column("tokens", sa.Column("revoked_ms", sa.BigInteger))
