"""
Price sheets with a spike: the mean price over a block around it, where the spike alone would single its hour out.

A dynamic tariff with an hour at 94 ct lets an interval of that hour hide among 19, one at 150 ct among 8: too few.
With the mean over 32 intervals (8 h) around it, else over 96 (a day), it hides well, and the customer pays the mean of
what the sheet asks for there.  Which blocks are averaged follows from prices, spans and hours, never from values.

The answer names the blocks, and the EMP holds them against its own sheet (`check_blocks`): else a customer would
average its dear hours with cheap ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.dcnet.billing.leverage import AmountLine, is_hidden, least_hidden, leverages
from protocol.errors import RemoteProtocolError

BLOCK_LENGTHS = (32, 96)
BLOCKS_MAX = 8
_TOLERANCE = 1e-6
"""Of a leverage: two machines round differently, and where intervals are alike either may come first."""


@dataclass(frozen=True, slots=True)
class SpanRule:
    """For each interval the span between registers that it lies in and its local hour; what is usual by hour."""

    spans: tuple[int, ...]
    hours: tuple[int, ...]
    tables: tuple[tuple[int, ...], ...]
    hiding_min: int


def average(prices: Sequence[int], start: int, length: int) -> list[int]:
    """The prices with the rounded mean (half up) in one block."""
    part = prices[start : start + length]
    mean = (2 * sum(part) + length) // (2 * length)
    return [*prices[:start], *[mean] * length, *prices[start + length :]]


def smoothed(prices: Sequence[int], rule: SpanRule) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """
    The length of the blocks (0 where none is needed), their first indices, and the prices that hide every interval.

    Raises RemoteProtocolError `tariff_singles_out` where `BLOCKS_MAX` blocks of neither length do.
    """
    count, worst = _least(prices, rule)
    if is_hidden(count, rule.hiding_min):
        return 0, (), tuple(prices)
    for length in BLOCK_LENGTHS:
        changed, starts, at = list(prices), list[int](), worst
        while len(starts) < BLOCKS_MAX and length <= len(changed):
            start = _start_around(at, length, len(changed))
            changed = average(changed, start, length)
            starts.append(start)
            found, at = _least(changed, rule)
            if is_hidden(found, rule.hiding_min):
                return length, tuple(starts), tuple(changed)
    raise RemoteProtocolError(
        "tariff_singles_out",
        f"an interval would hide among {count:.1f} intervals, expected at least {rule.hiding_min}, and averaging its"
        " surroundings does not help",
    )


def check_blocks(prices: Sequence[int], length: int, starts: Sequence[int], rule: SpanRule) -> None:
    """
    Raise RemoteProtocolError `bad_blocks` unless a gateway that keeps to `smoothed` may have averaged these blocks.

    No blocks always hold: the customer then pays the sheet's own prices.
    """
    if not starts:
        return
    if length not in BLOCK_LENGTHS or len(prices) < length or smoothed(prices, rule)[0] != length:
        raise RemoteProtocolError("bad_blocks", "prices that are averaged where the sheet hides every interval")
    changed = list(prices)
    for start in starts:
        found = _of_each(changed, rule)
        if 1 / found.max() > rule.hiding_min * (1 + _TOLERANCE):
            raise RemoteProtocolError("bad_blocks", "a block more than the sheet needs")
        worst = np.flatnonzero(found >= found.max() * (1 - _TOLERANCE))
        if start not in {_start_around(int(at), length, len(changed)) for at in worst}:
            raise RemoteProtocolError("bad_blocks", "a block that is not around what stands out most")
        changed = average(changed, start, length)
    if 1 / _of_each(changed, rule).max() < rule.hiding_min * (1 - _TOLERANCE):
        raise RemoteProtocolError("bad_blocks", "fewer blocks than the sheet needs")


def _start_around(at: int, length: int, count: int) -> int:
    return max(0, min(at - length // 2, count - length))


def _of_each(prices: Sequence[int], rule: SpanRule) -> NDArray[np.float64]:
    return leverages(rule.spans, rule.hours, [AmountLine(tuple(prices))], rule.tables)


def _least(prices: Sequence[int], rule: SpanRule) -> tuple[float, int]:
    return least_hidden(rule.spans, rule.hours, [AmountLine(tuple(prices))], rule.tables)
