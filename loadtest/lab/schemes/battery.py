"""
Load hiding by a battery: the meter shows what the household draws from the grid, the battery supplies the rest.

Integers throughout, in W and W s, so that metered energy is demand plus the change of charge, exactly.  The battery is
lossless: real ones lose 10 to 20 % of the energy that goes through, which `throughput_kwh` lets a reader add.

- best effort: hold the last metered value as long as the battery can (Kalogridis et al., SmartGridComm 2010);
- NILL: hold a target; a nearly empty battery is charged and a full one discharged at a constant metered value, then
  the target follows the mean demand (McLaughlin, McDaniel, Aiello, CCS 2011; the paper leaves the recovery rates to
  the battery, here a quarter of its power: an approximation);
- stepping: only multiples of the battery's power are metered, the same one as long as possible, then charging below
  half charge and discharging above it (Yang et al., CCS 2012, algorithm LS2).
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
Control = Callable[["Battery", Readings], Readings]
_WS_PER_KWH = 3_600_000


class Battery:
    """One battery for each household: capacity in kWh, power in W (the capacity in an hour), half charged."""

    def __init__(self, households: int, capacity_kwh: int, slot_s: int) -> None:
        if capacity_kwh < 1:
            raise StromkreisError(f"a battery of {capacity_kwh} kWh; expected at least 1")
        self.capacity_ws = capacity_kwh * _WS_PER_KWH
        self.power_w = capacity_kwh * 1000
        self.slot_s = slot_s
        self.charge_ws = np.full(households, self.capacity_ws // 2, np.int64)
        self.throughput_ws = np.zeros(households, np.int64)

    def serve(self, demand_w: Vector, wanted_w: Vector) -> Vector:
        """What the meter shows where the control wants `wanted_w`: as near to it as power and charge allow."""
        most_w = np.minimum(self.power_w, (self.capacity_ws - self.charge_ws) // self.slot_s)
        least_w = np.maximum(-np.minimum(self.power_w, self.charge_ws // self.slot_s), -demand_w)
        flow_w = np.clip(wanted_w - demand_w, least_w, most_w)
        self.charge_ws += flow_w * self.slot_s
        self.throughput_ws += np.abs(flow_w) * self.slot_s
        return np.asarray(demand_w + flow_w, np.int64)


def best_effort(battery: Battery, demand_w: Readings) -> Readings:
    """The last metered value is wanted again."""
    metered = np.empty_like(demand_w)
    last = demand_w[:, 0]
    for slot in range(demand_w.shape[1]):
        last = metered[:, slot] = battery.serve(demand_w[:, slot], last)
    return metered


def nill(battery: Battery, demand_w: Readings) -> Readings:
    """Steady target; recovery below 20 % until 80 %, above 95 % until 50 %; the target is averaged with the demand."""
    metered = np.empty_like(demand_w)
    capacity, rate_w = battery.capacity_ws, battery.power_w // 4
    steady_w, target_w = demand_w[:, 0].copy(), demand_w[:, 0].copy()
    state = np.zeros(len(demand_w), np.int64)  # 0 steady, 1 charging, -1 discharging
    drawn_w, slots = np.zeros(len(demand_w), np.int64), np.zeros(len(demand_w), np.int64)
    for slot in range(demand_w.shape[1]):
        demand, charge = demand_w[:, slot], battery.charge_ws
        drawn_w += demand
        slots += 1
        back = ((state == 1) & (charge * 5 >= capacity * 4)) | ((state == -1) & (charge * 2 <= capacity))
        steady_w = np.where(back, (steady_w + drawn_w // slots) // 2, steady_w)
        target_w = np.where(back, steady_w, target_w)
        drawn_w, slots = np.where(back, 0, drawn_w), np.where(back, 0, slots)
        state = np.where(back, 0, state)
        low, high = (state == 0) & (charge * 5 < capacity), (state == 0) & (charge * 20 > capacity * 19)
        state = np.where(low, 1, np.where(high, -1, state))
        # A recovery that no longer recovers is set anew: demand has risen above it, or fallen below.
        low |= (state == 1) & (demand >= target_w)
        high |= (state == -1) & (demand <= target_w)
        target_w = np.where(low, demand + rate_w, np.where(high, np.maximum(demand - rate_w, 0), target_w))
        metered[:, slot] = battery.serve(demand, target_w)
    return metered


def stepping(battery: Battery, demand_w: Readings) -> Readings:
    """LS2 with steps of the battery's power."""
    metered = np.empty_like(demand_w)
    step_w, capacity = battery.power_w, battery.capacity_ws
    level = (demand_w[:, 0] + step_w - 1) // step_w
    for slot in range(demand_w.shape[1]):
        demand, charge = demand_w[:, slot], battery.charge_ws
        after = charge + (level * step_w - demand) * battery.slot_s
        full, empty = after > capacity, after < 0
        jumped = (demand <= (level - 1) * step_w) | (demand >= (level + 1) * step_w)
        up = np.where(full, False, np.where(empty, True, charge * 2 < capacity))
        chosen = np.where(up, (demand + step_w - 1) // step_w, demand // step_w)
        level = np.where(full | empty | jumped, chosen, level)
        metered[:, slot] = battery.serve(demand, level * step_w)
    return metered


CONTROLS: dict[str, Control] = {"best-effort": best_effort, "nill": nill, "stepping": stepping}


def hide(control: str, capacity_kwh: int, readings_w: Readings, slot_s: int) -> tuple[Readings, float]:
    """The metered load in W, and the energy through the battery in kWh a household and day."""
    battery = Battery(len(readings_w), capacity_kwh, slot_s)
    metered = CONTROLS[control](battery, readings_w)
    days = max(readings_w.shape[1] * slot_s / 86_400, 1e-9)
    return metered, float(battery.throughput_ws.mean()) / _WS_PER_KWH / days


def _hidden(control: str, capacity_kwh: int, readings_w: Readings, slot_s: int, _rng: Generator) -> Readings:
    return hide(control, capacity_kwh, readings_w, slot_s)[0]


def _scheme(control: str, title: str, source: str, capacity_kwh: int) -> Scheme:
    return Scheme(
        f"battery-{control}-{capacity_kwh}kwh", f"{title}, {capacity_kwh} kWh", source, "the battery", plain_shape,
        local=partial(_hidden, control, capacity_kwh), note=f"{capacity_kwh} kW, lossless",
    )  # fmt: skip


SCHEMES = (
    _scheme("best-effort", "Battery, best effort", "Kalogridis et al. 2010", 1),
    _scheme("nill", "Battery, NILL (approximate)", "McLaughlin et al. 2011", 1),
    _scheme("stepping", "Battery, stepping (LS2)", "Yang et al. 2012", 1),
    _scheme("best-effort", "Battery, best effort", "Kalogridis et al. 2010", 5),
)
