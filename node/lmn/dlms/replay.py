"""What was taken from a DLMS meter is durable before its reading goes on (`node.lmn.counters`)."""

from __future__ import annotations

from node.lmn.counters import CounterStore, ReplayCounters
from node.lmn.dlms.security import ReplayGuard
from node.lmn.profiles import MeterProfile


class DurableReplayGuard:
    """The invocation counters taken from one meter, which outlive the link and the process.  Raises StoreError."""

    def __init__(self, profile: MeterProfile, counters: CounterStore) -> None:
        self._taken = ReplayCounters(counters, profile.device, lambda _title: profile.key("encryption"))
        self._pending: dict[str, int] = {}
        highest = {bytes.fromhex(title): number for title, number in self._taken.highest().items()}
        self.guard = ReplayGuard(highest, self._note)

    def _note(self, title: bytes, number: int) -> None:
        self._pending[title.hex()] = number

    async def keep(self) -> None:
        """Return when all that was taken is on the disk.  Raises StoreError: then nothing of it may go on."""
        while self._pending:
            await self._taken.keep(*self._pending.popitem())
