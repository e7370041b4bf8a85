"""
What a gateway must not forget of the beacon: its tries, the values that it has shown, and how large its area was.

Tables `beacon_try` (values sealed), `area_size` (the largest of each day), `known_ids` (when each id of the area was
first listed, one packed row for each gateway) and `gateway_since`.  Times are real time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgpack

from node.storage.engine import Statement, Store
from protocol.dcnet.setup.beacon import Try

_DAY_MS = 86_400_000
_KEEP_SHOWN_MS = 2 * _DAY_MS  # a time lapse makes days shorter, never longer


@dataclass(frozen=True, slots=True)
class Since:
    """When this store first served a gateway, and whether that was before its enrolment: its keys are no older then."""

    since_ms: int
    is_first: bool


class BeaconRepository:
    """The tries of all gateways of a store.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cipher = store.cipher

    def since(self, gateway: str) -> Since | None:
        """Since when this store has served a gateway."""
        for since_ms, is_first in self._store.read(
            "SELECT since_ms, is_first FROM gateway_since WHERE gateway=?", gateway
        ):
            return Since(since_ms, bool(is_first))
        return None

    async def begin(self, gateway: str, since: Since) -> None:
        """Remember since when the store serves a gateway; the first word stands.  Durable on return."""
        sql = "INSERT OR IGNORE INTO gateway_since VALUES (?,?,?)"
        await self._store.write([Statement(sql, (gateway, since.since_ms, int(since.is_first)))])

    async def begin_anew(self, gateway: str, now_ms: int) -> None:
        """The store is older than its gateway: what it says of shown values is not true.  Durable on return."""
        await self._store.write([Statement("INSERT OR REPLACE INTO gateway_since VALUES (?,?,0)", (gateway, now_ms))])

    def load(self, gateway: str, epoch: int, number: int) -> Try | None:
        """A try as it was left; None where it was never begun."""
        for sealed, shown_for in self._store.read(
            "SELECT sealed, shown_for FROM beacon_try WHERE gateway=? AND epoch=? AND try=?", gateway, epoch, number
        ):
            value = self._cipher.open("beacon_try", (gateway, epoch, number), sealed)
            return Try(epoch, number, value, shown_for)
        return None

    async def add(self, gateway: str, each: Try, now_ms: int) -> None:
        """Keep a new try; those of two days ago, and others whose value was never shown, go.  Durable on return."""
        sealed = self._cipher.seal("beacon_try", (gateway, each.epoch, each.number), each.value)
        await self._store.write(
            [
                Statement(
                    "DELETE FROM beacon_try WHERE gateway=? AND (shown_ms IS NULL OR shown_ms<=?)",
                    (gateway, now_ms - _KEEP_SHOWN_MS),
                ),
                Statement(
                    "INSERT INTO beacon_try VALUES (?,?,?,?,NULL,NULL)", (gateway, each.epoch, each.number, sealed)
                ),
            ]
        )

    async def show(self, gateway: str, each: Try, now_ms: int) -> None:
        """The value of a try is about to be shown for its list.  Durable on return."""
        sql = (
            "UPDATE beacon_try SET shown_for=?, shown_ms=? WHERE gateway=? AND epoch=? AND try=? AND shown_for IS NULL"
        )
        await self._store.write([Statement(sql, (each.shown_for, now_ms, gateway, each.epoch, each.number))])

    def shown_ms(self, gateway: str) -> list[int]:
        """When values were shown: those of the last 24 hours, and older ones."""
        rows = self._store.read("SELECT shown_ms FROM beacon_try WHERE gateway=? AND shown_ms IS NOT NULL", gateway)
        return [shown for (shown,) in rows]

    def listed_ms(self, gateway: str) -> dict[str, int]:
        """When each id was listed first, as far as it is remembered."""
        for (packed,) in self._store.read("SELECT packed FROM known_ids WHERE gateway=?", gateway):
            return dict(msgpack.unpackb(packed))
        return {}

    async def put_listed(self, gateway: str, listed_ms: Mapping[str, int]) -> None:
        """Remember when ids were listed first.  Durable on return."""
        sql = "INSERT INTO known_ids VALUES (?,?) ON CONFLICT DO UPDATE SET packed=excluded.packed"
        await self._store.write([Statement(sql, (gateway, msgpack.packb(dict(listed_ms))))])

    def largest_area(self, gateway: str, since_day: int) -> int:
        """The most gateways that its area had on a day from `since_day` on; 0 where none is remembered."""
        sql = "SELECT COALESCE(MAX(size), 0) FROM area_size WHERE gateway=? AND day>=?"
        ((size,),) = self._store.read(sql, gateway, since_day)
        return int(size)

    async def note_area(self, gateway: str, day: int, size: int, forget_before_day: int) -> None:
        """Remember how many gateways the area had; what is older than `forget_before_day` goes.  Durable on return."""
        await self._store.write(
            [
                Statement("DELETE FROM area_size WHERE gateway=? AND day<?", (gateway, forget_before_day)),
                Statement(
                    "INSERT INTO area_size VALUES (?,?,?) ON CONFLICT DO UPDATE SET size=MAX(size, excluded.size)",
                    (gateway, day, size),
                ),
            ]
        )
