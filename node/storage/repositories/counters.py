"""
Counters that must never go back: numbers that were reserved for sending, and numbers that were taken from senders.

Tables `counter` and `taken`; why they are as they are says node.lmn.counters.
"""

from __future__ import annotations

from node.storage.engine import Statement, Store


class CounterRepository:
    """The counters of all gateways of a store.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def next_number(self, name: str) -> int | None:
        """The first number of `name` that is not reserved; None for a new name."""
        for (number,) in self._store.read("SELECT next FROM counter WHERE name=?", name):
            return int(number)
        return None

    async def reserve_up_to(self, name: str, number: int) -> None:
        """All numbers of `name` below `number` are reserved.  Durable on return."""
        sql = "INSERT INTO counter VALUES (?,?) ON CONFLICT(name) DO UPDATE SET next=excluded.next"
        await self._store.write([Statement(sql, (name, number))])

    def taken(self, receiver: str) -> dict[str, int]:
        """The highest number that `receiver` took from each sender."""
        return dict(self._store.read("SELECT sender, number FROM taken WHERE receiver=?", receiver))

    async def take(self, receiver: str, sender: str, number: int) -> None:
        """Remember that `receiver` took this number of `sender`, the highest so far.  Durable on return."""
        sql = "INSERT INTO taken VALUES (?,?,?) ON CONFLICT(receiver, sender) DO UPDATE SET number=excluded.number"
        await self._store.write([Statement(sql, (receiver, sender, number))])
