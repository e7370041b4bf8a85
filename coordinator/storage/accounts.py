"""Accounts and who has logged in: tables `accounts` and `account_sessions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import RowMapping, func, select

from coordinator.storage.engine import Database
from coordinator.storage.tables import account_sessions as sessions
from coordinator.storage.tables import accounts


class AccountRole(StrEnum):
    """What an account may do; each may what the one before it may."""

    VIEWER = "viewer"
    """See states: profile sets, deliveries without their values."""
    OPERATOR = "operator"
    """Roll out, ask for bills, read values."""
    ADMINISTRATOR = "administrator"
    """Manage accounts, read the audit log."""

    def does(self, other: AccountRole) -> bool:
        """Whether it may do what `other` may."""
        order = list(AccountRole)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """
    One account; `password` is an Argon2id hash with salt and costs, `disabled_ms` since when nobody can log in.

    `subject` is the digest of issuer and subject of one that an OpenID provider vouches for, which has no password.
    """

    name: str
    role: AccountRole
    password: str = field(repr=False)
    created_ms: int
    disabled_ms: int | None = None
    subject: str | None = None


class AccountRepository:
    """Both tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: AccountRecord) -> bool:
        """A new account; False where there is one of the name, or of the subject."""
        values = {column.name: getattr(record, column.name) for column in accounts.columns}
        statement = self._database.insert(accounts).values(values | {"role": record.role.value})
        with self._database.write() as connection:
            added = connection.execute(statement.on_conflict_do_nothing().returning(accounts.c.name))
            return added.first() is not None

    def get(self, name: str) -> AccountRecord | None:
        """One account, None where there is none."""
        with self._database.read() as connection:
            row = connection.execute(select(accounts).where(accounts.c.name == name)).mappings().first()
        return None if row is None else _record(row)

    def of_subject(self, subject: str) -> AccountRecord | None:
        """The account of somebody at the OpenID provider, None where there is none."""
        with self._database.read() as connection:
            row = connection.execute(select(accounts).where(accounts.c.subject == subject)).mappings().first()
        return None if row is None else _record(row)

    def all(self) -> list[AccountRecord]:
        """All accounts by name."""
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(select(accounts).order_by(accounts.c.name)).mappings()]

    def change(
        self, name: str, *, role: AccountRole | None = None, password: str | None = None,
        disabled_ms: int | None = None, enabled: bool = False,
    ) -> bool:  # fmt: skip
        """
        What is given; False where there is no such account.

        Whoever is logged in under it is logged out: what they may has changed, or their password may be known.
        """
        values: dict[str, object] = {}
        if role is not None:
            values["role"] = role.value
        if password is not None:
            values["password"] = password
        if disabled_ms is not None or enabled:
            values["disabled_ms"] = disabled_ms
        with self._database.write() as connection:
            changed = connection.execute(
                accounts.update().where(accounts.c.name == name).values(values).returning(accounts.c.name)
            ).first()
            # Behind the update, which a log-in under way waits for or is waited for (`open_session`).
            connection.execute(sessions.delete().where(sessions.c.name == name))
            return changed is not None

    def open_session(self, digest: bytes, judged: AccountRecord, until_ms: int, now_ms: int) -> bool:
        """
        Somebody has logged in; sessions that are over go.

        False where the account is not as it was judged: its sessions were ended by a change meanwhile, and one for the
        password before it would outlive that.
        """
        is_as_judged = accounts.update().values(created_ms=accounts.c.created_ms).where(
            accounts.c.name == judged.name, accounts.c.password == judged.password, accounts.c.disabled_ms.is_(None)
        )  # fmt: skip
        with self._database.write() as connection:
            connection.execute(sessions.delete().where(sessions.c.until_ms <= now_ms))
            if connection.execute(is_as_judged).rowcount != 1:  # an update: it waits for a change under way
                return False
            connection.execute(sessions.insert().values(digest=digest, name=judged.name, until_ms=until_ms))
        return True

    def close_session(self, digest: bytes) -> None:
        """Somebody logs out."""
        with self._database.write() as connection:
            connection.execute(sessions.delete().where(sessions.c.digest == digest))

    def close_sessions(self, name: str) -> None:
        """Somebody is logged out everywhere."""
        with self._database.write() as connection:
            connection.execute(sessions.delete().where(sessions.c.name == name))

    def of_session(self, digest: bytes, now_ms: int) -> AccountRecord | None:
        """Whose session it is, None for one that is over, and for an account that is disabled."""
        wanted = select(accounts).join(sessions, sessions.c.name == accounts.c.name)
        wanted = wanted.where(
            sessions.c.digest == digest, sessions.c.until_ms > now_ms, accounts.c.disabled_ms.is_(None)
        )
        with self._database.read() as connection:
            row = connection.execute(wanted).mappings().first()
        return None if row is None else _record(row)

    def session_count(self) -> int:
        """How many sessions are kept."""
        with self._database.read() as connection:
            return int(connection.execute(select(func.count()).select_from(sessions)).scalar_one())


def _record(row: RowMapping) -> AccountRecord:
    return AccountRecord(**{**row, "role": AccountRole(row["role"])})
