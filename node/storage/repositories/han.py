"""What the interface to the home keeps secret: table `han_secret`, a row for each gateway and name, sealed."""

from __future__ import annotations

from node.storage.engine import Statement, Store


class HanSecretRepository:
    """Secrets by name (`certificate`, `user/NAME`).  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def secret(self, gateway: str, name: str) -> bytes | None:
        """The octets kept under a name, None where there are none.  Raises SealError too."""
        for (sealed,) in self._store.read("SELECT sealed FROM han_secret WHERE gateway=? AND name=?", gateway, name):
            return self._store.cipher.open("han_secret", (gateway, name), sealed)
        return None

    async def keep(self, gateway: str, name: str, secret: bytes) -> None:
        """Keep octets in the place of those that were there.  Durable on return."""
        sealed = self._store.cipher.seal("han_secret", (gateway, name), secret)
        sql = "INSERT INTO han_secret VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET sealed=excluded.sealed"
        await self._store.write([Statement(sql, (gateway, name, sealed))])
