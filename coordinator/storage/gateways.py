"""The directory of enrolled gateways, and the tokens that admit new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum

from sqlalchemy import Connection, RowMapping, func, or_, select

from coordinator.storage.certificates import (
    CertificateRecord,
    add_certificates,
    read_certificates,
    revoke_certificates,
)
from coordinator.storage.engine import Database
from coordinator.storage.tables import gateways, tokens


class GatewayStatus(Enum):
    """Whether a gateway may take part."""

    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    """
    One line of the directory; `certificate` is DER, `key_digest` SHA-256 of its key, `token` that of its token.

    `released_ms` is since when the id of a revoked gateway may be enrolled again, with other keys; `left_ms` since when
    it has left for good, by its own word.
    """

    gateway_id: str
    area: str
    certificate: bytes
    key_digest: bytes
    curve_key: bytes
    status: GatewayStatus
    enrolled_ms: int
    revoked_ms: int | None
    token: bytes | None
    released_ms: int | None = None
    left_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An enrolment token; `digest` is its SHA-256, `area` None is good for any area."""

    digest: bytes
    label: str
    area: str | None
    uses_total: int
    uses_left: int
    created_ms: int
    expires_ms: int
    revoked_ms: int | None = None


class GatewayRepository:
    """Tables `gateways` and `tokens`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, *, area: str | None = None, after: str = "", limit: int | None = None) -> list[GatewayRecord]:
        """Gateways by id, those after `after`; only those of one area where it is named."""
        statement = select(gateways).where(gateways.c.gateway_id > after).order_by(gateways.c.gateway_id).limit(limit)
        if area is not None:
            statement = statement.where(gateways.c.area == area)
        with self._database.read() as connection:
            return [_gateway(row) for row in connection.execute(statement).mappings()]

    def count_by_area(self) -> dict[str, int]:
        """How many gateways are active in each area that has one."""
        statement = select(gateways.c.area, func.count()).where(gateways.c.status == GatewayStatus.ACTIVE.value)
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(statement.group_by(gateways.c.area))}

    def some(self, gateway_ids: Sequence[str]) -> dict[str, GatewayRecord]:
        """Those of these gateways that are known, by id."""
        with self._database.read() as connection:
            rows = connection.execute(select(gateways).where(gateways.c.gateway_id.in_(gateway_ids))).mappings()
            return {row["gateway_id"]: _gateway(row) for row in rows}

    def active_by_curve_key(self, curve_key: bytes) -> GatewayRecord | None:
        """The active gateway that owns this CURVE key: the question that the ZAP handler asks."""
        mine = (gateways.c.curve_key == curve_key, gateways.c.status == GatewayStatus.ACTIVE.value)
        with self._database.read() as connection:
            row = connection.execute(select(gateways).where(*mine)).mappings().first()
        return None if row is None else _gateway(row)

    def revoked(self) -> list[str]:
        """The ids of the gateways that were revoked."""
        statement = select(gateways.c.gateway_id).where(gateways.c.status == GatewayStatus.REVOKED.value)
        with self._database.read() as connection:
            return list(connection.scalars(statement))

    def revoke(self, gateway_id: str, now_ms: int) -> bool:
        """Revoke a gateway and its certificates for good; False where there is no active one of this id."""
        mine = (gateways.c.gateway_id == gateway_id, gateways.c.status == GatewayStatus.ACTIVE.value)
        change = gateways.update().where(*mine).values(status=GatewayStatus.REVOKED.value, revoked_ms=now_ms)
        with self._database.write() as connection:
            revoke_certificates(connection, gateway_id, now_ms)
            return connection.execute(change).rowcount == 1

    def leave(self, gateway_id: str, now_ms: int) -> int | None:
        """Have a revoked gateway left for good; since when it has.  None where its id is free, or there is none."""
        mine = (
            gateways.c.gateway_id == gateway_id, gateways.c.status == GatewayStatus.REVOKED.value,
            gateways.c.released_ms.is_(None),
        )  # fmt: skip
        with self._database.write() as connection:
            connection.execute(gateways.update().where(*mine, gateways.c.left_ms.is_(None)).values(left_ms=now_ms))
            return connection.execute(select(gateways.c.left_ms).where(*mine)).scalar()

    def release(self, gateway_id: str, now_ms: int) -> bool:
        """Let the id of a revoked gateway be enrolled again; False where there is none, or that is so already."""
        mine = (
            gateways.c.gateway_id == gateway_id, gateways.c.status == GatewayStatus.REVOKED.value,
            gateways.c.released_ms.is_(None), gateways.c.left_ms.is_(None),
        )  # fmt: skip
        with self._database.write() as connection:
            return connection.execute(gateways.update().where(*mine).values(released_ms=now_ms)).rowcount == 1

    def revocable(self, gateway_id: str) -> tuple[GatewayRecord, list[CertificateRecord]] | None:
        """An active gateway with its certificates."""
        mine = (gateways.c.gateway_id == gateway_id, gateways.c.status == GatewayStatus.ACTIVE.value)
        with self._database.read() as connection:
            row = connection.execute(select(gateways).where(*mine)).mappings().first()
            return None if row is None else (_gateway(row), read_certificates(connection, gateway_id))

    def restore_revocation(self, gateway: GatewayRecord, triple: Sequence[CertificateRecord]) -> bool:
        """
        Have a gateway revoked as it was before, also one that the database has forgotten; False where it is already.

        `gateway` has the time of its revocation.  Whoever was enrolled under its id before it is followed by it, so
        that a released id does not let its keys in again; whoever was enrolled after it stays.
        """
        at_ms = gateway.revoked_ms or gateway.enrolled_ms
        known = self.some([gateway.gateway_id]).get(gateway.gateway_id)
        if known is not None and known.curve_key == gateway.curve_key and self.revoke(gateway.gateway_id, at_ms):
            return True
        forgotten = replace(gateway, token=None, released_ms=None)  # a token that the database may have forgotten too
        revoked = [replace(each, revoked_ms=at_ms) for each in triple]
        with self._database.write() as connection:
            transaction = EnrolmentTransaction(connection, self._database)
            if transaction.add(forgotten, revoked):
                return True
            older = (
                gateways.c.gateway_id == gateway.gateway_id, gateways.c.status == GatewayStatus.REVOKED.value,
                gateways.c.curve_key != gateway.curve_key, gateways.c.enrolled_ms < gateway.enrolled_ms,
            )  # fmt: skip
            row = {column.name: getattr(forgotten, column.name) for column in gateways.columns}
            row["status"] = GatewayStatus.REVOKED.value
            is_older = connection.execute(gateways.update().where(*older).values(row)).rowcount == 1
            return add_certificates(connection, self._database, revoked) or is_older

    def restore_release(self, gateway_id: str, curve_key: bytes, now_ms: int) -> bool:
        """Free the id of a revoked gateway as it was before; False where it is, or is another gateway's by now."""
        mine = (
            gateways.c.gateway_id == gateway_id, gateways.c.curve_key == curve_key,
            gateways.c.status == GatewayStatus.REVOKED.value, gateways.c.released_ms.is_(None),
        )  # fmt: skip
        with self._database.write() as connection:
            return connection.execute(gateways.update().where(*mine).values(released_ms=now_ms)).rowcount == 1

    # --- tokens ------------------------------------------------------------------------------------------------------

    def add_token(self, token: TokenRecord) -> None:
        """Keep a new token."""
        row = {column.name: getattr(token, column.name) for column in tokens.columns}
        with self._database.write() as connection:
            connection.execute(tokens.insert(), row)

    def has_token(self, digest: bytes) -> bool:
        """Whether there is such a token, used up or not."""
        with self._database.read() as connection:
            return connection.execute(select(tokens.c.digest).where(tokens.c.digest == digest)).first() is not None

    def tokens(self) -> list[TokenRecord]:
        """All tokens, newest first."""
        statement = select(tokens).order_by(tokens.c.created_ms.desc(), tokens.c.digest)
        with self._database.read() as connection:
            return [TokenRecord(**row) for row in connection.execute(statement).mappings()]

    def limit_uses(self, digest: bytes, uses_left: int) -> bool:
        """Leave a token no more uses than this; False where it has no more already."""
        more = (tokens.c.digest == digest, tokens.c.uses_left > uses_left)
        with self._database.write() as connection:
            return connection.execute(tokens.update().where(*more).values(uses_left=uses_left)).rowcount == 1

    def revoke_token(self, digest: bytes, now_ms: int) -> bool:
        """Revoke a token for good; False where there is none of this digest that is not revoked already."""
        mine = (tokens.c.digest == digest, tokens.c.revoked_ms.is_(None))
        with self._database.write() as connection:
            return connection.execute(tokens.update().where(*mine).values(revoked_ms=now_ms)).rowcount == 1

    @contextmanager
    def enrolment(self) -> Iterator[EnrolmentTransaction]:
        """One enrolment, decided by the caller: committed at the end, undone by an exception."""
        with self._database.write() as connection:
            yield EnrolmentTransaction(connection, self._database)


