"""
The price sheets (tariffs) that epoch calls have listed, by their digests.

A gateway notes a call's list once it is in an opened total of that epoch: everybody in that total was shown the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.storage.engine import Statement, Store

SHEETS_A_DAY_MAX = 64
_DAY_S = 86_400


class PriceSheetRepository:
    """Table `price_sheet`.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def is_listed(self, gateway: str, digest: bytes) -> bool:
        """Whether a call that the gateway took part in listed this sheet."""
        return bool(self._store.read("SELECT 1 FROM price_sheet WHERE gateway=? AND digest=?", gateway, digest))

    async def note(self, gateway: str, digests: Sequence[bytes], now_s: int, keep_s: int) -> int:
        """
        Keep the list of a call for `keep_s`, at `now_s` of metering time; how many new ones were too many for a day.

        Durable on return; nothing is written where nothing is new.
        """
        known: dict[bytes, int] = dict(
            self._store.read("SELECT digest, listed_s FROM price_sheet WHERE gateway=?", gateway)
        )
        room = SHEETS_A_DAY_MAX - sum(listed_s > now_s - _DAY_S for listed_s in known.values())
        new = [each for each in dict.fromkeys(digests) if each not in known]
        taken = new[: max(0, room)]
        if taken:
            await self._store.write(
                [
                    *(Statement("INSERT INTO price_sheet VALUES (?, ?, ?)", (gateway, each, now_s)) for each in taken),
                    Statement("DELETE FROM price_sheet WHERE gateway=? AND listed_s<?", (gateway, now_s - keep_s)),
                ]
            )
        return len(new) - len(taken)
