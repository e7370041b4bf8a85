"""A second implementation of Non-Intrusive Load Leveling (NILL), written without sight of the lab's.

Source: McLaughlin, McDaniel, Aiello, "Protecting consumer privacy from electric load monitoring", CCS 2011, as told
by its summary in github.com/hxwang/SmartGridSummary (the text of the paper itself was not at hand):

- u(t) = d(t) + b(t): metered load, demand, battery power (positive when it charges); c(t) is the integral of b.
- The first steady target K_SS is the smallest K for which L <= K (t - t0) - D(t) + c(t0) <= H holds over a known
  stretch of demand, D being its energy since t0; L and H are the safe limits of the state of charge.
- Steady state holds u = K_SS. It is left for low recovery when c(t) < L while d(t) > K_SS, and for high recovery when
  c(t) > H while d(t) < K_SS.
- Low recovery holds K_L, the largest safe charge rate, until the battery is at 80 %.
- High recovery holds K_H, 0.8 of the mean demand of the last p steps, until demand exceeds K_H by 5 A.
- Both end in a new K_SS: a times the mean demand since the recovery began plus (1 - a) times the old K_SS, a = 0.8.

What it leaves open is a field of `Reading`. Powers in W, energies in Wh, times in s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import numpy.typing as npt

SECONDS_PER_HOUR = 3600.0
RECOVERED_LOW = 0.8
HIGH_TARGET = 0.8
EWMA_WEIGHT = 0.8
HIGH_MARGIN_A = 5.0


class State(Enum):
    STEADY = auto()
    LOW = auto()
    HIGH = auto()


@dataclass(frozen=True, slots=True)
class Battery:
    """Usable energy, power limits, and the energy at the first step; no losses, as in the paper."""

    capacity_wh: float
    charge_w: float
    discharge_w: float
    start_wh: float


@dataclass(frozen=True, slots=True)
class Reading:
    """The choices the paper leaves open, and those where its readers differ.

    - `low`, `high`: L and H as fractions of the capacity.
    - `low_until`: the fraction at which low recovery ends. `weight`: a.
    - `low_target_w`: K_L from demand at the entry and the battery; None: the charge limit itself, so that the metered
      load is constant and the battery never charges above its limit. `low_follows`: K_L is taken anew each step.
    - `high_target_w`: K_H from the last `window` demands, the present one last, and the battery; None: 0.8 of the mean.
    - `high_margin_w`: 5 A at the voltage of the home; None: demand never ends high recovery.
    - `high_until`: the fraction at which high recovery ends as well; None: the state of charge does not end it.
    - `high_renewed`: K_H is set anew where demand falls below it, which would charge a full battery.
    - `needs_demand`: L and H are heeded only while demand drives the charge further beyond them.
    - `inclusive`: meeting a limit counts as crossing it.
    - `decides_after`: the state changes by the charge after the step and holds from the next step on, instead of
      changing before the step by the charge it begins with.
    - `mean_includes_now`: the mean demand of a recovery includes the step that ends it.
    """

    low: float = 0.2
    high: float = 0.9
    low_until: float = RECOVERED_LOW
    weight: float = EWMA_WEIGHT
    window: int = 1
    high_margin_w: float | None = HIGH_MARGIN_A * 120
    high_until: float | None = None
    high_renewed: bool = False
    low_target_w: Callable[[float, Battery], float] | None = None
    low_follows: bool = False
    high_target_w: Callable[[Sequence[float], Battery], float] | None = None
    needs_demand: bool = True
    inclusive: bool = False
    decides_after: bool = False
    mean_includes_now: bool = False


def first_target_w(demand_w: Sequence[float], step_s: float, battery: Battery, reading: Reading) -> float:
    """The smallest constant load that keeps the charge within L and H over `demand_w`.

    :raises ValueError: no constant load does.
    """
    hours = np.arange(1, len(demand_w) + 1) * step_s / SECONDS_PER_HOUR
    used_wh = np.cumsum(demand_w) * step_s / SECONDS_PER_HOUR
    least = float(np.max((reading.low * battery.capacity_wh - battery.start_wh + used_wh) / hours))
    most = float(np.min((reading.high * battery.capacity_wh - battery.start_wh + used_wh) / hours))
    if max(least, 0.0) > most:
        raise ValueError(f"no constant load keeps this battery within its limits: {least} W needed, {most} W allowed")
    return max(least, 0.0)


class Controller:
    """The three states and their targets; knows demand and charge, and moves no energy itself."""

    def __init__(self, steady_w: float, battery: Battery, reading: Reading) -> None:
        self._battery, self._reading = battery, reading
        self.state = State.STEADY
        self.steady_w = self.target_w = steady_w
        self._seen: list[float] = []
        self._entered = 0

    def observe(self, demand_w: float) -> None:
        self._seen.append(demand_w)

    def decide(self, charge_wh: float) -> None:
        """Change state by the present demand and the charge, and set the target."""
        if self.state is State.STEADY:
            self._leave_steady(charge_wh)
        elif self.state is State.LOW:
            if self._above(charge_wh, self._reading.low_until):
                self._settle()
            elif self._reading.low_follows:
                self.target_w = self._low_target_w()
        elif self._high_is_over(charge_wh):
            self._settle()
        elif self._reading.high_renewed and self._seen[-1] < self.target_w:
            self.target_w = self._high_target_w()

    def _leave_steady(self, charge_wh: float) -> None:
        demand_w, free = self._seen[-1], not self._reading.needs_demand
        if self._below(charge_wh, self._reading.low) and (free or demand_w > self.steady_w):
            self._enter(State.LOW, self._low_target_w())
        elif self._above(charge_wh, self._reading.high) and (free or demand_w < self.steady_w):
            self._enter(State.HIGH, self._high_target_w())

    def _enter(self, state: State, target_w: float) -> None:
        self.state, self.target_w = state, target_w
        self._entered = len(self._seen) - 1

    def _settle(self) -> None:
        upto = len(self._seen) if self._reading.mean_includes_now else -1
        mean_w = float(np.mean(self._seen[self._entered : upto]))
        self.steady_w = self._reading.weight * mean_w + (1 - self._reading.weight) * self.steady_w
        self.state, self.target_w = State.STEADY, self.steady_w

    def _high_is_over(self, charge_wh: float) -> bool:
        margin_w, until = self._reading.high_margin_w, self._reading.high_until
        risen = margin_w is not None and self._seen[-1] - self.target_w > margin_w
        return risen or (until is not None and self._below(charge_wh, until))

    def _low_target_w(self) -> float:
        chosen = self._reading.low_target_w
        return self._battery.charge_w if chosen is None else chosen(self._seen[-1], self._battery)

    def _high_target_w(self) -> float:
        recent = self._seen[-self._reading.window :]
        chosen = self._reading.high_target_w
        return HIGH_TARGET * float(np.mean(recent)) if chosen is None else chosen(recent, self._battery)

    def _below(self, charge_wh: float, fraction: float) -> bool:
        limit_wh = fraction * self._battery.capacity_wh
        return charge_wh < limit_wh or (self._reading.inclusive and charge_wh == limit_wh)

    def _above(self, charge_wh: float, fraction: float) -> bool:
        limit_wh = fraction * self._battery.capacity_wh
        return charge_wh > limit_wh or (self._reading.inclusive and charge_wh == limit_wh)


def level(
    demand_w: Sequence[float], step_s: float, battery: Battery, steady_w: float, reading: Reading
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[State]]:
    """Metered load (W), state of charge (Wh) at the end of each step, and the state that held it, all of one length.

    Where the battery cannot give or take the difference to the target (power, or energy left or room left for the step)
    it does what it can and the metered load departs from the target by the rest.
    """
    hours = step_s / SECONDS_PER_HOUR
    controller = Controller(steady_w, battery, reading)
    charge_wh = battery.start_wh
    metered_w, charges_wh, states = [], [], []
    for demand in demand_w:
        controller.observe(float(demand))
        if not reading.decides_after:
            controller.decide(charge_wh)
        most_w = min(battery.charge_w, (battery.capacity_wh - charge_wh) / hours)
        least_w = -min(battery.discharge_w, charge_wh / hours)
        power_w = min(max(controller.target_w - demand, least_w), most_w)
        charge_wh = min(max(charge_wh + power_w * hours, 0.0), battery.capacity_wh)
        metered_w.append(demand + power_w)
        charges_wh.append(charge_wh)
        states.append(controller.state)
        if reading.decides_after:
            controller.decide(charge_wh)
    return np.array(metered_w), np.array(charges_wh), states
