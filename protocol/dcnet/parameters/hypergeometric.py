"""
Tails of the hypergeometric distribution, as bits: how sure it is that a random neighbourhood is not unlucky.

Ring order is a random permutation that nobody chose (the beacon), so the number of corrupt or silent members among k
given positions is hypergeometric: drawing k of N without returning them, of which K are marked. The probabilities of
interest are around 2^-60, with N up to 10^8, so everything is in logarithms to base 2; "bits" is minus that, infinite
for the impossible. The first term comes from lgamma (absolute error below 10^-5 bits for N = 10^8), the further ones
from the ratio of neighbouring terms; they fall at least geometrically beyond the mean, and the sum stops where a term
no longer changes a double.
"""

import math


def tail_bits(population: int, marked: int, drawn: int, at_least: int) -> float:
    """
    Minus log2 of P[X >= at_least], X the marked among `drawn` of `population`; 0.0 for certain, inf for impossible.

    Exact to about 10^-5 bits, never more than the true value by more than that.
    """
    low, high = max(0, drawn + marked - population), min(marked, drawn)
    if at_least <= low:
        return 0.0
    if at_least > high:
        return math.inf
    ratio_sum = term = 1.0
    for x in range(at_least, high):
        term *= (marked - x) * (drawn - x) / ((x + 1) * (population - marked - drawn + x + 1))
        ratio_sum += term
        if term < ratio_sum * 1e-17 and (marked - x) * (drawn - x) < (x + 1) * (population - marked - drawn + x + 1):
            break
    log_first = (
        _log_choose(marked, at_least)
        + _log_choose(population - marked, drawn - at_least)
        - _log_choose(population, drawn)
    )
    return max(0.0, -(log_first + math.log(ratio_sum)) / math.log(2))


def least_safe(population: int, marked: int, drawn: int, bits: float, *, start: int = 0) -> int:
    """
    The least x >= start with P[X > x] <= 2^-bits: more than x marked ones are too unlikely to count with.

    Linear from `start`: hand in the last answer when `drawn` grows step by step.
    """
    x = start
    while tail_bits(population, marked, drawn, x + 1) < bits:
        x += 1
    return x


def sum_bits(*bits: float) -> float:
    """Bits of a union bound: minus log2 of the sum of the probabilities behind `bits`; at least 0."""
    least = min(bits)
    if math.isinf(least):
        return math.inf
    return max(0.0, least - math.log2(sum(2.0 ** (least - each) for each in bits)))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
