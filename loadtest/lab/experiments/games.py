"""Games on totals: which of two candidates is in the sum, and is this household in it at all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.lab import metrics
from loadtest.lab.attacks.game import Whitener, identify, membership
from loadtest.lab.schemes.sums import SENSITIVITY_W, noise_of_total
from loadtest.lab.settings import Lab, Row

Floats = NDArray[np.float64]
SIZES = (2, 5, 10, 20, 24, 50, 64, 100, 200, 500, 900)
NOISE_SIZES = (64, 500, 900)
EPSILONS = (0.1, 1.0, 10.0)
FALSE_POSITIVES = 0.01


def noise_variance_w2(epsilon: float) -> float:
    """The variance of a discrete Laplace variable of scale SENSITIVITY_W / epsilon."""
    decay = math.exp(-epsilon / SENSITIVITY_W)
    return 2 * decay / (1 - decay) ** 2


class Game:
    """Draws totals of `members` households over some days and asks the attacker."""

    def __init__(self, lab: Lab, slot_s: int, days: int, epsilon: float = math.inf) -> None:
        self.lab, self.slot_s, self.epsilon = lab, slot_s, epsilon
        area, reference = lab.at(slot_s)
        self.slots = days * area.slots_a_day
        self.loads = area.power_w[:, : self.slots]
        self.history = lab.history.at(area.slot_s).power_w[:, : self.slots]
        added = 0.0 if math.isinf(epsilon) else noise_variance_w2(epsilon)
        self.whitener = Whitener(reference.power_w[:, : self.slots].astype(np.float64), area.slots_a_day, added)

    def total(self, members: NDArray[np.int64], rng: np.random.Generator) -> Floats:
        """What the EMP gets of this roster."""
        total = self.loads[members].sum(axis=0)
        if not math.isinf(self.epsilon):
            total = total + noise_of_total(len(members), self.slots, self.epsilon, rng)
        return np.asarray(total, np.float64)

    def identification(self, members: int, trials: int, *, knows: str = "exact") -> dict[str, metrics.Estimate]:
        """
        Advantages of the attack, of the blind attack, and on the same ring without either candidate.

        `knows`: the candidates' curves of these days ("exact"), or of the days before ("before").
        """
        rng = self.lab.rng("identification", members, self.slots, self.slot_s, knows, self.epsilon)
        curves = self.loads if knows == "exact" else self.history
        hits = {"view": 0, "blind": 0, "without": 0}
        for _ in range(trials):
            drawn = rng.choice(len(self.loads), members + 1, replace=False)
            first, second, others = int(drawn[0]), int(drawn[1]), drawn[2:]
            inside = int(rng.integers(2))
            total = self.total(np.append(others, drawn[inside]), rng)
            left_out = self.total(others, rng) if len(others) else np.zeros(self.slots)
            candidates = curves[first].astype(np.float64), curves[second].astype(np.float64)
            expected = self.whitener.expected(self.slots)
            # Blind it has the mean of the area; without a household in its place it still expects one.
            seen = np.stack([total, members * expected, left_out + expected])
            guesses = identify(seen, *candidates, members - 1, self.whitener) > 0
            for name, guess in zip(hits, guesses, strict=True):
                hits[name] += int(bool(guess) == (inside == 0))
        return {name: metrics.advantage(count, trials) for name, count in hits.items()}

    def member_scores(self, members: int, trials: int) -> tuple[Floats, Floats]:
        """The attack's statistic for totals with the candidate and for totals without it, one candidate each."""
        rng = self.lab.rng("membership", members, self.slots, self.slot_s, self.epsilon)
        inside, outside = np.empty(trials), np.empty(trials)
        for trial in range(trials):
            drawn = rng.choice(len(self.loads), members + 1, replace=False)
            candidate = self.loads[drawn[0]].astype(np.float64)
            inside[trial] = membership(self.total(drawn[:-1], rng), candidate, members, self.whitener)
            outside[trial] = membership(self.total(drawn[1:], rng), candidate, members, self.whitener)
        return inside, outside


