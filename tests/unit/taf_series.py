"""Series for tests of the tariff use cases, and what numpy makes of the same energies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from node.taf.result import Period, Result
from node.taf.series import Exchange, RegisterValue, Series
from protocol.metering.obis import Obis

IMPORT = Obis.parse("1-0:1.8.0*255")
QUARTER_S = 900


def series_of(
    energies: Sequence[int], start_s: int, *, first: int = 1_000, missing: Sequence[int] = (), late: Sequence[int] = (),
    exchanges: Sequence[Exchange] = (), period_s: int = QUARTER_S,
) -> Series:  # fmt: skip
    """Registers from `first` on that grow by `energies`; values at `missing` are not there, at `late` not valid."""
    registers = first + np.concatenate([[0], np.cumsum(energies)])
    return Series(
        period_s,
        tuple(
            RegisterValue(start_s + index * period_s, int(value), index not in late)
            for index, value in enumerate(registers)
            if index not in missing
        ),
        tuple(exchanges),
    )


def period_of(series: Series, start_s: int, count: int, *, scaler: int = 0) -> Period:
    """The billing period of `count` intervals from `start_s`."""
    return Period(IMPORT, scaler, start_s, start_s + count * series.period_s, series)


def by_stage(result: Result) -> dict[int, int]:
    """The registers of a result by their E field."""
    return {each.obis.e: each.value for each in result.registers}


def stages_by_numpy(
    energies: Sequence[int], stage_of: Callable[[int], int], broken: Sequence[int]
) -> dict[int, int]:  # fmt: skip
    """Energy by stage, intervals that touch a value of `broken` in stage 63."""
    numbers = np.array([stage_of(index) for index in range(len(energies))])
    for index in broken:
        numbers[max(0, index - 1) : index + 1] = 63
    return {int(stage): int(np.array(energies)[numbers == stage].sum()) for stage in np.unique(numbers)}
