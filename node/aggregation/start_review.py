"""
What a gateway may contribute after a start: nothing before its account is reviewed, no interval that began before.

A store does not know that it was put back from a copy, or begun anew beside keys that are older.  What it would
contribute then has been contributed before, in part: energy counts twice, billed intervals are billed at other prices,
and the difference of two contributions is a reading.  So after each start the coordinator is asked for the newest
opened total that has this gateway in its roster, and the store's own last contribution is held against it:

- the total is newer, or of an epoch that the store knows nothing of: the store is old.  The next reading is a new zero
  of the account, and what it would answer bills from is deleted;
- it is the last contribution: that one is settled;
- it is older, or there is none: the account stands, and a contribution that waited for its result is in no total.

Without an answer nothing is contributed.  An answer is a signed RESULT, checked where the store has kept what it takes.
A coordinator that names a total which never was makes the gateway begin anew: that loses energy and bills, no reading.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from node.process_start import ProcessStart
from node.storage.repositories.ring_seats import RingSeat
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.setup.rings import result_text_of
from protocol.errors import RemoteProtocolError
from protocol.metering.interval import RegistrationGrid


class SeatStore(Protocol):
    """Where a gateway's last seats are kept; see node.storage.repositories.ring_seats.  Methods raise StoreError."""

    def seat(self, gateway: str, epoch: int) -> RingSeat | None: ...  # noqa: D102
    async def keep(self, gateway: str, seat: RingSeat) -> None: ...  # noqa: D102


class Finding(Enum):
    """What the coordinator's answer means for the account."""

    STORE_IS_OLD = "the store is older than the last contribution"
    INCLUDED = "the last contribution is in an opened total"
    NOT_INCLUDED = "the last contribution is in no total"


class StartReview:
    """One gateway's, from one start of its process."""

    def __init__(self, start: ProcessStart) -> None:
        self.is_done = False
        self._start = start
        self._first_interval_s: int | None = None

    @property
    def started_ms(self) -> int:
        """When the process began (Unix time, ms)."""
        return int(self._start.started_s * 1000)

    def use_grid(self, grid: RegistrationGrid) -> None:
        """The registration periods in force: the first that began after the start may be contributed."""
        self._first_interval_s = grid.registration_s(grid.index_at(self._start.started_s) + 1)

    def permits(self, interval_s: int) -> bool:
        """Whether the interval of this registration time (metering time, s) may be contributed, or be the zero."""
        if not self.is_done or self._first_interval_s is None or self._start.is_over():
            return False
        return interval_s >= self._first_interval_s


def judge(
    answer: wire.LastContribution, own: tuple[int, int] | None, seat: RingSeat | None, suite: Suite
) -> Finding:  # fmt: skip
    """
    Hold the newest total that has us against our own last contribution, its (epoch, round), None without one.

    `seat` is what the store knows of our place in the answer's epoch.  Raises RemoteProtocolError `forged_result`,
    `not_included` for a RESULT that the seat shows to be false.
    """
    told, mine = (answer.epoch, answer.round), own or (-1, -1)
    if told < mine or answer.epoch < 0:
        return Finding.NOT_INCLUDED
    if seat is not None:
        _check(answer, seat, suite)
    return Finding.INCLUDED if told == mine else Finding.STORE_IS_OLD


def _check(answer: wire.LastContribution, seat: RingSeat, suite: Suite) -> None:
    text = result_text_of(seat.digest, seat.ring, answer.round, wire.Outcome.OPENED, answer.roster)
    if answer.ring != seat.ring or not suite.verify(seat.result_key, text, answer.signature):
        raise RemoteProtocolError("forged_result", "a last total that the round ledger did not sign")
    if not int.from_bytes(answer.roster, "little") >> seat.position & 1:
        raise RemoteProtocolError("not_included", "a last total without this gateway")
