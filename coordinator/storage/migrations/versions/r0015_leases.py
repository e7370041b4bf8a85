"""Table `leases`: which process is the ring service of an area, so that another stands by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Nobody holds one: whoever starts first takes it."""
    op.create_table(
        "leases",
        sa.Column("area", sa.String(64), primary_key=True),
        sa.Column("holder", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("numbers_end", sa.BigInteger, nullable=False),
    )
    op.create_index("leases_by_holder", "leases", ["area", "holder"], unique=True)
