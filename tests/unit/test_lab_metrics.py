"""Scores on data whose answer is known, and intervals that cover it as often as they say."""

import math

import numpy as np
import pytest

from loadtest.lab import metrics
from loadtest.lab.metrics import Estimate
from loadtest.lab.output import shown

RNG = np.random.default_rng(11)


def test_wilson_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    covered = [
        found.low <= 0.1 <= found.high
        for found in (metrics.proportion(int(rng.binomial(60, 0.1)), 60) for _ in range(2000))
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)


def test_bootstrap_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    covered = [
        found.low <= 1.0 <= found.high for found in (metrics.mean(rng.exponential(1.0, 80), rng) for _ in range(300))
    ]
    assert np.mean(covered) == pytest.approx(0.93, abs=0.045)


def test_an_interval_has_width_where_every_guess_was_right() -> None:
    found = metrics.advantage(40, 40)
    assert found.value == 1.0
    assert 0.8 < found.low < 0.9


def test_no_units_give_no_estimate() -> None:
    assert math.isnan(metrics.mean(np.array([]), RNG).value)
    assert metrics.proportion(0, 0).count == 0


def test_true_positives_are_those_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(4)
    found = metrics.true_positives_at(0.01, rng.normal(2.0, 1.0, 20_000), rng.normal(0.0, 1.0, 20_000), rng)
    assert found.value == pytest.approx(0.372, abs=0.035)  # 1 - Phi(2.326 - 2)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 2.0])
def test_the_empirical_epsilon_bounds_randomised_response_from_below(epsilon: float) -> None:
    rng = np.random.default_rng(5)
    truthful = math.exp(epsilon) / (1 + math.exp(epsilon))
    inside = (rng.random(20_000) < truthful).astype(float) + rng.random(20_000) * 1e-6
    outside = (rng.random(20_000) >= truthful).astype(float) + rng.random(20_000) * 1e-6
    found = metrics.empirical_epsilon(inside, outside)
    assert found.low <= epsilon
    assert found.low >= epsilon - 0.25
    assert found.high >= epsilon - 0.05


def test_relative_entropy_is_zero_of_the_same_and_grows_with_the_difference() -> None:
    load = RNG.gamma(2.0, 200.0, 5000)
    assert metrics.relative_entropy_bits(load, load) == 0.0
    assert metrics.relative_entropy_bits(load, np.full(5000, 300.0)) > 3.0
    assert metrics.relative_entropy_bits(np.ones(9), np.ones(9)) == 0.0


def test_mutual_information_is_that_of_a_noisy_channel() -> None:
    rng = np.random.default_rng(6)
    load = rng.normal(0.0, 1.0, 40_000)
    for noise in (0.5, 2.0):
        seen = load + rng.normal(0.0, noise, 40_000)
        assert metrics.mutual_information_bits(load, seen, rng) == pytest.approx(
            0.5 * math.log2(1 + 1 / noise**2), abs=0.06
        )
    assert metrics.mutual_information_bits(load, rng.normal(size=40_000), rng) < 0.01
    assert metrics.mutual_information_bits(load, np.zeros(40_000), rng) == 0.0


def test_a_shifted_copy_is_aligned() -> None:
    load = np.cumsum(RNG.normal(size=2000))
    for shift in (-7, 0, 12):
        assert metrics.aligned_r2(load, np.roll(load, shift), 20) > 0.98
    assert metrics.aligned_r2(load, np.zeros(2000), 20) == 0.0
    assert metrics.aligned_r2(RNG.normal(size=2000), RNG.normal(size=2000), 20) < 0.05


def test_edges_of_one_sign_in_a_row_are_one_change() -> None:
    slots, sizes = metrics.edges(np.array([100, 100, 900, 2100, 2100, 2090, 100, 100.0]))
    assert slots.tolist() == [2, 6]
    assert sizes.tolist() == [2000.0, -1990.0]
    assert metrics.edges(np.full(9, 50.0))[0].tolist() == []


def test_clusters_are_groups_of_equal_changes() -> None:
    load = np.array(([100, 100, 2100, 2100, 100, 100, 400, 400] * 6) + [100, 100.0])
    assert metrics.cluster_count(load) == 2
    assert metrics.cluster_count(np.full(50, 3.0)) == 0


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(166.4, 135.17, 2110.6, 9), "166 [135, 2,111]"),
        (Estimate(1.3, 1.28, 1.34, 9), "1.30 [1.28, 1.34]"),
        (Estimate(0.00333, 0.00059, 0.019, 9), "0.003 [0.001, 0.019]"),
        (Estimate(1.0, 1.0, 1.0, 9), "1"),
        (Estimate(0.5, -0.058, math.inf, 9), "0.500 [-0.058, ∞]"),
        (Estimate(math.nan, math.nan, math.nan, 9), "-"),
    ],
)
def test_estimates_are_shown_without_powers_of_ten(estimate: Estimate, text: str) -> None:
    """A reader compares the ends of an interval at a glance."""
    assert shown(estimate) == text
