"""
The eight claims about the schemes, judged by the figures of a run.

A claim holds where intervals say so, not values: what must be large has its lower end above the bound, what must be
small its upper end below.  Where that is not so the claim is not shown, and the figures are printed as they are: wide
intervals of a small run refute nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loadtest.lab.experiments.coalitions import exposures
from loadtest.lab.experiments.games import KNOWS_AREA
from loadtest.lab.metrics import NOTHING, Estimate
from loadtest.lab.rankings import Pairs, rankings, turned_pairs
from loadtest.lab.run import Results
from loadtest.lab.schemes import SCHEMES
from loadtest.lab.settings import Row

Floats = NDArray[np.float64]
HOLDS, NOT_SHOWN, PARTLY, OPEN = "holds", "not shown", "holds in part", "not measured in this run"
STATED = "stated"
_SUM_ERROR_MAX_W = 1.0


@dataclass(frozen=True, slots=True)
class Figure:
    """
    One number of a claim: what it is, its estimate, what was expected, and whether that is so.

    Where `expected` is `STATED` the number belongs to the claim and decides nothing.
    """

    what: str
    estimate: Estimate
    expected: str
    is_met: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim with its figures."""

    number: int
    text: str
    figures: tuple[Figure, ...]

    @property
    def verdict(self) -> str:
        """Whether it holds."""
        deciding = [figure.is_met for figure in self.figures if figure.expected != STATED]
        if all(figure.expected in {STATED, OPEN} for figure in self.figures):
            return OPEN
        return HOLDS if all(deciding) else PARTLY if any(deciding) else NOT_SHOWN


def _unmeasured(what: str) -> Figure:
    """A part of a claim that the run has no rows for: without it the claim does not hold as a whole."""
    return Figure(what, NOTHING, OPEN, False)


def _above(what: str, row: Row | None, bound: float) -> list[Figure]:
    if row is None:
        return [_unmeasured(what)]
    return [Figure(what, row.estimate, f"above {bound:.3g}", row.estimate.low > bound)]


def _below(what: str, row: Row | None, bound: float) -> list[Figure]:
    if row is None:
        return [_unmeasured(what)]
    return [Figure(what, row.estimate, f"below {bound:.3g}", row.estimate.high < bound)]


def _one(rows: Iterable[Row]) -> Row | None:
    return next(iter(rows), None)


def _last(results: Results, parameter: str, **wanted: object) -> Row | None:
    """The row with the largest value of a parameter."""
    return max(results.find(**wanted), key=lambda row: row.parameters.get(parameter, 0), default=None)


def _pseudonyms(results: Results) -> list[Figure]:
    week = _last(results, "days", scheme="pseudonyms-tr03109", attack="linkage")
    bill = _one(results.find(scheme="pseudonyms-tr03109", attack="bills", metric="top1", resolution_wh=100))
    days = f"{week.parameters['days']} days" if week else "a week"
    return [
        *_above(f"households found by {days} of values, top-1", week, 0.25),
        *_above("households found by a bill at 0.1 kWh, top-1", bill, 0.25),
    ]


def _timing(results: Results) -> list[Figure]:
    direct = _last(results, "slots", scheme="pseudonyms-ttp", attack="timing")
    batched = _last(results, "slots", scheme="pseudonyms-ttp-batched", attack="timing")
    return [
        *_above("households found by timing, forwarded at once", direct, 0.8),
        *_below("households found by timing, forwarded together", batched, 0.1),
    ]


def _opens(scheme: str, coalition: str) -> Figure:
    """Whether a coalition reads a member by name, as a figure of 0 or 1."""
    roles = frozenset(coalition.split("+"))
    size = len(roles)
    found = [
        each for each in exposures(SCHEMES[scheme], largest=max(3, size))
        if frozenset(each.coalition.split("+")) <= roles and each.kind == "named"
    ]  # fmt: skip
    value = float(bool(found))
    return Figure(f"{scheme}: {coalition} reads a member (1: yes)", Estimate(value, value, value, 1), "", True)


def _marmol(_results: Results) -> list[Figure]:
    wanted = (
        ("marmol", "emp", 0), ("marmol", "head+emp", 1), ("marmol-rotated", "head+emp", 0),
        ("marmol-rotated", "head+emp+left", 0), ("marmol-rotated", "head+emp+right", 0),
        ("marmol-rotated", "head+emp+left+right", 1),
    )  # fmt: skip
    return [
        Figure(found.what, found.estimate, str(expected), found.estimate.value == expected)
        for scheme, coalition, expected in wanted
        for found in [_opens(scheme, coalition)]
    ]


