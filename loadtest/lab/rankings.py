"""
How well metrics of curves rank the views of schemes, against what attacks gain over them.

By rank correlation over all views, and pair by pair: where attacks tell by their intervals which of two views gives
more away, does a metric say so too, nothing, or the contrary?  A metric that says the contrary by its intervals
misranks, however well it ranks on the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from loadtest.lab.metrics import Estimate
from loadtest.lab.run import Results
from loadtest.lab.schemes import SCHEMES
from loadtest.lab.settings import Row

Floats = NDArray[np.float64]
ViewKey = tuple[str, int, int]
VIEWS_MIN = 5
_DRAWS = 400


def view_key(row: Row) -> ViewKey:
    """What was shown: scheme, members of the sum, resolution; exact sums are one scheme."""
    scheme = "sum" if SCHEMES[row.scheme].exact_sum else row.scheme
    return scheme, int(row.parameters["members"]), int(row.parameters["slot_s"])


@dataclass(frozen=True, slots=True)
class Rankings:
    """
    Of each metric: its rank correlation with what attacks gain over the views, and by how much mutual information's is
    larger, over the same draws of views.
    """

    correlations: dict[str, Estimate]
    behind: dict[str, Estimate]


_SIGNS = {"relative_entropy_bits": -1, "clusters": 1, "aligned_r2": 1, "mutual_information_bits": 1}


def rankings(results: Results) -> Rankings | None:
    """
    How each metric ranks the views, signed so that 1 is a perfect ranking; None for fewer than five views.

    The gain is the classifier's precision over that of the blind one and Hart's F1 over its blind one, each ranked and
    averaged over the appliances. Intervals: bootstrap over the views.
    """
    gains: dict[ViewKey, list[float]] = {}
    for row in (*results.find(attack="classifier"), *results.find(attack="hart")):
        if not math.isnan(row.estimate.value):
            gain = row.estimate.value - row.blind.value
            scale = 100.0 if row.attack == "hart" else 1.0
            gains.setdefault(view_key(row), []).append(math.copysign(math.log1p(abs(gain) * scale), gain))
    found = {
        metric: {view_key(row): sign * row.estimate.value for row in results.find(attack="distance", metric=metric)}
        for metric, sign in _SIGNS.items()
    }
    keys = sorted(gains.keys() & set.intersection(*(set(each) for each in found.values())))
    if len(keys) < VIEWS_MIN:
        return None
    values = {metric: np.array([each[key] for key in keys]) for metric, each in found.items()}
    gained = np.array([float(np.mean(gains[key])) for key in keys])
    drawn = _resampled(values, gained, np.random.default_rng(results.settings.seed))
    exact = {metric: float(spearmanr(each, gained).statistic) for metric, each in values.items()}
    best = "mutual_information_bits"
    return Rankings(
        {metric: _interval(exact[metric], drawn[metric], len(keys)) for metric in values},
        {
            metric: _interval(exact[best] - exact[metric], drawn[best] - drawn[metric], len(keys))
            for metric in values if metric != best
        },
    )  # fmt: skip


def _resampled(values: dict[str, Floats], gained: Floats, rng: Generator) -> dict[str, Floats]:
    """Rank correlations over draws of views, the same draws for every metric; none of a draw without any order."""
    chosen = np.stack([rng.integers(0, len(gained), len(gained)) for _ in range(_DRAWS)])
    ordered = np.all([np.ptp(each[chosen], axis=1) > 0 for each in (gained, *values.values())], axis=0)
    of_gain = _standardised(gained[chosen[ordered]])
    return {metric: (_standardised(each[chosen[ordered]]) * of_gain).mean(axis=1) for metric, each in values.items()}


def _standardised(drawn: Floats) -> Floats:
    """Ranks within each row, less their mean and over their deviation: the mean product of two is Spearman's rho."""
    ranks = rankdata(drawn, axis=1)
    return np.asarray((ranks - ranks.mean(axis=1, keepdims=True)) / ranks.std(axis=1, keepdims=True))


def _interval(value: float, drawn: Floats, count: int) -> Estimate:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Estimate(value, float(low), float(high), count)


@dataclass(frozen=True, slots=True)
class Pairs:
    """
    Of `settled` pairs of views, whose order attacks tell by their intervals, those that a metric turns round.

    So many by its intervals are `turned`.
    """

    turned: int
    settled: int


def turned_pairs(results: Results) -> dict[str, Pairs]:
    """
    By metric, over pairs of views of one resolution; empty where attacks settle none.

    A pair is settled where an attack's gain over the blind one on one view is above its gain on the other, by the
    intervals, and no attack says the contrary.
    """
    gains: dict[ViewKey, dict[tuple[str, str], Estimate]] = {}
    for row in (*results.find(attack="classifier"), *results.find(attack="hart")):
        if not math.isnan(row.estimate.value):
            on = gains.setdefault(view_key(row), {})
            on[row.attack, row.parameters["appliance"]] = row.estimate.scaled(1.0, -row.blind.value)
    shown = {
        metric: {view_key(row): row.estimate for row in results.find(attack="distance", metric=metric)}
        for metric in _SIGNS
    }
    views = sorted(gains.keys() & set.intersection(*(set(each) for each in shown.values())))
    settled = [
        (more, less) for more, less in permutations(views, 2)
        if more[2] == less[2] and _tells_more(gains[more], gains[less]) and not _tells_more(gains[less], gains[more])
    ]  # fmt: skip
    return {
        metric: Pairs(sum(_is_turned(shown[metric], sign, *pair) for pair in settled), len(settled))
        for metric, sign in _SIGNS.items()
        if settled
    }


def _tells_more(one: Mapping[tuple[str, str], Estimate], other: Mapping[tuple[str, str], Estimate]) -> bool:
    return any(one[attack].low > other[attack].high for attack in one.keys() & other.keys())


def _is_turned(shown: Mapping[ViewKey, Estimate], sign: int, more: ViewKey, less: ViewKey) -> bool:
    """Whether the metric says by its intervals that the view that tells more tells less."""
    if sign > 0:
        return shown[more].high < shown[less].low
    return shown[more].low > shown[less].high
