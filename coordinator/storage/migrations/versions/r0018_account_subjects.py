"""Column `accounts.subject`: who an account is at the OpenID provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """All accounts have passwords."""
    op.add_column("accounts", sa.Column("subject", sa.String(64)))
    op.create_index("ix_accounts_subject", "accounts", ["subject"], unique=True)
