"""Games: which of two candidates is in the group, and is this household in it at all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.lab import metrics
from loadtest.lab.attacks.game import Whitener, identify, membership
from loadtest.lab.households import Households, generate
from loadtest.lab.schemes import SCHEMES, Scheme, play_group
from loadtest.lab.schemes.base import Readings
from loadtest.lab.schemes.sums import SENSITIVITY_W, noise_at_once
from loadtest.lab.settings import Lab, Row
from loadtest.lab.views import View, view_of

Floats = NDArray[np.float64]
EMP_ALONE = frozenset({"emp"})
REPRESENTATIVE = "sum-ttp"
CHECKED_MAX = 24
_LARGEST = 3
KNOWS_AREA = "exact, and many others"
SIZES = (2, 5, 10, 20, 24, 50, 64, 100, 200, 500, 900)
NOISE_SIZES = (64, 500, 900)
EPSILONS = (0.1, 1.0, 10.0)
FALSE_POSITIVES = 0.01


def noise_variance_w2(epsilon: float) -> float:
    """The variance of a discrete Laplace variable of scale SENSITIVITY_W / epsilon."""
    decay = math.exp(-epsilon / SENSITIVITY_W)
    return 2 * decay / (1 - decay) ** 2


class Game:
    """
    Draws groups of `members` households, plays the scheme on their readings of some days, and asks the attacker.

    The attacker gets the EMP's view of the group, whose households are named by places that tell nothing. With
    `epsilon` all of the noise is drawn at once. `others` are the households that it has learned from (default: the
    reference population of the lab).
    """

    def __init__(
        self, lab: Lab, slot_s: int, days: int, epsilon: float = math.inf, scheme: Scheme = SCHEMES[REPRESENTATIVE],
        others: Households | None = None,
    ) -> None:  # fmt: skip
        self.lab, self.slot_s, self.epsilon = lab, slot_s, epsilon
        self.scheme = scheme if math.isinf(epsilon) else replace(scheme, local=noise_at_once(epsilon))
        area, reference = lab.at(slot_s)
        reference = others or reference
        self.slots = days * area.slots_a_day
        self.loads = area.power_w[:, : self.slots]
        self.history = lab.history.at(area.slot_s).power_w[:, : self.slots]
        added = 0.0 if math.isinf(epsilon) else noise_variance_w2(epsilon)
        self.whitener = Whitener(reference.power_w[:, : self.slots].astype(np.float64), area.slots_a_day, added)

    def view(self, readings_w: Readings, rng: np.random.Generator) -> View:
        """What the EMP gets of these households, shape (members, slots), W."""
        return view_of(play_group(self.scheme, readings_w, self.slot_s, rng), EMP_ALONE)

    def identification(self, members: int, trials: int, *, knows: str = "exact") -> dict[str, metrics.Estimate]:
        """
        Advantages of the attack, of the blind attack, and on the same ring without either candidate.

        `knows`: the candidates' curves of these days ("exact"), or of the days before ("before").
        """
        rng = self.lab.rng("identification", members, self.slots, self.slot_s, knows, self.epsilon)
        curves = self.loads if knows == "exact" else self.history
        typical_w = np.rint(self.whitener.expected(self.slots)).astype(np.int64)
        hits = {"view": 0, "blind": 0, "without": 0}
        for _ in range(trials):
            drawn = rng.choice(len(self.loads), members + 1, replace=False)
            first, second = (curves[each].astype(np.float64) for each in drawn[:2])
            inside = int(rng.integers(2))
            views = {
                "view": self.view(self.loads[np.sort(np.append(drawn[2:], drawn[inside]))], rng),
                "blind": View(EMP_ALONE, self.slot_s),
                # Neither candidate is there: the mean household is in the place.
                "without": self.view(np.vstack((self.loads[drawn[2:]], typical_w)), rng),
            }
            for name, view in views.items():
                is_first = identify(view, first, second, self.whitener, members) > 0
                hits[name] += int(is_first == (inside == 0))
        return {name: metrics.advantage(count, trials) for name, count in hits.items()}

    def member_scores(self, members: int, trials: int) -> tuple[Floats, Floats]:
        """The attack's statistic for totals with the candidate and for totals without it, one candidate each."""
        rng = self.lab.rng("membership", members, self.slots, self.slot_s, self.epsilon)
        inside, outside = np.empty(trials), np.empty(trials)
        for trial in range(trials):
            drawn = rng.choice(len(self.loads), members + 1, replace=False)
            candidate = self.loads[drawn[0]].astype(np.float64)
            with_it, without = (self.view(self.loads[np.sort(each)], rng) for each in (drawn[:-1], drawn[1:]))
            inside[trial] = membership(with_it, candidate, self.whitener)
            outside[trial] = membership(without, candidate, self.whitener)
        return inside, outside


