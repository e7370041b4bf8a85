"""Published tariffs in the coordinator's database, each with the signature that gateways check."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from coordinator.store import Store
from coordinator.tables import tariffs
from protocol import wire
from protocol.dcnet.billing.tariff import Tariff, read_tariff, tariff_digest
from protocol.errors import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class Published:
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


class Tariffs:
    """The tariffs of one coordinator's database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def publish(self, tariff: Tariff, signature: bytes, certificate: bytes, now_ms: int) -> Published:
        """Keep a signed tariff; the same one again keeps the newer signature."""
        document = tariff.to_bytes()
        if len(document) > wire.MAX_TARIFF_SIZE:
            raise RemoteProtocolError("bad_tariff", f"expected a document of at most {wire.MAX_TARIFF_SIZE} bytes")
        made = Published(tariff_digest(document), document, signature, certificate, now_ms)
        statement = self._store.insert(tariffs).values(
            digest=made.digest, document=document, signature=signature, certificate=certificate, published_ms=now_ms
        )
        with self._store.write() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["digest"],
                    set_={
                        "signature": statement.excluded.signature,
                        "certificate": statement.excluded.certificate,
                    },
                )
            )
        return made

    def one(self, digest: bytes) -> Published:
        """A published tariff.  Raises RemoteProtocolError `tariff_unknown`."""
        with self._store.read() as connection:
            return published_tariff(connection, digest)

    def all(self) -> list[Published]:
        """All published tariffs, newest first."""
        with self._store.read() as connection:
            rows = connection.execute(select(tariffs).order_by(tariffs.c.published_ms.desc(), tariffs.c.digest))
            return [Published(*row) for row in rows]


def published_tariff(connection: Connection, digest: bytes) -> Published:
    """A published tariff, in a transaction that is open.  Raises RemoteProtocolError `tariff_unknown`."""
    row = connection.execute(select(tariffs).where(tariffs.c.digest == digest)).first()
    if row is None:
        raise RemoteProtocolError("tariff_unknown", "no published tariff has this digest")
    return Published(*row)
