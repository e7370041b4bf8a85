"""The enrolment log as the database has it: entries in order, the newest signed head, what is still to be entered."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, String, cast, exists, func, literal, select

from coordinator.storage.engine import Database
from coordinator.storage.tables import certificates, gateways, log_entries, log_heads, ring_histories
from protocol.enrolment_log.entries import Entry, Kind, TreeHead
from protocol.pki import GATEWAY_TRIPLE


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """An entry with its place in the log, from 0, and what it was entered for."""

    number: int
    entry: Entry
    reference: str


@dataclass(frozen=True, slots=True)
class Unlogged:
    """What is to be entered: kind, subject, 32 octets, and a reference that is entered once."""

    kind: Kind
    subject: str
    digest: bytes
    reference: str


class EnrolmentLogRepository:
    """Tables `log_entries`, `log_heads` and `ring_histories`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(self, first: int, limit: int | None = None) -> list[LoggedEntry]:
        """Entries from number `first` on, in order."""
        statement = select(log_entries).where(log_entries.c.number >= first).order_by(log_entries.c.number)
        with self._database.read() as connection:
            return [
                LoggedEntry(row.number, Entry(Kind(row.kind), row.subject, row.digest, row.time_ms), row.reference)
                for row in connection.execute(statement.limit(limit))
            ]

    def head(self) -> TreeHead | None:
        """The newest signed head."""
        with self._database.read() as connection:
            row = connection.execute(select(log_heads).order_by(log_heads.c.size.desc()).limit(1)).first()
        return None if row is None else TreeHead(row.size, row.root, row.time_ms, row.signature)

    def size(self) -> int:
        """How many entries there are."""
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).select_from(log_entries)) or 0

    def signed(self, digests: Collection[bytes]) -> set[bytes]:
        """Those of these certificates (SHA-256) that are under the newest signed head."""
        size = select(func.coalesce(func.max(log_heads.c.size), 0)).scalar_subquery()
        mine = (log_entries.c.kind == int(Kind.CERTIFICATE), log_entries.c.digest.in_(digests))
        with self._database.read() as connection:
            return set(connection.scalars(select(log_entries.c.digest).where(*mine, log_entries.c.number < size)))

    def unlogged(self, limit: int) -> list[Unlogged]:
        """What is not in the log yet: certificates by the time of their issue, then revocations, then histories."""
        with self._database.read() as connection:
            found = [
                *_certificates(connection, limit),
                *_revocations(connection, limit),
                *_histories(connection, limit),
            ]
        return found[:limit]

    def append(self, made: Sequence[LoggedEntry], head: TreeHead) -> None:
        """
        Keep new entries and the head that is signed over them, all or nothing.

        A head that another writer has made of more entries stays the newest.
        """
        rows = [
            {
                "number": each.number, "kind": int(each.entry.kind), "subject": each.entry.subject,
                "digest": each.entry.digest, "time_ms": each.entry.time_ms, "reference": each.reference,
            }
            for each in made
        ]  # fmt: skip
        row = {"size": head.size, "root": head.root, "time_ms": head.time_ms, "signature": head.signature}
        with self._database.write() as connection:
            if rows:
                connection.execute(log_entries.insert(), rows)
            for each in made:
                if each.entry.kind is Kind.HISTORY:
                    epoch, ring = map(int, each.reference.split("/"))
                    mine = (ring_histories.c.epoch == epoch, ring_histories.c.ring == ring)
                    connection.execute(ring_histories.delete().where(*mine))
            connection.execute(log_heads.delete().where(log_heads.c.size <= head.size))
            connection.execute(log_heads.insert(), row)

    def add_history(self, epoch: int, ring: int, leaf: bytes) -> None:
        """Keep how a ring's rounds ended, until it is entered; what was kept first stands."""
        row = {"epoch": epoch, "ring": ring, "leaf": leaf}
        with self._database.write() as connection:
            connection.execute(self._database.insert(ring_histories).values(row).on_conflict_do_nothing())


def _certificates(connection: Connection, limit: int) -> list[Unlogged]:
    known = exists().where(
        log_entries.c.kind == int(Kind.CERTIFICATE), log_entries.c.reference == certificates.c.serial
    )  # fmt: skip
    statement = (
        select(certificates.c.serial, certificates.c.gateway_id, certificates.c.certificate)
        .where(certificates.c.role == GATEWAY_TRIPLE[0].value, ~known)
        .order_by(certificates.c.issued_ms, certificates.c.serial)
        .limit(limit)
    )
    return [
        Unlogged(Kind.CERTIFICATE, gateway, hashlib.sha256(certificate).digest(), serial)
        for serial, gateway, certificate in connection.execute(statement)
    ]


def _revocations(connection: Connection, limit: int) -> list[Unlogged]:
    known = exists().where(
        log_entries.c.kind == int(Kind.REVOKED), log_entries.c.reference == gateways.c.gateway_id
    )  # fmt: skip
    statement = (
        select(gateways.c.gateway_id, gateways.c.certificate)
        .where(gateways.c.status == "revoked", ~known)
        .order_by(gateways.c.revoked_ms, gateways.c.gateway_id)
        .limit(limit)
    )
    return [
        Unlogged(Kind.REVOKED, gateway, hashlib.sha256(certificate).digest(), gateway)
        for gateway, certificate in connection.execute(statement)
    ]


def _histories(connection: Connection, limit: int) -> list[Unlogged]:
    name = cast(ring_histories.c.epoch, String) + literal("/") + cast(ring_histories.c.ring, String)
    known = exists().where(log_entries.c.kind == int(Kind.HISTORY), log_entries.c.reference == name)
    statement = (
        select(ring_histories).where(~known).order_by(ring_histories.c.epoch, ring_histories.c.ring).limit(limit)
    )
    return [
        Unlogged(Kind.HISTORY, f"{row.epoch}/{row.ring}", row.leaf, f"{row.epoch}/{row.ring}")
        for row in connection.execute(statement)
    ]
