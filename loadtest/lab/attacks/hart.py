"""
Hart's load disaggregation: edges, pairs of on and off of equal size, named by the nearest power and duration.

G. W. Hart, Nonintrusive appliance load monitoring, Proc. IEEE 80 (12), 1992, without reactive power, which a smart
meter does not send.  It is trained on nothing but typical power and duration of each appliance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.lab.households import Households
from loadtest.lab.metrics import edges

Bools = NDArray[np.bool_]
_PAIR_MAX_S = 4 * 3600
_MISMATCH = 0.2


@dataclass(frozen=True, slots=True)
class Signature:
    """Median power in W and duration in s of an appliance's heaviest state, and their spreads (of logarithms)."""

    power_w: float
    duration_s: float
    power_spread: float
    duration_spread: float

    def distance(self, power_w: float, duration_s: float) -> float:
        """How far a pair of edges is from it, in spreads."""
        return float(
            np.hypot(
                np.log(power_w / self.power_w) / self.power_spread,
                np.log(max(duration_s, 1.0) / self.duration_s) / self.duration_spread,
            )
        )


def learn_signatures(reference: Households, appliances: tuple[str, ...]) -> dict[str, Signature]:
    """Typical pairs of edges while each appliance runs, from households whose truth is known."""
    found = {}
    for appliance in appliances:
        on = reference.is_on(appliance)
        pairs = [
            (size, float(end - begin) * reference.slot_s)
            for household in range(reference.count)
            for begin, end, size in _pairs(reference.power_w[household].astype(np.float64), reference.slot_s)
            if on[household, begin:end].mean() > 0.8 and on[household].mean() < 0.5
        ]
        if len(pairs) >= 5:
            power_w, duration_s = np.array(pairs).T
            # Nearby appliances' pairs fall in as well; the upper half in power is the appliance's own heater.
            heavy = power_w >= np.median(power_w)
            found[appliance] = Signature(
                float(np.median(power_w[heavy])), float(np.median(duration_s[heavy])),
                max(0.1, float(np.std(np.log(power_w[heavy])))),
                max(0.2, float(np.std(np.log(np.maximum(duration_s[heavy], 1.0))))),
            )  # fmt: skip
    return found


def _pairs(values_w: NDArray[np.float64], slot_s: int) -> list[tuple[int, int, float]]:
    """Each rise with the first fall of the same size after it: (first slot, slot after the last, power)."""
    slots, sizes = edges(values_w)
    taken = np.zeros(len(slots), np.bool_)
    pairs = []
    for index in np.flatnonzero(sizes > 0):
        later = slice(index + 1, index + 40)
        fits = (
            (sizes[later] < 0) & ~taken[later] & (np.abs(sizes[later] + sizes[index]) < _MISMATCH * sizes[index])
            & ((slots[later] - slots[index]) * slot_s <= _PAIR_MAX_S)
        )  # fmt: skip
        if fits.any():
            end = index + 1 + int(np.argmax(fits))
            taken[end] = True
            pairs.append((int(slots[index]), int(slots[end]), float(sizes[index])))
    return pairs


def disaggregate(values_w: NDArray[np.float64], slot_s: int, signatures: dict[str, Signature]) -> dict[str, Bools]:
    """In which slots each appliance is thought to run, from one series."""
    guess = {appliance: np.zeros(len(values_w), np.bool_) for appliance in signatures}
    for begin, end, power_w in _pairs(values_w, slot_s):
        duration_s = (end - begin) * slot_s
        distances = {name: each.distance(power_w, duration_s) for name, each in signatures.items()}
        if distances:
            name = min(distances, key=lambda each: distances[each])
            if distances[name] < 3.0:
                guess[name][begin:end] = True
    return guess
