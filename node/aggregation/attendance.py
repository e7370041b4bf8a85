"""
One gateway's account of its returns into totals (protocol.dcnet.discipline.returns): durable, and shared by its epochs.

What a share costs is part of the transaction that makes its contribution durable, so a payment is never lost and a
share never leaves unpaid.
"""

from __future__ import annotations

from typing import Protocol

from node.storage.engine import Statement
from protocol.dcnet.discipline.returns import Attendance, EpochAttendance
from protocol.dcnet.machines.effects import Attempted, Progress
from protocol.metering.interval import RegistrationGrid


class AttendanceStore(Protocol):
    """What it is kept in; see node.storage.repositories.attendance.  Every method raises StoreError."""

    def attendance(self, gateway: str) -> Attendance | None: ...  # noqa: D102
    async def replace(self, gateway: str, attendance: Attendance) -> None: ...  # noqa: D102
    def put(self, gateway: str, attendance: Attendance) -> Statement: ...  # noqa: D102


class GatewayAttendance:
    """Reads its durable state when made; `start` before it is asked."""

    def __init__(self, store: AttendanceStore, gateway: str) -> None:
        self._store = store
        self._gateway = gateway
        self._attendance = store.attendance(gateway)

    async def start(self, now_s: int) -> None:
        """
        There is an account from here on; one that begins now, at `now_s` of metering time, belongs to an older key.

        A gateway that is enrolled gets its account then (`node.fleet`).  Raises StoreError.
        """
        if self._attendance is None:
            await self.start_anew(now_s)

    async def start_anew(self, now_s: int) -> None:
        """The store is older than its gateway: what it says of returns is not true any more.  Raises StoreError."""
        attendance = Attendance.first(now_s, is_key_new=False)
        await self._store.replace(self._gateway, attendance)
        self._attendance = attendance

    def of_epoch(self, grid: RegistrationGrid) -> EpochAttendance:
        """As an epoch's member sees it."""
        return EpochAttendance(self._started, grid.metering_start_s, grid.interval_s)

    def after(self, interval_s: int, record: Attempted) -> Attendance:
        """The account once a record of an attempt in this interval is durable."""
        if record.progress is Progress.SERVED:
            return self._started.served(interval_s)
        return self._started.entered(interval_s, is_return=record.is_return)

    @property
    def _started(self) -> Attendance:
        if self._attendance is None:
            raise ValueError("an account of returns is started before it is read")
        return self._attendance

    def put(self, attendance: Attendance) -> Statement:
        """What a transaction says to keep it."""
        return self._store.put(self._gateway, attendance)

    def moved(self, attendance: Attendance) -> None:
        """It is durable."""
        self._attendance = attendance
