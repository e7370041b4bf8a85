"""Alembic's entry: runs revisions within the transaction that `coordinator.storage.schema` holds."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
