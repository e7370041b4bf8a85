"""
Whether the sums that a bill discloses single an interval out: a rule on the question alone, never on the values.

A bill tells its receiver a few linear combinations of a gateway's interval values: the sum of every span between two
registers that were given out, the sum of each price stage, or prices times values.  The statistical leverage of an
interval is how much of its own value those combinations determine, from 0 to 1: the diagonal of the orthogonal
projection onto their span (the hat matrix; Hoaglin and Welsch, The American Statistician 1978).  At 1 the value follows
exactly; at 1/24 the interval hides among the equivalent of 24 intervals.

- Households use little at night, so a night interval beside a large day interval hides less well than a count says.
  Rows are weighted once alike and once by each table of what is usual by local hour; the worst counts.
- A roof draws nothing at noon and feeds nothing in at night: a stage of all nights and one noon would be that noon's
  feed-in, exactly. So import is weighted with noon at next to nothing as well, export by the sun of the longest and
  the shortest day.
- Prices are mapped to (p - min)/(max - min) from exact integers before they become floating-point numbers.  Otherwise a
  price of 4·10^9 everywhere, and 1 more in one interval, is rounded to a flat tariff, and the amount's last digit is
  that interval.
- Columns are normed and singular values up to 1e-9 of the largest dropped, so that columns that say the same (stages
  add up to the span) count once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

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

ROOF_IMPORT_WH = tuple(1 if 12 <= hour < 16 else usual for hour, usual in enumerate(HOURLY_MEAN_WH))
"""The same behind a roof: by day it draws next to nothing."""

SUN_JUNE = (1, 1, 1, 1, 1, 45, 185, 334, 482, 619, 734, 820, 871, 884, 858, 795, 698, 575, 434, 284, 136, 16, 1, 1)
SUN_DECEMBER = (1, 1, 1, 1, 1, 1, 1, 1, 16, 115, 202, 253, 266, 240, 177, 80, 2, 1, 1, 1, 1, 1, 1, 1)
"""Mean sine of the sun's elevation in thousandths at the solstices, 51 degrees north and 10 east, by hour of German
legal time; 1 in the night."""

IMPORT_TABLES = (HOURLY_MEAN_WH, ROOF_IMPORT_WH)
EXPORT_TABLES = (SUN_JUNE, SUN_DECEMBER)

LEGAL_TIME = ZoneInfo("Europe/Berlin")

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


def hiding_intervals(
    spans: Sequence[int],
    hours: Sequence[int],
    lines: Sequence[Line],
    tables: Sequence[Sequence[int]] = (HOURLY_MEAN_WH,),
) -> float:
    """As `least_hidden`, the number alone."""
    return least_hidden(spans, hours, lines, tables)[0]


def least_hidden(
    spans: Sequence[int],
    hours: Sequence[int],
    lines: Sequence[Line],
    tables: Sequence[Sequence[int]] = (HOURLY_MEAN_WH,),
) -> tuple[float, int]:
    """
    The inverse of the largest leverage, the least number of intervals, in effect, that one hides among; and which one.

    Arguments and errors are those of `leverages`.
    """
    found = leverages(spans, hours, lines, tables)
    return 1.0 / float(found.max()), int(found.argmax())


def leverages(
    spans: Sequence[int],
    hours: Sequence[int],
    lines: Sequence[Line],
    tables: Sequence[Sequence[int]] = (HOURLY_MEAN_WH,),
) -> NDArray[np.float64]:
    """
    The leverage of each interval, the largest under any of the weights; float, one for each.

    `spans` gives for each interval of the request the span between two registers that it lies in, `hours` its local
    hour (0 to 23), `lines` what is disclosed beside the spans' sums,
    `tables` what is usual in each local hour.  Raises RemoteProtocolError for lines of
    another length or too many lines or stages, LocalProtocolError for `spans` and `hours` of different lengths.
    """
    if len(spans) != len(hours) or not spans:
        raise LocalProtocolError("one span and one local hour for each interval")
    matrix = np.column_stack(
        [*_indicators(spans), *(column for line in _checked(lines, len(spans)) for column in line)]
    )
    weights = [np.array(table, np.float64)[np.asarray(hours)] for table in tables]
    found: NDArray[np.float64] = np.max(
        [_leverages(matrix), *(_leverages(matrix * each[:, None]) for each in weights)], axis=0
    )
    return found


def check_leverage(
    spans: Sequence[int], hours: Sequence[int], lines: Sequence[Line], *,
    tables: Sequence[Sequence[int]] = (HOURLY_MEAN_WH,), hiding_min: int = HIDING_INTERVALS_MIN,
) -> None:  # fmt: skip
    """Raise RemoteProtocolError `tariff_singles_out` where an interval hides among fewer than `hiding_min`."""
    count = hiding_intervals(spans, hours, lines, tables)
    if not is_hidden(count, hiding_min):
        raise RemoteProtocolError(
            "tariff_singles_out", f"an interval would hide among {count:.1f} intervals, expected at least {hiding_min}"
        )


def is_hidden(count: float, hiding_min: int) -> bool:
    """Whether an interval that hides among `count` hides among `hiding_min` or more, but for rounding."""
    return count >= hiding_min * (1 - _RANK_TOLERANCE)


def local_hours(intervals_s: Sequence[int]) -> list[int]:
    """The hour (0 to 23) of German legal time in which each interval starts, from Unix times in seconds."""
    return [datetime.fromtimestamp(start, LEGAL_TIME).hour for start in intervals_s]


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


def _leverages(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    normed = matrix / np.linalg.norm(matrix, axis=0)
    left, singular, _ = np.linalg.svd(normed, full_matrices=False)
    kept = left[:, singular > _RANK_TOLERANCE * singular[0]]
    squares: NDArray[np.float64] = np.einsum("ij,ij->i", kept, kept)
    return squares