def _exact_sums(results: Results) -> list[Figure]:
    names = [name for name, each in SCHEMES.items() if each.exact_sum]
    coalitions = {
        name: frozenset(each.coalition for each in exposures(SCHEMES[name]) if each.kind == "named") for name in names
    }
    kinds = float(len(set(coalitions.values())))
    same = [
        row for row in results.find(attack="distance", metric="mutual_information_bits") if row.scheme in names
    ]  # fmt: skip
    largest = max((row.parameters["members"] for row in same), default=0)
    values = {row.estimate.value for row in same if row.parameters["members"] == largest}
    costs = [row.estimate.value for row in results.find(attack="utility", metric="cpu_ms") if row.scheme in names]
    errors = [row.estimate for row in results.find(metric="total_error_w") if row.scheme in names]
    survived = [row.estimate.value for row in results.find(metric="opens_with_one_missing") if row.scheme in names]
    error_w = max((each.high for each in errors), default=math.nan)
    spread = max(costs) / max(min(costs), 1e-9) if costs else math.nan
    return [
        _counted("different sets of coalitions that read a member", kinds, len(names), "more than 1", kinds > 1),
        # That series are equal was checked byte for byte before any attack ran on them.
        _counted("different values of what the EMP learns", float(len(values)), len(values), "1", len(values) == 1),
        _counted("largest error of a sum through the real cryptography, W", error_w, len(errors),
                 f"at most {_SUM_ERROR_MAX_W:g}", error_w <= _SUM_ERROR_MAX_W),
        # Of one scheme alone neither says a difference.
        _counted("schemes that lose the sum where one meter is silent", len(survived) - sum(survived),
                 len(survived) if len(survived) > 1 else 0, f"more than 0, less than {len(survived)}",
                 0 < sum(survived) < len(survived)),
        _counted("dearest over cheapest, CPU", spread, len(costs) if len(costs) > 1 else 0, "more than 10",
                 spread > 10),
    ]  # fmt: skip


def _counted(what: str, value: float, count: int, expected: str, is_met: bool) -> Figure:
    """A figure without an interval, of so many schemes; not measured where there are none."""
    return Figure(what, Estimate(value, value, value, count), expected, is_met) if count else _unmeasured(what)


def _small_sums(results: Results) -> list[Figure]:
    figures: list[Figure] = []
    for members in (5, 10):
        row = _one(
            row for row in results.find(attack="identification", members=members, days=1, knows="exact", scheme="sum")
            if row.parameters["slot_s"] == 900
        )  # fmt: skip
        figures += _above(f"advantage of telling who is in a sum of {members}, one day", row, 0.4)
    for name in ("COOKINGSTOVE", "DISHWASHER"):
        row = _one(results.find(scheme="sum-ttp", attack="classifier", members=5, appliance=name))
        if row is not None:
            bound = max(1.5, 1.5 * row.blind.value)
            figures += _above(f"{name.lower()} of one household in a sum of 5, precision over base rate", row, bound)
    return figures


def _misranking(results: Results) -> list[Figure]:
    found = rankings(results)
    if found is None:
        return []
    pairs = turned_pairs(results)
    information = found.correlations["mutual_information_bits"]
    figures = [Figure("rank correlation of mutual information with attacks", information, "above 0.6",
                      information.low > 0.6)]  # fmt: skip
    for name, title in (
        ("relative_entropy_bits", "relative entropy"), ("clusters", "number of clusters"), ("aligned_r2", "R²"),
    ):  # fmt: skip
        correlation, behind = found.correlations[name], found.behind[name]
        figures += [
            Figure(f"rank correlation of {title} with attacks", correlation, STATED, True),
            Figure(f"mutual information's less that of {title}", behind, "above 0", behind.low > 0),
        ]
        if name in pairs:
            figures.append(_turned(pairs[name], title, "more than 0"))
    if pairs:
        figures.append(_turned(pairs["mutual_information_bits"], "mutual information", "0"))
    return figures


def _turned(pairs: Pairs, title: str, expected: str) -> Figure:
    value, is_any = float(pairs.turned), pairs.turned > 0
    what = f"pairs of views whose order {title} turns round, of {pairs.settled} that attacks settle"
    return Figure(what, Estimate(value, value, value, pairs.settled), expected, is_any is (expected != "0"))


def enough(results: Results, days: int, bound: float) -> Estimate | None:
    """
    The households at which the advantage of who holds exact curves falls below the bound, by interpolation in log n.

    Where no measured size is enough: the largest one, with an open upper end.
    """
    rows = sorted(
        (row for row in results.find(scheme="sum", attack="identification", days=days, knows="exact")
         if row.parameters["slot_s"] == 900),
        key=lambda row: row.parameters["members"],
    )  # fmt: skip
    if not rows:
        return None
    sizes = np.log([row.parameters["members"] for row in rows])

    def crossing(values: list[float]) -> float:
        falling = np.minimum.accumulate(values)
        if falling[-1] >= bound:
            return math.inf
        return float(np.exp(np.interp(-bound, -falling, sizes)))

    value, low, high = (crossing([getattr(row.estimate, part) for row in rows]) for part in ("value", "low", "high"))
    largest = float(np.exp(sizes[-1]))
    return Estimate(min(value, largest), min(low, largest), high, len(rows))


