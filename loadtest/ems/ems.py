"""An energy management system (EMS): what it knows, what it wants of the chargers, and what came of its commands."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from loadtest.ems.actuators import Actuator
from loadtest.ems.freshness import Arrival
from loadtest.ems.meter import STEP_COUNT, STEP_S, HouseholdMeter, household_w, wanted_w

COMMAND_EVERY_S: Final = 2.0
AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Command:
    """A limit (W) from when it was sent to when its answer came, or was given up (Unix, s)."""

    actuator: str
    limit_w: int
    issued_s: float
    done_s: float
    is_accepted: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """A device kept to a limit (W) from `at_s` on (Unix, s), by its own word."""

    device: str
    limit_w: int
    at_s: float


@dataclass(slots=True)
class Ems:
    """`learn` is told values; `unknown` counts those that its meter never showed, which must not be."""

    meter: HouseholdMeter
    arrivals: list[Arrival] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    household_w: int | None = None
    _changed: trio.Event = field(default_factory=trio.Event)

    def learn(self, energy_tenth_wh: int, power_w: int | None) -> None:
        """A value that has come now."""
        shown_s = self.meter.shown_at(energy_tenth_wh)
        if shown_s is None:
            self.unknown += 1
            return
        self.arrivals.append(Arrival(time.time(), shown_s))
        if power_w is not None and power_w != self.household_w:
            self.household_w = power_w
            self.wake()

    def failed(self, what: str) -> None:
        """Something did not work, and is tried again."""
        self.failures[what] += 1

    def wake(self) -> None:
        """There is a reason to command anew."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def wanted_w(self) -> int:
        """What the chargers may draw beside the household as far as it is known (W)."""
        return wanted_w(0 if self.household_w is None else self.household_w)

    async def drive(self, actuator: Actuator, wanted: Callable[[], int | None]) -> None:
        """Command when something has changed, every `COMMAND_EVERY_S`, and soon again where that failed."""
        while True:
            changed, limit_w, pause_s = self._changed, wanted(), COMMAND_EVERY_S
            if limit_w is not None:
                issued_s = time.time()
                is_accepted = await actuator.limit(limit_w)
                self.commands.append(Command(actuator.name, limit_w, issued_s, time.time(), is_accepted))
                pause_s = COMMAND_EVERY_S if is_accepted else AGAIN_S
            with trio.move_on_after(pause_s):
                await changed.wait()


def reactions(applied: Sequence[Applied], meter: HouseholdMeter, from_s: float, to_s: float) -> tuple[list[float], int]:
    """
    From each step of the household's power in a span to the first device limit that answers it (s).

    And the number of steps that were answered by none before they came again.  A step is known by its power.
    """
    found, missed = [], 0
    for step in range(meter.step_at(from_s) + 1, meter.step_at(to_s)):
        began_s, limit_w = meter.step_began_s(step), wanted_w(household_w(step))
        ends_s = began_s + STEP_COUNT * STEP_S
        answers = [each.at_s for each in applied if each.limit_w == limit_w and began_s <= each.at_s < ends_s]
        if answers:
            found.append(min(answers) - began_s)
        else:
            missed += 1
    return found, missed
