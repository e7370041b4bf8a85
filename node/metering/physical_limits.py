"""
Whether registers can be true: a register rises by no more than the connection carries in the time between.

A meter that is exchanged, counts in another unit or sends damaged digits that pass its check sum would put its error
into a total, and it would be billed.  So registers over the limit are held back, not contributed.  Nothing is lost:
energies are differences of cumulative registers, and the next registers that are possible take the energy along.  The
limit grows with the time since the last registers that were accepted, so a jump that stays (a meter that was exchanged)
is accepted once the connection could have carried it, and until then every reading counts and says so.

After a restart registers are held against those of the last contribution.  Where energy was carried at that time these
are lower than what was read, so the first readings may wait for some intervals more.
"""

from __future__ import annotations

from node.metering.registers import Registers
from protocol.dcnet.setup.ranges import slot_limit
from protocol.dcnet.setup.schema import Kind, Schema
from protocol.metering.interval import QUARTER_HOUR_S


class PhysicalLimits:
    """Those of one gateway behind fuses of `fuse_a` A, for the slots of its schema."""

    __slots__ = ("_accepted", "_fuse_a", "_slots")

    def __init__(self, schema: Schema, fuse_a: int, last: Registers | None = None) -> None:
        """`last` are the registers that were contributed last."""
        self._slots = schema.slots
        self._fuse_a = fuse_a
        self._accepted = last

    def exceeded(self, registers: Registers) -> str | None:
        """The OBIS code of the first register that is over its limit; None: these registers are accepted."""
        last = self._accepted
        between_s = QUARTER_HOUR_S if last is None else max(QUARTER_HOUR_S, registers.interval_s - last.interval_s)
        has_fallen = False
        for index, (slot, value) in enumerate(zip(self._slots, registers.values, strict=True)):
            if slot.kind is Kind.ENERGY:
                moved = 0 if last is None else value - last.values[index]
                has_fallen |= moved < 0
            else:
                moved = abs(value)
            limit = slot_limit(slot, self._fuse_a, between_s)
            if limit is not None and moved > limit:
                return slot.obis
        if not has_fallen:  # those are refused by the account, and must not make the next ones look like a jump
            self._accepted = registers
        return None
