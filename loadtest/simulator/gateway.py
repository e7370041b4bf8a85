"""What the simulator keeps of one gateway: what its disk holds, and the machines that a crash takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtest.harness import resume_after
from loadtest.simulator.adversary import Adversary
from protocol.dcnet.discipline.carried_energy import EnergyAccount, contribute
from protocol.dcnet.discipline.returns import Attendance, EpochAttendance
from protocol.dcnet.machines.effects import Attempted, Ended, Progress, Settled
from protocol.dcnet.machines.event_log import EventLog
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.masks import Words
from protocol.dcnet.machines.member import Member
from protocol.dcnet.machines.member_attempt import Resume
from protocol.dcnet.setup.secrets import EpochSecrets

INTERVAL_S = 900  # of metering time in a period


class NoEvents(EventLog):
    """For a machine whose seed is its bug report: nothing is kept."""

    __slots__ = ()

    def add(self, *_: Any) -> None:
        """Forget an event."""

    def add_arrival(self, *_: Any) -> None:
        """Forget an arrival."""


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """What a gateway's disk held some time ago."""

    last: Resume | None
    account: EnergyAccount
    contributed: dict[int, tuple[Words, EnergyAccount]]
    attendance: Attendance | None


@dataclass(frozen=True, slots=True)
class Given:
    """A contribution as the simulation knows it: vector, account after it, and which zero that account counts from."""

    vector: Words
    account: EnergyAccount
    zero: int


@dataclass(slots=True)
class Gateway:
    """
    One gateway: durable fields first, then what a crash takes.

    `index` is its position in the ring, `address` the number of its disk: that of a gateway is its position, copies
    that run beside one are numbered on from the ring's size.
    """

    index: int
    address: int
    secrets: EpochSecrets
    last: Resume | None = None
    account: EnergyAccount = field(default_factory=lambda: EnergyAccount(0, 0))
    contributed: dict[int, tuple[Words, EnergyAccount]] = field(default_factory=dict)  # round -> vector, account then
    attendance: Attendance | None = None  # None: returns are not counted
    copy: DiskCopy | None = None  # of the fields above, from an earlier round
    given: dict[int, Given] = field(default_factory=dict)  # what left it by round, whatever became of its disk
    zeros_wh: list[int] = field(default_factory=list)  # register at which its account began, and at which anew
    returns: list[int] = field(default_factory=list)  # the rounds that cost a token
    member: Member | None = None
    processes: int = 0
    is_reviewed: bool = True  # whether its account was held against the ledger's record since the start
    started_round: int = -1
    head: Head | Adversary | None = None
    head_term: int = -1
    excluded: int = 0  # whom the ledger says to leave out, while or when it is head
    life: int = 0  # counts restarts: messages and timers of an earlier life are void

    def copy_of_disk(self) -> DiskCopy:
        """What its disk holds now."""
        return DiskCopy(self.last, self.account, dict(self.contributed), self.attendance)

    def put_back(self, copy: DiskCopy) -> None:
        """Its disk holds what it, or another one, held earlier."""
        self.last, self.account, self.attendance = copy.last, copy.account, copy.attendance
        self.contributed = dict(copy.contributed)

    def in_rounds(self) -> EpochAttendance | None:
        """Its attendance in rounds of the simulated epoch, where returns are counted."""
        return None if self.attendance is None else EpochAttendance(self.attendance, 0, INTERVAL_S)

    def persist(self, record: Attempted | Settled) -> None:
        """Make a record of its member durable."""
        if isinstance(record, Settled):
            if self.last is not None:
                self.last = resume_after(self.last, record)
            if record.included and record.round in self.contributed:  # an account that began anew knows no older ones
                self.account = self.contributed[record.round][1]
            return
        self.last = Resume(record.round, record.attempt, record.progress, settled=False)
        mine = self.in_rounds()
        if mine is not None and record.progress is Progress.SERVED:
            self.attendance = mine.served(record.round).attendance
        elif mine is not None:
            self.attendance = mine.entered(record.round, is_return=record.is_return).attendance
            self.returns += [record.round] * record.is_return

    def contribute(self, round_: int, register_wh: int, more: Sequence[int]) -> Words:
        """Its contribution for a round, made durable: one gateway, what its account moves, and more words."""
        moved, account = contribute(self.account, register_wh, round_, length_s=1)
        vector = np.array([1, moved, *more], dtype=np.uint64)
        self.contributed[round_] = vector, account
        self.given[round_] = Given(vector, account, len(self.zeros_wh) - 1)
        return vector

    def review(self, ended: Mapping[int, Ended], register_wh: int, round_: int) -> bool:
        """
        Whether this reading may be contributed: after a start the account is first held against the ledger's record.

        As `node.aggregation.start_review` does: the answer comes once all rounds that began before the start have
        ended; where it names a newer total than the disk does, the disk is old and this reading is a new zero.
        """
        if self.is_reviewed:
            return True
        if any(earlier not in ended for earlier in range(self.started_round + 1)):
            return False
        self.is_reviewed = True
        told = max((r for r, each in ended.items() if each.roster >> self.index & 1), default=-1)
        if told <= (-1 if self.last is None else self.last.round):
            return True
        self.zeros_wh.append(register_wh)
        self.last, self.account, self.contributed = None, EnergyAccount(register_wh, register_wh), {}
        if self.attendance is not None:
            self.attendance = Attendance.first(round_ * INTERVAL_S, is_key_new=False)
        return False