def identification_rows(lab: Lab) -> list[Row]:
    """
    Advantage over ring size, days, resolution and what the attacker knows: once for all schemes of exact sums.

    Raises AssertionError where one of them shows the EMP of a group another series than the others.
    """
    rows = []
    check_alike(lab)
    trials = lab.settings.trials
    for slot_s in dict.fromkeys((lab.meter_slot_s, 3600)):
        for days in lab.day_counts():
            game = Game(lab, slot_s, days)
            for members in lab.sizes(SIZES):
                for knows in ("exact", "before") if days == max(lab.day_counts()) else ("exact",):
                    scores = game.identification(members, trials, knows=knows)
                    rows.append(_row("sum", "identification", "advantage", scores, members, slot_s, days, knows=knows))
    return rows


def learned_rows(lab: Lab) -> list[Row]:
    """
    Advantage in the largest groups of who has learned how households use energy from as many others as the area has.

    Over some hundred members the error of a mean that was learned from few outweighs a candidate. The others are
    generated: of recorded data there are no more.
    """
    slot_s, days = lab.meter_slot_s, max(lab.day_counts())
    every_day = generate(lab.area.count, 2 * lab.area.days, slot_s, lab.settings.seed + 2)
    others = every_day.only(slice(None), slice(every_day.slots // 2, every_day.slots))
    game = Game(lab, slot_s, days, others=others)
    more = {"knows": KNOWS_AREA, "reference": others.count}
    return [
        _row("sum", "identification", "advantage", game.identification(members, lab.settings.trials), members, slot_s,
             days, **more)
        for members in lab.sizes(SIZES)[-_LARGEST:]
    ]  # fmt: skip


def check_alike(lab: Lab, largest: int = CHECKED_MAX) -> None:
    """Raises AssertionError where schemes of exact sums do not show the EMP the same series of a game's group."""
    rng = lab.rng("alike")
    loads = lab.at(lab.meter_slot_s)[0].power_w
    for members in (each for each in lab.sizes(SIZES) if each <= largest):
        group = loads[rng.choice(len(loads), members, replace=False)]
        shown = {}
        for name, scheme in SCHEMES.items():
            if scheme.exact_sum:
                series = view_of(play_group(scheme, group, lab.meter_slot_s, rng), EMP_ALONE).series
                shown[name] = [(each.households, each.quantity, each.values.tolist()) for each in series]
        other = next((name for name, each in shown.items() if each != shown[REPRESENTATIVE]), None)
        if other is not None:
            raise AssertionError(f"of {members} households the EMP sees other series under {other}")


def noise_rows(lab: Lab) -> list[Row]:
    """The same with the ring's noise, and what it does to the totals."""
    rows = []
    slot_s, days = lab.meter_slot_s, max(lab.day_counts())
    area = lab.at(slot_s)[0]
    for epsilon in EPSILONS:
        game = Game(lab, slot_s, days, epsilon)
        for members in lab.sizes(NOISE_SIZES) or lab.sizes((20,)):
            scores = game.identification(members, lab.settings.trials)
            more = {"epsilon": epsilon, "knows": "exact"}
            rows.append(_row("ring-noise", "identification", "advantage", scores, members, slot_s, days, **more))
            rng = lab.rng("noise", epsilon, members)
            errors = []
            for _ in range(20):
                roster = rng.choice(area.count, members, replace=False)
                exact = area.power_w[roster][:, : game.slots].sum(axis=0)
                (total,) = game.view(area.power_w[roster][:, : game.slots], rng).series
                errors.append(float((total.values - exact).std() / exact.mean()))
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
