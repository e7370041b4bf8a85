"""Firmware images, and which one each gateway is to run: tables `firmware_images` and `firmware_orders`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import LargeBinary, RowMapping, cast, func, select

from coordinator.storage.engine import Database
from coordinator.storage.patterns import matches
from coordinator.storage.tables import firmware_images as images
from coordinator.storage.tables import firmware_orders as orders


class OrderState(StrEnum):
    """How an order stands: what its gateway said of it."""

    WAITING = "waiting"
    STAGED = "staged"
    RUNNING = "running"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"


UNFINISHED = frozenset({OrderState.WAITING, OrderState.STAGED})
"""Such an order is offered to its gateway."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A release without its image; `manifest` is canonical JSON."""

    version: str
    sha256: str
    manifest: bytes
    created_ms: int


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """
    The newest order for one gateway; `message` is CMS of the administrator.

    `receipt` is the gateway's, CMS, None while the state is waiting; times are Unix, ms, `answered_ms` by its clock.
    """

    gateway_id: str
    version: str
    message: bytes
    state: OrderState
    reason: str
    receipt: bytes | None
    issued_ms: int
    answered_ms: int | None


class FirmwareRepository:
    """Both tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_image(self, record: ImageRecord, image: bytes) -> None:
        """Keep a release; one of its version that is there stays."""
        values = {
            "version": record.version, "sha256": record.sha256, "manifest": record.manifest, "image": image,
            "created_ms": record.created_ms,
        }  # fmt: skip
        with self._database.write() as connection:
            connection.execute(self._database.insert(images).values(values).on_conflict_do_nothing())

    def image(self, version: str) -> ImageRecord | None:
        """A release, None where there is none of the version."""
        return next((each for each in self.images() if each.version == version), None)

    def images(self) -> list[ImageRecord]:
        """All releases, the oldest first."""
        wanted = select(images.c.version, images.c.sha256, images.c.manifest, images.c.created_ms)
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(images.c.created_ms, images.c.version)).mappings()
            return [ImageRecord(**row) for row in rows]

    def part(self, version: str, offset: int, size: int) -> bytes:
        """So many bytes of an image from `offset` on; fewer at its end, none behind it."""
        wanted = select(cast(func.substr(images.c.image, offset + 1, size), LargeBinary))
        with self._database.read() as connection:
            found = connection.execute(wanted.where(images.c.version == version)).scalar_one_or_none()
        return b"" if found is None else bytes(found)

    def remove_image(self, version: str) -> bool:
        """Delete a release; False where an order names it."""
        named = select(orders.c.gateway_id).where(orders.c.version == version).limit(1)
        with self._database.write() as connection:
            if connection.execute(named).first() is not None:
                return False
            connection.execute(images.delete().where(images.c.version == version))
        return True

    def put_orders(self, records: Sequence[OrderRecord]) -> None:
        """Keep orders, each in place of its gateway's last."""
        with self._database.write() as connection:
            for record in records:
                values = {column.name: getattr(record, column.name) for column in orders.columns}
                statement = self._database.insert(orders).values(values | {"state": record.state.value})
                changed = {name: statement.excluded[name] for name in values if name != "gateway_id"}
                connection.execute(statement.on_conflict_do_update(index_elements=["gateway_id"], set_=changed))

    def orders(self, gateways: Collection[str]) -> dict[str, OrderRecord]:
        """The orders of these gateways."""
        with self._database.read() as connection:
            rows = connection.execute(select(orders).where(orders.c.gateway_id.in_(gateways))).mappings()
            return {row["gateway_id"]: _record(row) for row in rows}

    def answer(self, order: OrderRecord, state: OrderState, reason: str, receipt: bytes, at_ms: int) -> None:
        """Keep what a gateway said of this order, unless it has another one by now."""
        wanted = (orders.c.gateway_id == order.gateway_id, orders.c.issued_ms == order.issued_ms)
        values = {"state": state.value, "reason": reason, "receipt": receipt, "answered_ms": at_ms}
        with self._database.write() as connection:
            connection.execute(orders.update().where(*wanted).values(values))

    def page(
        self, *, limit: int, after: str = "", state: OrderState | None = None, gateway: str | None = None
    ) -> list[OrderRecord]:
        """Orders of gateways with an id behind `after`, by id; `gateway` may have * in it."""
        wanted = select(orders).where(orders.c.gateway_id > after)
        if state is not None:
            wanted = wanted.where(orders.c.state == state.value)
        if gateway is not None:
            wanted = wanted.where(matches(orders.c.gateway_id, gateway))
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(orders.c.gateway_id).limit(limit)).mappings()
            return [_record(row) for row in rows]


def _record(row: RowMapping) -> OrderRecord:
    return OrderRecord(**{**row, "state": OrderState(row["state"])})
