"""
A bill from commitments: the supplier learns sums of stages or an amount, and no interval.

The EMP (external market participant, here the supplier) holds a gateway's commitments C_τ = x_τ·G + ρ_τ·H to the
energy of each interval. A weighted sum B = Σ p_τ·x_τ with integer weights is opened by P = Σ p_τ·ρ_τ mod L: the EMP
checks Σ p_τ·C_τ = B·G + P·H. A wrong B that passes would open one commitment in two ways. Which sums a gateway opens,
and what it proves without opening, is in billing.answers.

Prices are integers in a unit that the tariff fixes (say 10^-5 ct/Wh) and may be negative: energy then earns money, and
B may be negative, a credit. All is exact; rounding to money happens once, on B, outside. No value wraps mod L (253
bits): with |p| <= `PRICE_MAX`, |x| < 2^63 and at most `INTERVAL_COUNT_MAX` intervals, |B| < 2^63 · 2^32 · 2^20 = 2^115.
The EMP refuses a B beyond its own bound, so exactly one integer passes: B plus a multiple of L would satisfy the
equation, but not the bound.

What a bill tells: one linear equation in the readings. A curious EMP would ask with other prices again, with prices
that single an interval out, or over all intervals but one whose sum a register tells. So the gateway answers only price
sheets that are published for all customers and signed (the caller's check), and only requests that
`check_request` lets pass:

- Import or export energy (1.8.0, 2.8.0): what else a gateway commits to is nobody's to bill.
- Every interval that waits for its bill up to the end of the request, each in one bill for good: bills tile the time.
- A time, not a number of intervals: `SPAN_MIN_S` at least, by metering time.
- The leverage rule (protocol.dcnet.billing.leverage) over the price stages. B is an exact integer, so prices of
  different magnitudes make several equations of it: 10^9 in half of the intervals, 1 in one, 0 elsewhere, and
  B mod 10^9 is that one. Every such equation is one in the sums of the stages, the intervals of one price; these are
  what the rule judges. More than `STAGE_COUNT_MAX` prices are not answered exactly: there the rule judges the
  one equation, over prices that may be averaged around a spike (billing.spikes).

A request is named by its digest over tariff and intervals: the same request has the same answer for good.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from protocol.dcnet.billing.leverage import (
    EXPORT_TABLES,
    HIDING_INTERVALS_MIN,
    IMPORT_TABLES,
    STAGE_COUNT_MAX,
    StageLine,
    check_leverage,
    local_hours,
)
from protocol.dcnet.billing.spikes import SpanRule, smoothed
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.suite import digest
from protocol.errors import LocalProtocolError, RemoteProtocolError

BILLED_REGISTERS = {"1-0:1.8.0*255": IMPORT_TABLES, "1-0:2.8.0*255": EXPORT_TABLES}
SPAN_MIN_S = 27 * 86_400
PRICE_MAX = 2**32
READING_MAX = 2**63
INTERVAL_COUNT_MAX = 2**20


@dataclass(frozen=True, slots=True)
class Bill:
    """An opened sum: `amount` in price unit times energy unit, `blinding` a scalar that proves it."""

    amount: int
    blinding: int


@dataclass(frozen=True, slots=True)
class Request:
    """What a bill is asked for: the starts of intervals of `interval_s` seconds, ascending, with a price each."""

    obis: str
    interval_s: int
    intervals_s: Sequence[int]
    prices: Sequence[int]


@dataclass(frozen=True, slots=True)
class Judged:
    """
    A request that may be answered: by stages, or by an amount over `prices`.

    The prices are the request's but for blocks of `block_length` intervals at `block_starts`, which were averaged.
    """

    prices: tuple[int, ...]
    by_stages: bool
    block_length: int = 0
    block_starts: tuple[int, ...] = ()


class IntervalsLeftOutError(RemoteProtocolError):
    """A request without `intervals_s`, which wait for their bill: their sum would follow from a register."""

    def __init__(self, intervals_s: tuple[int, ...]) -> None:
        self.intervals_s = intervals_s
        super().__init__("intervals_left_out", f"{len(intervals_s)} intervals wait for their bill and are not in it")


def request_digest(tariff: bytes, intervals: bytes) -> bytes:
    """The 32 bytes that name a request: the tariff's document and the bitmap of its intervals."""
    return digest("bill-request", tariff, intervals)


