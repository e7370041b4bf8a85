"""
From register values to what a gateway puts into a ring, and back from results to what still has to go.

Energy slots are what a cumulative register moved since the last contribution that is known to have been opened
(docs/explanation/protocol.md, "Carried energy").  Energy of rounds that were missed or void comes back in small parts
(protocol.dcnet.discipline.carried_energy) and is never lost and never counted twice.  Snapshots (power) go as they
are.  The gateway's first reading ever is the zero of its account.

A ring may want noise in a slot: it is drawn when the contribution is built, is durable with it, and goes into the sum
alone.  The account moves by what was contributed without it, so no noise is carried, taken back or counted twice.

One interval is contributed once: a round gets the vector that was made durable for it, also after a restart, and an
interval not after the last contributed one gets none.  After a start of the process nothing is contributed before the
account is reviewed: see node.aggregation.start_review.

A committed slot's blinding is drawn with the contribution, kept beside the value and deleted with it.

What was committed to in an opened total stays, durably and for a bounded time, until it is billed: see
node.aggregation.bills.

Two epochs meet at a border, each with a membership of its own on this one account, and the last result of the old one
may be late.  So nothing new is made durable before the contribution before it is settled, and nothing that was built
on an account that has moved on since: checked under a lock, at the moment in which it counts.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import trio

from node.aggregation.attendance import GatewayAttendance
from node.aggregation.start_review import StartReview
from node.metering.registers import Registers
from node.storage.engine import Statement
from node.storage.repositories.accounts import Account, ContributionRecord
from node.storage.repositories.bills import CommittedValue
from protocol.dcnet.crypto.noise import RandomBits, noise_share
from protocol.dcnet.discipline.carried_energy import UNLIMITED, EnergyAccount, contribute
from protocol.dcnet.machines.effects import Attempted, Progress, Settled
from protocol.dcnet.machines.masks import Words, words_from_bytes
from protocol.dcnet.machines.member_attempt import Resume
from protocol.dcnet.setup.ranges import contribution_limit
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.schema import WORD_MODULUS, Kind, Schema, signed
from protocol.errors import StromkreisError
from protocol.metering.interval import QUARTER_HOUR_S

log = logging.getLogger(__name__)
_KEEP_COMMITTED_S = 100 * 86_400


@dataclass(frozen=True, slots=True)
class Contribution:
    """What goes into one round."""

    registers: Registers
    since: int  # which account the energies follow from, of those that this process has had
    energies: tuple[EnergyAccount, ...]  # the account once it is opened
    vector: Words
    blindings: tuple[int, ...] = ()
    is_over_range: bool = False  # a committed slot is full, and the rest is carried


class SupersededError(StromkreisError):
    """A contribution that must not leave any more: the account has moved on since it was built."""


class AccountStore(Protocol):
    """What accounts are kept in; see node.storage.repositories.accounts.  Every method raises StoreError."""

    def account(self, gateway: str) -> Account | None: ...  # noqa: D102
    def last_contribution(self, gateway: str) -> ContributionRecord | None: ...  # noqa: D102
    async def begin(self, gateway: str, registers: tuple[int, ...]) -> None: ...  # noqa: D102
    async def delete(self, gateway: str) -> None: ...  # noqa: D102
    async def contribute(  # noqa: D102
        self, gateway: str, record: ContributionRecord, also: Sequence[Statement] = (),
    ) -> None: ...  # fmt: skip
    async def progress(  # noqa: D102
        self, gateway: str, epoch: int, round_: int, *, attempt: int, progress: int, also: Sequence[Statement] = (),
    ) -> None: ...  # fmt: skip
    async def settle(  # noqa: D102
        self, gateway: str, record: ContributionRecord, *, included: bool, committed: Sequence[CommittedValue],
        keep_committed_s: int,
    ) -> None: ...  # fmt: skip


class Cursor(Protocol):
    """The place in the metering log up to which registers were taken; see node.metering.log.Subscription."""

    def move(self, position: int) -> Statement: ...  # noqa: D102
    def moved(self, position: int) -> None: ...  # noqa: D102


class Contributions:
    """One gateway's account; reads its durable state when made."""

    def __init__(
        self, accounts: AccountStore, gateway: str, schema: Schema, draw_blinding: Callable[[], int] | None = None, *,
        keep_committed_s: int = _KEEP_COMMITTED_S, random_bits: RandomBits = secrets.randbits,
        cursor: Cursor | None = None, attendance: GatewayAttendance | None = None, review: StartReview | None = None,
    ) -> None:  # fmt: skip
        """
        `draw_blinding` gives a fresh blinding; a schema with committed slots needs it.  `random_bits` is where noise
        comes from.  The schema says nothing of noise: that is a ring's (its view), registers are for good.

        Committed values are kept for a bill as long as `keep_committed_s` of metering time.  `cursor` is moved in the
        transaction that makes a contribution durable, and so is `attendance`; None: returns are not counted.  `review`
        says what may be contributed after the last start; without one anything may be, for whoever has a store that can
        only be the newest.
        """
        self.attendance = attendance
        self.zero_from_s = -math.inf
        """The first registration time that may be the zero of the account: from here on profiles permit it."""
        self.selection = b""
        """Which registers it is kept in (`Registers.selection`); of others nothing is taken."""
        self._accounts = accounts
        self._keep_committed_s = keep_committed_s
        self._random_bits = random_bits
        self._draw_blinding = draw_blinding
        self._cursor = cursor
        self._review = review
        self._gateway = gateway
        self._schema = schema
        self._opened: tuple[EnergyAccount, ...] | None = None
        self._since = 0  # goes up with each change of the account
        self._built: dict[tuple[int, int], Contribution] = {}
        self._last_interval_s = -1
        self._last: tuple[int, Resume] | None = None
        self._past: tuple[int, Resume] | None = None  # of the account before, in this process
        self._lock = trio.Lock()
        account, last = accounts.account(gateway), accounts.last_contribution(gateway)
        if account is not None:
            self._opened = account.energies
        if last is not None:
            self._last_interval_s = last.interval_s
            self._last = last.epoch, Resume(last.round, last.attempt, Progress(last.progress), last.settled)
            self._built[last.epoch, last.round] = Contribution(
                Registers(last.interval_s, last.registers), self._since, last.energies,
                words_from_bytes(last.vector), last.blindings,
            )  # fmt: skip

    async def select(self, selection: bytes, zero_from_s: float) -> None:
        """
        Take registers of this selection alone, and no zero from before `zero_from_s` (metering time, Unix, s).

        On return nothing is under way any more that began before.
        """
        self.selection, self.zero_from_s = selection, zero_from_s
        await self._take_lock()
        self._lock.release()

    async def first_reading(
        self, values: tuple[int, ...], interval_s: int | None = None, selection: bytes = b""
    ) -> None:  # fmt: skip
        """
        Fix the zero of the account, once and durably, before anything is contributed.

        `interval_s` is the registration time of the values; no zero is one from before the start, nor one of another
        `selection`.
        """
        if self._opened is not None:
            return
        await self._take_lock()
        try:
            is_early = interval_s is not None and (interval_s < self.zero_from_s or not self._is_permitted(interval_s))
            if self._opened is not None or is_early or selection != self.selection:
                return
            await self._accounts.begin(self._gateway, values)
            self._move_to(tuple(EnergyAccount(each, each) for each in values))
        finally:
            self._lock.release()

    def _move_to(self, account: tuple[EnergyAccount, ...] | None) -> None:
        self._opened = account
        self._since += 1

    @property
    def has_begun(self) -> bool:
        """Whether there is a zero, or a contribution."""
        return self._opened is not None or self._last is not None

    @property
    def last_registers(self) -> Registers | None:
        """The registers of the last contribution."""
        last = None if self._last_key is None else self._built.get(self._last_key)
        return None if last is None else last.registers

    @property
    def unsettled(self) -> tuple[int, int] | None:
        """The (epoch, round) that we contributed to and whose result we have not heard."""
        return None if self._last is None or self._last[1].settled else self._last_key

    @property
    def last(self) -> tuple[int, int] | None:
        """The (epoch, round) that we contributed to last, settled or not."""
        return self._last_key

    def _is_permitted(self, interval_s: int) -> bool:
        return self._review is None or self._review.permits(interval_s)

    async def start_anew(self) -> None:
        """
        Forget the account, durably, and what waits for a bill: the next reading is a new zero.  Raises StoreError.

        For a store that is older than what was contributed last, or that does not know, and where other registers are
        selected.  A ring of this process may live on: its member must not forget what it shared in and served, and no
        interval is contributed again.
        """
        await self._take_lock()
        try:
            await self._accounts.delete(self._gateway)
            self._move_to(None)
            self._past = self._last or self._past
            self._last, self._built = None, {}
        finally:
            self._lock.release()

    def is_free_for(self, epoch: int) -> bool:
        """Whether no other epoch's contribution waits for its result: the account is not known before."""
        unsettled = self.unsettled
        return unsettled is None or unsettled[0] == epoch

    def resume(self, epoch: int) -> Resume | None:
        """What the member machine must know of its past in this epoch."""
        return next((each[1] for each in (self._last, self._past) if each is not None and each[0] == epoch), None)

    @property
    def is_carrying(self) -> bool:
        """Whether energy of missed rounds is still to be released, as of the last contribution that is settled."""
        return self._opened is not None and any(
            slot.kind is Kind.ENERGY and each.carried
            for slot, each in zip(self._schema.slots, self._opened, strict=True)
        )

    def build(
        self, view: RingView, round_: int, registers: Registers, *, length_s: int = QUARTER_HOUR_S
    ) -> Contribution | None:
        """
        The contribution for a round; None where this interval must not be contributed (again).

        `length_s` is that of the epoch's intervals.
        """
        if not self._is_permitted(registers.interval_s):
            return None
        known = self._built.get((view.epoch, round_))
        if known is not None and ((view.epoch, round_) == self._last_key or known.since == self._since):
            return known
        if self._opened is None or registers.interval_s <= self._last_interval_s or self.unsettled is not None:
            return None
        if registers.selection != self.selection:
            return None
        limits = dict(zip(view.committed, map(contribution_limit, view.bits), strict=True))
        words, energies = [], []
        for index, (slot, account) in enumerate(zip(self._schema.slots, self._opened, strict=True)):
            value = registers.values[index]
            if slot.kind is not Kind.ENERGY:
                words.append(value % WORD_MODULUS)
                energies.append(account)
                continue
            if value < account.contributed:
                log.error("gateway %s: register %s has fallen; not contributing", self._gateway, slot.obis)
                return None
            word, after = contribute(
                account, value, registers.interval_s, length_s=length_s, limit=limits.get(index, UNLIMITED)
            )
            words.append(word)
            energies.append(after)
        for index, noise in view.noise:
            share = noise_share(noise.epsilon_ppm, noise.sensitivity, view.honest_min)
            words[index] = (words[index] + share.draw(self._random_bits)) % WORD_MODULUS
        vector = np.array(words, dtype=np.uint64)
        is_full = any(words[index] == limit for index, limit in limits.items())
        contribution = Contribution(registers, self._since, tuple(energies), vector, self._blindings(), is_full)
        self._built[view.epoch, round_] = contribution
        self._forget_built_but((view.epoch, round_))
        return contribution

    def _blindings(self) -> tuple[int, ...]:
        """A fresh blinding for each committed slot: it belongs to this contribution, in all its attempts."""
        if self._draw_blinding is None:
            return ()
        return tuple(self._draw_blinding() for _ in self._schema.committed)

    def _committed(self, contribution: Contribution) -> list[CommittedValue]:
        """
        What is committed to in an opened total waits for its bill, under the interval it was contributed in.

        A contribution that an earlier release left behind may have no blindings: it cannot be billed.
        """
        slots = self._schema.slots
        return [
            CommittedValue(str(slots[index].obis), signed(int(contribution.vector[index])), blinding)
            for index, blinding in zip(self._schema.committed, contribution.blindings, strict=False)
        ]

    def _forget_built_but(self, key: tuple[int, int]) -> None:
        """Keep what was built last and what was contributed last."""
        self._built = {each: built for each, built in self._built.items() if each in (key, self._last_key)}

    @property
    def _last_key(self) -> tuple[int, int] | None:
        return None if self._last is None else (self._last[0], self._last[1].round)

    async def attempted(self, view: RingView, record: Attempted) -> None:
        """
        Durable: this attempt of the round was shared in, or served.

        Raises StoreError where it could not be written, SupersededError where it must not be contributed any more.
        """
        await self._take_lock()
        try:
            contribution = self._allowed(view.epoch, record.round)
            resume = Resume(record.round, record.attempt, record.progress, settled=False)
            position, cursor = contribution.registers.position, self._cursor
            is_known = (view.epoch, record.round) == self._last_key
            also = [] if cursor is None or is_known else [cursor.move(position)]
            attendance = self.attendance
            counted = None if attendance is None else attendance.after(contribution.registers.interval_s, record)
            if attendance is not None and counted is not None:
                also.append(attendance.put(counted))
            if is_known:
                await self._accounts.progress(
                    self._gateway, view.epoch, record.round, attempt=record.attempt, progress=int(record.progress),
                    also=also,
                )  # fmt: skip
            else:
                await self._accounts.contribute(self._gateway, _record(view.epoch, resume, contribution), also)
                if cursor is not None:
                    cursor.moved(position)
            if attendance is not None and counted is not None:
                attendance.moved(counted)
            self._built[view.epoch, record.round] = contribution
            self._last_interval_s = contribution.registers.interval_s
            if not is_known and self._last_key is not None:
                self._built.pop(self._last_key, None)  # it is settled, and nobody asks for it again
            self._last = view.epoch, resume
        finally:
            self._lock.release()

    async def _take_lock(self) -> None:
        """At once where nobody has it, which is nearly always: what is done under it waits for the disk anyway."""
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    def _allowed(self, epoch: int, round_: int) -> Contribution:
        """What was built for a round, if it is the contribution under way or may become it."""
        contribution = self._built.get((epoch, round_))
        if contribution is not None and not self._is_permitted(contribution.registers.interval_s):
            raise SupersededError(f"epoch {epoch} round {round_}: it began before this process")
        if contribution is not None and (epoch, round_) == self._last_key:
            return contribution
        if (
            contribution is None
            or self.unsettled is not None
            or contribution.since != self._since
            or contribution.registers.interval_s <= self._last_interval_s
        ):
            raise SupersededError(f"epoch {epoch} round {round_}: the account has moved on, the energy is carried")
        return contribution

    async def settled(self, view: RingView, record: Settled) -> None:
        """Durable: the round is over, and where our contribution is in its total the account moves on."""
        await self.settle(view.epoch, record.round, included=record.included)

    async def settle(self, epoch: int, round_: int, *, included: bool) -> None:
        """As `settled`, for a round of an epoch whose ring is gone; does nothing where that is known already."""
        await self._take_lock()
        try:
            if self._past is not None and (self._past[0], self._past[1].round) == (epoch, round_):
                self._past = epoch, replace(self._past[1], settled=True)
            if self._last is None or self.unsettled != (epoch, round_):
                return
            contribution = self._built[epoch, round_]
            past = self._last[1]
            resume = Resume(past.round, past.attempt, past.progress, settled=True)
            await self._accounts.settle(
                self._gateway, _record(epoch, resume, contribution), included=included,
                committed=self._committed(contribution), keep_committed_s=self._keep_committed_s,
            )  # fmt: skip
            if included:
                self._move_to(contribution.energies)
            self._last = epoch, resume
        finally:
            self._lock.release()


def _record(epoch: int, resume: Resume, contribution: Contribution) -> ContributionRecord:
    return ContributionRecord(
        epoch, resume.round, resume.attempt, contribution.registers.interval_s, int(resume.progress), resume.settled,
        contribution.registers.values, contribution.vector.tobytes(), contribution.blindings, contribution.energies,
    )  # fmt: skip
