"""
What sharing in a round costs a member: nothing, a token, or more than it has (discipline.returns).

The member keeps which rounds of the epoch ended and how, and when it served; the driver says what is durable of its
returns over all epochs.  Rules for an OPEN, which names those that served since the last opened round (V):

- A V without us is refused where we served since: it would make the void rounds look empty to the others.  "Since"
  counts the rounds whose ends the OPEN counts (q), and no other end that we were told: what is in no h_q yet may have
  been told to us alone, a round that is still to come included.
- Sharing is no return where we served in the interval before, or where all rounds since we served or shared are void
  and fewer than t - c members are in V or outside E: then nobody can have opened one of them in secret.  V binds those
  in E alone, since the others refuse nothing.
- Any other share is a return, for a token; without one the member waits, and says so in READY.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from protocol.dcnet.discipline.returns import EpochAttendance
from protocol.dcnet.machines.history import History
from protocol.dcnet.setup.rings import RingView


@dataclass(slots=True)
class Returns:
    """
    Of the member at `position` in one epoch.

    Without an `attendance` nothing is counted, and V is checked all the same.  `served_round` is the last in which we
    served; `is_another_process` where that was the process before us.
    """

    view: RingView = field(repr=False)
    position: int
    history: History = field(repr=False)
    attendance: EpochAttendance | None = None
    served_round: int = -1
    is_another_process: bool = False
    _opened: int = 0  # rounds, as bits
    _void: int = 0
    _is_denied: bool = False  # an OPEN since the last opened round asked for a token that we had not

    def start(self) -> dict[str, Any] | None:
        """What it begins with, for the event log; None where nothing is counted."""
        return None if self.attendance is None else asdict(self.attendance)

    def update(self, attendance: EpochAttendance) -> None:
        """What is durable now: another epoch may have moved it."""
        self.attendance = attendance

    @property
    def has_served(self) -> bool:
        """
        Whether we served since the last opened round, as READY says.

        Where the process before us did, only the history says so: until then every start would name us in vain.
        """
        settled = self.history.settled
        is_known = not self.is_another_process or self.served_round < settled
        return is_known and self.served_round > self._last_opened(settled)

    def _last_opened(self, settled: int) -> int:
        return (self._opened & ((1 << settled) - 1)).bit_length() - 1

    def is_left_out(self, round_: int, settled: int, served: int) -> bool:
        """Whether V, a bitmap, leaves out that we served since the last opened one of the first `settled` rounds."""
        return self._last_opened(settled) < self.served_round < round_ and not served >> self.position & 1

    def is_return(self, round_: int, expected: int, served: int) -> bool:
        """Whether sharing in a round with these members, bitmaps of E and V, is a return that costs a token."""
        mine = self.attendance
        return mine is not None and not mine.is_in(round_) and not self._is_excused(mine, round_, expected, served)

    def can_pay(self, round_: int) -> bool:
        """Whether there is a token for a return in this round; where not, READY says that we wait."""
        has_token = self.attendance is None or self.attendance.has_token(round_)
        self._is_denied |= not has_token
        return has_token

    def is_waiting(self, round_: int) -> bool:
        """Whether we could not share in this round for want of a token."""
        mine = self.attendance
        if mine is None or mine.is_in(round_) or mine.has_token(round_):
            return False
        return self._is_denied or not self._is_excused(mine, round_, self.view.everybody, 0)

    def _is_excused(self, mine: EpochAttendance, round_: int, expected: int, served: int) -> bool:
        first = mine.last_round + mine.served_in(mine.last_round)  # the first round that must be void
        since = (1 << round_) - (1 << first) if first >= 0 else -1
        may_have_served = (served | self.view.everybody & ~expected).bit_count()
        return self._void & since == since and may_have_served < self.view.t - self.view.corrupt

    def shared(self, round_: int, *, is_return: bool) -> None:
        """We share in a round."""
        if self.attendance is not None:
            self.attendance = self.attendance.entered(round_, is_return=is_return)

    def served(self, round_: int) -> None:
        """We serve in a round."""
        self.served_round, self.is_another_process = max(self.served_round, round_), False
        if self.attendance is not None:
            self.attendance = self.attendance.served(round_)

    def ended(self, round_: int, *, is_opened: bool) -> None:
        """A round has ended."""
        if is_opened:
            self._opened |= 1 << round_
            self._is_denied = False
        else:
            self._void |= 1 << round_
