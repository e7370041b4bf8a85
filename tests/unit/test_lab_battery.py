"""
Load hiding by a battery: what holds for every control, and what is published of them.

Published: stepping shows multiples of the battery's power alone (Yang et al. 2012, section 5); NILL exposes few load
changes a day that are as large as before (McLaughlin et al. 2011: 1.1 to 5.9); best effort shows changes of the load
exactly where the battery is full, empty or too weak (Yang et al., section 4). Which series they meter, slot by slot:
test_lab_battery_second.py.
"""

import numpy as np
import pytest

from loadtest.lab.households import Households, generate
from loadtest.lab.schemes.base import Readings
from loadtest.lab.schemes.battery import CONTROLS, Battery, hide
from protocol.errors import StromkreisError

SLOT_S = 60


@pytest.fixture(scope="module")
def homes() -> Households:
    return generate(20, 2, 60, seed=8)


@pytest.mark.parametrize("control", CONTROLS)
def test_metered_energy_is_demand_plus_the_change_of_charge(homes: Households, control: str) -> None:
    battery = Battery(homes.count, 1, SLOT_S)
    before = battery.charge_ws.copy()
    shown = CONTROLS[control](battery, homes.power_w, np.random.default_rng(1))
    assert np.array_equal((shown - homes.power_w).sum(axis=1) * SLOT_S, battery.charge_ws - before)
    assert battery.charge_ws.min() >= 0
    assert battery.charge_ws.max() <= battery.capacity_ws
    assert shown.min() >= 0


@pytest.mark.parametrize("strategy", ["ls1", "ls2", "lc", "rc"])
def test_stepping_shows_multiples_of_its_power_alone(homes: Households, strategy: str) -> None:
    shown, _ = hide(f"stepping-{strategy}", 1, homes.power_w, SLOT_S, np.random.default_rng(1))
    assert not (shown % 1000).any()
    assert len(np.unique(shown)) > 2


@pytest.mark.parametrize("strategy", ["ls1", "ls2", "lc", "rc"])
def test_stepping_keeps_to_multiples_where_a_slot_fills_half_the_battery(strategy: str) -> None:
    loads = np.random.default_rng(2).integers(0, 9000, (3, 400))
    shown = CONTROLS[f"stepping-{strategy}"](Battery(3, 2, 900, 4000), loads, np.random.default_rng(1))
    assert not (shown % 4000).any()


def test_the_energy_through_a_battery_is_that_of_its_own_household(homes: Households) -> None:
    shown, through_kwh = hide("stepping-ls1", 1, homes.power_w, SLOT_S, np.random.default_rng(1))
    days = homes.slots * SLOT_S / 86_400
    expected = np.abs(shown - homes.power_w).sum(axis=1) * SLOT_S / 3.6e6 / days
    assert through_kwh == pytest.approx(expected)
    assert len(set(through_kwh)) == homes.count


def changes_a_day(values: Readings) -> float:
    return float((np.abs(np.diff(values, axis=1)) > 50).sum() / values.size * 86_400 / SLOT_S)


def test_nill_leaves_few_load_changes(homes: Households) -> None:
    shown, _ = hide("nill", 5, homes.power_w, SLOT_S, np.random.default_rng(1))
    assert changes_a_day(homes.power_w) > 50
    assert changes_a_day(shown) < 8


def test_best_effort_shows_a_change_exactly_where_it_gives_up(homes: Households) -> None:
    """Yang's attack: at its limits the battery lets changes of the demand through as they are; stepping never does."""
    for control, is_exposed in (("best-effort", True), ("stepping-ls1", False)):
        shown, _ = hide(control, 1, homes.power_w, SLOT_S, np.random.default_rng(1))
        changed = np.abs(np.diff(shown, axis=1)) > 50
        exact = changed & (np.diff(shown, axis=1) == np.diff(homes.power_w, axis=1))
        assert bool(exact.sum() > 100) is is_exposed


def test_a_battery_of_nothing_is_refused() -> None:
    with pytest.raises(StromkreisError, match="at least 1"):
        Battery(1, 0, 60)
    with pytest.raises(StromkreisError, match="at least 1"):
        Battery(1, 1, 60, 0)
