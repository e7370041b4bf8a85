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
from loadtest.lab.workers import one_thread

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_ROWS_MAX = 40_000
_AROUND = 5


def clock(count: int, slots: int, slot_s: int) -> Floats:
    """The time of day alone, shape (series x slots, 2): all that a blind classifier has."""
    angle = 2 * np.pi * (np.arange(slots) * slot_s % DAY_S) / DAY_S
    return np.tile(np.stack([np.sin(angle), np.cos(angle)], axis=1), (count, 1))


def features(values_w: Floats, slot_s: int) -> Floats:
    """Time of day and the values around each slot, shape (series x slots, features)."""
    count, slots = values_w.shape
    padded = np.pad(values_w, ((0, 0), (_AROUND, _AROUND)), mode="edge")

    def at(shift: int) -> Floats:
        return padded[:, _AROUND + shift : _AROUND + shift + slots]

    around = np.stack([at(shift) for shift in range(-_AROUND, _AROUND + 1)])
    low, middle, high = around.min(axis=0), np.median(around, axis=0), around.max(axis=0)
    base = np.percentile(values_w, 10, axis=1, keepdims=True)
    columns = [
        values_w, values_w - base, values_w - at(-1), at(1) - values_w, values_w - at(-3), at(3) - values_w,
        at(5) - values_w, values_w - at(-5), values_w - low, values_w - middle, high - values_w, around.std(axis=0),
    ]  # fmt: skip
    return np.concatenate([clock(count, slots, slot_s), np.stack(columns, axis=-1).reshape(count * slots, -1)], axis=1)


class SlotClassifier:
    """Trained on rows of features with their truth; gives a score for each row, higher for yes."""

    def __init__(self, rows: Floats, truth: Bools, iterations: int, rng: Generator) -> None:
        labels = truth.reshape(-1)
        self._constant = None if 0 < labels.sum() < len(labels) else float(labels.mean())
        self._model = HistGradientBoostingClassifier(
            max_iter=iterations, max_leaf_nodes=24, learning_rate=min(0.3, 8 / iterations), l2_regularization=1.0,
            early_stopping=False, random_state=int(rng.integers(2**31)),
        )  # fmt: skip
        if self._constant is None:
            chosen = _balanced(labels, min(_ROWS_MAX, 500 * iterations), rng)
            with one_thread():
                self._model.fit(rows[chosen], labels[chosen])

    def scores(self, rows: Floats) -> Floats:
        """A score of each row, shape (rows,)."""
        if self._constant is not None:
            return np.full(len(rows), self._constant)
        with one_thread():
            return np.asarray(self._model.predict_proba(rows)[:, 1], np.float64)


def _balanced(labels: Bools, most: int, rng: Generator) -> NDArray[np.int64]:
    """Rows to learn from: rare answers in full as far as half of the rows."""
    drawn = [
        rng.choice(each, min(len(each), most // 2), replace=False)
        for each in (np.flatnonzero(labels), np.flatnonzero(~labels))
    ]
    return np.concatenate(drawn)
