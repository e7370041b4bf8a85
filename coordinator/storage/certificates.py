"""Every certificate that was issued to a gateway: what a renewal continues, and what revocation lists name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select

from coordinator.storage.engine import Database
from coordinator.storage.tables import certificates, gateways
from protocol.pki import GATEWAY_TRIPLE, Role

_SIGNERS = 2  # while a renewal is under way the newest may not be installed yet


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """
    One certificate (DER); `serial` is its serial number in hexadecimal, `key_digest` SHA-256 of its key.

    `sequence` counts a gateway's triples from 1.
    """

    serial: str
    gateway_id: str
    role: Role
    sequence: int
    certificate: bytes
    key_digest: bytes
    issued_ms: int
    expires_ms: int
    revoked_ms: int | None = None


class CertificateRepository:
    """Table `certificates`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_gateway(self, gateway_id: str) -> list[CertificateRecord]:
        """All of a gateway, the newest triple first, in the order of the roles."""
        with self._database.read() as connection:
            return read_certificates(connection, gateway_id)

    def signers(self, gateway_id: str, enrolled_ms: int) -> list[CertificateRecord]:
        """
        Those of the present and the previous signature key of the gateway that was enrolled then, the newest first.

        Whoever had its id before, and gave it up, signs nothing for it: its keys may be in anybody's hands.
        """
        mine = [
            each for each in self.of_gateway(gateway_id)
            if each.role is GATEWAY_TRIPLE[0]
            and (each.issued_ms >= enrolled_ms or each.revoked_ms is None or each.revoked_ms > enrolled_ms)
        ]  # fmt: skip
        return mine[:_SIGNERS]

    def revoked(self, now_ms: int) -> list[tuple[int, int]]:
        """Serial numbers of the revoked certificates that have not run out, with the time of revocation in ms."""
        wanted = (certificates.c.revoked_ms.is_not(None), certificates.c.expires_ms > now_ms)
        statement = select(certificates.c.serial, certificates.c.revoked_ms).where(*wanted)
        with self._database.read() as connection:
            return [(int(serial, 16), revoked_ms) for serial, revoked_ms in connection.execute(statement)]

    @contextmanager
    def renewal(self) -> Iterator[RenewalTransaction]:
        """One renewal, decided by the caller: committed at the end, undone by an exception."""
        with self._database.write() as connection:
            yield RenewalTransaction(connection, self._database)


class RenewalTransaction:
    """What one renewal reads and changes, all or nothing."""

    def __init__(self, connection: Connection, database: Database) -> None:
        self._connection = connection
        self._database = database

    def of_gateway(self, gateway_id: str) -> list[CertificateRecord]:
        """As `CertificateRepository.of_gateway`."""
        return read_certificates(self._connection, gateway_id)

    def replace(self, made: Sequence[CertificateRecord]) -> bool:
        """
        Keep a gateway's new triple; its signature certificate becomes the directory's.

        False where a key has a certificate already.
        """
        if not add_certificates(self._connection, self._database, made):
            return False
        signature = made[0]
        change = gateways.update().where(gateways.c.gateway_id == signature.gateway_id)
        values = {"certificate": signature.certificate, "key_digest": signature.key_digest}
        return self._connection.execute(change.values(values)).rowcount == 1


def read_certificates(connection: Connection, gateway_id: str) -> list[CertificateRecord]:
    """All of a gateway, the newest triple first, in the order of the roles."""
    found = connection.execute(select(certificates).where(certificates.c.gateway_id == gateway_id)).mappings()
    order = list(Role)
    return sorted(map(_record, found), key=lambda each: (-each.sequence, order.index(each.role)))


def add_certificates(connection: Connection, database: Database, made: Sequence[CertificateRecord]) -> bool:
    """Keep certificates; False where one of their keys has a certificate already."""
    rows = [
        {**{column.name: getattr(each, column.name) for column in certificates.columns}, "role": each.role.value}
        for each in made
    ]
    added = database.insert(certificates).values(rows).on_conflict_do_nothing().returning(certificates.c.serial)
    return len(connection.execute(added).all()) == len(rows)


def revoke_certificates(connection: Connection, gateway_id: str, now_ms: int) -> None:
    """Revoke all certificates of a gateway."""
    mine = (certificates.c.gateway_id == gateway_id, certificates.c.revoked_ms.is_(None))
    connection.execute(certificates.update().where(*mine).values(revoked_ms=now_ms))


def _record(row: RowMapping) -> CertificateRecord:
    return CertificateRecord(**{**row, "role": Role(row["role"])})
