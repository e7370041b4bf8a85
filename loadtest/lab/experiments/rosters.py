"""Differencing over rosters: totals with and without a household, as they fall and as a coordinator designs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.lab import metrics
from loadtest.lab.attacks.differencing import RosterAttacker, next_to
from loadtest.lab.discipline import Returns, alternating, contributions, out_for, toggling
from loadtest.lab.households import Households, generate
from loadtest.lab.schemes.base import Readings, slot_ends
from loadtest.lab.schemes.sums import ring_shape
from loadtest.lab.settings import Lab, Row
from loadtest.lab.transcript import Batch, Shape, Transcript
from loadtest.lab.views import view_of

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
SIZES = (5, 24, 64)
COORDINATOR = frozenset({"gwa", "emp"})
SECOND_S = 1
SECONDS_PLAYED = 3600


@dataclass(frozen=True)
class Carried:
    """
    How intervals enter contributions by the rules for carried energy, shape (intervals, intervals).

    Of the household that is left out, and of the others: None where they contribute each interval in its own.
    """

    victim: Floats
    others: Floats | None = None

    @classmethod
    def by_rules(cls, served: Bools, returns: Returns, opened: Bools) -> Carried:
        """Of a household in `served` and of others who are always in, where rounds that are not `opened` are void."""
        everywhere = _in_all(len(served))
        others = None if opened.all() else contributions(everywhere, returns, opened)
        return cls(contributions(served, returns, opened), others)


def transcript_of(
    readings_w: Readings, slot_s: int, victim: int, served: Bools, carried: Carried | None = None,
    shape_of: Callable[[int], Shape] = ring_shape,
) -> Transcript:  # fmt: skip
    """
    One ring, shape (members, slots), whose head has the victim (a position) in the total in `served` alone.

    Everybody else is in all totals. Contributions are rounded to whole W; without `carried` they are power slots,
    which carry nothing over.
    """
    loads = readings_w.T.copy()
    if carried is not None:
        if carried.others is not None:
            loads = np.rint(carried.others @ loads).astype(np.int64)
        loads[:, victim] = np.rint(carried.victim @ readings_w[victim]).astype(np.int64)
    everybody = np.arange(len(readings_w))
    batches = []
    for is_in in (True, False):
        slots = np.flatnonzero(served == is_in)
        if not len(slots):
            continue
        members = everybody if is_in else np.delete(everybody, victim)
        shape = shape_of(len(members))
        batches.append(Batch(shape, members, slots, loads[slots][:, members], slot_ends(shape, slots, slot_s)))
    return Transcript("ring", slot_s, len(readings_w), batches)


def plain_rows(lab: Lab, shape_of: Callable[[int], Shape] = ring_shape) -> list[Row]:
    """A total with the household less the next one without it, at quarter hours and at seconds."""
    rows = []
    seconds = generate(max(SIZES) + 8, 1, SECOND_S, lab.settings.seed + 1)
    evening = 18 * 3600 // SECOND_S
    kinds = [(lab.at(lab.meter_slot_s)[0], slice(None)), (seconds, slice(evening, evening + SECONDS_PLAYED))]
    for households, slots in kinds:
        for members in SIZES:
            if members <= households.count:
                rows.append(plain_row(lab, households.only(slice(None), slots), members, shape_of))
    return rows


def plain_row(
    lab: Lab, households: Households, members: int, shape_of: Callable[[int], Shape] = ring_shape
) -> Row:  # fmt: skip
    """Of rings of so many members of these households."""
    rng = lab.rng("differencing", households.slot_s, members)
    scores: list[list[float]] = [[], [], []]
    trials = min(lab.settings.targets, 60)
    typical = households.power_w.mean(axis=0).astype(np.float64)
    for _ in range(trials):
        roster = rng.choice(households.count, members, replace=False)
        group = households.only(roster)
        victim = int(rng.integers(1, members))  # the head is member 0
        served = alternating(group.slots)
        view = view_of(transcript_of(group.power_w, group.slot_s, victim, served, shape_of=shape_of), COORDINATOR)
        slots, drops = next_to(view.series, victim, group.slot_s)
        own = group.power_w[victim, slots].astype(np.float64)
        stand_in = households.power_w[int(rng.integers(households.count)), slots].astype(np.float64)
        for kept, guess in zip(scores, (drops, typical[slots], drops - own + stand_in), strict=True):
            kept.append(_correlation(guess, own))
    estimates = [metrics.mean(np.array(each), rng) for each in scores]
    parameters = {"members": members, "slot_s": households.slot_s, "kind": "power, next round without"}
    return Row.scored("ring", "gwa+emp", "differencing", "correlation", estimates, parameters)


Strategy = Callable[[int, np.random.Generator], tuple[Bools, Bools]]


def _in_all(count: int) -> Bools:
    return np.ones(count, np.bool_)


def _falsely_void(count: int) -> tuple[Bools, Bools]:
    """Every round that the victim is left out of opens all the same and is said to be void: nobody's account moves."""
    served = toggling(count, Returns.LIMITED)
    return served, served


