"""
The experiments of a run, as cells: each has a name, is computed and stored on its own, and can be left out by option.

Cells draw their randomness by name, so their results depend neither on their order nor on which others run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from loadtest.lab.experiments import billing, costs, curves, games, links, rosters
from loadtest.lab.experiments.games import REPRESENTATIVE
from loadtest.lab.real import REAL
from loadtest.lab.schemes import SCHEMES, Scheme
from loadtest.lab.settings import METER_SLOT_S, Lab, Row, Settings
from loadtest.lab.views import view_of

ATTACKS = (
    "distance", "hart", "classifier", "occupancy", "linkage", "timing", "bills", "identification", "membership",
    "differencing", "tariff", "utility",
)  # fmt: skip
SUM_SIZES = (5, 20)
RELAYED = ("pseudonyms-ttp", "pseudonyms-ttp-batched", "pseudonyms-tr03109")


@dataclass(frozen=True)
class Cell:
    """
    `attacks` and `schemes` are what it gives rows for; `run` computes them.

    Cells of the same `view` start from the same one: one process makes it once for all of them. `is_long` cells are
    begun before others.
    """

    name: str
    attacks: frozenset[str]
    schemes: frozenset[str]
    run: Callable[[Lab], list[Row]]
    view: str = ""
    is_long: bool = False


def cells(settings: Settings) -> list[Cell]:
    """The cells that the settings ask for."""
    return [
        cell for cell in _all(settings)
        if (not settings.attacks or cell.attacks & set(settings.attacks))
        and (not settings.schemes or cell.schemes & set(settings.schemes))
    ]  # fmt: skip


def _all(settings: Settings) -> Iterator[Cell]:
    exact = frozenset(name for name, each in SCHEMES.items() if each.exact_sum)
    for name, scheme in SCHEMES.items():
        if scheme.exact_sum and name != REPRESENTATIVE:
            continue
        covered = exact if scheme.exact_sum else frozenset({name})
        yield from _curve_cells(scheme, covered, settings.slot_s, settings.group_size, "")
    plain, total = SCHEMES["plain"], SCHEMES[REPRESENTATIVE]
    if settings.slot_s < 900:
        yield from _curve_cells(plain, frozenset({"plain"}), 900, settings.group_size, " at 900 s")
    for members in SUM_SIZES:
        if members < settings.group_size:
            yield from _curve_cells(total, exact, settings.slot_s, members, f" of {members}")
    for name in RELAYED:
        yield _cell(f"linkage {name}", "linkage", name, links.by_habits)
        yield _cell(f"timing {name}", "timing", name, links.by_timing)
    yield _cell("bills pseudonyms-tr03109", "bills", "pseudonyms-tr03109", links.by_bills)
    yield Cell("identification", frozenset({"identification"}), exact, games.identification_rows, is_long=True)
    if not settings.data:
        yield Cell(
            "identification, many others", frozenset({"identification"}), exact, games.learned_rows, is_long=True
        )  # fmt: skip
    yield Cell("noise", frozenset({"identification", "utility"}), frozenset({"ring-noise"}), games.noise_rows)
    yield Cell("membership", frozenset({"membership"}), exact | {"ring-noise"}, games.membership_rows)
    if not settings.data:
        yield Cell("differencing", frozenset({"differencing"}), frozenset({"ring"}), rosters.plain_rows, is_long=True)
    yield Cell("designed rosters", frozenset({"differencing"}), frozenset({"ring"}), rosters.designed_rows)
    yield Cell("tariffs", frozenset({"tariff"}), frozenset(billing.BILLED), billing.tariff_rows)
    for name in REAL:
        yield _cell(f"cryptography {name}", "utility", name, costs.real_rows)
        if SCHEMES[name].exact_sum:
            yield _cell(f"dropout {name}", "utility", name, costs.dropout_rows)
    batteries = frozenset(name for name in SCHEMES if name.startswith("battery-"))
    yield Cell("battery energy", frozenset({"utility"}), batteries, costs.battery_rows)


def _cell(name: str, attack: str, scheme: str, run: Callable[[Lab, Scheme], list[Row]]) -> Cell:
    return Cell(name, frozenset({attack}), frozenset({scheme}), lambda lab: run(lab, SCHEMES[scheme]))


def _curve_cells(scheme: Scheme, covered: frozenset[str], slot_s: int, group_size: int, suffix: str) -> Iterator[Cell]:
    """Distances, appliances and presence of one view; rows are given to every scheme that shows the very same."""
    kinds: dict[str, tuple[frozenset[str], Callable[[Lab, Scheme, int, int], list[Row]]]] = {
        "distances": (frozenset({"distance"}), curves.distances),
        "appliances": (frozenset({"hart", "classifier"}), curves.appliances),
        "occupancy": (frozenset({"occupancy"}), curves.occupancy),
    }
    for kind, (attacks, compute) in kinds.items():

        def run(lab: Lab, compute: Callable[[Lab, Scheme, int, int], list[Row]] = compute) -> list[Row]:
            rows = compute(lab, scheme, max(slot_s, lab.slot_s), group_size)
            same = sorted(covered - {scheme.name})
            for name in same:
                check_same_series(lab, scheme, SCHEMES[name], lab.meter_slot_s, group_size)
            return rows + [replace(row, scheme=name) for name in same for row in rows]

        yield Cell(
            f"{kind} {scheme.name}{suffix}", attacks, covered, run, view=f"{scheme.name}{suffix}",
            is_long=slot_s < METER_SLOT_S,
        )  # fmt: skip


def check_same_series(lab: Lab, first: Scheme, second: Scheme, slot_s: int, group_size: int) -> None:
    """Raises AssertionError where the EMP gets other series of power from one scheme than from the other."""
    shown = []
    for scheme in (first, second):
        view = view_of(lab.transcript(scheme, slot_s, group_size), frozenset({"emp"}))
        shown.append({each.households: each.values.tobytes() for each in view.series})
    if shown[0] != shown[1]:
        raise AssertionError(f"the EMP sees other sums under {second.name} than under {first.name}")
