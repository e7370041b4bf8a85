"""Table `accusations` becomes `misbehaviour_reports`, and what it called a spoilt sum a corrupt one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """A new table, filled from the old one: SQLite cannot change the length of a column."""
    op.create_table(
        "misbehaviour_reports",
        sa.Column("reporter", sa.String(14), primary_key=True),
        sa.Column("reported", sa.String(14), primary_key=True),
        sa.Column("misbehaviour", sa.String(16), primary_key=True),
        sa.Column("area", sa.String(64), nullable=False),
        sa.Column("epochs", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("ring", sa.Integer, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("first_ms", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False, index=True),
    )
    # Programs between this revision and the one before wrote the new value into the old table: the newer row stands.
    op.execute(
        """
        INSERT INTO misbehaviour_reports
          (reporter, reported, misbehaviour, area, epochs, epoch, ring, round, first_ms, last_ms)
        SELECT accuser, accused, CASE lie WHEN 'spoilt_sum' THEN 'corrupt_sum' ELSE lie END,
          area, epochs, epoch, ring, round, first_ms, last_ms
        FROM accusations AS old
        WHERE lie <> 'spoilt_sum' OR NOT EXISTS (
          SELECT 1 FROM accusations AS new
          WHERE new.accuser = old.accuser AND new.accused = old.accused AND new.lie = 'corrupt_sum')
        """
    )
    op.drop_table("accusations")