def identification_rows(lab: Lab) -> list[Row]:
    """Advantage over ring size, days, resolution and what the attacker knows."""
    rows = []
    trials = lab.settings.trials
    for slot_s in dict.fromkeys((lab.meter_slot_s, 3600)):
        for days in lab.day_counts():
            game = Game(lab, slot_s, days)
            for members in lab.sizes(SIZES):
                for knows in ("exact", "before") if days == max(lab.day_counts()) else ("exact",):
                    scores = game.identification(members, trials, knows=knows)
                    rows.append(_row("sum", "identification", "advantage", scores, members, slot_s, days, knows=knows))
    return rows


def noise_rows(lab: Lab) -> list[Row]:
    """The same with the ring's noise, and what it does to the totals."""
    rows = []
    slot_s, days = lab.meter_slot_s, max(lab.day_counts())
    area = lab.at(slot_s)[0]
    for epsilon in EPSILONS:
        game = Game(lab, slot_s, days, epsilon)
        for members in lab.sizes(NOISE_SIZES) or lab.sizes((20,)):
            scores = game.identification(members, lab.settings.trials // 2)
            more = {"epsilon": epsilon, "knows": "exact"}
            rows.append(_row("ring-noise", "identification", "advantage", scores, members, slot_s, days, **more))
            rng = lab.rng("noise", epsilon, members)
            errors = []
            for _ in range(20):
                roster = rng.choice(area.count, members, replace=False)
                exact = area.power_w[roster][:, : game.slots].sum(axis=0)
                errors.append(float((game.total(roster, rng) - exact).std() / exact.mean()))
            error = metrics.mean(np.array(errors), rng)
            parameters = {"members": members, "slot_s": slot_s, "days": days, "epsilon": epsilon}
            rows.append(Row("ring-noise", "emp", "utility", "total_error_share", error, parameters=parameters))
    return rows


def membership_rows(lab: Lab) -> list[Row]:
    """True positives at 1 % false ones, and the empirical epsilon, without noise and with it."""
    rows = []
    slot_s, days = lab.meter_slot_s, max(lab.day_counts())
    trials = lab.settings.trials
    for epsilon in (math.inf, 1.0):
        game = Game(lab, slot_s, days, epsilon)
        scheme = "sum" if math.isinf(epsilon) else "ring-noise"
        for members in lab.sizes((10, 20, 64, 200, 500, 900)):
            inside, outside = game.member_scores(members, trials)
            rng = lab.rng("membership", "score", members, epsilon)
            # Without a view the statistic is drawn from one distribution, whatever the truth.
            both = rng.permutation(np.concatenate((inside, outside)))
            parameters: dict[str, Any] = {"members": members, "slot_s": slot_s, "days": days}
            if not math.isinf(epsilon):
                parameters["epsilon"] = epsilon
            rows.append(
                Row(
                    scheme, "emp", "membership", "true_positives_at_1_percent",
                    metrics.true_positives_at(FALSE_POSITIVES, inside, outside, rng),
                    metrics.true_positives_at(FALSE_POSITIVES, both[:trials], both[trials:], rng),
                    metrics.true_positives_at(FALSE_POSITIVES, outside[::2], outside[1::2], rng), parameters,
                )
            )  # fmt: skip
            rows.append(
                Row(
                    scheme, "emp", "membership", "empirical_epsilon", metrics.empirical_epsilon(inside, outside),
                    metrics.empirical_epsilon(both[:trials], both[trials:]),
                    metrics.empirical_epsilon(outside[::2], outside[1::2]), parameters,
                )
            )  # fmt: skip
    return rows


def _row(
    scheme: str, attack: str, metric: str, scores: dict[str, metrics.Estimate], members: int, slot_s: int, days: int,
    **more: object,
) -> Row:  # fmt: skip
    parameters = {"members": members, "slot_s": slot_s, "days": days, **more}
    return Row(scheme, "emp", attack, metric, scores["view"], scores["blind"], scores["without"], parameters)
