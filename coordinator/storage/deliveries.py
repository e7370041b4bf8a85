"""
Deliveries to the market participant: table `deliveries`.

Values are in no column: a message stays encrypted to the participant, as it came, and is opened for an export.  What is
noted beside it says which period of which profile it is, and whether it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import RowMapping, select

from coordinator.storage.engine import Database
from coordinator.storage.tables import deliveries
from protocol.cosem.delivery import PeriodResult

_READ_AT_ONCE = 64


class DeliveryState(StrEnum):
    """Whether a delivery was opened and checked."""

    NEW = "new"
    STORED = "stored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """
    One delivery; `gateway_id` is whose signature it bore, None for one that came through the administrator.

    `sender`, `profile`, `taf`, `start_s`, `end_s` (Unix, s), `is_complete` and `missing` (registration times of a load
    profile without a valid value) are None while nobody has opened it.
    """

    delivery_id: str
    gateway_id: str | None
    state: DeliveryState
    reason: str
    message: bytes
    sender: str | None
    profile: str | None
    taf: int | None
    start_s: int | None
    end_s: int | None
    is_complete: bool | None
    missing: int | None
    received_ms: int


class DeliveryRepository:
    """Table `deliveries`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, delivery_id: str) -> DeliveryRecord | None:
        """One delivery, None where it is not here."""
        with self._database.read() as connection:
            row = connection.execute(select(deliveries).where(deliveries.c.delivery_id == delivery_id)).mappings()
            found = row.first()
        return None if found is None else _record(found)

    def add(self, record: DeliveryRecord) -> bool:
        """Keep a delivery; False where one of the id is here already, which stays."""
        values = {column.name: getattr(record, column.name) for column in deliveries.columns}
        statement = self._database.insert(deliveries).values(values | {"state": record.state.value})
        added = statement.on_conflict_do_nothing().returning(deliveries.c.delivery_id)
        with self._database.write() as connection:
            return connection.execute(added).first() is not None

    def store(self, delivery_id: str, sender: str, result: PeriodResult, missing: int) -> None:
        """What a new one has in it."""
        self._change(
            delivery_id, state=DeliveryState.STORED.value, sender=sender, profile=result.profile, taf=result.taf,
            start_s=result.start_s, end_s=result.end_s, is_complete=result.is_complete, missing=missing,
        )  # fmt: skip

    def refuse(self, delivery_id: str, reason: str) -> None:
        """A new one that cannot be used."""
        self._change(delivery_id, state=DeliveryState.REFUSED.value, reason=reason[:80])

    def new(self, limit: int) -> list[DeliveryRecord]:
        """Those that nobody has opened."""
        wanted = select(deliveries).where(deliveries.c.state == DeliveryState.NEW.value)
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(deliveries.c.received_ms).limit(limit)).mappings()
            return [_record(row) for row in rows]

    def page(self, *, limit: int, after: str = "", gateway: str | None = None) -> list[DeliveryRecord]:
        """Deliveries by id, those behind `after`."""
        wanted = select(deliveries).where(deliveries.c.delivery_id > after)
        if gateway is not None:
            wanted = wanted.where(deliveries.c.gateway_id == gateway)
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(deliveries.c.delivery_id).limit(limit)).mappings()
            return [_record(row) for row in rows]

    def stored(self, from_s: int, to_s: int) -> Iterator[DeliveryRecord]:
        """Opened deliveries of periods that begin from `from_s` up to and without `to_s`, in parts, by id."""
        after = ""
        while True:
            wanted = select(deliveries).where(
                deliveries.c.delivery_id > after, deliveries.c.state == DeliveryState.STORED.value,
                deliveries.c.start_s >= from_s, deliveries.c.start_s < to_s,
            )  # fmt: skip
            with self._database.read() as connection:
                rows = connection.execute(wanted.order_by(deliveries.c.delivery_id).limit(_READ_AT_ONCE)).mappings()
                found = [_record(row) for row in rows]
            yield from found
            if len(found) < _READ_AT_ONCE:
                return
            after = found[-1].delivery_id

    def incomplete(self, limit: int) -> list[DeliveryRecord]:
        """Opened deliveries whose period has intervals without a valid value, the newest period first."""
        wanted = select(deliveries).where(
            deliveries.c.state == DeliveryState.STORED.value, deliveries.c.is_complete.is_(False)
        )
        with self._database.read() as connection:
            rows = connection.execute(
                wanted.order_by(deliveries.c.start_s.desc(), deliveries.c.delivery_id).limit(limit)
            ).mappings()
            return [_record(row) for row in rows]

    def starts(self) -> list[tuple[str, str, int, int]]:
        """Gateway, profile, start and end (Unix, s) of each opened delivery that bears a gateway's name, in order."""
        columns = (deliveries.c.gateway_id, deliveries.c.profile, deliveries.c.start_s, deliveries.c.end_s)
        wanted = select(*columns).where(
            deliveries.c.state == DeliveryState.STORED.value, deliveries.c.gateway_id.is_not(None)
        )
        with self._database.read() as connection:
            return [tuple(row) for row in connection.execute(wanted.order_by(*columns))]

    def _change(self, delivery_id: str, **values: object) -> None:
        mine = (deliveries.c.delivery_id == delivery_id, deliveries.c.state == DeliveryState.NEW.value)
        with self._database.write() as connection:
            connection.execute(deliveries.update().where(*mine).values(values))


def _record(row: RowMapping) -> DeliveryRecord:
    return DeliveryRecord(**{**row, "state": DeliveryState(row["state"])})
