"""
Which registration time a value counts for: the rule of PTB-A 50.8, on what is known of when it was measured.

A register is read to be *the* value of a quarter hour's beginning.  It is that if it was measured within 1 % of the
registration period from it, before or after (TR-03109-1 detail specification 2.0, wireless M-Bus, mode "Compact
Profile", names the same window).  A value measured later in the period is late (`on_time` is false): it still says what
the period began with at most.  A ring takes it, and the energy until then counts for the interval before instead of the
next one; what must have the registration time's own value leaves it out.

When a value was measured is often known as an interval only: after the gateway asked and before the answer came; after
the line was last known to be empty and before the telegram was read.  Where such an interval leaves open which
registration time is meant the value counts for none.  The time at which a reading is *delivered* plays no part: a
process that was stopped for a minute delivers what was measured a minute ago.
"""

from __future__ import annotations

from typing import NamedTuple

from protocol.metering.interval import RegistrationGrid

TOLERANCE = 0.01  # of the registration period, to either side of the registration time


class Measured(NamedTuple):
    """A value was measured between `earliest_s` and `latest_s`, both real time (Unix, seconds) and both included."""

    earliest_s: float
    latest_s: float

    @classmethod
    def at(cls, moment_s: float) -> Measured:
        """The moment is known."""
        return cls(moment_s, moment_s)

    def within(self, earliest_s: float, latest_s: float) -> Measured:
        """
        The part of it that a second source of time leaves.

        A source that contradicts it altogether is taken instead of it.
        """
        low, high = max(self.earliest_s, earliest_s), min(self.latest_s, latest_s)
        return Measured(low, high) if low <= high else Measured(earliest_s, latest_s)


class Arrival(NamedTuple):
    """
    What a line knows of a telegram: its values were measured at `earliest_s` (real time) or later.

    `asked`: the gateway had asked for it.
    """

    earliest_s: float
    asked: bool


class Registration(NamedTuple):
    """The index of the registration period that a value counts for; whether it was measured within the tolerance."""

    period: int
    on_time: bool


def registration(grid: RegistrationGrid, measured: Measured, *, asked: bool) -> Registration | None:
    """
    The registration that a value counts for; None where that is not certain.

    `asked`: the gateway chose the moment, and it asks after a registration time.  What was asked for before one is the
    earlier period's, also within the tolerance; a meter that speaks unasked may be up to 1 % early.
    """
    index = grid.index_at(measured.earliest_s)
    tolerance_s = TOLERANCE * grid.period_s
    following_s = grid.time_s(index + 1)
    if (
        not asked
        and measured.earliest_s >= following_s - tolerance_s
        and measured.latest_s <= following_s + tolerance_s
    ):
        return Registration(index + 1, on_time=True)
    if grid.index_at(measured.latest_s) != index:
        return None
    return Registration(index, on_time=measured.latest_s - grid.time_s(index) <= tolerance_s)


def next_border_s(grid: RegistrationGrid, now_s: float) -> float:
    """The next moment from which on values count for another registration: a registration time, or 1 % before one."""
    following_s = grid.next_time_s(now_s)
    early_s = following_s - TOLERANCE * grid.period_s
    return early_s if early_s > now_s else following_s
