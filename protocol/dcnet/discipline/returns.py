"""
How often a member comes back: a bucket of tokens, of which each return into the totals spends one.

Whoever draws the rosters learns of a member from totals with it and without it.  It cannot be kept from leaving a
member out, but each time that it takes it in again the member decides: a return costs a token, there are four at most,
and one comes back every four hours of metering time.  Without a token the member waits outside.

A round counts as a return where the member did not *serve* in the interval before: what RESULTs claim does not count,
nor do a new epoch or a gap in the calendar.  A return is paid once, with the first share of the round; the payment is
durable before that share leaves.

Rounds that opened for nobody are no absence, or a bad network would empty every bucket.  But a head can open a round
and call it void.  It needs the seeds of all that shared; the seed of one that did not serve takes t helpers that did,
at most c of them corrupt.  So where fewer than t - c of E served since the last opened round (V of OPEN, which whoever
served checks for itself) nothing has opened, and the void rounds cost nothing.

Where the bucket is new: a gateway whose key was made beside this store begins with four tokens.  A key that is older
than the store begins with none, since the store that counted its returns is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

TOKENS_MAX = 4
REFILL_S = 4 * 3600
NEVER = -(2**62)


@dataclass(frozen=True, slots=True)
class Attendance:
    """
    A gateway's durable account of its returns, over all epochs.  Times are starts of intervals, Unix time of metering.

    `tokens` were there at `refilled_s`; `served_s` is the last interval in which it served, `entered_s` the last one
    in which it shared.
    """

    tokens: int
    refilled_s: int
    served_s: int = NEVER
    entered_s: int = NEVER

    @classmethod
    def first(cls, now_s: int, *, is_key_new: bool) -> Attendance:
        """A new store's: with a key that was made beside it, or an older one."""
        return cls(TOKENS_MAX if is_key_new else 0, now_s)

    def tokens_at(self, now_s: int) -> int:
        """How many tokens there are; time that goes backward gives none."""
        return min(TOKENS_MAX, self.tokens + max(0, now_s - self.refilled_s) // REFILL_S)

    def entered(self, interval_s: int, *, is_return: bool) -> Attendance:
        """It shares in an interval, for a token where that is a return that costs one."""
        tokens = self.tokens_at(interval_s)
        full = tokens == TOKENS_MAX
        refilled_s = max(self.refilled_s, interval_s) if full else self.refilled_s + (tokens - self.tokens) * REFILL_S
        return replace(
            self, tokens=tokens - is_return, refilled_s=refilled_s, entered_s=max(self.entered_s, interval_s)
        )

    def served(self, interval_s: int) -> Attendance:
        """It served in an interval."""
        return replace(self, served_s=max(self.served_s, interval_s))


@dataclass(frozen=True, slots=True)
class EpochAttendance:
    """In rounds of one epoch: round 0 is the interval at `first_s`, and intervals are `length_s` long."""

    attendance: Attendance
    first_s: int
    length_s: int

    def is_in(self, round_: int) -> bool:
        """Whether sharing in a round is no return: it shares in it already, or served in the interval before."""
        interval_s, mine = self._interval_s(round_), self.attendance
        return mine.entered_s >= interval_s or mine.served_s + self.length_s >= interval_s

    def has_token(self, round_: int) -> bool:
        """Whether a return in this round can be paid."""
        return self.attendance.tokens_at(self._interval_s(round_)) > 0

    @property
    def last_round(self) -> int:
        """The last round in which it served or shared; below 0: one of an earlier epoch."""
        last_s = max(self.attendance.served_s, self.attendance.entered_s)
        return (last_s - self.first_s) // self.length_s

    def served_in(self, round_: int) -> bool:
        """Whether this is the last round in which it served."""
        return self.attendance.served_s == self._interval_s(round_)

    def entered(self, round_: int, *, is_return: bool) -> EpochAttendance:
        """As `Attendance.entered`."""
        return replace(self, attendance=self.attendance.entered(self._interval_s(round_), is_return=is_return))

    def served(self, round_: int) -> EpochAttendance:
        """As `Attendance.served`."""
        return replace(self, attendance=self.attendance.served(self._interval_s(round_)))

    def _interval_s(self, round_: int) -> int:
        return self.first_s + round_ * self.length_s
