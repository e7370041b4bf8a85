"""Certificates and keys of the wired LMN that were renewed: table `lmn_pairing`, a row for each meter, sealed."""

from __future__ import annotations

from node.storage.engine import Statement, Store


class PairingRepository:
    """The renewed pairings of a store.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cipher = store.cipher

    def pairing(self, meter: str, origin: bytes) -> bytes | None:
        """What has become of the pair with the digest `origin`; None where nothing was renewed."""
        rows = self._store.read("SELECT pairing FROM lmn_pairing WHERE meter=? AND origin=?", meter, origin)
        return self._cipher.open("lmn_pairing", (meter, origin), rows[0][0]) if rows else None

    async def keep(self, meter: str, origin: bytes, pairing: bytes) -> None:
        """Keep a meter's pairing in the place of the one before.  Durable on return."""
        sql = (
            "INSERT INTO lmn_pairing VALUES (?,?,?) ON CONFLICT(meter) DO UPDATE SET origin=excluded.origin,"
            " pairing=excluded.pairing"
        )
        sealed = self._cipher.seal("lmn_pairing", (meter, origin), pairing)
        await self._store.write([Statement(sql, (meter, origin, sealed))])