def _ring_sizes(results: Results) -> list[Figure]:
    rows = [row for row in results.find(scheme="sum", attack="identification", knows="exact")
            if row.parameters["slot_s"] == 900]  # fmt: skip
    if not rows:
        return []
    days = max(row.parameters["days"] for row in rows)
    largest = max((row for row in rows if row.parameters["days"] == days), key=lambda row: row.parameters["members"])
    members = largest.parameters["members"]
    learned = _one(results.find(scheme="sum", attack="identification", knows=KNOWS_AREA, members=members, days=days))
    figures = _above(f"advantage in a sum of {members} over {days} days", largest, 0.0)
    if learned is not None:
        # An attacker that has learned from few others is a weaker one: what it leaves open decides nothing.
        figures = [replace(each, expected=STATED, is_met=True) for each in figures]
        others = learned.parameters["reference"]
        figures += _above(f"the same of who has learned from {others} others", learned, 0.0)
    first, last = enough(results, 1, 0.5), enough(results, days, 0.5)
    if not (first and last and days > 1):
        figures.append(_unmeasured("households for an advantage below 0.5, one day and more"))
    else:
        figures.append(
            Figure(f"households for an advantage below 0.5, {days} days", last,
                   f"above those for one day, at most {first.high:.0f}", last.low > first.high)
        )  # fmt: skip
    # The smallest group: there the attack succeeds without noise.
    noisy = min(
        results.find(scheme="ring-noise", attack="identification", epsilon=1.0),
        key=lambda row: int(row.parameters["members"]), default=None,
    )  # fmt: skip
    if noisy is None:
        figures.append(_unmeasured("advantage with noise, epsilon 1 a total"))
    else:
        error = _one(results.find(metric="total_error_share", epsilon=1.0, members=noisy.parameters["members"]))
        figures += _below(
            f"advantage in a sum of {noisy.parameters['members']} with noise, epsilon 1 a total", noisy, 0.35
        )
        if error is not None:
            figures.append(Figure("its price: standard deviation over the mean total", error.estimate, STATED, True))
    return figures


def _differencing(results: Results) -> list[Figure]:
    figures = []
    for slot_s in (900, 1):
        found = {
            row.parameters["members"]: row.estimate
            for row in results.find(attack="differencing", slot_s=slot_s, kind="power, next round without")
        }
        if not {24, 64} <= found.keys():
            figures.append(_unmeasured(f"correlation with the true curve, rings of 24 and 64, {slot_s} s"))
            continue
        small, large = found[24], found[64]
        for members, estimate in ((24, small), (64, large)):
            if slot_s == 1:
                figures.append(Figure(f"correlation with the true curve, ring of {members}, 1 s", estimate,
                                      "above 0.7: size does not help", estimate.low > 0.7))  # fmt: skip
            else:
                bound = small.low if members == 64 else 0.5
                expected = "below that of 24" if members == 64 else "below 0.5"
                figures.append(Figure(f"correlation with the true curve, ring of {members}, 900 s", estimate, expected,
                                      estimate.high < bound))  # fmt: skip
    return figures


_CLAIMS: tuple[tuple[str, Callable[[Results], list[Figure]]], ...] = (
    ("TR-03109 pseudonyms are re-identified by a week of values or by a bill.", _pseudonyms),
    ("A third party's timing link works until it batches.", _timing),
    ("Mármol, unrotated: aggregator and EMP together read a member; rotated: only with both ring neighbours.", _marmol),
    ("All exact-sum schemes give the EMP the identical series; they differ in coalitions, dropouts and cost.",
     _exact_sums),
    ("'Single values cannot be extracted' fails for sums of ten and fewer.", _small_sums),
    ("The thesis's metrics misrank; mutual information and attacks do not.", _misranking),
    ("No fixed ring size resists an attacker who holds exact candidate curves; the threshold grows with days; noise "
     "mends it at a stated price.", _ring_sizes),
    ("A ring of 64 resists differencing better than one of 24 at 900 s; at 1 s neither does.", _differencing),
)  # fmt: skip


def judge(results: Results) -> list[Claim]:
    """All eight, with the figures that the run has."""
    return [Claim(number, text, tuple(compute(results))) for number, (text, compute) in enumerate(_CLAIMS, 1)]
