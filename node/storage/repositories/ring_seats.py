"""
What a gateway keeps of its last rings, to check the coordinator's word on a round when the ring is gone.

Table `ring_seat`: a row for each gateway and epoch, of its two newest epochs.  Nothing in it is secret: the epoch
digest, the result key and the gateway's position are in the layout.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.storage.engine import Statement, Store

EPOCHS_KEPT = 2


@dataclass(frozen=True, slots=True)
class RingSeat:
    """A gateway's place in one ring: enough to verify a RESULT and to read its roster."""

    epoch: int
    ring: int
    position: int
    digest: bytes
    result_key: bytes


class RingSeatRepository:
    """Seats of all gateways of a store.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def seat(self, gateway: str, epoch: int) -> RingSeat | None:
        """Where a gateway sat in an epoch; None where that is not known (any more)."""
        for ring, position, digest, result_key in self._store.read(
            "SELECT ring, position, digest, result_key FROM ring_seat WHERE gateway=? AND epoch=?", gateway, epoch
        ):
            return RingSeat(epoch, ring, position, digest, result_key)
        return None

    async def keep(self, gateway: str, seat: RingSeat) -> None:
        """Keep a seat, and only those of the gateway's `EPOCHS_KEPT` newest epochs.  Durable on return."""
        await self._store.write(
            [
                Statement(
                    "INSERT OR REPLACE INTO ring_seat VALUES (?, ?, ?, ?, ?, ?)",
                    (gateway, seat.epoch, seat.ring, seat.position, seat.digest, seat.result_key),
                ),
                Statement(
                    "DELETE FROM ring_seat WHERE gateway=? AND epoch NOT IN"
                    " (SELECT epoch FROM ring_seat WHERE gateway=? ORDER BY epoch DESC LIMIT ?)",
                    (gateway, gateway, EPOCHS_KEPT),
                ),
            ]
        )
