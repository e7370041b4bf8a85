"""
A classifier per slot: does an appliance run in it, is somebody at home in it?

Gradient-boosted trees of scikit-learn on the values around a slot and the time of day, trained on the attacker's
rehearsal of the scheme (`Knowledge.rehearse`).  The blind control is the same classifier with the time of day alone.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from loadtest.lab.households import DAY_S

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_ROWS_MAX = 40_000


def features(values_w: Floats, slot_s: int, *, blind: bool = False) -> Floats:
    """By series and slot, shape (series x slots, features): time of day, and unless blind the values around."""
    count, slots = values_w.shape
    angle = 2 * np.pi * (np.arange(slots) * slot_s % DAY_S) / DAY_S
    clock = np.stack([np.sin(angle), np.cos(angle)])
    columns = [np.broadcast_to(each, (count, slots)) for each in clock]
    if not blind:
        padded = np.pad(values_w, ((0, 0), (5, 5)), mode="edge")

        def at(shift: int) -> Floats:
            return padded[:, 5 + shift : 5 + shift + slots]

        around = np.lib.stride_tricks.sliding_window_view(padded, 11, axis=1)
        low, middle, high = around.min(axis=-1), np.median(around, axis=-1), around.max(axis=-1)
        base = np.percentile(values_w, 10, axis=1, keepdims=True)
        columns += [
            values_w, values_w - base, values_w - at(-1), at(1) - values_w, values_w - at(-3), at(3) - values_w,
            at(5) - values_w, values_w - at(-5), values_w - low, values_w - middle, high - values_w, around.std(axis=-1),
        ]  # fmt: skip
    return np.stack([each.reshape(-1) for each in columns], axis=1)


class SlotClassifier:
    """Trained once for each question and kind of view."""

    def __init__(self, values_w: Floats, truth: Bools, slot_s: int, rng: Generator, *, blind: bool = False) -> None:
        self.slot_s, self.blind = slot_s, blind
        labels = truth.reshape(-1)
        chosen = _balanced(labels, rng)
        # Slots that are not drawn need no features, but their neighbours do: whole series are the unit here.
        self._model = HistGradientBoostingClassifier(
            max_iter=80, max_leaf_nodes=24, learning_rate=0.12, l2_regularization=1.0, early_stopping=False,
            random_state=int(rng.integers(2**31)),
        )  # fmt: skip
        self._constant = None if 0 < labels.sum() < len(labels) else float(labels.mean())
        if self._constant is None:
            self._model.fit(features(values_w, slot_s, blind=blind)[chosen], labels[chosen])

    def scores(self, values_w: Floats) -> Floats:
        """A score of each slot, higher for yes; shape as `values_w`."""
        if self._constant is not None:
            return np.full(values_w.shape, self._constant)
        drawn = self._model.predict_proba(features(values_w, self.slot_s, blind=self.blind))[:, 1]
        return np.asarray(drawn.reshape(values_w.shape), np.float64)


def _balanced(labels: Bools, rng: Generator) -> NDArray[np.int64]:
    """Rows to learn from: rare answers in full as far as half of the rows."""
    yes, no = np.flatnonzero(labels), np.flatnonzero(~labels)
    half = _ROWS_MAX // 2
    kept_yes = rng.choice(yes, min(len(yes), half), replace=False)
    kept_no = rng.choice(no, min(len(no), half), replace=False)
    return np.concatenate((kept_yes, kept_no))
