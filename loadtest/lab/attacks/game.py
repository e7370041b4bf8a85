"""
Games with known candidates: which of two households is in a group, and is this household in it at all?

The attacker holds the exact curves of its candidates (or those of another week), knows how many others there are and
how households of the area use energy, not who the others are.  Of a view it takes the series of the fewest members:
the total, where a scheme shows nothing else.  The best linear test: the difference of the candidates
against the total less its expectation, weighted by the inverse covariance of the others, day by day.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import logsumexp

from loadtest.lab.views import View

Floats = NDArray[np.float64]
_FULL_MAX = 96


class Whitener:
    """
    Mean and covariance of a household by slot of the day, from a reference population.

    `reference_w` has shape (households, slots) with whole days.  Up to 96 slots a day the covariance is full (shrunk
    towards its diagonal), with more slots it is that of an autoregression of order one with the variance of each slot.
    `noise_w2` is the variance of noise that is added to the total on purpose.
    """

    def __init__(self, reference_w: Floats, slots_a_day: int, noise_w2: float = 0.0) -> None:
        self.slots_a_day, self.noise_w2 = slots_a_day, noise_w2
        days = reference_w.reshape(len(reference_w), -1, slots_a_day)
        self.mean_w = days.mean(axis=0)
        centred = (days - self.mean_w).reshape(-1, slots_a_day)
        self._inverses: dict[int, Floats] = {}
        self.is_full = slots_a_day <= _FULL_MAX
        if self.is_full:
            sample = centred.T @ centred / len(centred)
            self.covariance = 0.9 * sample + 0.1 * np.diag(np.diag(sample)) + np.eye(slots_a_day)
        else:
            self.variance = centred.var(axis=0) + 1.0
            scaled = centred / np.sqrt(self.variance)
            self.rho = float(np.clip((scaled[:, 1:] * scaled[:, :-1]).mean(), 0.0, 0.98))

    def expected(self, slots: int) -> Floats:
        """A household's mean over this many slots, weeks repeated where the reference has fewer days."""
        days = -(-slots // self.slots_a_day)
        return np.asarray(np.resize(self.mean_w, (days, self.slots_a_day)).reshape(-1)[:slots])

    def _inverse(self, others: int) -> Floats:
        if others not in self._inverses:
            total = max(others, 0.05) * self.covariance + self.noise_w2 * np.eye(self.slots_a_day)
            self._inverses[others] = np.asarray(cho_solve(cho_factor(total), np.eye(self.slots_a_day)))
        return self._inverses[others]

    def weights(self, curves: Floats, others: int) -> Floats:
        """Inverse covariance of `others` households times curves of shape (slots, count)."""
        blocks = curves.reshape(-1, self.slots_a_day, curves.shape[-1])
        if self.is_full:
            inverse = self._inverse(others)
            solved = np.einsum("ij,bjc->bic", inverse, blocks)
        else:
            deviation = np.sqrt(max(others, 0.05) * self.variance + self.noise_w2)[:, None]
            scaled = blocks / deviation
            # The inverse of an AR(1) correlation is tridiagonal.
            rho = self.rho * max(others, 0.05) * float(self.variance.mean()) / float((deviation**2).mean())
            solved = (1 + rho**2) * scaled
            solved[:, [0, -1]] = scaled[:, [0, -1]]
            solved[:, 1:] -= rho * scaled[:, :-1]
            solved[:, :-1] -= rho * scaled[:, 1:]
            solved /= deviation
        return np.asarray(solved.reshape(curves.shape))


def identify(
    view: View, first_w: Floats, second_w: Floats, whitener: Whitener, members: int
) -> float:  # fmt: skip
    """
    Positive where the first candidate is thought to be among the `members` households of the group, else the second.

    Candidates are curves of shape (slots,), W. Each of the view's finest series is asked how likely it has the one or
    the other. Without any series there is the mean household to go by.
    """
    series = view.finest(len(first_w))
    expected = whitener.expected(len(first_w))
    seen = np.stack([each.values for each in series]) if series else members * expected[None]
    others = (series[0].members if series else members) - 1
    left = seen - others * expected
    first, second = (_log_likelihoods(left - each, others, whitener) for each in (first_w, second_w))
    return float(logsumexp(first) - logsumexp(second))


def membership(view: View, candidate_w: Floats, whitener: Whitener) -> float:
    """
    Larger where the candidate is thought to be in the group: the log likelihood ratio, over the view's finest series.

    Raises ValueError for a view without series of the candidate's slots.
    """
    series = view.finest(len(candidate_w))
    if not series:
        raise ValueError("a view without any series")
    expected = whitener.expected(len(candidate_w))
    seen = np.stack([each.values for each in series]).astype(np.float64)
    members = series[0].members
    if members == 1:
        # Nobody else is in it: it is the candidate's own curve, or another's.
        own, other = _log_likelihoods(seen - candidate_w, 0, whitener), _log_likelihoods(seen - expected, 1, whitener)
        return float(logsumexp(own - other))
    difference = candidate_w - expected
    weighted = whitener.weights(difference[:, None], members)[:, 0]
    return float(logsumexp((seen - members * expected - difference / 2.0) @ weighted))


def _log_likelihoods(left_w: Floats, others: int, whitener: Whitener) -> Floats:
    """Of what is left of each series, shape (series, slots), as the deviation of so many others; up to a constant."""
    return np.asarray((left_w.T * whitener.weights(left_w.T, others)).sum(axis=0) / -2.0)
