"""
The rings' subscription to the metering log: registers from logged readings, for the account and the ring of the day.

Its cursor moves with the contribution that a reading went into, in one transaction (`Contributions.attempted`): killed
between the two, a gateway reads again from the log what it has not contributed, and only that.  Registers that no ring
took are worth nothing once the next ones are complete, since energies are differences of the newest; the cursor then
follows once an hour.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from node.aggregation.contribution import Contributions
from node.metering.entries import Entry
from node.metering.log import Subscription
from node.metering.registers import Registers, RegisterSet
from node.storage.errors import StoreError

log = logging.getLogger(__name__)
NAME = "rings"
_BEHIND_US_MAX = 3_600_000_000  # what a restart reads again at most


class RingSubscriber:
    """
    Reads one gateway's log for its rings.

    `publish` hands registers to a ring, and says whether there was one; those that are not possible (`is_possible`:
    node.metering.physical_limits) are left out, the next ones take their energy along.  `waiting` are the last that
    found none.
    """

    __slots__ = ("_account", "_cursor", "_failed", "_is_possible", "_position", "_publish", "_registers", "waiting")

    def __init__(
        self, account: Contributions, registers: RegisterSet, cursor: Subscription,
        publish: Callable[[Registers], bool], failed: Callable[[StoreError], None],
        is_possible: Callable[[Registers], bool] = lambda _: True,
    ) -> None:  # fmt: skip
        self.waiting: Registers | None = None
        self._account = account
        self._registers = registers
        self._cursor = cursor
        self._publish = publish
        self._failed = failed
        self._is_possible = is_possible
        self._position = cursor.position  # of the registers before the last ones

    def use(self, registers: RegisterSet, is_possible: Callable[[Registers], bool]) -> None:
        """Go on with other registers, whose limits are others too; what waits is of the old ones."""
        self._registers, self._is_possible = registers, is_possible
        self.waiting = None

    async def start(self) -> None:
        """Read what the log has behind the cursor, and what comes.  Raises StoreError."""
        await self._cursor.attach(self._take)

    async def _take(self, entry: Entry) -> None:
        for registers in self._registers.take(entry):
            if not self._is_possible(registers):
                continue
            try:
                await self._account.first_reading(registers.values, registers.interval_s, registers.selection)
                if self._position - self._cursor.position > _BEHIND_US_MAX:
                    await self._cursor.advance(self._position)
            except StoreError as error:
                self._failed(error)
                return
            if registers.selection != self._account.selection:  # others were selected meanwhile
                return
            self._position = registers.position
            self.waiting = None if self._publish(registers) else registers

    def publish_again(self) -> None:
        """There is a ring now: it gets what was read before."""
        if self.waiting is not None and self._publish(self.waiting):
            self.waiting = None
