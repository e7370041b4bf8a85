"""
Optional distributed differential privacy: each member adds a little noise, the ring total carries exactly enough.

A total hides a household among n, but totals can be compared (with and without one household, over time). If the total
carries noise K with P[K = k] proportional to a^|k|, a = exp(-ε/Δ), then no household can change the probability of any
published value by more than the factor exp(ε), when one household changes the total by at most Δ (the discrete Laplace
or two-sided geometric mechanism: Ghosh, Roughgarden, Sundararajan, STOC 2009). Nobody may know K, so nobody may draw
it: K is infinitely divisible, the difference of two geometric variables, and a geometric variable is the sum of m
independent Pólya (negative binomial) variables of shape 1/m. So each of m honest members adds the difference of two
Pólya(1/m, a) draws (Goryczka, Xiong, IEEE TDSC 2017, section 4.3).

m is n_min minus the corrupt members: corrupt ones may add nothing or know what they added, so they do not count. More
honest members than m make the noise larger and the privacy better, never worse.

Drawing without floating point, whose gaps have undone Laplace mechanisms before (Mironov, CCS 2012): a Pólya variable
is the sum of N logarithmic variables, N Poisson with mean -ln(1-a)/m; a logarithmic variable is geometric with a
success probability itself drawn (Kemp, Applied Statistics 1981). Uniform numbers have 160 bits, arithmetic 60 decimal
digits; the distance from the exact distribution is below 2^-100 for every draw, which adds that much to δ.

Noise belongs in slots that are not `committed`: a commitment to a noisy value could not be billed, and one to the true
value would make the coordinator see the noise.

A share is drawn once for a contribution and is a part of its durable vector: a second attempt or a restart that drew
anew would let two sums of one reading be averaged.
"""

import math
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache

from protocol.errors import LocalProtocolError

EXPONENT_MIN = Fraction(1, 10**12)
EXPONENT_MAX = Fraction(50)

_UNIFORM_BITS = 160
_CONTEXT = Context(prec=60)
_UNIT = Decimal(1)

RandomBits = Callable[[int], int]


class NoiseShare:
    """
    One member's part of the noise of a slot: differences of Pólya draws, as integers in the slot's unit.

    `epsilon` is the privacy loss of one published total, `sensitivity` the most that one household changes it, and
    `honest_count` the honest members that a total has at least. Raises `LocalProtocolError` for values that are not
    positive and for epsilon/sensitivity out of `EXPONENT_MIN`..`EXPONENT_MAX`.
    """

    def __init__(self, epsilon: Fraction, sensitivity: int, honest_count: int) -> None:
        if epsilon <= 0 or sensitivity < 1 or honest_count < 1:
            raise LocalProtocolError("epsilon, sensitivity and the number of honest members are positive")
        exponent = epsilon / sensitivity
        if not EXPONENT_MIN <= exponent <= EXPONENT_MAX:
            raise LocalProtocolError("epsilon over sensitivity is out of range")
        decay = _CONTEXT.exp(_CONTEXT.divide(Decimal(-exponent.numerator), Decimal(exponent.denominator)))
        self._log_complement = _CONTEXT.ln(_CONTEXT.subtract(_UNIT, decay))
        mean = _CONTEXT.divide(-self._log_complement, Decimal(honest_count))
        self._mean = mean
        self._none = _CONTEXT.exp(-mean)

    def draw(self, random_bits: RandomBits) -> int:
        """A fresh share, positive or negative; `random_bits(n)` gives a uniform integer of n bits."""
        return self.polya(random_bits) - self.polya(random_bits)

    def polya(self, random_bits: RandomBits) -> int:
        """One Pólya variable of shape 1/honest_count."""
        return sum(self._logarithmic(random_bits) for _ in range(self._poisson(random_bits)))

    def _poisson(self, random_bits: RandomBits) -> int:
        uniform = _uniform(random_bits)
        count, term, below = 0, self._none, Decimal(0)
        # Rounded to 60 digits the sum may stop short of 1; then the last count that changed it is the answer.
        while uniform > (cumulative := _CONTEXT.add(below, term)) > below:
            count += 1
            term = _CONTEXT.divide(_CONTEXT.multiply(term, self._mean), Decimal(count))
            below = cumulative
        return count

    def _logarithmic(self, random_bits: RandomBits) -> int:
        survival = _CONTEXT.subtract(
            _UNIT, _CONTEXT.exp(_CONTEXT.multiply(self._log_complement, _uniform(random_bits)))
        )
        if not survival:
            return 1
        steps = _CONTEXT.divide(_CONTEXT.ln(_uniform(random_bits)), _CONTEXT.ln(survival))
        return 1 + int(steps)


@lru_cache(maxsize=256)
def noise_share(epsilon_ppm: int, sensitivity: int, honest_count: int) -> NoiseShare:
    """As `NoiseShare`, ε in parts in a million; a process needs few of them."""
    return NoiseShare(Fraction(epsilon_ppm, 1_000_000), sensitivity, honest_count)


def total_deviation(epsilon_ppm: int, sensitivity: int) -> float:
    """
    Standard deviation of a total's noise, to say how blurred it is: sqrt(2a)/(1-a) with a = exp(-ε/Δ).

    Some 1.4·Δ/ε where ε/Δ is small.
    """
    return 1 / (math.sqrt(2) * math.sinh(epsilon_ppm / 1_000_000 / sensitivity / 2))


def _uniform(random_bits: RandomBits) -> Decimal:
    """Uniform on (0, 1], in steps of 2^-160."""
    return _CONTEXT.divide(Decimal(random_bits(_UNIFORM_BITS) + 1), Decimal(2**_UNIFORM_BITS))
