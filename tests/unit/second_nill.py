"""Non-Intrusive Load Leveling (NILL) a second time, written without sight of the lab's or of any other program.

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

What this leaves open is a field of `Reading`. A change of state acts in the step whose demand causes it, one change a
step; the mean of a recovery is over its steps without the one in which it ends.
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


class Renewal(Enum):
    """When high recovery sets its target anew: never, where demand falls below it, where holding it would overfill."""

    NEVER = auto()
    BELOW = auto()
    OVERFILL = auto()


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
    - `high_target_w`: K_H from the last `window` demands, the present one last; None: 0.8 of their mean.
    - `high_margin_w`: 5 A at the voltage of the home; None: demand never ends high recovery.
    - `high_until`: the fraction at which high recovery ends as well; None: the state of charge does not end it.
    - `renewal`: when K_H is set anew during high recovery.
    - `needs_demand`: L and H are heeded only while demand drives the charge further beyond them.
    - `ends_inclusive`: a recovery ends at `low_until` and `high_until` themselves, not only beyond.
    - `whole_watts`: the new steady target is rounded down to whole watts.

    Added after the comparison with the lab's, as two readings it has: `Renewal.OVERFILL`, `whole_watts`; and
    `ends_inclusive`, which was one switch for these limits and for L and H.
    """

    low: float = 0.2
    high: float = 0.9
    low_until: float = RECOVERED_LOW
    weight: float = EWMA_WEIGHT
    window: int = 1
    high_margin_w: float | None = HIGH_MARGIN_A * 120
    high_until: float | None = None
    renewal: Renewal = Renewal.NEVER
    high_target_w: Callable[[Sequence[float]], float] | None = None
    needs_demand: bool = True
    ends_inclusive: bool = False
    whole_watts: bool = False


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

    def __init__(self, steady_w: float, step_s: float, battery: Battery, reading: Reading) -> None:
        self._battery, self._reading, self._step_s = battery, reading, step_s
        self.state = State.STEADY
        self.steady_w = self.target_w = steady_w
        self._seen: list[float] = []
        self._entered = 0

    def observe(self, demand_w: float) -> None:
        self._seen.append(demand_w)

    def decide(self, charge_ws: float) -> None:
        """Change state by the present demand and the charge, and set the target."""
        if self.state is State.STEADY:
            self._leave_steady(charge_ws)
        elif self.state is State.LOW:
            if self._low_is_over(charge_ws):
                self._settle()
        elif self._high_is_over(charge_ws):
            self._settle()
        elif self._is_renewed(charge_ws):
            self.target_w = self._high_target_w()

    def _leave_steady(self, charge_ws: float) -> None:
        demand_w, free = self._seen[-1], not self._reading.needs_demand
        if charge_ws < self._limit_ws(self._reading.low) and (free or demand_w > self.steady_w):
            self._enter(State.LOW, self._battery.charge_w)
        elif charge_ws > self._limit_ws(self._reading.high) and (free or demand_w < self.steady_w):
            self._enter(State.HIGH, self._high_target_w())

    def _enter(self, state: State, target_w: float) -> None:
        self.state, self.target_w = state, target_w
        self._entered = len(self._seen) - 1

    def _settle(self) -> None:
        mean_w = float(np.mean(self._seen[self._entered : -1]))
        self.steady_w = self._reading.weight * mean_w + (1 - self._reading.weight) * self.steady_w
        if self._reading.whole_watts:
            self.steady_w = float(np.floor(self.steady_w))
        self.state, self.target_w = State.STEADY, self.steady_w

    def _low_is_over(self, charge_ws: float) -> bool:
        limit_ws = self._limit_ws(self._reading.low_until)
        return charge_ws > limit_ws or (self._reading.ends_inclusive and charge_ws == limit_ws)

    def _high_is_over(self, charge_ws: float) -> bool:
        margin_w, until = self._reading.high_margin_w, self._reading.high_until
        if margin_w is not None and self._seen[-1] - self.target_w > margin_w:
            return True
        if until is None:
            return False
        limit_ws = self._limit_ws(until)
        return charge_ws < limit_ws or (self._reading.ends_inclusive and charge_ws == limit_ws)

    def _is_renewed(self, charge_ws: float) -> bool:
        wanted_w = self.target_w - self._seen[-1]
        if self._reading.renewal is Renewal.OVERFILL:
            room_ws = self._limit_ws(1) - charge_ws
            return min(wanted_w, self._battery.charge_w) * self._step_s > room_ws
        return self._reading.renewal is Renewal.BELOW and wanted_w > 0

    def _high_target_w(self) -> float:
        recent = self._seen[-self._reading.window :]
        chosen = self._reading.high_target_w
        return HIGH_TARGET * float(np.mean(recent)) if chosen is None else chosen(recent)

    def _limit_ws(self, fraction: float) -> float:
        return fraction * self._battery.capacity_wh * SECONDS_PER_HOUR


def level(
    demand_w: Sequence[float], step_s: float, battery: Battery, steady_w: float, reading: Reading
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[State]]:
    """Metered load (W), state of charge (W s) at the end of each step, and the state that held it, all of one length.

    Whole watts of demand and target stay exact: the charge is then a whole number too, in W s.

    Where the battery cannot give or take the difference to the target (power, or energy left or room left for the step)
    it does what it can and the metered load departs from the target by the rest.
    """
    controller = Controller(steady_w, step_s, battery, reading)
    capacity_ws, charge_ws = battery.capacity_wh * SECONDS_PER_HOUR, battery.start_wh * SECONDS_PER_HOUR
    metered_w, charges_ws, states = [], [], []
    for demand in demand_w:
        controller.observe(float(demand))
        controller.decide(charge_ws)
        most_w = min(battery.charge_w, (capacity_ws - charge_ws) / step_s)
        least_w = -min(battery.discharge_w, charge_ws / step_s)
        power_w = min(max(controller.target_w - demand, least_w), most_w)
        charge_ws = min(max(charge_ws + power_w * step_s, 0.0), capacity_ws)
        metered_w.append(demand + power_w)
        charges_ws.append(charge_ws)
        states.append(controller.state)
    return np.array(metered_w), np.array(charges_ws), states
