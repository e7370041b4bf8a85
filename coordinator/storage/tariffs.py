"""Published tariffs, each with the signature that gateways check."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from coordinator.storage.engine import Database
from coordinator.storage.tables import tariffs
from protocol.dcnet.billing.tariff import Tariff, read_tariff
from protocol.errors import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class PublishedTariff:
    """A tariff with its signature; `certificate` is DER."""

    digest: bytes
    document: bytes
    signature: bytes
    certificate: bytes
    published_ms: int

    @property
    def tariff(self) -> Tariff:
        """What the document says."""
        return read_tariff(self.document)


class TariffRepository:
    """Table `tariffs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def publish(self, published: PublishedTariff) -> None:
        """Keep a signed tariff; the same one again keeps the newer signature."""
        row = {column.name: getattr(published, column.name) for column in tariffs.columns}
        statement = self._database.insert(tariffs).values(row)
        newer = {name: statement.excluded[name] for name in ("signature", "certificate")}
        with self._database.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=newer))

    def get(self, digest: bytes) -> PublishedTariff:
        """A published tariff.  Raises RemoteProtocolError `tariff_unknown`."""
        with self._database.read() as connection:
            row = connection.execute(select(tariffs).where(tariffs.c.digest == digest)).first()
        if row is None:
            raise RemoteProtocolError("tariff_unknown", "no published tariff has this digest")
        return PublishedTariff(*row)

    def newest(self, limit: int) -> tuple[bytes, ...]:
        """The digests of the newest tariffs, oldest first."""
        newest = select(tariffs.c.digest).order_by(tariffs.c.published_ms.desc(), tariffs.c.digest).limit(limit)
        with self._database.read() as connection:
            return tuple(reversed(connection.scalars(newest).all()))

    def all(self) -> list[PublishedTariff]:
        """All published tariffs, newest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(tariffs).order_by(tariffs.c.published_ms.desc(), tariffs.c.digest))
            return [PublishedTariff(*row) for row in rows]
