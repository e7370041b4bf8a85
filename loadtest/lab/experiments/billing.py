"""Bills: what an amount tells, and what a designed tariff takes out of commitments with and without the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from loadtest.lab import metrics
from loadtest.lab.schemes import SCHEMES, Scheme, play
from loadtest.lab.settings import Lab, Row
from loadtest.lab.views import view_of
from protocol.dcnet.billing.leverage import (
    HIDING_INTERVALS_MIN,
    STAGE_COUNT_MAX,
    AmountLine,
    Line,
    StageLine,
    hiding_intervals,
)

Prices = NDArray[np.int64]
BILLED = ("bill-ttp", "bill-platform", "bill-commitments")
_BILLED = tuple(SCHEMES[each] for each in BILLED)
CLOSE_W = 100
BASE = 30_000  # thousandths of a cent for each kWh


def _flat(slots: int, _day: int) -> Prices:
    return np.full(slots, BASE, np.int64)


def _two_rates(slots: int, day: int) -> Prices:
    return np.where(np.arange(slots) % day * 24 // day < 6, BASE // 2, BASE).astype(np.int64)


def _evening(slots: int, day: int) -> int:
    """The slot at 18:00 of a day in the middle."""
    return slots // day // 2 * day + day * 3 // 4


def _one_interval(slots: int, day: int) -> Prices:
    prices = _flat(slots, day)
    prices[_evening(slots, day)] += BASE
    return prices


def _digits(slots: int, day: int) -> Prices:
    """An evening hour's intervals at prices that a household's load cannot carry over from one into the next."""
    prices = _flat(slots, day)
    for index in range(3):
        prices[_evening(slots, day) + index] = BASE * 10 ** (2 + 2 * index)
    return prices


TARIFFS: dict[str, Callable[[int, int], Prices]] = {
    "flat": _flat, "two rates": _two_rates, "one interval dearer": _one_interval, "intervals as digits": _digits,
}  # fmt: skip


def hiding(prices: Prices, day: int) -> float:
    """
    How many intervals, in effect, one hides among in a bill by these prices: the gateways' own rule.

    Few prices are answered stage by stage, more by the amount alone; the bill covers whole days from 00:00.
    """
    line: Line = StageLine(tuple(np.unique(prices, return_inverse=True)[1].tolist()))
    if len(np.unique(prices)) > STAGE_COUNT_MAX:
        line = AmountLine(tuple(prices.tolist()))
    hours = (np.arange(len(prices)) % day * 24 // day).tolist()
    return hiding_intervals([0] * len(prices), hours, [line])


def tariff_rows(lab: Lab, schemes: Sequence[Scheme] = _BILLED) -> list[Row]:
    """
    The EMP asks for a flat bill and one by the tariff, and takes their difference for the dear intervals' load.

    Scores are the share of households whose load in the dearest interval is known within 100 W. With the rule of
    leverage a request is refused where that is too large; then the EMP knows the typical household.
    """
    slot_s = lab.meter_slot_s
    area, reference = lab.at(slot_s)
    day, slots = area.slots_a_day, area.slots
    rng = lab.rng("tariffs")
    rows = []
    for scheme in schemes:
        amounts = {name: _amounts(lab, scheme, make(slots, day)) for name, make in TARIFFS.items()}
        for name, make in TARIFFS.items():
            prices = make(slots, day)
            dear = int(np.argmax(prices))
            extra = int(prices[dear] - BASE)
            truth = area.power_w[:, dear]
            typical = np.full(area.count, reference.power_w[:, dear].mean())
            guess = typical
            if extra > 0:
                guess = (amounts[name] - amounts["flat"]) * 3_600_000 / (slot_s * extra)
            hidden_among = hiding(prices, day)
            shown = {"no rules": guess}
            if scheme.name == "bill-commitments":
                shown["leverage rule"] = guess if hidden_among >= HIDING_INTERVALS_MIN else typical
            for rules, each in shown.items():
                close = [np.abs(values - truth) <= CLOSE_W for values in (each, typical, rng.permutation(each))]
                scores = [metrics.proportion(int(hits.sum()), len(hits)) for hits in close]
                parameters = {
                    "tariff": name, "rules": rules, "slot_s": slot_s, "days": area.days,
                    "effective_intervals": round(hidden_among, 1),
                }  # fmt: skip
                rows.append(Row.scored(scheme.name, "emp", "tariff", "known_within_100_w", scores, parameters))
    return rows


def _amounts(lab: Lab, scheme: Scheme, prices: Prices) -> Prices:
    """What the EMP learns of each household, thousandths of a cent: of a bill of many, the amount of all."""
    area = lab.at(lab.meter_slot_s)[0]
    transcript = play(scheme, area, lab.settings.group_size, lab.settings.seed, prices)
    view = view_of(transcript, frozenset({"emp"}))
    found = np.zeros(area.count, np.int64)
    for series in sorted(view.series, key=lambda each: -each.members):
        if series.quantity == "bill" and series.households is not None:
            found[list(series.households)] = int(series.values.sum())
    return found
