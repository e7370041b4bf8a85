"""
Households whose truth is known: load, running appliances and presence of each, from a seed.

Household i depends on the seed and i alone, each of its days on the day besides; neither the number of households or
days nor the resolution changes what happens in it.  The lab's other modules see nothing but `Households`, so recorded
data (`recordings`) can take its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from loadtest.lab.appliances import ApplianceLibrary, load_library
from loadtest.lab.habits import DAYS_A_WEEK, MINUTES, USES, Day, Habits, draw_day
from loadtest.lab.workers import workers
from protocol.errors import StromkreisError

RESOLUTIONS_S = (1, 10, 60, 900)
LABELS = ("KETTLE", "COOKINGSTOVE", "DISHWASHER", "WASHINGMACHINE", "DRYER", "MICROWAVE", "REFRIGERATOR", "TV")
DAY_S = 86_400
ON_W = 10.0
MEMORY_MAX = 8 * 2**30
_BYTES_A_READING = 12
_CHUNK = 50
_SPREAD_MIN = 2_000_000  # readings: fewer are made before other processes have started
_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Households:
    """
    Readings and truth of `count` households over `slots` slots of `slot_s` seconds, from Monday 00:00 local time.

    `power_w[h, t]` is the mean import of a slot in watts, an integer (a meter that only imports). Bit a of `on[h, t]`
    says that appliance `appliances[a]` drew at least 10 W in the slot, `present[h, t]` that somebody was at home in
    half of it or more. `names` are those of recorded meters; empty for generated ones.
    """

    power_w: NDArray[np.int64]
    on: NDArray[np.uint16]
    present: NDArray[np.bool_] | None
    appliances: tuple[str, ...]
    slot_s: int
    source: str
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many households."""
        return len(self.power_w)

    @property
    def slots(self) -> int:
        """How many slots."""
        return int(self.power_w.shape[1])

    @property
    def slots_a_day(self) -> int:
        """Slots of one day."""
        return DAY_S // self.slot_s

    @property
    def days(self) -> int:
        """Whole days."""
        return self.slots // self.slots_a_day

    def is_on(self, appliance: str) -> NDArray[np.bool_]:
        """Whether the appliance runs, by household and slot."""
        return (self.on >> np.uint16(self.appliances.index(appliance)) & np.uint16(1)).astype(np.bool_)

    def at(self, slot_s: int) -> Households:
        """The same at a coarser resolution.  Raises StromkreisError where it is no multiple of this one."""
        if slot_s == self.slot_s:
            return self
        factor, rest = divmod(slot_s, self.slot_s)
        if rest or factor < 1 or self.slots < factor:
            raise StromkreisError(f"readings of {self.slot_s} s cannot be averaged to {slot_s} s")
        kept = self.slots // factor * factor
        shape = (self.count, kept // factor, factor)
        present = None if self.present is None else self.present[:, :kept].reshape(shape).mean(axis=2) >= 0.5
        return replace(
            self, slot_s=slot_s, present=present,
            power_w=np.rint(self.power_w[:, :kept].reshape(shape).mean(axis=2)).astype(np.int64),
            on=np.bitwise_or.reduce(self.on[:, :kept].reshape(shape), axis=2),
        )  # fmt: skip

    def only(self, households: NDArray[np.int64] | slice, slots: slice = slice(None)) -> Households:
        """Some households, some slots."""
        return replace(
            self, power_w=self.power_w[households, slots], on=self.on[households, slots],
            present=None if self.present is None else self.present[households, slots],
            names=tuple(np.array(self.names)[households]) if self.names else (),
        )  # fmt: skip


def check_size(count: int, days: int, slot_s: int) -> None:
    """Raises StromkreisError for what the generator does not do or memory does not hold."""
    if slot_s not in RESOLUTIONS_S:
        raise StromkreisError(f"a resolution of {slot_s} s; expected one of {', '.join(map(str, RESOLUTIONS_S))} s")
    if count < 1 or days < 1:
        raise StromkreisError(f"{count} households and {days} days; expected at least one of each")
    needed = count * days * (DAY_S // slot_s) * _BYTES_A_READING
    if needed > MEMORY_MAX:
        raise StromkreisError(
            f"{count} households, {days} days at {slot_s} s need {needed / 2**30:.0f} GiB; at most "
            f"{MEMORY_MAX // 2**30} GiB: take fewer households or days, or a coarser resolution"
        )


def generate(
    count: int, days: int, slot_s: int = 60, seed: int = 1, *, processes: int = 1,
    advance: Callable[[int], None] = lambda _households: None,
) -> Households:  # fmt: skip
    """
    The households of a seed.  `advance` is called with how many more are done.

    Raises StromkreisError for sizes out of range and where the appliance models are not installed.
    """
    check_size(count, days, slot_s)
    library = load_library()
    chunks = [range(first, min(count, first + _CHUNK)) for first in range(0, count, _CHUNK)]
    power_w = np.zeros((count, days * DAY_S // slot_s), np.int64)
    on = np.zeros(power_w.shape, np.uint16)
    present = np.zeros(power_w.shape, np.bool_)

    def keep(chunk: range, made: tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.bool_]]) -> None:
        rows = slice(chunk.start, chunk.stop)
        power_w[rows], on[rows], present[rows] = made
        advance(len(chunk))

    if processes > 1 and power_w.size >= _SPREAD_MIN:
        with workers(processes, "spawn") as pool:
            for chunk, made in zip(
                chunks, pool.map(_chunk, chunks, [days] * len(chunks), [slot_s] * len(chunks), [seed] * len(chunks)),
                strict=True,
            ):  # fmt: skip
                keep(chunk, made)
    else:
        for chunk in chunks:
            keep(chunk, _chunk(chunk, days, slot_s, seed))
    return Households(power_w, on, present, LABELS, slot_s, f"generated, seed {seed}, {library.version}")


def _chunk(
    households: range, days: int, slot_s: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.bool_]]:
    library = load_library()
    made = [_Household(library, seed, index, days, slot_s).play() for index in households]
    power_w, on, present = zip(*made, strict=True)
    return np.rint(np.stack(power_w)).astype(np.int64), np.stack(on), np.stack(present)


class _Household:
    """Plays one household's days into arrays of slots."""

    def __init__(self, library: ApplianceLibrary, seed: int, index: int, days: int, slot_s: int) -> None:
        self.library, self.seed, self.index, self.days, self.slot_s = library, seed, index, days, slot_s
        counts = {name: len(devices) for name, devices in library.devices.items()}
        self.habits = Habits.draw(np.random.default_rng((seed, index)), counts)
        slots = days * DAY_S // slot_s
        self.power_w = np.full(slots, self.habits.standby_w)
        self.on = np.zeros(slots, np.uint16)
        self.present = np.zeros(slots, np.bool_)

    def play(self) -> tuple[NDArray[np.float64], NDArray[np.uint16], NDArray[np.bool_]]:
        for day in range(self.days):
            # Streams of their own: what one activity draws does not shift another's times.
            rng = np.random.default_rng((self.seed, self.index, day + 1))
            self._day(day, rng)
        return self.power_w, self.on, self.present

    def _day(self, day: int, rng: Generator) -> None:
        today = draw_day(self.habits, day % DAYS_A_WEEK, rng)
        self._presence(day, today)
        self._light(day, today, rng)
        for name, rate in self.habits.rates.items():
            for _ in range(rng.poisson(rate)):
                self._use(day, today, name, rng)
        for name, duty in self.habits.cycling.items():
            self._cycle(day, name, duty, rng)

    def _slots_of(self, day: int, by_minute: NDArray[np.float64]) -> tuple[slice, NDArray[np.float64]]:
        """Values by minute as values by slot of that day."""
        whole = slice(day * DAY_S // self.slot_s, (day + 1) * DAY_S // self.slot_s)
        if self.slot_s < _MINUTE_S:
            return whole, np.repeat(by_minute, _MINUTE_S // self.slot_s)
        return whole, by_minute.reshape(-1, self.slot_s // _MINUTE_S).mean(axis=1)

    def _presence(self, day: int, today: Day) -> None:
        slots, present = self._slots_of(day, today.present.astype(np.float64))
        self.present[slots] = present >= 0.5

    def _light(self, day: int, today: Day, rng: Generator) -> None:
        """Lamps and small loads while somebody is awake at home, in the dark; another level every half hour."""
        hour = np.arange(MINUTES) / 60.0
        dark = (hour < 7.8) | (hour > 17.3)
        level = np.repeat(rng.gamma(2.0, 0.5, MINUTES // 30), 30)
        power_w = self.habits.light_w * level * today.awake * np.where(dark, 1.0, 0.25)
        slots, by_slot = self._slots_of(day, power_w)
        self.power_w[slots] += by_slot

    def _use(self, day: int, today: Day, name: str, rng: Generator) -> None:
        hours = self.habits.hours[name]
        for _ in range(3):  # at a time when nobody is there, another one is tried
            start_s = float(rng.normal(hours[rng.integers(len(hours))], 1.2) * 3600.0)
            minute = int(start_s // 60)
            if 0 <= minute < MINUTES and today.awake[minute]:
                break
        else:
            return
        cycles = self.library.devices[name][self.habits.devices[name]]
        cycle = cycles[rng.integers(len(cycles))]
        least_s, most_s = USES[name].duration_s
        duration_s = float(rng.uniform(least_s, most_s)) if most_s else float(cycle.duration_s)
        first, drawn_w = cycle.mean_power_w(day * DAY_S + start_s, duration_s, self.slot_s)
        self._add(name, first, drawn_w)

    def _cycle(self, day: int, name: str, duty: float, rng: Generator) -> None:
        """A compressor: on for a recorded cycle, off for as long as its duty asks."""
        cycles = self.library.devices[name][self.habits.devices[name]]
        at_s = float(rng.uniform(0.0, 3600.0))
        while at_s < DAY_S:
            cycle = cycles[rng.integers(len(cycles))]
            duration_s = max(600.0, min(float(cycle.duration_s), 3600.0 * float(rng.uniform(0.3, 0.8))))
            first, drawn_w = cycle.mean_power_w(day * DAY_S + at_s, duration_s, self.slot_s)
            self._add(name, first, drawn_w)
            at_s += duration_s / duty * float(rng.uniform(0.9, 1.1))

    def _add(self, name: str, first: int, drawn_w: NDArray[np.float64]) -> None:
        slots = slice(first, min(first + len(drawn_w), len(self.power_w)))
        drawn_w = drawn_w[: slots.stop - slots.start] * self.habits.power_scale
        self.power_w[slots] += drawn_w
        if name in LABELS:
            self.on[slots] |= np.where(drawn_w >= ON_W, 1 << LABELS.index(name), 0).astype(np.uint16)
