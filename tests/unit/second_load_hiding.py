"""Best effort and stepping a second time: written from published descriptions alone, before the lab's was read.

What it is for: two implementations that were written apart and meter the same are better evidence than one; what was
corrected here after the comparison is marked, and is weaker evidence. It shares no code with the lab's, computes in
exact rational numbers (no rounding decides a branch), and goes step by step for one household. Only tests use it.
NILL: `second_nill`.

Sources:
  [K10] Kalogridis, Efthymiou, Denic, Lewis, Cepeda: Privacy for Smart Meters: Towards Undetectable Appliance Load
        Signatures. IEEE SmartGridComm 2010.
  [Y12] Yang, Li, Qi, Qardaji, McLaughlin, McDaniel: Minimizing Private Data Disclosures in the Smart Grid. CCS 2012.
Read through reviews, reading notes and the manual of the R package bpriv, not in full: a rule is marked [paper] where
these agree, [read] where one alone tells it, [open] where none does and the choice is ours, [late] where it was
added or changed after the comparison, with the evidence.

The battery, in both:
  [paper] metered load e(t) = d(t) + b(t), b > 0 charges; the charge is the sum of b: no losses.
  [paper] -discharge_w <= b <= charge_w, and the charge stays between 0 and the (usable) capacity.
  [open]  e(t) >= 0: nothing is fed into the grid. Neither would: what they hold is never negative.
  [open]  a demand is the mean power of its step, and b is constant within a step.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Literal

Number = int | float | Fraction
Draw = Callable[[int], float]  # number of a step -> its draw, uniform in [0, 1)
_HOUR_S = 3600


@dataclass(frozen=True)
class Store:
    """A battery: capacity, greatest powers, charge at the start (share of the capacity; [open]: half)."""

    capacity_wh: Number
    charge_w: Number
    discharge_w: Number
    step_s: int
    start: Number = Fraction(1, 2)

    @property
    def capacity(self) -> Fraction:
        """In the unit of the module: W times steps."""
        return Fraction(self.capacity_wh) * _HOUR_S / self.step_s

    @property
    def first(self) -> Fraction:
        """The charge before the first step, W times steps."""
        return self.capacity * Fraction(self.start)

    def nearest(self, wanted_w: Fraction, demand_w: Fraction, charge: Fraction) -> Fraction:
        """The metered load nearest to the wanted one that rates, capacity and the ban on feeding in allow."""
        lowest = max(demand_w - min(Fraction(self.discharge_w), charge), Fraction(0))
        highest = demand_w + min(Fraction(self.charge_w), self.capacity - charge)
        return min(max(wanted_w, lowest), highest)

    def fits(self, metered_w: Fraction, demand_w: Fraction, charge: Fraction) -> bool:
        """Whether this metered load is possible in this step."""
        return self.nearest(metered_w, demand_w, charge) == metered_w


@dataclass(frozen=True)
class Hidden:
    """What the meter sees (W), and the charge after each step (Wh)."""

    metered_w: list[Fraction]
    charge_wh: list[Fraction]


class _Run:
    """Collects the steps of a run."""

    def __init__(self, store: Store) -> None:
        self.store, self.charge = store, store.first
        self.metered: list[Fraction] = []
        self.charges: list[Fraction] = []

    def meter(self, metered_w: Fraction, demand_w: Fraction) -> None:
        self.charge += metered_w - demand_w
        self.metered.append(metered_w)
        self.charges.append(self.charge * self.store.step_s / _HOUR_S)

    def result(self) -> Hidden:
        return Hidden(self.metered, self.charges)


def best_effort(demands_w: Iterable[Number], store: Store) -> Hidden:
    """Best effort [K10]: hold the load metered last.

    [paper] e(t) = e(t-1) where the battery can; it discharges where demand is above, charges where it is below.
    [paper] where the rate does not suffice the battery gives what it can: e(t) = d(t) +- greatest rate.
    [paper] an empty (full) battery gives (takes) nothing: e(t) = d(t), and this is what is held from then on ([Y12]
            tells it so); in the step in which it gets empty it gives the rest.
    [open]  the first metered load: the first demand, the battery idle.
    """
    run = _Run(store)
    for given in demands_w:
        demand = Fraction(given)
        held = run.metered[-1] if run.metered else demand
        run.meter(store.nearest(held, demand, run.charge), demand)
    return run.result()


Strategy = Literal["LS1", "LS2", "LC", "RC"]


def stepping(demands_w: Iterable[Number], store: Store, strategy: Strategy, draw: Draw | None = None) -> Hidden:
    """The stepping framework [Y12]: only multiples of beta are metered.

    [paper] beta = min(charge rate, discharge rate); e(t) = h(t) * beta, h integer.
    [paper] charging: h is the smallest with h * beta >= d; discharging: the greatest with h * beta <= d. So |b| < beta.
    [open]  demand a multiple of beta: both are d / beta itself, the battery idles. (The strict "charging" would be one
            step above; for measured demands the case has no weight.)
    Lazy stepping, LS1 and LS2:
    [paper] keep h unless (1) keeping would overfill the battery: then discharge; (2) keeping would empty it: then
            charge; (3) the demand is not within one beta of the metered load: then LS1 charges below half the
            capacity and discharges otherwise, LS2 draws.
            (So the manual of the R package bpriv and one note; another note calls them the other way round.)
    [read]  asked in this order, (1) and (2) with the power that keeping would take, whether or not a rate allows it.
    [read]  (3) includes the bounds: h changes at a distance of exactly beta.
    Lazy charging, LC: [paper] charge until full, then discharge until empty, and so on.
    [read]  full: one step at full beta would overfill; empty alike.
    Random charging, RC: [paper] draws in each step; [read] discharges with probability charge / capacity.
    [open]  the first step: LS decide as in (3), LC charges.
    [open]  a direction that the capacity does not allow in this step is exchanged for the other; a battery of less
            than a beta's room in both directions then meters the nearest possible load, off the multiples.
    [open]  LS2 charges where the draw is below one half.
    """
    run, beta = _Run(store), min(Fraction(store.charge_w), Fraction(store.discharge_w))
    charging, kept = True, None
    for t, given in enumerate(demands_w):
        demand = Fraction(given)
        if strategy == "LC":
            if charging and run.charge + beta > store.capacity:
                charging = False
            elif not charging and run.charge - beta < 0:
                charging = True
            kept = None
        elif strategy == "RC":
            charging = not _drawn(draw, t) < run.charge / store.capacity
            kept = None
        elif kept is not None and run.charge + kept - demand > store.capacity:
            charging, kept = False, None
        elif kept is not None and run.charge + kept - demand < 0:
            charging, kept = True, None
        elif kept is None or abs(kept - demand) >= beta:
            charging = run.charge < store.capacity / 2 if strategy == "LS1" else _drawn(draw, t) < 0.5
            kept = None
        if kept is None:
            kept = _multiple(demand, beta, charging=charging)
            if not store.fits(kept, demand, run.charge):
                other = _multiple(demand, beta, charging=not charging)
                kept = other if store.fits(other, demand, run.charge) else store.nearest(kept, demand, run.charge)
        run.meter(kept, demand)
    return run.result()


def _multiple(demand: Fraction, beta: Fraction, *, charging: bool) -> Fraction:
    return beta * (ceil(demand / beta) if charging else floor(demand / beta))


def _drawn(draw: Draw | None, t: int) -> float:
    if draw is None:
        raise ValueError("LS2 and RC decide by chance: pass `draw`, uniform in [0, 1)")
    return draw(t)
