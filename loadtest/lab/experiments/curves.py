"""
What the EMP sees of one household: distances of curves, load disaggregation, appliances and presence by slot.

All schemes whose EMP gets exact sums show it the same series (checked here, not assumed); the attacks run once on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from loadtest.lab import metrics
from loadtest.lab.attacks.classifier import SlotClassifier, clock, features
from loadtest.lab.attacks.hart import Signature, disaggregate, learn_signatures
from loadtest.lab.households import Households
from loadtest.lab.schemes import SCHEMES, Scheme, play
from loadtest.lab.settings import Lab, Row
from loadtest.lab.views import view_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
APPLIANCES = ("KETTLE", "COOKINGSTOVE", "DISHWASHER", "WASHINGMACHINE")
EMP_ALONE = frozenset({"emp"})
EVALUATED_DAYS = 2


@dataclass(frozen=True)
class Shown:
    """
    Of each target: its own curve, what the scheme shows of it, and the same ring with another household in its place.

    Shapes (targets, slots), W; `members` households are in what is shown. A mean is taken of sums, so that a curve in a
    sum of twenty is compared with what twenty households use together, not with its size.
    """

    own: Floats
    shown: Floats
    without: Floats
    members: int
    truth: Households


def _evaluated(households: Households) -> slice:
    """The slots of the days that are looked at, in the middle: of targets and of what an attacker knows, the same."""
    begin = households.days // 2
    end = min(households.days, begin + EVALUATED_DAYS)
    return slice(begin * households.slots_a_day, end * households.slots_a_day)


@lru_cache(maxsize=2)
def shown_of(lab: Lab, scheme: Scheme, slot_s: int, group_size: int) -> Shown | None:
    """What the EMP has of the targets; None where it has no series of power."""
    area, reference = lab.at(slot_s)
    transcript = lab.transcript(scheme, slot_s, group_size)
    view = view_of(transcript, EMP_ALONE)
    by_household: dict[int, NDArray[np.int64]] = {}
    sizes: dict[int, int] = {}
    for series in view.series:
        if series.quantity != "power_w" or len(series.slots) != area.slots:
            continue
        # A pseudonym that lives as long as the attack: the curve is there, whose it is is the linkage's question.
        owners = series.households or (transcript.owners[series.pseudonym or 0],)
        by_household |= dict.fromkeys(owners, series.values)
        sizes |= dict.fromkeys(owners, len(owners))
    if not by_household:
        return None
    slots = _evaluated(area)
    targets = lab.targets
    members = int(np.median([sizes[int(target)] for target in targets]))
    shown = np.stack([by_household[int(target)] for target in targets])
    # The replacement goes through the same device, then takes the target's place in the sum.
    stand_in = reference.power_w[lab.rng("stand-in").integers(0, reference.count, len(targets))]
    if members == 1:
        without = scheme.local(stand_in, slot_s, lab.rng("stand-in", scheme.name))
    else:
        without = shown - area.power_w[targets] + stand_in
    return Shown(
        area.power_w[targets][:, slots].astype(np.float64), shown[:, slots].astype(np.float64),
        without[:, slots].astype(np.float64), members, area.only(targets, slots),
    )  # fmt: skip


def distances(lab: Lab, scheme: Scheme, slot_s: int, group_size: int) -> list[Row]:
    """The thesis's three metrics and mutual information; the blind view is the mean household of the time of day."""
    found = shown_of(lab, scheme, slot_s, group_size)
    if found is None:
        return []
    rng = lab.rng("distances", scheme.name, slot_s, group_size)
    knowledge = lab.knowledge(scheme, slot_s)
    typical = knowledge.mean_by_slot()[_evaluated(knowledge.reference)]
    views = [found.shown, np.broadcast_to(typical, found.own.shape), found.without]
    most = max(1, 3600 // slot_s)
    kinds: dict[str, Callable[[Floats, Floats], float]] = {
        "relative_entropy_bits": metrics.relative_entropy_bits,
        "clusters": lambda _own, seen: float(metrics.cluster_count(seen)),
        "aligned_r2": lambda own, seen: metrics.aligned_r2(own, seen, most),
        "mutual_information_bits": lambda own, seen: metrics.mutual_information_bits(own, seen, rng),
    }
    rows = []
    for name, compute in kinds.items():
        scores = [
            metrics.mean(np.array([compute(own, seen) for own, seen in zip(found.own, each, strict=True)]), rng)
            for each in views
        ]
        rows.append(_row(lab, scheme, "distance", name, scores, found.members, slot_s))
    return rows


def appliances(lab: Lab, scheme: Scheme, slot_s: int, group_size: int) -> list[Row]:
    """Hart and the classifier: in which slots does an appliance run, as precision over the base rate and F1."""
    found = shown_of(lab, scheme, slot_s, group_size)
    names = tuple(each for each in APPLIANCES if each in lab.area.appliances)
    if found is None or not names:
        return []
    rng = lab.rng("appliances", scheme.name, slot_s, group_size)
    rows = []
    signatures = _signatures(lab, slot_s, names)
    guesses = [[disaggregate(each, slot_s, signatures) for each in view] for view in (found.shown, found.without)]
    lessons = _Lessons.of(lab, scheme, slot_s, found, rng)
    for name in names:
        truth = found.truth.is_on(name)
        if truth.sum() < 10:
            continue
        base = float(truth.mean())
        if name in signatures:
            hits = [_hits(np.stack([guess[name] for guess in view]), truth) for view in guesses]
            # Without a view Hart has no edges: it guesses slots at random, at the base rate.
            blind = _hits(rng.random(truth.shape) < base, truth)
            scores = [metrics.statistic(_f1, rng, *each) for each in (hits[0], blind, hits[1])]
            rows.append(_row(lab, scheme, "hart", "f1", scores, found.members, slot_s, appliance=name))
        scored = lessons.scored(lessons.truth.is_on(name), lab.settings.iterations, rng)
        tops = [_hits(_top(each, int(truth.sum()), rng), truth) for each in scored]
        scores = [metrics.statistic(_precision, rng, *each).scaled(1.0 / base) for each in tops]
        rows.append(
            _row(lab, scheme, "classifier", "precision_over_base", scores, found.members, slot_s, appliance=name)
        )
    return rows


def occupancy(lab: Lab, scheme: Scheme, slot_s: int, group_size: int) -> list[Row]:
    """Is somebody at home: the advantage 2p - 1 over both answers in equal parts."""
    found = shown_of(lab, scheme, slot_s, group_size)
    if found is None or found.truth.present is None:
        return []
    rng = lab.rng("occupancy", scheme.name, slot_s, group_size)
    lessons = _Lessons.of(lab, scheme, slot_s, found, rng)
    if lessons.truth.present is None:
        return []
    scored = lessons.scored(lessons.truth.present, lab.settings.iterations, rng, with_thresholds=True)
    scores = [metrics.statistic(_balanced, rng, *_hits(each > 0, found.truth.present)) for each in scored]
    return [_row(lab, scheme, "occupancy", "advantage", scores, found.members, slot_s)]


@dataclass(frozen=True)
class _Lessons:
    """
    Rows of features: the attacker's rehearsal with its truth, and the three views of the targets.

    The rehearsal is of the same days of the week as the targets' and as many.
    """

    rehearsed: Floats
    truth: Households
    views: tuple[Floats, Floats]
    shape: tuple[int, int]
    slot_s: int

    @classmethod
    def of(cls, lab: Lab, scheme: Scheme, slot_s: int, found: Shown, rng: np.random.Generator) -> _Lessons:
        knowledge = lab.knowledge(scheme, slot_s)
        reference = knowledge.reference
        slots = _evaluated(reference)
        rehearsed = knowledge.rehearse(found.members, rng)[:, slots].astype(np.float64)
        return cls(
            features(rehearsed, slot_s), reference.only(slice(None), slots),
            (features(found.shown, slot_s), features(found.without, slot_s)),
            (found.shown.shape[0], found.shown.shape[1]), slot_s,
        )  # fmt: skip

    def scored(
        self, truth: Bools, iterations: int, rng: np.random.Generator, *, with_thresholds: bool = False
    ) -> list[Floats]:
        """Scores by target and slot: with the view, blind, without the household; less a threshold where asked for."""
        model = SlotClassifier(self.rehearsed, truth, iterations, rng)
        times = clock(len(truth), truth.shape[1], self.slot_s)
        blind = SlotClassifier(times, truth, iterations, rng)
        cut, blind_cut = (
            (_threshold(model.scores(self.rehearsed), truth.reshape(-1)),
             _threshold(blind.scores(times), truth.reshape(-1)))
            if with_thresholds else (0.0, 0.0)
        )  # fmt: skip
        drawn = [
            model.scores(self.views[0]) - cut, blind.scores(clock(*self.shape, self.slot_s)) - blind_cut,
            model.scores(self.views[1]) - cut,
        ]  # fmt: skip
        return [each.reshape(self.shape) for each in drawn]


@lru_cache(maxsize=8)
def _signatures(lab: Lab, slot_s: int, names: tuple[str, ...]) -> dict[str, Signature]:
    return learn_signatures(lab.at(slot_s)[1], names)


def example_day(lab: Lab) -> dict[str, list[float]]:
    """
    A day of one household, `household`, and what the EMP sees of it under each scheme, by title; W, a minute each.

    Empty for recorded households: a report may be given away, and somebody's day does not belong into it.
    """
    if lab.settings.data:
        return {}
    slot_s = max(60, lab.slot_s)
    area = lab.at(slot_s)[0]
    # The busiest of a few, so that there is something to see.
    target = int(max(lab.targets[:12], key=lambda each: float(area.power_w[each, : area.slots_a_day].std())))
    shown: dict[str, list[float]] = {}
    for scheme in SCHEMES.values():
        part = area.only(slice(None), slice(0, area.slots_a_day))
        title = "sum of the ring, all exact schemes" if scheme.exact_sum else scheme.title
        if title in shown or scheme.alias_days == 0 or scheme.name.startswith("pseudonyms-ttp"):
            continue
        transcript = play(scheme, part, lab.settings.group_size, lab.settings.seed)
        for series in view_of(transcript, EMP_ALONE).series:
            owners = series.households or (transcript.owners[series.pseudonym or 0],)
            if series.quantity == "power_w" and target in owners:
                shown[title] = (series.values / len(owners)).round(1).tolist()
    return {"household": area.power_w[target, : area.slots_a_day].astype(float).tolist(), **shown}


def _row(
    lab: Lab, scheme: Scheme, attack: str, metric: str, scores: list[metrics.Estimate], members: int, slot_s: int,
    **more: object,
) -> Row:  # fmt: skip
    days = min(EVALUATED_DAYS, lab.area.days - lab.area.days // 2)
    parameters = {"members": members, "slot_s": slot_s, "days": days, **more}
    return Row.scored(scheme.name, "emp", attack, metric, scores, parameters)


def _hits(guess: Bools, truth: Bools) -> tuple[Floats, Floats, Floats, Floats]:
    """By household: true positives, false positives, false negatives, true negatives."""
    tp, fp, fn, tn = (
        (a & b).sum(axis=1).astype(np.float64)
        for a, b in ((guess, truth), (guess, ~truth), (~guess, truth), (~guess, ~truth))
    )
    return tp, fp, fn, tn


def _f1(tp: Floats, fp: Floats, fn: Floats, _tn: Floats) -> Floats:
    return np.asarray(2 * tp.sum(axis=-1) / np.maximum(2 * tp.sum(axis=-1) + fp.sum(axis=-1) + fn.sum(axis=-1), 1e-12))


def _precision(tp: Floats, fp: Floats, _fn: Floats, _tn: Floats) -> Floats:
    return np.asarray(tp.sum(axis=-1) / np.maximum(tp.sum(axis=-1) + fp.sum(axis=-1), 1e-12))


def _balanced(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    """Sensitivity plus specificity less one: 2p - 1 where both answers are asked equally often."""
    yes, no = tp.sum(axis=-1) + fn.sum(axis=-1), tn.sum(axis=-1) + fp.sum(axis=-1)
    return np.asarray(tp.sum(axis=-1) / np.maximum(yes, 1e-12) + tn.sum(axis=-1) / np.maximum(no, 1e-12) - 1.0)


def _top(scores: Floats, count: int, rng: np.random.Generator) -> Bools:
    """The slots with the highest scores, ties broken at random."""
    order = np.argsort(scores.reshape(-1) + rng.random(scores.size) * 1e-9)
    chosen = np.zeros(scores.size, np.bool_)
    chosen[order[-count:]] = True
    return chosen.reshape(scores.shape)


def _threshold(scores: Floats, truth: Bools) -> float:
    """The threshold of the best balanced accuracy on the attacker's own households."""
    tried = np.quantile(scores, np.linspace(0.02, 0.98, 33))
    gains = [(scores[truth] > each).mean() - (scores[~truth] > each).mean() for each in tried]
    return float(tried[int(np.argmax(gains))])
