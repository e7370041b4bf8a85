"""
Load hiding by a battery: the meter shows what the household draws from the grid, the battery supplies the rest.

Integers throughout, in W and W s, so that metered energy is demand plus the change of charge, exactly.  The battery is
lossless: real ones lose 10 to 20 % of the energy that goes through, which is in the results for a reader to add.

- best effort: hold the last metered value as long as the battery can (Kalogridis et al., SmartGridComm 2010);
- NILL: hold a target; charge an almost empty battery, discharge an almost full one slowly; then set a new target
  (McLaughlin, McDaniel, Aiello, CCS 2011);
- stepping: only multiples of the battery's power are metered, and the strategy says which of the two next to the
  demand (Yang et al., CCS 2012): lazy stepping (LS1, LS2), lazy charging (LC), random charging (RC).

What the papers determine is compared with a second implementation by tests/unit/test_lab_battery_second.py; what they
leave open, what is chosen, and what the choice changes: docs/explanation/privacy.md, "Batteries".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from loadtest.lab.schemes.base import Readings, Scheme
from loadtest.lab.schemes.direct import plain_shape
from protocol.errors import StromkreisError

Vector = NDArray[np.int64]
Control = Callable[["Battery", Readings, Generator], Readings]
"""A battery, demands in W, shape (households, slots), randomness -> the metered load in W, of the same shape."""
_WS_PER_KWH = 3_600_000
_VOLTAGE_V = 230
_BELOW_DEMAND_W = _VOLTAGE_V // 2  # NILL, 0.5 A
_DEMAND_ROSE_W = 5 * _VOLTAGE_V  # NILL, 5 A


class Battery:
    """One battery for each household: capacity in kWh, power in W (default: the capacity in an hour), half charged."""

    def __init__(self, households: int, capacity_kwh: int, slot_s: int, power_w: int | None = None) -> None:
        if capacity_kwh < 1:
            raise StromkreisError(f"a battery of {capacity_kwh} kWh; expected at least 1")
        if power_w is not None and power_w < 1:
            raise StromkreisError(f"a battery of {power_w} W; expected at least 1")
        self.capacity_ws = capacity_kwh * _WS_PER_KWH
        self.power_w = capacity_kwh * 1000 if power_w is None else power_w
        self.slot_s = slot_s
        self.charge_ws = np.full(households, self.capacity_ws // 2, np.int64)
        self.throughput_ws = np.zeros(households, np.int64)

    def bounds(self, demand_w: Vector) -> tuple[Vector, Vector]:
        """The least and the largest load in W that power and charge allow; nothing is fed into the grid."""
        most_w = np.minimum(self.power_w, (self.capacity_ws - self.charge_ws) // self.slot_s)
        least_w = np.minimum(np.minimum(self.power_w, self.charge_ws // self.slot_s), demand_w)
        return demand_w - least_w, demand_w + most_w

    def serve(self, demand_w: Vector, wanted_w: Vector) -> Vector:
        """A slot: what the meter shows where the control wants `wanted_w`, and the charge after it."""
        least_w, most_w = self.bounds(demand_w)
        metered_w: Vector = np.minimum(np.maximum(wanted_w, least_w), most_w)
        change_ws = (metered_w - demand_w) * self.slot_s
        self.charge_ws += change_ws
        self.throughput_ws += np.abs(change_ws)
        return metered_w


def best_effort(battery: Battery, demand_w: Readings, _rng: Generator) -> Readings:
    """The last metered value is wanted again; first that of the demand."""
    metered = np.empty_like(demand_w)
    last = demand_w[:, 0]
    for slot in range(demand_w.shape[1]):
        last = metered[:, slot] = battery.serve(demand_w[:, slot], last)
    return metered


def nill(battery: Battery, demand_w: Readings, _rng: Generator) -> Readings:
    """
    Three states, each with a constant target: steady, low recovery, high recovery.

    Low recovery, at the battery's power, lasts from a charge below 20 % to one of 80 %; high recovery, at 0.5 A below
    the demand, from above 95 % to 50 % or until the demand is more than 5 A above. A recovery starts only where
    the steady target drives the charge further out. The new steady target is the mean of the old one and of the demand
    during the recovery.
    """
    metered = np.empty_like(demand_w)
    capacity = battery.capacity_ws
    steady_w = demand_w[:, 0].copy()
    target_w = steady_w.copy()
    is_low, is_high = np.zeros(len(demand_w), np.bool_), np.zeros(len(demand_w), np.bool_)
    drawn_w, slots = np.zeros(len(demand_w), np.int64), np.zeros(len(demand_w), np.int64)
    for slot in range(demand_w.shape[1]):
        demand, charge = demand_w[:, slot], battery.charge_ws
        lower_w = np.maximum(demand - _BELOW_DEMAND_W, 0)
        back = (is_low & (charge * 5 >= capacity * 4)) | (
            is_high & ((charge * 2 <= capacity) | (demand - target_w > _DEMAND_ROSE_W))
        )
        was_steady = ~(is_low | is_high)
        low = was_steady & (charge * 5 < capacity) & (demand > steady_w)
        high = was_steady & (charge * 20 > capacity * 19) & (demand < steady_w)
        steady_w = np.where(back, (steady_w + drawn_w // np.maximum(slots, 1)) // 2, steady_w)
        is_low, is_high = (is_low & ~back) | low, (is_high & ~back) | high
        overfills = is_high & (charge + np.minimum(target_w - demand, battery.power_w) * battery.slot_s > capacity)
        target_w = np.where(back, steady_w, np.where(low, battery.power_w, target_w))
        target_w = np.where(high | overfills, lower_w, target_w)
        is_recovering = is_low | is_high
        drawn_w, slots = np.where(is_recovering, drawn_w + demand, 0), np.where(is_recovering, slots + 1, 0)
        metered[:, slot] = battery.serve(demand, target_w)
    return metered


def stepping(strategy: str, battery: Battery, demand_w: Readings, rng: Generator) -> Readings:
    """
    Multiples of the battery's power beta: the next one above the demand charges, the next one below discharges.

    LS1 and LS2 keep the multiple until the battery would get overfull (then discharge) or empty (then charge), or the
    demand is a beta away from it: then LS1 charges below half charge and discharges above, LS2 draws. LC charges until
    a slot at beta would overfill, then discharges until one would overdraw. RC discharges with the probability charge
    over capacity. Where the charge forbids one direction the other is taken.
    """
    metered = np.empty_like(demand_w)
    beta_w, capacity, slot_s = battery.power_w, battery.capacity_ws, battery.slot_s
    draws = rng.random(demand_w.shape) if strategy in {"ls2", "rc"} else np.zeros(demand_w.shape)
    charging = np.full(len(demand_w), strategy == "lc")
    level_w = demand_w[:, 0]
    for slot in range(demand_w.shape[1]):
        demand, charge = demand_w[:, slot], battery.charge_ws
        changes = np.full(len(demand_w), True)
        if strategy == "lc":
            overfills, overdraws = charge + beta_w * slot_s > capacity, charge < beta_w * slot_s
            charging = np.where(charging, ~overfills, overdraws)
        elif strategy == "rc":
            charging = draws[:, slot] * capacity >= charge
        else:
            after = charge + (level_w - demand) * slot_s
            full, empty = after > capacity, after < 0
            free = draws[:, slot] < 0.5 if strategy == "ls2" else charge * 2 < capacity
            if slot:
                changes = full | empty | (np.abs(demand - level_w) >= beta_w)
                free = np.where(full, False, np.where(empty, True, free))
            charging = free
        above_w, below_w = -(-demand // beta_w) * beta_w, demand // beta_w * beta_w
        chosen_w, other_w = np.where(charging, above_w, below_w), np.where(charging, below_w, above_w)
        least_w, most_w = battery.bounds(demand)
        fits, other_fits = ((least_w <= each) & (each <= most_w) for each in (chosen_w, other_w))
        chosen_w = np.where(~fits & other_fits, other_w, chosen_w)
        level_w = metered[:, slot] = battery.serve(demand, np.where(changes, chosen_w, level_w))
    return metered


CONTROLS: dict[str, Control] = {
    "best-effort": best_effort,
    "nill": nill,
    **{f"stepping-{each}": partial(stepping, each) for each in ("ls1", "ls2", "lc", "rc")},
}


def hide(
    control: str, capacity_kwh: int, readings_w: Readings, slot_s: int, rng: Generator
) -> tuple[Readings, NDArray[np.float64]]:
    """The metered load in W, and the energy through each household's battery in kWh a day, shape (households,)."""
    battery = Battery(len(readings_w), capacity_kwh, slot_s)
    metered = CONTROLS[control](battery, readings_w, rng)
    days = max(readings_w.shape[1] * slot_s / 86_400, 1e-9)
    return metered, battery.throughput_ws / _WS_PER_KWH / days


def _hidden(control: str, capacity_kwh: int, readings_w: Readings, slot_s: int, rng: Generator) -> Readings:
    return hide(control, capacity_kwh, readings_w, slot_s, rng)[0]


def _scheme(control: str, title: str, source: str, capacity_kwh: int) -> Scheme:
    return Scheme(
        f"battery-{control}-{capacity_kwh}kwh", f"{title}, {capacity_kwh} kWh", source, "the battery", plain_shape,
        local=partial(_hidden, control, capacity_kwh), note=f"{capacity_kwh} kW, lossless",
    )  # fmt: skip


SCHEMES = (
    _scheme("best-effort", "Battery, best effort", "Kalogridis et al. 2010", 1),
    _scheme("nill", "Battery, NILL", "McLaughlin et al. 2011", 1),
    *(
        _scheme(f"stepping-{each}", f"Battery, stepping ({each.upper()})", "Yang et al. 2012", 1)
        for each in ("ls1", "ls2", "lc", "rc")
    ),
    _scheme("best-effort", "Battery, best effort", "Kalogridis et al. 2010", 5),
)