def check_request(
    asked: Request, waiting: Collection[int], billed: Collection[int], registers_s: Sequence[int] = (), *,
    span_min_s: int = SPAN_MIN_S, hiding_min: int = HIDING_INTERVALS_MIN,
) -> Judged:  # fmt: skip
    """
    Say how the gateway may answer, raise `RemoteProtocolError` where it may not; the EMP's request is not trusted.

    `waiting` are the starts of the intervals of opened totals that are in no bill, `billed` those that are in one,
    `registers_s` the times at which the gateway gave its register out; all Unix time in seconds.  The request must
    reach over `span_min_s` seconds, and an interval hide among `hiding_min`.  Reasons: `register_not_billed`,
    `price_count`, `intervals_not_ascending`, `price_range`, `interval_billed_before`, `intervals_left_out` (an
    `IntervalsLeftOutError`), `span_too_short`, `tariff_singles_out`.
    """
    starts, prices = asked.intervals_s, asked.prices
    _check_register(asked.obis)
    if len(starts) != len(prices) or not 0 < len(prices) <= INTERVAL_COUNT_MAX:
        raise RemoteProtocolError("price_count", f"{len(prices)} prices for {len(starts)} intervals")
    if any(later - earlier < asked.interval_s for earlier, later in pairwise(starts)):
        raise RemoteProtocolError("intervals_not_ascending")
    if any(abs(price) > PRICE_MAX for price in prices):
        raise RemoteProtocolError("price_range", f"a price is over {PRICE_MAX} in absolute value")
    if not set(starts).isdisjoint(billed):
        raise RemoteProtocolError("interval_billed_before")
    end_s = starts[-1] + asked.interval_s
    left_out = sorted({start for start in waiting if start < end_s}.difference(starts))
    if left_out:
        raise IntervalsLeftOutError(tuple(left_out))
    if end_s - starts[0] < span_min_s:
        raise RemoteProtocolError(
            "span_too_short", f"the intervals reach over {end_s - starts[0]} s, expected at least {span_min_s} s"
        )
    rule = span_rule(asked.obis, starts, registers_s, hiding_min=hiding_min)
    if len(set(prices)) > STAGE_COUNT_MAX:
        length, block_starts, averaged = smoothed(prices, rule)
        return Judged(averaged, by_stages=False, block_length=length, block_starts=block_starts)
    stage_of = {price: stage for stage, price in enumerate(sorted(set(prices)))}
    line = StageLine(tuple(stage_of[price] for price in prices))
    check_leverage(rule.spans, rule.hours, [line], tables=rule.tables, hiding_min=hiding_min)
    return Judged(tuple(prices), by_stages=True)


def span_rule(
    obis: str, starts: Sequence[int], registers_s: Sequence[int] = (), *, hiding_min: int = HIDING_INTERVALS_MIN
) -> SpanRule:
    """
    By what a bill of a register is judged, for intervals that start there (Unix time, s).

    Raises RemoteProtocolError `register_not_billed`.
    """
    _check_register(obis)
    given_s = sorted(registers_s)
    return SpanRule(
        tuple(bisect_right(given_s, start) for start in starts), tuple(local_hours(starts)),
        tuple(map(tuple, BILLED_REGISTERS[obis])), hiding_min,
    )  # fmt: skip


def _check_register(obis: str) -> None:
    if obis not in BILLED_REGISTERS:
        raise RemoteProtocolError("register_not_billed", f"expected one of {', '.join(sorted(BILLED_REGISTERS))}")


def make_bill(pedersen: Pedersen, prices: Sequence[int], readings: Sequence[int], blindings: Sequence[int]) -> Bill:
    """
    Open the sum of `readings`, each times its price.

    Raises `LocalProtocolError` for lengths that differ and for readings that are no signed 64-bit integers.
    """
    if not len(prices) == len(readings) == len(blindings):
        raise LocalProtocolError("one price, reading and blinding for each interval")
    if not all(-READING_MAX <= reading < READING_MAX for reading in readings):
        raise LocalProtocolError("a reading is a signed 64-bit integer")
    return Bill(
        sum(price * reading for price, reading in zip(prices, readings, strict=True)),
        sum(price * blinding for price, blinding in zip(prices, blindings, strict=True)) % pedersen.group.order,
    )


def verify_bill(
    pedersen: Pedersen, prices: Sequence[int], commitments: Sequence[bytes], bill: Bill, *, reading_max: int
) -> bool:
    """
    Whether the gateway's `bill` is the one for `prices` (the EMP's own) over the committed readings.

    `reading_max` bounds a reading's absolute value (at most `READING_MAX`): an amount over reading_max · Σ|p| is
    refused without a look at the equation. Commitments come from totals that were verified, where each was checked to
    be an element; here only their sum is, by the equation. Costs an addition for each interval and some two for each
    distinct price. Raises `RemoteProtocolError` for commitments off the curve, `LocalProtocolError` for arguments out
    of range.
    """
    if len(prices) != len(commitments) or not 0 < len(prices) <= INTERVAL_COUNT_MAX:
        raise LocalProtocolError("one price for each commitment, and a bounded number")
    if any(abs(price) > PRICE_MAX for price in prices) or not 0 <= reading_max <= READING_MAX:
        raise LocalProtocolError("price or reading bound out of range")
    group = pedersen.group
    if abs(bill.amount) > reading_max * sum(map(abs, prices)) or not 0 <= bill.blinding < group.order:
        return False
    return pedersen.opens(priced_commitments(pedersen, prices, commitments), bill.amount, bill.blinding)


def priced_commitments(pedersen: Pedersen, prices: Sequence[int], commitments: Sequence[bytes]) -> bytes:
    """
    Give Σ p·C by additions alone: those of one price are added up first, and the sums weighed digit by digit.

    The bucket method for many small weights: for each digit the sums that have it are added up, and the buckets again
    from the largest down, so that bucket d counts d times. Source: Bernstein, Doumen, Lange, Oosterwijk, "Faster Batch
    Forgery Identification", Indocrypt 2012, section 4.
    """
    group = pedersen.group
    identity = group.multiply_base(0)
    alike: dict[int, bytes] = {}
    for price, commitment in zip(prices, commitments, strict=True):
        alike[abs(price)] = (group.subtract if price < 0 else group.add)(alike.get(abs(price), identity), commitment)
    bits = max(alike).bit_length()
    width = min(range(1, 13), key=lambda each: -(-bits // each) * (len(alike) + 2 ** (each + 1)))
    result = identity
    for shift in reversed(range(0, bits, width)):
        for _ in range(width):
            result = group.add(result, result)
        buckets = [identity] * (1 << width)
        for price, commitment in alike.items():
            digit = price >> shift & (1 << width) - 1
            if digit:
                buckets[digit] = group.add(buckets[digit], commitment)
        running = identity
        for bucket in reversed(buckets[1:]):
            running = group.add(running, bucket)
            result = group.add(result, running)
    return result
