"""
Load hiding by a battery, against a second implementation written from the papers for one household in plain Python.

Published: stepping shows multiples of the battery's power alone (Yang et al. 2012, section 5); NILL exposes few load
changes a day that are as large as before (McLaughlin et al. 2011: 1.1 to 5.9); best effort shows changes of the load
exactly where the battery is full, empty or too weak (Yang et al., section 4).
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.lab.households import Households, generate
from loadtest.lab.schemes.base import Readings
from loadtest.lab.schemes.battery import Battery, Control, best_effort, hide, nill, stepping
from protocol.errors import StromkreisError

SLOT_S = 60
Second = Callable[[list[int], int], list[int]]
KWH = 3_600_000


class Cell:
    """A battery of `kwh` that takes and gives as many kW, half full."""

    def __init__(self, kwh: int) -> None:
        self.size, self.power, self.charge = kwh * KWH, kwh * 1000, kwh * KWH // 2

    def meter(self, load: int, wish: int) -> int:
        flow = wish - load
        flow = min(flow, self.power, (self.size - self.charge) // SLOT_S)
        flow = max(flow, -self.power, -(self.charge // SLOT_S), -load)
        self.charge += flow * SLOT_S
        return load + flow


def second_best_effort(loads: list[int], kwh: int) -> list[int]:
    cell, shown = Cell(kwh), list[int]()
    for load in loads:
        shown.append(cell.meter(load, shown[-1] if shown else load))
    return shown


def second_stepping(loads: list[int], kwh: int) -> list[int]:
    cell, shown = Cell(kwh), list[int]()
    beta = kwh * 1000
    h = -(-loads[0] // beta)
    for load in loads:
        would_be = cell.charge + (h * beta - load) * SLOT_S
        if would_be > cell.size:  # full: supply the house from the battery
            h = load // beta
        elif would_be < 0:  # empty: charge
            h = -(-load // beta)
        elif abs(load - h * beta) >= beta:  # more than the battery can bridge
            h = -(-load // beta) if 2 * cell.charge < cell.size else load // beta
        shown.append(cell.meter(load, h * beta))
    return shown


def second_nill(loads: list[int], kwh: int) -> list[int]:
    cell, shown = Cell(kwh), list[int]()
    steady = target = loads[0]
    mode, since = "steady", list[int]()
    for load in loads:
        since.append(load)
        if (mode == "low" and cell.charge >= 0.8 * cell.size) or (mode == "high" and cell.charge <= 0.5 * cell.size):
            steady = target = (steady + sum(since) // len(since)) // 2
            mode, since = "steady", []
        if mode == "steady" and cell.charge < 0.2 * cell.size:
            mode, target = "low", load + cell.power // 4
        elif mode == "steady" and cell.charge > 0.95 * cell.size:
            mode, target = "high", max(load - cell.power // 4, 0)
        elif mode == "low" and load >= target:
            target = load + cell.power // 4
        elif mode == "high" and load <= target:
            target = max(load - cell.power // 4, 0)
        shown.append(cell.meter(load, target))
    return shown


PAIRS = [(best_effort, second_best_effort), (stepping, second_stepping), (nill, second_nill)]


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=["best-effort", "stepping", "nill"])
@given(loads=st.lists(st.integers(0, 9000), min_size=2, max_size=300), kwh=st.integers(1, 5))
@settings(deadline=None)
def test_both_implementations_meter_the_same(first: Control, second: Second, loads: list[int], kwh: int) -> None:
    shown = first(Battery(2, kwh, SLOT_S), np.array([loads, loads], np.int64))
    assert shown[0].tolist() == shown[1].tolist() == second(loads, kwh)


@pytest.fixture(scope="module")
def homes() -> Households:
    return generate(20, 2, 60, seed=8)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=["best-effort", "stepping", "nill"])
def test_both_implementations_agree_on_households(homes: Households, first: Control, second: Second) -> None:
    shown = first(Battery(homes.count, 1, SLOT_S), homes.power_w)
    for household in range(0, homes.count, 5):
        assert shown[household].tolist() == second(homes.power_w[household].tolist(), 1)


@pytest.mark.parametrize("control", [best_effort, stepping, nill])
def test_metered_energy_is_demand_plus_the_change_of_charge(homes: Households, control: Control) -> None:
    battery = Battery(homes.count, 1, SLOT_S)
    before = battery.charge_ws.copy()
    shown = control(battery, homes.power_w)
    assert np.array_equal((shown - homes.power_w).sum(axis=1) * SLOT_S, battery.charge_ws - before)
    assert battery.charge_ws.min() >= 0
    assert battery.charge_ws.max() <= battery.capacity_ws
    assert shown.min() >= 0


def test_stepping_shows_multiples_of_its_power_alone(homes: Households) -> None:
    shown, _ = hide("stepping", 1, homes.power_w, SLOT_S)
    assert (shown % 1000 == 0).mean() > 0.999


def changes_a_day(values: Readings) -> float:
    return float((np.abs(np.diff(values, axis=1)) > 50).sum() / values.size * 86_400 / SLOT_S)


def test_nill_leaves_few_load_changes(homes: Households) -> None:
    shown, _ = hide("nill", 5, homes.power_w, SLOT_S)
    assert changes_a_day(homes.power_w) > 50
    assert changes_a_day(shown) < 8


def test_best_effort_shows_a_change_exactly_where_it_gives_up(homes: Households) -> None:
    """Yang's attack: at its limits the battery lets changes of the demand through as they are; stepping never does."""
    for control, is_exposed in (("best-effort", True), ("stepping", False)):
        shown, _ = hide(control, 1, homes.power_w, SLOT_S)
        changed = np.abs(np.diff(shown, axis=1)) > 50
        exact = changed & (np.diff(shown, axis=1) == np.diff(homes.power_w, axis=1))
        assert bool(exact.sum() > 100) is is_exposed


def test_a_battery_of_nothing_is_refused() -> None:
    with pytest.raises(StromkreisError, match="at least 1"):
        Battery(1, 0, 60)
