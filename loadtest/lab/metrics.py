"""
Scores, each with a 95 % confidence interval.

The thesis's three compare a household's curve with what a scheme shows of it: relative entropy, number of clusters of
load changes, R² after alignment.  Mutual information and the attacks' scores say what somebody can learn.
Intervals: percentile bootstrap over households (or trials), since slots of one household are not independent; Wilson's
for plain proportions, whose bootstrap has no width at 0 and 1; Clopper and Pearson's for the empirical epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import beta

Floats = NDArray[np.float64]
_Z = 1.959964
_RESAMPLES = 1000
EDGE_W = 60.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval, from `count` units."""

    value: float
    low: float
    high: float
    count: int

    def scaled(self, factor: float, offset: float = 0.0) -> Estimate:
        """Factor * value + offset, with its interval; `factor` is positive."""
        value, low, high = (factor * each + offset for each in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.count)


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def mean(values: Floats, rng: Generator) -> Estimate:
    """The mean over units."""
    return ratio(values, np.ones(len(values)), rng)


def ratio(above: Floats, below: Floats, rng: Generator) -> Estimate:
    """The ratio of two sums over units, such as hits over guesses of households."""
    return statistic(lambda a, b: a.sum(axis=-1) / np.maximum(b.sum(axis=-1), 1e-12), rng, above, below)


def statistic(compute: Callable[..., Floats], rng: Generator, *columns: Floats) -> Estimate:
    """
    Any statistic of columns over units; `compute` takes arrays whose last axis is the units.

    NaN with a count of 0 where there is no unit.
    """
    count = len(columns[0])
    if not count:
        return NOTHING
    chosen = rng.integers(0, count, (_RESAMPLES, count))
    drawn = compute(*(np.asarray(column, np.float64)[chosen] for column in columns))
    value = float(compute(*(np.asarray(column, np.float64)[None] for column in columns))[0])
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return Estimate(value, float(low), float(high), count)


def proportion(hits: int, trials: int) -> Estimate:
    """Wilson's interval."""
    if not trials:
        return NOTHING
    share, spread = hits / trials, _Z * _Z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / trials + spread / 4 / trials) / (1 + spread)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), trials)


def advantage(hits: int, trials: int) -> Estimate:
    """2p - 1 of a guess between two."""
    return proportion(hits, trials).scaled(2.0, -1.0)


def true_positives_at(false_positive_rate: float, inside: Floats, outside: Floats, rng: Generator) -> Estimate:
    """The share of members found at a threshold that lets this share of non-members through."""

    def compute(members: Floats, others: Floats) -> Floats:
        threshold = np.quantile(others, 1.0 - false_positive_rate, axis=-1, keepdims=True)
        return np.asarray((members > threshold).mean(axis=-1))

    count = min(len(inside), len(outside))
    return statistic(compute, rng, inside[:count], outside[:count])


def empirical_epsilon(inside: Floats, outside: Floats) -> Estimate:
    """
    A lower bound of the privacy loss that was seen: ln(TPR / FPR) at the best threshold, both signs.

    `low` takes Clopper-Pearson bounds of both rates, halved over the thresholds tried (Jagielski, Ullman, Oprea,
    NeurIPS 2020), `high` is the plain ratio with one count added.  Where even the plain ratio is 0, so is everything.
    """
    tried = np.quantile(np.concatenate((inside, outside)), np.linspace(0.02, 0.98, 25))
    best, least = 0.0, 0.0
    alpha = 0.05 / (2 * 2 * len(tried))
    for sign in (1, -1):
        for threshold in tried:
            hits, false = int((sign * inside > sign * threshold).sum()), int((sign * outside > sign * threshold).sum())
            best = max(best, math.log((hits + 1) / (len(inside) + 2) / ((false + 1) / (len(outside) + 2))))
            if hits:
                low = float(beta.ppf(alpha, hits, len(inside) - hits + 1))
                high = float(beta.ppf(1 - alpha, false + 1, len(outside) - false)) if false < len(outside) else 1.0
                least = max(least, math.log(low / high)) if low > 0 else least
    return Estimate(max(least, 0.0), max(least, 0.0), max(best, least), len(inside) + len(outside))


def relative_entropy_bits(load: Floats, seen: Floats) -> float:
    """The thesis's: KL divergence of the distributions of values, 50 bins over both, half a count added to each bin."""
    low, high = min(load.min(), seen.min()), max(load.max(), seen.max())
    if high <= low:
        return 0.0
    bins = np.linspace(low, high, 51)
    p, q = (np.histogram(each, bins)[0] + 0.5 for each in (load, seen))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log2(p / q)).sum())


def edges(values: Floats, threshold_w: float = EDGE_W) -> tuple[NDArray[np.int64], Floats]:
    """Load changes of at least the threshold: slot of the change and its size; runs of one sign are one change."""
    steps = np.diff(values)
    sign = np.where(np.abs(steps) >= threshold_w / 3, np.sign(steps), 0)
    starts = np.flatnonzero(np.diff(np.concatenate(([0], sign))) != 0)
    if not len(starts):
        return np.array([], np.int64), np.array([])
    sizes = np.add.reduceat(steps, starts)
    kept = (sign[starts] != 0) & (np.abs(sizes) >= threshold_w)
    return starts[kept] + 1, sizes[kept]


def cluster_count(values: Floats, least: int = 3) -> int:
    """The thesis's: groups of equal load changes, split where neighbours in size differ by 10 % and 15 W or more."""
    sizes = np.sort(np.abs(edges(values)[1]))
    if not len(sizes):
        return 0
    gaps = np.diff(sizes) > np.maximum(15.0, 0.1 * sizes[:-1])
    lengths = np.diff(np.concatenate(([0], np.flatnonzero(gaps) + 1, [len(sizes)])))
    return int((lengths >= least).sum())


def aligned_r2(load: Floats, seen: Floats, most_slots: int) -> float:
    """The thesis's: R² of a regression after a shift to the largest cross-correlation, by `most_slots` at most."""
    a, b = load - load.mean(), seen - seen.mean()
    if not a.any() or not b.any():
        return 0.0
    size = 1 << (2 * len(a) - 1).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    lags = np.arange(-most_slots, most_slots + 1)
    lag = int(lags[np.argmax(correlation[lags])])
    x, y = (a[lag:], b[: len(b) - lag]) if lag >= 0 else (a[:lag], b[-lag:])
    if x.std() < 1e-9 or y.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def mutual_information_bits(load: Floats, seen: Floats, rng: Generator, bins: int = 24) -> float:
    """
    Mutual information of load and view in the same slot, in bits.

    Plug-in estimate over bins of equal count, less its mean over 5 random shifts of the view against the load: that
    takes away the estimate's bias and what a common time of day cannot explain at other times.
    """
    a, b = _ranked(load, bins), _ranked(seen, bins)
    shifts = rng.integers(len(a) // 4, max(len(a) // 4 + 1, 3 * len(a) // 4), 5)
    bias = float(np.mean([_plug_in(a, np.roll(b, int(shift)), bins) for shift in shifts]))
    return max(0.0, _plug_in(a, b, bins) - bias)


def _ranked(values: Floats, bins: int) -> NDArray[np.int64]:
    cuts = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(cuts, values, side="right").astype(np.int64)


def _plug_in(a: NDArray[np.int64], b: NDArray[np.int64], bins: int) -> float:
    joint = np.bincount(a * bins + b, minlength=bins * bins).reshape(bins, bins) / len(a)
    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log2(joint[filled] / outer[filled])).sum())
