"""
Slow release: energy that missed its round comes back in many small parts, and none of it is lost.

An energy slot holds what a register moved since the last contribution that is in an opened total.  If all that was
missed came at once, a head that leaves a member out of every second round would read its consumption off the totals:
with it two intervals, without it none.  So a member that returns contributes as if it had been there, and carries the
rest:

- own = the mean of the intervals since its last included contribution, of one interval where none was missed;
- carry = what the register moved beyond the account and own;
- at each return S = max(16, ceil(A / 2)), A being all intervals that were missed since nothing was carried, and
  part = ceil(carry / S), which stays until the next return;
- contribution = min(own + min(carry, part), limit), and the account moves by that.

Σ contributions = what the account moved, always; register - account = what is carried.  Half of A, so that a
contribution is at most three times the mean of an interval (own, and two of those that were missed): the limit, which a
range proof must cover, is known beforehand (setup.ranges).

Own is a mean, and not the last interval, for two reasons.  A gateway that was away has no register of the interval
before; and everything here follows from registers at included contributions, so the same rosters and meters give the
same totals, whatever a gateway saw in between (loadtest.truth holds totals to that).

The first contribution of an account carries nothing: since its first reading nobody has missed it.  It is bounded all
the same, and what is beyond the limit is carried like what was missed.
"""

from __future__ import annotations

from typing import NamedTuple

PARTS_MIN = 16
UNLIMITED = 2**63 - 1
"""Of a slot that nobody commits to; what a household can move in three intervals is far below."""


class EnergyAccount(NamedTuple):
    """
    One register's account, in units of its slot.

    `contributed` is the register up to which energy is in opened totals, by amount.  `register` and `interval_s` (start
    of the interval, Unix time of metering) are those of the last included contribution; -1: there was none yet, and
    `register` is that of the first reading.  `absent` counts the intervals missed since nothing was carried, `part` is
    what each contribution releases.
    """

    contributed: int
    register: int
    interval_s: int = -1
    absent: int = 0
    part: int = 0

    @property
    def carried(self) -> int:
        """What is still to be released, as of the last included contribution."""
        return self.register - self.contributed


def contribute(
    account: EnergyAccount, register: int, interval_s: int, *, length_s: int, limit: int = UNLIMITED
) -> tuple[int, EnergyAccount]:
    """
    What goes into a total for the interval that starts at `interval_s`, and the account once that total is opened.

    `register` is at least what was contributed; `length_s` is how long an interval is, `limit` the most that may go
    into one total.  Pure: a contribution that does not open leaves the account as it was.
    """
    missed = 0 if account.interval_s < 0 else max(0, (interval_s - account.interval_s) // length_s - 1)
    moved = max(0, register - account.register)
    if not missed and account.contributed == account.register and moved <= limit:  # nearly always
        return moved, EnergyAccount(register, register, interval_s)
    own = moved // (missed + 1)
    carry = register - account.contributed - own
    absent, part = account.absent, account.part
    if carry <= 0:
        absent, part = 0, 0
    elif missed or not part:
        absent += missed
        part = -(-carry // parts(absent))
    contribution = min(own + min(carry, part), limit)
    contributed = account.contributed + contribution
    if contributed == register:
        absent, part = 0, 0
    return contribution, EnergyAccount(contributed, register, interval_s, absent, part)


def parts(absent: int) -> int:
    """Into how many parts the energy of so many missed intervals is cut."""
    return max(PARTS_MIN, -(-absent // 2))
