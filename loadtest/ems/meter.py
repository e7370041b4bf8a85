"""
The household's meter: SML, pushed once a second, and a record of what it showed when, by its own clock.

Its register tells the age of a value wherever that turns up, since the meter knows when it showed it.  The load changes
in steps, each with a power of its own, so that whoever regulates by it can be seen to follow.  Chargers have meters of
their own: control is feed-forward, and the dynamics of no loop enter the figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import trio

from loadtest.meters import sml_server
from loadtest.meters.sml import Register, SmlMeter
from protocol.metering.obis import Obis
from protocol.metering.units import WATT, WATT_HOUR

IMPORT = Obis(1, 0, 1, 8, 0, 255)
POWER = Obis(1, 0, 16, 7, 0, 255)
PUSH_S = 1.0
STEP_S = 5.0
STEP_COUNT = 60
CAP_W = 11_000
"""What the household's connection may carry, with the chargers."""
_BASE_W, _STRIDE_W, _TURN = 1_500, 100, 37  # 37 and 60 have no common divisor: each step comes once in 60


def household_w(step: int) -> int:
    """The household's power in a step (W): another one in each of `STEP_COUNT` successive steps."""
    return _BASE_W + _STRIDE_W * (step * _TURN % STEP_COUNT)


def wanted_w(household: int) -> int:
    """What the chargers may draw beside the household (W)."""
    return max(0, CAP_W - household)


@dataclass(slots=True)
class HouseholdMeter:
    """`serve` it; `began_s` is the start of its first step (Unix, s)."""

    began_s: float = field(default_factory=time.time)
    device: str = "1STK0012345678"
    clock: Callable[[], float] = time.time
    _shown: dict[int, float] = field(default_factory=dict)

    def step_at(self, at_s: float) -> int:
        """The step that a moment lies in."""
        return int((at_s - self.began_s) // STEP_S)

    def step_began_s(self, step: int) -> float:
        """When a step began (Unix, s)."""
        return self.began_s + step * STEP_S

    def energy_tenth_wh(self, at_s: float) -> int:
        """The register at a moment, in tenths of a Wh: what the steps until then have used, cut off."""
        step = self.step_at(at_s)
        whole, rest = divmod(step, STEP_COUNT)
        watt_seconds = whole * STEP_S * sum(map(household_w, range(STEP_COUNT)))
        watt_seconds += STEP_S * sum(map(household_w, range(rest)))
        watt_seconds += household_w(step) * (at_s - self.step_began_s(step))
        return 100_000 + int(watt_seconds / 360)

    def registers(self, now: datetime) -> list[Register]:
        """What it shows, and shows that it did."""
        at_s = now.timestamp()
        energy = self.energy_tenth_wh(at_s)
        self._shown.setdefault(energy, at_s)
        return [(IMPORT, energy, -1, WATT_HOUR), (POWER, household_w(self.step_at(at_s)), 0, WATT)]

    def shown_at(self, energy_tenth_wh: int) -> float | None:
        """When it showed a register first (Unix, s); None: it never did."""
        return self._shown.get(energy_tenth_wh)

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Push to whoever connects, until cancelled; reports the port."""
        meter = SmlMeter(self.device, self.registers, push_interval_s=PUSH_S)
        async with trio.open_nursery() as nursery:
            now = partial(_at, self.clock)
            task_status.started(await nursery.start(partial(sml_server.serve, [meter], now)))


def _at(clock: Callable[[], float]) -> datetime:
    return datetime.fromtimestamp(clock(), UTC)
