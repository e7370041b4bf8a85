"""What an attacker knows before it sees anything: other households with their truth, and how the scheme works."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from loadtest.lab.households import Households
from loadtest.lab.schemes.base import Local, Readings, unchanged

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Knowledge:
    """
    `reference` are households of which the attacker has readings and truth, none of them a target.

    It rehearses: it plays the scheme on them, so a classifier is trained on what the scheme shows and not on readings.
    """

    reference: Households
    local: Local = unchanged

    def rehearse(self, members: int, rng: Generator) -> Readings:
        """
        What the scheme would show of each reference household, shape (households, slots), W.

        For sums each gets `members` - 1 others of the reference at random, with repetition where they are too few.
        """
        power_w = self.reference.power_w
        if members == 1:
            return self.local(power_w, self.reference.slot_s, rng)
        shown = np.empty_like(power_w)
        for target in range(len(power_w)):
            others = rng.choice(len(power_w), members - 1, replace=members > len(power_w))
            group = np.concatenate((power_w[target][None], power_w[others]))
            shown[target] = self.local(group, self.reference.slot_s, rng).sum(axis=0)
        return shown

    def mean_by_slot(self) -> Floats:
        """The mean household in each slot of the week that the readings have, W."""
        return np.asarray(self.reference.power_w.mean(axis=0), np.float64)