DESIGNED: tuple[tuple[str, Returns, Strategy], ...] = (
    ("nobody left out", Returns.LIMITED, lambda count, _rng: (_in_all(count), _in_all(count))),
    ("every second round, returns not limited", Returns.FREE, lambda count, _rng: (alternating(count), _in_all(count))),
    (
        "out for 2 to 8 rounds, returns not limited", Returns.FREE,
        lambda count, rng: (out_for(count, 2, 8, rng), _in_all(count)),
    ),
    (
        "every second round falsely void, returns not limited", Returns.FREE,
        lambda count, _rng: (alternating(count), alternating(count)),
    ),
    (
        "as often as allowed", Returns.LIMITED,
        lambda count, _rng: (toggling(count, Returns.LIMITED), _in_all(count)),
    ),
    (
        "out for 4, as often as allowed", Returns.LIMITED,
        lambda count, _rng: (toggling(count, Returns.LIMITED, 4), _in_all(count)),
    ),
    ("falsely void, as often as allowed", Returns.LIMITED, lambda count, _rng: _falsely_void(count)),
    (
        "every second round falsely void, all in", Returns.LIMITED,
        lambda count, _rng: (_in_all(count), alternating(count)),
    ),
)  # fmt: skip
NOBODY = DESIGNED[0][0]
MORE_MAX = 0.05
"""By how much the best linear attacker may correlate better with a household that was toggled than with nobody."""


def designed_rows(
    lab: Lab, shape_of: Callable[[int], Shape] = ring_shape,
    strategies: Sequence[tuple[str, Returns, Strategy]] = DESIGNED,
) -> list[Row]:  # fmt: skip
    """The best linear attacker on its view of energy totals of rosters that it chose."""
    slot_s = lab.meter_slot_s
    area, reference = lab.at(slot_s)
    count = min(area.slots, 7 * area.slots_a_day)
    loads = reference.power_w[:, :count].astype(np.float64)
    mean_w = loads.mean(axis=0)
    covariance = _covariance(loads, area.slots_a_day)
    rows = []
    for members in (each for each in (30, 64) if each <= area.count):
        for name, returns, strategy in strategies:
            rng = lab.rng("designed", members - 1)
            served, opened = strategy(count, rng)
            carried = Carried.by_rules(served, returns, opened)
            enter_others = np.eye(count) if carried.others is None else carried.others
            attacker = RosterAttacker(carried.victim, enter_others, mean_w, covariance)
            scores: list[list[float]] = [[], [], []]
            for _ in range(min(lab.settings.targets, 50)):
                group = area.power_w[rng.choice(area.count, members, replace=False), :count]
                own = group[0].astype(np.float64)
                stand_in = reference.power_w[int(rng.integers(reference.count)), :count]
                for kept, readings_w in ((scores[0], group), (scores[2], np.vstack((stand_in, group[1:])))):
                    transcript = transcript_of(readings_w, slot_s, 0, served, carried, shape_of)
                    kept.append(_correlation(attacker.estimate(view_of(transcript, COORDINATOR).series, 0), own))
                scores[1].append(_correlation(mean_w, own))
            estimates = [metrics.mean(np.array(each), rng) for each in scores]
            parameters = {"members": members, "slot_s": slot_s, "days": count // area.slots_a_day, "kind": name}
            rows.append(Row.scored("ring", "gwa+emp", "differencing", "correlation", estimates, parameters))
    return rows


def _covariance(loads: Floats, slots_a_day: int) -> Floats:
    """
    The covariance of one household's slots: what differs between households every day, and what differs between days.

    A sample covariance of 672 slots from 150 households has directions without any variance, which an estimator would
    trust blindly; two blocks of a day each have none, and a fifth of the diagonal is added to both.
    """
    days = loads.shape[1] // slots_a_day
    by_day = (loads - loads.mean(axis=0))[:, : days * slots_a_day].reshape(len(loads), days, slots_a_day)
    habits = by_day.mean(axis=1)
    rest = (by_day - habits[:, None]).reshape(-1, slots_a_day)
    between = _shrunk(habits.T @ habits / len(loads))
    within = _shrunk(rest.T @ rest / max(1, len(loads) * (days - 1)))
    return np.asarray(np.kron(np.ones((days, days)), between) + np.kron(np.eye(days), within), np.float64)


def _shrunk(covariance: Floats) -> Floats:
    return np.asarray(0.8 * covariance + 0.2 * np.diag(np.diag(covariance)) + np.eye(len(covariance)), np.float64)


def _correlation(guess: Floats, own: Floats) -> float:
    if len(own) < 3 or guess.std() < 1e-9 or own.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(guess, own)[0, 1])
