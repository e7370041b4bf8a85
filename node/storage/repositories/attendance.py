"""
Tables `attendance` and `newest_epoch`: how often each gateway came back into a total, and when its newest epoch began.

Neither says what a household uses; the file is the owner's alone, so they are kept in the clear.
"""

from __future__ import annotations

from node.storage.engine import Statement, Store
from protocol.dcnet.discipline.returns import Attendance
from protocol.dcnet.setup.calendar import NewestEpoch


class AttendanceRepository:
    """Of all gateways of a store.  Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def attendance(self, gateway: str) -> Attendance | None:
        """A gateway's account of returns; None where this store has none."""
        for row in self._store.read(
            "SELECT tokens, refilled_s, served_s, entered_s FROM attendance WHERE gateway=?", gateway
        ):
            return Attendance(*row)
        return None

    async def begin(self, gateway: str, attendance: Attendance) -> None:
        """Make a gateway's account of returns; does nothing where there is one.  Durable on return."""
        await self._store.write([self._put("INSERT OR IGNORE", gateway, attendance)])

    async def replace(self, gateway: str, attendance: Attendance) -> None:
        """Make a gateway's account of returns anew.  Durable on return."""
        await self._store.write([self.put(gateway, attendance)])

    def put(self, gateway: str, attendance: Attendance) -> Statement:
        """What a transaction says to keep it."""
        return self._put("INSERT OR REPLACE", gateway, attendance)

    def _put(self, verb: str, gateway: str, kept: Attendance) -> Statement:
        row = gateway, kept.tokens, kept.refilled_s, kept.served_s, kept.entered_s
        return Statement(f"{verb} INTO attendance VALUES (?, ?, ?, ?, ?)", row)

    def newest_epoch(self, gateway: str) -> NewestEpoch | None:
        """The newest epoch of which the gateway has a layout."""
        for row in self._store.read("SELECT epoch, start_s FROM newest_epoch WHERE gateway=?", gateway):
            return NewestEpoch(*row)
        return None

    async def put_newest_epoch(self, gateway: str, newest: NewestEpoch) -> None:
        """Durable on return."""
        row = gateway, newest.epoch, newest.start_s
        await self._store.write([Statement("INSERT OR REPLACE INTO newest_epoch VALUES (?, ?, ?)", row)])
