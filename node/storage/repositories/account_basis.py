"""
What gateways' ring accounts stand on: table `account_basis`, a row for each gateway.

Nothing in it is secret: a digest of which registers are summed, and a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.storage.engine import Statement, Store


@dataclass(frozen=True, slots=True)
class AccountBasis:
    """
    `selection` is the digest of the registers that the account sums, empty where it stands on none any more.

    Profiles cover it up to and without `until_s` (metering time, Unix, s).
    """

    selection: bytes
    until_s: int


class AccountBasisRepository:
    """Table `account_basis`.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def basis(self, gateway: str) -> AccountBasis | None:
        """What a gateway's account stands on; None where that was never noted."""
        for selection, until_s in self._store.read(
            "SELECT selection, until_s FROM account_basis WHERE gateway=?", gateway
        ):
            return AccountBasis(selection, until_s)
        return None

    async def put(self, gateway: str, basis: AccountBasis) -> None:
        """Keep it.  Durable on return."""
        await self._store.write(
            [
                Statement(
                    "INSERT OR REPLACE INTO account_basis VALUES (?, ?, ?)",
                    (gateway, basis.selection, basis.until_s),
                )
            ]
        )
