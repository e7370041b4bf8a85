"""
What the market participant must get, from the simulated meters' own registers, and who holds an export against it.

Nothing here comes from a metering log or a use case: registers are a household's function of time
(`loadtest.households`), energies their differences, and the legal time of a tariff's stages two constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtest.households import Household
from protocol.metering.obis import Obis

IMPORT: Final = Obis(1, 0, 1, 8, 0, 255)
MONTH_S: Final = 1_790_805_600  # 2026-10-01 00:00 by German legal time
COUNT: Final = 31 * 96 + 4  # quarter hours: summer time ends in it
END_S: Final = MONTH_S + COUNT * 900
FIRST_QUARTER_HOUR: Final = 273 * 96  # of the year, at which load profiles begin the month
DAYS_ON_DEMAND: Final = 10
TAFS: Final = (1, 2, 6, 7)
MISTAKES_KEPT: Final = 1_000
_SUMMER_END_S: Final = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp())

Rows = dict[tuple[str, str], str]
"""Value by kind and register, and by time, as an export writes them."""


def registers_of(household: Household) -> NDArray[np.int64]:
    """
    What the meter shows at each quarter hour of the month, both ends included, in Wh: shape (COUNT + 1,).

    Whatever quarter hour of the year the household's own count begins at.
    """
    month = replace(household, start_quarter_hour=FIRST_QUARTER_HOUR)
    tenths = np.array([month.registers(index).import_tenth_wh for index in range(COUNT + 1)], dtype=np.int64)
    if (tenths % 10).any():
        raise ValueError("expected registers that show whole Wh")
    return tenths // 10


class Judge:
    """
    Holds exported values against the registers, row by row; an export has a delivery's rows one after the other.

    `registers` are those of each gateway, `tafs` the use cases that each delivers.
    """

    def __init__(self, registers: Mapping[str, NDArray[np.int64]], tafs: Sequence[int] = TAFS) -> None:
        self._registers = registers
        self._left = {(f"{name.lower()}.sm", str(taf)): name for name in registers for taf in tafs}
        self._delivery = ""
        self._whose = "", ""
        self._rows: Rows = {}
        hours = np.array([_hour(MONTH_S + index * 900) for index in range(COUNT)])
        self._is_day = (hours >= 6) & (hours < 22)
        self.rows = 0
        self.mistakes: list[str] = []
        """The first thousand, in sentences."""

    def take(self, row: Mapping[str, str]) -> None:
        """The next row of `stromkreis emp export`."""
        if row["delivery"] != self._delivery:
            self._end()
            self._delivery, self._whose = row["delivery"], (row["sender"], row["taf"])
        self.rows += 1
        key = f"{row['kind']} {row['obis']}", row["time"]
        if key in self._rows:
            self._wrong(f"{row['obis']} of {row['time']} twice")
        if row["valid"] != "1" or row["billable"] != "1":
            self._wrong(f"{row['obis']} of {row['time']} is marked as not for billing")
        self._rows[key] = row["value"]

    def finish(self) -> list[str]:
        """All mistakes, with what never came."""
        self._end()
        for whose in self._left:
            self._whose = whose
            self._wrong("no delivery")
        return self.mistakes

    def take_all(self, rows: Iterable[Mapping[str, str]]) -> list[str]:
        """`take` each, then `finish`."""
        for each in rows:
            self.take(each)
        return self.finish()

    def _end(self) -> None:
        rows, self._rows = self._rows, {}
        if not self._delivery:
            return
        name = self._left.pop(self._whose, None)
        if name is None:
            self._wrong("a delivery that nobody waits for, or a second one")
            return
        wanted = self._wanted(self._registers[name], int(self._whose[1]))
        if different := {key for key in wanted.keys() | rows.keys() if wanted.get(key) != rows.get(key)}:
            self._wrong(f"{len(different)} values are not what the meter had, the first {min(different)}")

    def _wrong(self, what: str) -> None:
        if len(self.mistakes) < MISTAKES_KEPT:
            sender, taf = self._whose
            self.mistakes.append(f"{sender} TAF {taf}: {what}")

    def _wanted(self, registers: NDArray[np.int64], taf: int) -> Rows:
        def register(stage: int, value: int) -> tuple[tuple[str, str], str]:
            return (f"register {IMPORT._replace(e=stage)}", _time(END_S)), str(value)

        def value(index: int) -> tuple[tuple[str, str], str]:
            return (f"value {IMPORT}", _time(MONTH_S + index * 900)), str(registers[index])

        if taf == 7:
            return dict(map(value, range(COUNT + 1)))
        if taf == 6:
            midnights = [index for index in range(COUNT + 1) if _is_midnight(MONTH_S + index * 900)]
            return dict(map(value, midnights[-DAYS_ON_DEMAND - 1 :]))
        energies = np.diff(registers)
        total, day = int(energies.sum()), int(energies[self._is_day].sum())
        if taf == 2:
            return dict([register(0, total), register(1, total - day), register(2, day), register(63, 0)])
        return dict([register(0, total), value(0), value(COUNT)])


def _hour(at_s: int) -> int:
    return (at_s // 3_600 + (2 if at_s < _SUMMER_END_S else 1)) % 24


def _is_midnight(at_s: int) -> bool:
    return _hour(at_s) == 0 and at_s % 3_600 == 0


def _time(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
