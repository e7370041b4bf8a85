"""
What accounts did, in order: table `audit_log`, only ever added to.

Triggers refuse a change of a row.  Who owns the database can drop them; so each row names the digest of the one before
it, and whoever has kept a later row finds out (`protocol.audit`).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from coordinator.storage.engine import Database
from coordinator.storage.tables import audit_log
from protocol.audit import FIRST, AuditEntry

_ATTEMPTS: Final = 20  # another process of the coordinator may have taken the number


class AuditRepository:
    """The table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self, *, time_ms: int, account: str, role: str, action: str, subject: str, address: str
    ) -> AuditEntry:  # fmt: skip
        """The next entry; durable when this returns.  Raises SQLAlchemyError: then it is not there."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._append(time_ms, account, role, action, subject, address)
            except IntegrityError:
                continue
        return self._append(time_ms, account, role, action, subject, address)

    def _append(
        self, time_ms: int, account: str, role: str, action: str, subject: str, address: str
    ) -> AuditEntry:  # fmt: skip
        newest = select(audit_log.c.number, audit_log.c.digest).order_by(audit_log.c.number.desc()).limit(1)
        with self._database.write() as connection:
            number, previous = connection.execute(newest).first() or (0, FIRST)
            entry = AuditEntry(number + 1, time_ms, account, role, action, subject, address, previous)
            values = {column.name: getattr(entry, column.name) for column in audit_log.columns}
            connection.execute(audit_log.insert().values(values))
        return entry

    def page(self, after: int, limit: int) -> list[tuple[AuditEntry, bytes]]:
        """Entries behind a number, in order, each with the digest that was kept beside it."""
        wanted = select(audit_log).where(audit_log.c.number > after).order_by(audit_log.c.number).limit(limit)
        with self._database.read() as connection:
            rows = [dict(row) for row in connection.execute(wanted).mappings()]
        return [(AuditEntry(**{name: row[name] for name in row if name != "digest"}), row["digest"]) for row in rows]
