"""
Whether the sums that a bill discloses single an interval out: a rule on the question alone, never on the values.

A bill tells its receiver a few linear combinations of a gateway's interval values: the sum of every span between two
registers that were given out, the sum of each price stage, or prices times values.  The statistical leverage of an
interval is how much of its own value those combinations determine, from 0 to 1: the diagonal of the orthogonal
projection onto their span (the hat matrix; Hoaglin and Welsch, The American Statistician 1978).  At 1 the value follows
exactly; at 1/24 the interval hides among the equivalent of 24 intervals.

- Households use little at night, so a night interval beside a large day interval hides less well than a count says.
  Rows are weighted once alike and once by the mean consumption of each local hour; the worse of the two counts.
- Prices are mapped to (p - min)/(max - min) from exact integers before they become floating-point numbers.  Otherwise a
  price of 4·10^9 everywhere, and 1 more in one interval, is rounded to a flat tariff, and the amount's last digit is
  that interval.
- Columns are normed and singular values up to 1e-9 of the largest dropped, so that columns that say the same (stages
  add up to the span) count once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.errors import LocalProtocolError, RemoteProtocolError

HIDING_INTERVALS_MIN = 24
"""The largest leverage that is answered is the inverse of this."""

STAGE_COUNT_MAX = 20
"""Price stages of a tariff use case (TAF 2) of BSI TR-03109-1."""

LINE_COUNT_MAX = 8
"""Lines of one request, such as the supplier's and the grid operator's (section 14a EnWG)."""

HOURLY_MEAN_WH = (33, 22, 17, 16, 18, 19, 25, 41, 65, 90, 98, 98, 87, 87, 86, 80, 68, 65, 66, 62, 64, 57, 55, 45)
"""Mean consumption of a household's quarter hour by local hour, Wh: the weights of the second test."""

_RANK_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class StageLine:
    """A line that discloses the sum of each stage: the stage of every interval, from 0."""

    stages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AmountLine:
    """A line that discloses prices times values: the integer price of every interval."""

    prices: tuple[int, ...]


Line = StageLine | AmountLine


def hiding_intervals(spans: Sequence[int], local_hours: Sequence[int], lines: Sequence[Line]) -> float:
    """
    The inverse of the largest leverage: the least number of intervals, in effect, that one hides among.

    `spans` gives for each interval of the request the span between two registers that it lies in, `local_hours` its
    local hour (0 to 23), `lines` what is disclosed beside the spans' sums.  Raises RemoteProtocolError for lines of
    another length or too many lines or stages, LocalProtocolError for `spans` and `local_hours` of different lengths.
    """
    if len(spans) != len(local_hours) or not spans:
        raise LocalProtocolError("one span and one local hour for each interval")
    matrix = np.column_stack(
        [*_indicators(spans), *(column for line in _checked(lines, len(spans)) for column in line)]
    )
    hourly = np.array(HOURLY_MEAN_WH, np.float64)[np.asarray(local_hours)]
    return 1.0 / max(_leverage_max(matrix), _leverage_max(matrix * hourly[:, None]))


def check_leverage(spans: Sequence[int], local_hours: Sequence[int], lines: Sequence[Line]) -> None:
    """Raise RemoteProtocolError `tariff_singles_out` where an interval hides among fewer than the least number."""
    count = hiding_intervals(spans, local_hours, lines)
    if count < HIDING_INTERVALS_MIN * (1 - _RANK_TOLERANCE):
        raise RemoteProtocolError(
            "tariff_singles_out",
            f"an interval would hide among {count:.1f} intervals, expected at least {HIDING_INTERVALS_MIN}",
        )


def _checked(lines: Sequence[Line], count: int) -> list[list[NDArray[np.float64]]]:
    if len(lines) > LINE_COUNT_MAX:
        raise RemoteProtocolError("line_count", f"{len(lines)} lines, expected at most {LINE_COUNT_MAX}")
    return [_columns(line, count) for line in lines]


def _columns(line: Line, count: int) -> list[NDArray[np.float64]]:
    values = line.stages if isinstance(line, StageLine) else line.prices
    if len(values) != count:
        raise RemoteProtocolError("price_count", f"{len(values)} prices or stages for {count} intervals")
    if isinstance(line, StageLine):
        if len(set(values)) > STAGE_COUNT_MAX:
            raise RemoteProtocolError("stage_count", f"{len(set(values))} stages, expected at most {STAGE_COUNT_MAX}")
        return _indicators(values)
    lowest, span = min(values), max(values) - min(values)
    if not span:
        return []
    return [np.array([(price - lowest) / span for price in values], np.float64)]


def _indicators(groups: Sequence[int]) -> list[NDArray[np.float64]]:
    numbers = np.unique(np.asarray(groups, np.int64), return_inverse=True)[1]
    return [(numbers == group).astype(np.float64) for group in range(int(numbers.max()) + 1)]


def _leverage_max(matrix: NDArray[np.float64]) -> float:
    normed = matrix / np.linalg.norm(matrix, axis=0)
    left, singular, _ = np.linalg.svd(normed, full_matrices=False)
    kept = left[:, singular > _RANK_TOLERANCE * singular[0]]
    return float(np.einsum("ij,ij->i", kept, kept).max())