class EnrolmentTransaction:
    """What one enrolment reads and changes, all or nothing."""

    def __init__(self, connection: Connection, database: Database) -> None:
        self._connection = connection
        self._database = database

    def token(self, digest: bytes) -> TokenRecord | None:
        """A token by its digest."""
        row = self._connection.execute(select(tokens).where(tokens.c.digest == digest)).mappings().first()
        return None if row is None else TokenRecord(**row)

    def take_use(self, digest: bytes) -> bool:
        """Take one use from a token; False where it has none left."""
        left = (tokens.c.digest == digest, tokens.c.uses_left > 0)
        change = tokens.update().where(*left).values(uses_left=tokens.c.uses_left - 1)
        return self._connection.execute(change).rowcount == 1

    def same(self, gateway_id: str, key_digest: bytes, curve_key: bytes) -> list[GatewayRecord]:
        """The gateways that have this id or one of these keys."""
        same = or_(
            gateways.c.gateway_id == gateway_id, gateways.c.key_digest == key_digest, gateways.c.curve_key == curve_key
        )  # fmt: skip
        return [_gateway(row) for row in self._connection.execute(select(gateways).where(same)).mappings()]

    def certificates(self, gateway_id: str) -> list[CertificateRecord]:
        """A gateway's certificates, the newest triple first."""
        return read_certificates(self._connection, gateway_id)

    def add(self, gateway: GatewayRecord, triple: Sequence[CertificateRecord]) -> bool:
        """
        Enter a gateway into the directory with its certificates; False where its id or a key is taken.

        PostgreSQL lets two transactions look before either writes.
        """
        row = {column.name: getattr(gateway, column.name) for column in gateways.columns}
        row["status"] = gateway.status.value
        added = self._database.insert(gateways).values(row).on_conflict_do_nothing().returning(gateways.c.gateway_id)
        if self._connection.execute(added).first() is None:
            return False
        return add_certificates(self._connection, self._database, triple)

    def take_over(self, gateway: GatewayRecord, triple: Sequence[CertificateRecord]) -> bool:
        """
        Put another gateway in the place of the released one of its id; False where a key is taken, or nothing is free.

        What the released one was certified for stays, revoked.
        """
        row = {column.name: getattr(gateway, column.name) for column in gateways.columns}
        row["status"] = gateway.status.value
        free = (gateways.c.gateway_id == gateway.gateway_id, gateways.c.released_ms.is_not(None))
        if self._connection.execute(gateways.update().where(*free).values(row)).rowcount != 1:
            return False
        return add_certificates(self._connection, self._database, triple)


def _gateway(row: RowMapping) -> GatewayRecord:
    return GatewayRecord(**{**row, "status": GatewayStatus(row["status"])})
