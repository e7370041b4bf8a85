"""
A bill from commitments: the supplier learns the amount for a time-variable tariff, and no interval.

The EMP (external market participant, here the supplier) holds a gateway's commitments C_τ = x_τ·G + ρ_τ·H to the
energy of each interval. It sends integer prices p_τ; the gateway answers with B = Σ p_τ·x_τ and P = Σ p_τ·ρ_τ mod L.
The EMP checks Σ p_τ·C_τ = B·G + P·H. A wrong B that passes would open one commitment in two ways.

Prices are integers in a unit that the tariff fixes (say 10^-5 ct/Wh) and may be negative: energy then earns money, and
B may be negative, a credit. All is exact; rounding to money happens once, on B, outside. No value wraps mod L (253
bits): with |p| <= `PRICE_MAX`, |x| < 2^63 and at most `INTERVAL_COUNT_MAX` intervals, |B| < 2^63 · 2^32 · 2^20 = 2^115.
The EMP refuses a B beyond its own bound, so exactly one integer passes: B plus a multiple of L would satisfy the
equation, but not the bound.

What a bill tells: one linear equation in the readings. A curious EMP would ask with other prices again, or with prices
that are zero but for one interval, or so far apart that B's digits are readings. So the gateway answers only
(`check_request`) price vectors that are published for all customers and signed (the caller's check), each interval in
one bill, with enough intervals that count, none of which outweighs the others: its price is at most 1/`WEIGHT_PARTS` of
the sum of all (of a quarter of the least number of intervals, if that is fewer), so that even B's leading digits are a
sum over several. Beyond that, weights far apart cannot be told from a wild market by arithmetic alone; that the tariff
is public is what stops them.

A request is named by its digest over tariff and intervals: the same request has the same answer for good.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.group import Group
from protocol.dcnet.crypto.suite import digest
from protocol.errors import LocalProtocolError, RemoteProtocolError

PRICE_MAX = 2**32
READING_MAX = 2**63
INTERVAL_COUNT_MAX = 2**20
WEIGHT_PARTS = 8
AMOUNT_SIZE = 16


@dataclass(frozen=True, slots=True)
class Bill:
    """The gateway's answer: `amount` in price unit times energy unit, `blinding` a scalar that proves it."""

    amount: int
    blinding: int

    def amount_bytes(self) -> bytes:
        """The amount as it travels: 16 bytes, signed, little-endian (|B| < 2^115)."""
        return self.amount.to_bytes(AMOUNT_SIZE, "little", signed=True)


def request_digest(tariff: bytes, intervals: bytes) -> bytes:
    """The 32 bytes that name a request: the tariff's document and the bitmap of its intervals."""
    return digest("bill-request", tariff, intervals)


def check_request(
    intervals: Sequence[int],
    prices: Sequence[int],
    billed: Collection[int],
    *,
    priced_count_min: int,
    price_max: int = PRICE_MAX,
) -> None:
    """
    Raise `RemoteProtocolError` unless the gateway may answer; the EMP's request is not trusted.

    `intervals` are the numbers of the intervals, ascending, one price each; `billed` those answered before;
    `priced_count_min` is how many intervals at least must have a price that is not 0; `price_max` bounds a price's
    absolute value, `PRICE_MAX` at most.
    """
    if len(intervals) != len(prices) or not 0 < len(prices) <= INTERVAL_COUNT_MAX:
        raise RemoteProtocolError("price_count", f"{len(prices)} prices for {len(intervals)} intervals")
    if any(later <= earlier for earlier, later in pairwise(intervals)):
        raise RemoteProtocolError("intervals_not_ascending")
    if any(abs(price) > min(price_max, PRICE_MAX) for price in prices):
        raise RemoteProtocolError("price_range", f"a price is over {min(price_max, PRICE_MAX)} in absolute value")
    if sum(price != 0 for price in prices) < priced_count_min:
        raise RemoteProtocolError("too_few_priced_intervals", f"at least {priced_count_min} must have a price")
    parts = max(1, min(WEIGHT_PARTS, priced_count_min // 4))
    if max(map(abs, prices)) * parts > sum(map(abs, prices)):
        raise RemoteProtocolError("price_dominates", f"one price is over 1/{parts} of the sum of all")
    if any(interval in billed for interval in intervals):
        raise RemoteProtocolError("interval_billed_before")


def make_bill(pedersen: Pedersen, prices: Sequence[int], readings: Sequence[int], blindings: Sequence[int]) -> Bill:
    """
    Compute the gateway's answer to a request that `check_request` let pass.

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
    return pedersen.opens(_priced(group, prices, commitments), bill.amount, bill.blinding)


def _priced(group: Group, prices: Sequence[int], commitments: Sequence[bytes]) -> bytes:
    """
    Σ p·C by additions alone: those of one price are added up first, and the sums weighed digit by digit.

    The bucket method for many small weights: for each digit the sums that have it are added up, and the buckets again
    from the largest down, so that bucket d counts d times. Source: Bernstein, Doumen, Lange, Oosterwijk, "Faster Batch
    Forgery Identification", Indocrypt 2012, section 4.
    """
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
