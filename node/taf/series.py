"""
From the values of a register at registration times to the energy of intervals, over meter exchanges and gaps.

Everything is integer: mantissas at the scaler of the processing profile.  Two neighbouring registration times with a
valid value make an interval.  Where values are missing or not fit for billing in between, the energy over the gap is
still known, exactly, but not how it spread: one interval over all of it, marked as not valid, which use cases book
into the error register (OBIS E = 63) where they would have to say more.  So registers always add up to the difference
of the meter's register.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from node.metering.entries import LoggedReading
from protocol.metering.reading import Quality, mantissa_at

STATUS_SUBSTITUTE = 1 << 0
STATUS_REGISTER_FELL = 1 << 1
STATUS_GAP = 1 << 2
"""What a derivation adds to the meter's own status word, apart from it."""


class RegisterValue(NamedTuple):
    """
    A register at a registration time (Unix, s): its mantissa, and whether it is fit for billing.

    `status` is the meter's own status word, None where it sends none.
    """

    at_s: int
    value: int
    is_valid: bool
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """
    The energy from `start_s` up to `end_s` (Unix, s).

    `is_valid`: one registration period between two valid values.  `derivation` is a set of STATUS_ bits, `status` the
    meters' status words at both ends, or'ed.
    """

    start_s: int
    end_s: int
    energy: int = field(repr=False)
    is_valid: bool = True
    derivation: int = 0
    status: int = 0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A meter was exchanged at `at_s`: the last mantissa of the old one, the first of the new one."""

    at_s: int
    final: int
    initial: int


@dataclass(frozen=True, slots=True)
class Series:
    """
    A register of a metering point over a billing period, at one scaler, in order of time.

    `values` are one meter after the other; `exchanges` lie between them.
    """

    period_s: int
    values: tuple[RegisterValue, ...]
    exchanges: tuple[Exchange, ...] = ()

    @property
    def valid(self) -> list[RegisterValue]:
        """The values that are fit for billing."""
        return [each for each in self.values if each.is_valid]

    def intervals(self) -> list[Interval]:
        """The energy between neighbouring valid values; they follow one another without a hole."""
        valid = self.valid
        return [self._interval(before, after) for before, after in pairwise(valid)]

    def ending_in(self, start_s: int, end_s: int) -> list[Interval]:
        """
        The intervals that end after `start_s` and not after `end_s`.

        An interval over a gap that spans the border of two billing periods counts in the later one: every interval
        counts in one period, so that the periods add up to the meter's register.
        """
        return [each for each in self.intervals() if start_s < each.end_s <= end_s]

    def _interval(self, before: RegisterValue, after: RegisterValue) -> Interval:
        crossed = [each for each in self.exchanges if before.at_s < each.at_s <= after.at_s]
        first = (before.value, *(each.initial for each in crossed))
        last = (*(each.final for each in crossed), after.value)
        legs = [end - start for start, end in zip(first, last, strict=True)]
        derivation = STATUS_SUBSTITUTE if crossed else 0
        if min(legs) < 0:  # a register that falls measured nothing that can be billed; the next interval starts anew
            derivation, legs = derivation | STATUS_REGISTER_FELL, [0]
        if after.at_s - before.at_s != self.period_s:
            derivation |= STATUS_GAP
        is_valid = not derivation & (STATUS_GAP | STATUS_REGISTER_FELL)
        status = (before.status or 0) | (after.status or 0)
        return Interval(before.at_s, after.at_s, sum(legs), is_valid, derivation, status)


def register_values(
    readings: Iterable[LoggedReading], scaler: int, unit: int | None, period_s: int
) -> list[RegisterValue]:
    """
    Registered values at the registration times of `period_s` and at one scaler.

    A value of another unit, measured too late (PTB-A 50.8), unchecked or doubted by its meter is kept and is not fit
    for billing.  A coarser register of the log gives fewer digits, a finer one is floored.
    """
    return [
        RegisterValue(
            each.registration_s, mantissa_at(each.value, each.scaler, scaler),
            each.on_time and each.quality is Quality.VALID and each.unit == unit, each.status,
        )
        for each in readings
        if each.registration_s is not None and each.value is not None and not each.registration_s % period_s
    ]  # fmt: skip


def join_meters(parts: Sequence[Sequence[RegisterValue]], exchanges: Sequence[Exchange], period_s: int) -> Series:
    """
    The values of meters that followed one another.

    Part i counts up to and without exchange i, and from exchange i - 1 on.
    """
    kept: list[RegisterValue] = []
    for index, part in enumerate(parts):
        from_s = exchanges[index - 1].at_s if index else None
        to_s = exchanges[index].at_s if index < len(exchanges) else None
        kept += [
            each for each in part
            if (from_s is None or each.at_s >= from_s) and (to_s is None or each.at_s < to_s)
        ]  # fmt: skip
    return Series(period_s, tuple(kept), tuple(exchanges))
