"""
Which bills a gateway opens from its commitments: the rule of the second edition, independent of values.

A bill is a weighted sum of the intervals since the last one.  Where a few intervals carry most of what the weights can
tell apart, the amount is about them: the largest leverage of an interval on the space that all lines of a request and
the register span must be 1/24 or less, under equal weights and under a typical day (protocol page, bills).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVERAGE_MAX = 1 / 24
TYPICAL_WH = (33, 22, 17, 16, 18, 19, 25, 41, 65, 90, 98, 98, 87, 87, 86, 80, 68, 65, 66, 62, 64, 57, 55, 45)
_RANK_TOLERANCE = 1e-9


def largest_leverage(lines: Sequence[Sequence[int]], slots_a_day: int) -> float:
    """The largest leverage of an interval in a request: lines of prices, one price an interval, from 00:00."""
    count = len(lines[0])
    columns = [np.ones(count)]
    for line in lines:
        prices = np.array(line, np.float64)
        if prices.max() > prices.min():
            columns.append((prices - prices.min()) / (prices.max() - prices.min()))
    hours = (np.arange(count) % slots_a_day) * 24 // slots_a_day
    typical = np.array(TYPICAL_WH, np.float64)[hours]
    return max(_largest(np.stack(columns, axis=1) * weights[:, None]) for weights in (np.ones(count), typical))


def _largest(rows: Floats) -> float:
    normed = rows / np.linalg.norm(rows, axis=0)
    left, values, _ = np.linalg.svd(normed, full_matrices=False)
    kept = left[:, values > _RANK_TOLERANCE * values[0]]
    return float((kept**2).sum(axis=1).max())


def opens(lines: Sequence[Sequence[int]], slots_a_day: int) -> bool:
    """Whether a gateway answers the request."""
    return largest_leverage(lines, slots_a_day) <= LEVERAGE_MAX * (1 + 1e-9)
