"""
The noise of a total has the distribution that the privacy claim rests on: chi-square tests with fixed seeds.

The critical values are for a false alarm of 0.1 %; the seeds are fixed, so a failure is a change of the sampler.
"""

import math
import random
from fractions import Fraction

import pytest

from protocol.dcnet.crypto.noise import NoiseShare, noise_share, total_deviation
from protocol.errors import LocalProtocolError

CRITICAL = {8: 26.12, 10: 29.59, 12: 32.91}


def chi_square(observed: list[int], probabilities: list[float]) -> float:
    count = sum(observed)
    return sum((seen - count * p) ** 2 / (count * p) for seen, p in zip(observed, probabilities, strict=True))


def discrete_laplace_tail_bins(a: float, edge: int) -> list[float]:
    """P of <= -edge, -edge+1 .. edge-1, >= edge."""
    scale = (1 - a) / (1 + a)
    inner = [scale * a ** abs(k) for k in range(-edge + 1, edge)]
    outer = (1 - sum(inner)) / 2
    return [outer, *inner, outer]


@pytest.mark.parametrize(("honest", "seed"), [(1, 1), (4, 2)])
def test_the_sum_of_all_shares_is_discrete_laplace(honest: int, seed: int) -> None:
    rng = random.Random(seed)
    share = NoiseShare(Fraction(1), 2, honest)
    totals = [sum(share.draw(rng.getrandbits) for _ in range(honest)) for _ in range(2000)]
    edge = 4
    observed = [sum(max(-edge, min(edge, total)) == k for total in totals) for k in range(-edge, edge + 1)]
    assert chi_square(observed, discrete_laplace_tail_bins(math.exp(-0.5), edge)) < CRITICAL[8]


def test_one_polya_share() -> None:
    rng = random.Random(3)
    a, r = math.exp(-0.25), 1 / 5
    share = NoiseShare(Fraction(1, 2), 2, 5)
    draws = [share.polya(rng.getrandbits) for _ in range(4000)]
    inner = [math.exp(math.lgamma(k + r) - math.lgamma(r) - math.lgamma(k + 1)) * (1 - a) ** r * a**k for k in range(8)]
    observed = [sum(min(draw, 8) == k for draw in draws) for k in range(9)]
    assert chi_square(observed, [*inner, 1 - sum(inner)]) < CRITICAL[8]


def test_large_scales_by_quantiles() -> None:
    """Sensitivity 10 kWh in Wh: eleven bins of equal probability of the continuous limit."""
    rng = random.Random(4)
    share = NoiseShare(Fraction(1), 10_000, 3)
    totals = [sum(share.draw(rng.getrandbits) for _ in range(3)) for _ in range(500)]
    observed = [0] * 11
    for total in totals:
        upper = math.exp(-abs(total) / 10_000) / 2
        observed[min(10, int((upper if total < 0 else 1 - upper) * 11))] += 1
    assert chi_square(observed, [1 / 11] * 11) < CRITICAL[10]


def test_a_wrong_scale_would_be_noticed() -> None:
    """The statistic has the power to tell m from m + 1 honest members."""
    rng = random.Random(5)
    share = NoiseShare(Fraction(1), 2, 4)
    totals = [sum(share.draw(rng.getrandbits) for _ in range(3)) for _ in range(2000)]
    observed = [sum(max(-4, min(4, total)) == k for total in totals) for k in range(-4, 5)]
    assert chi_square(observed, discrete_laplace_tail_bins(math.exp(-0.5), 4)) > CRITICAL[8]


def test_neighbouring_totals_differ_by_the_factor_of_epsilon() -> None:
    """The mechanism itself: shifted by the sensitivity, no outcome's probability changes by more than exp(epsilon)."""
    a = math.exp(-0.5)
    for k in range(-20, 21):
        assert abs(math.log(a ** abs(k) / a ** abs(k - 2))) <= 1 + 1e-12


def test_the_same_bits_give_the_same_noise() -> None:
    share = NoiseShare(Fraction(1), 1000, 8)
    draws = [[share.draw(random.Random(seed).getrandbits) for seed in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert any(draws[0])


def test_extreme_uniforms_end() -> None:
    share = NoiseShare(Fraction(1), 2, 1)
    assert share.polya(lambda _: 0) == 0
    largest = share.polya(lambda bits: 2**bits - 1)
    assert 0 < largest < 1000
    tight = NoiseShare(Fraction(50), 1, 1)
    sequence = iter([2**160 - 1, *[0] * 1000])
    assert tight.polya(lambda _: next(sequence)) > 0


@pytest.mark.parametrize(
    ("epsilon", "sensitivity", "honest"),
    [
        (Fraction(0), 1, 1),
        (Fraction(1), 0, 1),
        (Fraction(1), 1, 0),
        (Fraction(51), 1, 1),
        (Fraction(1, 10**13), 1, 1),
    ],
)
def test_refused_parameters(epsilon: Fraction, sensitivity: int, honest: int) -> None:
    with pytest.raises(LocalProtocolError):
        NoiseShare(epsilon, sensitivity, honest)


def test_a_process_makes_each_share_once() -> None:
    assert noise_share(500_000, 2, 5) is noise_share(500_000, 2, 5)
    ours, theirs = random.Random(6), random.Random(6)
    share = NoiseShare(Fraction(1, 2), 2, 5)
    drawn = [noise_share(500_000, 2, 5).draw(ours.getrandbits) for _ in range(20)]
    assert drawn == [share.draw(theirs.getrandbits) for _ in range(20)]


def test_the_deviation_of_a_total_is_that_of_the_geometric_distribution() -> None:
    a = math.exp(-0.5)
    variance = sum((1 - a) / (1 + a) * a ** abs(k) * k * k for k in range(-200, 201))
    assert total_deviation(1_000_000, 2) == pytest.approx(math.sqrt(variance), rel=1e-9)
    assert total_deviation(1_000_000, 24_000) == pytest.approx(math.sqrt(2) * 24_000, rel=1e-6)
