"""
Profile sets that were signed for gateways: table `profile_sets`, a row for each version.

What is in a set is in no column: the message is encrypted to its gateway, the copy to the administrator.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import RowMapping, Select, and_, func, select

from coordinator.storage.engine import Database
from coordinator.storage.patterns import matches
from coordinator.storage.tables import profile_sets


class ProfileSetState(StrEnum):
    """What the gateway said of a set."""

    WAITING = "waiting"
    TAKEN = "taken"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ProfileSetRecord:
    """
    One version for one gateway; `digest` is SHA-256 of its canonical JSON, hexadecimal.

    `message` is encrypted to the gateway's certificate with the serial number `encrypted_to` (hexadecimal), `copy` to
    the administrator; both are CMS.  `receipt` is the gateway's, CMS, None while the state is waiting.
    """

    gateway_id: str
    version: int
    digest: str
    message: bytes
    encrypted_to: str
    copy: bytes
    state: ProfileSetState
    reason: str
    receipt: bytes | None
    issued_ms: int
    answered_ms: int | None


class ProfileSetRepository:
    """Table `profile_sets`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, gateway_id: str) -> ProfileSetRecord | None:
        """The newest version of a gateway's, None before the first."""
        wanted = select(profile_sets).where(profile_sets.c.gateway_id == gateway_id)
        with self._database.read() as connection:
            row = connection.execute(wanted.order_by(profile_sets.c.version.desc()).limit(1)).mappings().first()
        return None if row is None else _record(row)

    def get(self, gateway_id: str, version: int) -> ProfileSetRecord | None:
        """One version, None where there is none."""
        wanted = (profile_sets.c.gateway_id == gateway_id, profile_sets.c.version == version)
        with self._database.read() as connection:
            row = connection.execute(select(profile_sets).where(*wanted)).mappings().first()
        return None if row is None else _record(row)

    def put(self, record: ProfileSetRecord) -> None:
        """Keep a version that is rolled out, in place of the same one where that is there."""
        values = {column.name: getattr(record, column.name) for column in profile_sets.columns}
        statement = self._database.insert(profile_sets).values(values | {"state": record.state.value})
        changed = {name: statement.excluded[name] for name in values if name not in {"gateway_id", "version"}}
        with self._database.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["gateway_id", "version"], set_=changed))

    def answer(
        self, gateway_id: str, version: int, state: ProfileSetState, reason: str, receipt: bytes, now_ms: int
    ) -> None:  # fmt: skip
        """Keep what a gateway said of a version."""
        wanted = (profile_sets.c.gateway_id == gateway_id, profile_sets.c.version == version)
        values = {"state": state.value, "reason": reason, "receipt": receipt, "answered_ms": now_ms}
        with self._database.write() as connection:
            connection.execute(profile_sets.update().where(*wanted).values(values))

    def given(self, gateways: Collection[str]) -> set[str]:
        """Those of the gateways that a set was ever signed for."""
        wanted = select(profile_sets.c.gateway_id).where(profile_sets.c.gateway_id.in_(gateways)).distinct()
        with self._database.read() as connection:
            return set(connection.execute(wanted).scalars())

    def newer(self, versions: Mapping[str, int]) -> list[tuple[str, int]]:
        """
        Of gateways, by the version that each has, those that there is a set for, with its version.

        One is for a gateway that has not answered it, or that took it and has an older one now: it lost its store.
        """
        newest = _newest(list(versions)).subquery()
        wanted = select(profile_sets.c.gateway_id, profile_sets.c.version, profile_sets.c.state).join(
            newest,
            and_(profile_sets.c.gateway_id == newest.c.gateway_id, profile_sets.c.version == newest.c.version),
        )
        with self._database.read() as connection:
            found = connection.execute(wanted.order_by(profile_sets.c.gateway_id)).all()
        return [
            (gateway, version)
            for gateway, version, state in found
            if state == ProfileSetState.WAITING
            or (state == ProfileSetState.TAKEN and versions[gateway] < version)
        ]  # fmt: skip

    def page(
        self, *, limit: int, after: str = "", state: ProfileSetState | None = None, gateway: str | None = None
    ) -> list[ProfileSetRecord]:
        """The newest version of each gateway with an id behind `after`, by id; `gateway` may have * in it."""
        newest = _newest(None).subquery()
        wanted = select(profile_sets).join(
            newest,
            and_(profile_sets.c.gateway_id == newest.c.gateway_id, profile_sets.c.version == newest.c.version),
        )
        wanted = wanted.where(profile_sets.c.gateway_id > after)
        if state is not None:
            wanted = wanted.where(profile_sets.c.state == state.value)
        if gateway is not None:
            wanted = wanted.where(matches(profile_sets.c.gateway_id, gateway))
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(profile_sets.c.gateway_id).limit(limit)).mappings()
            return [_record(row) for row in rows]


def _newest(gateways: list[str] | None) -> Select[tuple[str, int]]:
    version = func.max(profile_sets.c.version).label("version")
    wanted = select(profile_sets.c.gateway_id, version).group_by(profile_sets.c.gateway_id)
    return wanted if gateways is None else wanted.where(profile_sets.c.gateway_id.in_(gateways))


def _record(row: RowMapping) -> ProfileSetRecord:
    return ProfileSetRecord(**{**row, "state": ProfileSetState(row["state"])})
