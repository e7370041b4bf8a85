"""
The profile sets of all gateways of a store: table `profile_set`, each version's canonical JSON, sealed.

The version is not sealed: a set that does not open still keeps every version up to its own from coming back.
"""

from __future__ import annotations

from node.storage.engine import Statement, Store

_TABLE = "profile_set"
KEPT_MAX = 16
"""Versions of a gateway that are kept: results of a past billing period are explained by the set that was in force."""


class ProfileSetRepository:
    """Table `profile_set`.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def newest_version(self, gateway: str) -> int:
        """The version of the newest set, 0 where there is none."""
        ((version,),) = self.store.read("SELECT coalesce(max(version), 0) FROM profile_set WHERE gateway=?", gateway)
        return int(version)

    def versions(self, gateway: str) -> list[int]:
        """Those that are kept, the newest first."""
        rows = self.store.read("SELECT version FROM profile_set WHERE gateway=? ORDER BY version DESC", gateway)
        return [int(version) for (version,) in rows]

    def document(self, gateway: str, version: int) -> bytes | None:
        """A set's canonical JSON, None where there is none of the version.  Raises SealError too."""
        for (sealed,) in self.store.read(
            "SELECT sealed FROM profile_set WHERE gateway=? AND version=?", gateway, version
        ):
            return self.store.cipher.open(_TABLE, (gateway, version), sealed)
        return None

    def add(self, gateway: str, version: int, document: bytes) -> list[Statement]:
        """Keep a set as the newest one, and of the older ones the newest; a version that is there is refused."""
        sealed = self.store.cipher.seal(_TABLE, (gateway, version), document)
        return [
            Statement("INSERT INTO profile_set VALUES (?, ?, ?)", (gateway, version, sealed)),
            Statement(
                "DELETE FROM profile_set WHERE gateway=? AND version <= (SELECT version FROM profile_set"
                " WHERE gateway=? ORDER BY version DESC LIMIT 1 OFFSET ?)",
                (gateway, gateway, KEPT_MAX),
            ),
        ]
