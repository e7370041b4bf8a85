"""
What a use case derives: registers by OBIS code, rows of a list, events; and whether it may be billed.

An OBIS code names a derived register by its E field: the tariff stage, 0 for the total, 63 for the error register
(IEC 62056-61; AR 2418-6 export, list of tariff stages).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from node.taf.series import Interval, RegisterValue, Series
from protocol.metering.obis import Obis

ERROR_STAGE = 63
TOTAL_STAGE = 0


@dataclass(frozen=True, slots=True)
class DerivedRegister:
    """The energy of a stage in a billing period; a mantissa at the profile's scaler."""

    obis: Obis
    value: int = field(repr=False)


@dataclass(frozen=True, slots=True)
class Period:
    """
    What a use case is given: a register's series and the billing period from `start_s` up to `end_s` (Unix, s).

    `series` begins with the last valid value at `start_s` or before, where there is one.
    """

    obis: Obis
    scaler: int
    start_s: int
    end_s: int
    series: Series

    @property
    def intervals(self) -> list[Interval]:
        """The intervals that count in the period."""
        return self.series.ending_in(self.start_s, self.end_s)

    @property
    def rows(self) -> tuple[RegisterValue, ...]:
        """The values at registration times of the period, both ends included, valid or not."""
        return tuple(each for each in self.series.values if self.start_s <= each.at_s <= self.end_s)


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """
    A limitation of TAF 11 from `start_s` up to `end_s` (Unix, s), and the valid values around it, None for none.

    `limit_w` None: switched off.
    """

    system: str
    start_s: int
    end_s: int
    limit_w: int | None
    before: RegisterValue | None
    after: RegisterValue | None


class Standing(Enum):
    """What the credit of TAF 12 means for the consumer."""

    ENOUGH = "enough"
    LOW = "low"
    USED_UP = "used-up"


@dataclass(frozen=True, slots=True)
class Account:
    """
    The account of TAF 12 at the period's end: what is left, and all that was ever paid in.

    Both count 10^(price_scaler + register scaler) currency, as prices times mantissas do; `credit` may be negative,
    since it is only known at registration times.
    """

    credit: int = field(repr=False)
    paid: int = field(repr=False)
    standing: Standing


@dataclass(frozen=True, slots=True)
class Result:
    """
    What a use case says of a billing period.

    `registers` begin with the total; `rows` are values of a list; `largest` and `smallest` are intervals of TAF 8,
    `controls` records of TAF 11, `account` is that of TAF 12.
    `is_complete`: valid values at both ends and no interval without one.  `derivation` is the union of the intervals'
    STATUS_ bits (node.taf.series).
    """

    start_s: int
    end_s: int
    registers: tuple[DerivedRegister, ...] = ()
    rows: tuple[RegisterValue, ...] = ()
    largest: tuple[Interval, ...] = ()
    smallest: tuple[Interval, ...] = ()
    controls: tuple[ControlRecord, ...] = ()
    account: Account | None = None
    is_complete: bool = True
    derivation: int = 0


def result_of(period: Period, registers: Sequence[DerivedRegister] = (), rows: Sequence[RegisterValue] = ()) -> Result:
    """A result with what follows from the period alone."""
    intervals = period.intervals
    derivation = 0
    for each in intervals:
        derivation |= each.derivation
    is_complete = (
        bool(intervals)
        and intervals[0].start_s == period.start_s
        and intervals[-1].end_s == period.end_s
        and all(each.is_valid for each in intervals)
    )
    return Result(
        period.start_s, period.end_s, tuple(registers), tuple(rows), is_complete=is_complete, derivation=derivation
    )


def stage_register(obis: Obis, stage: int) -> Obis:
    """The OBIS code of a stage of the register `obis`."""
    return obis._replace(e=stage)


def stage_registers(obis: Obis, energies: dict[int, int]) -> tuple[DerivedRegister, ...]:
    """The total, the stages in order, and the error register, which is there also where it is 0."""
    energies = {ERROR_STAGE: 0, **energies}
    total = DerivedRegister(stage_register(obis, TOTAL_STAGE), sum(energies.values()))
    return (total, *(DerivedRegister(stage_register(obis, stage), energies[stage]) for stage in sorted(energies)))
