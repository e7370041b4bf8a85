"""What a run of the lab is about, the data that all of its experiments share, and the rows that they give."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from loadtest.lab.attacks.knowledge import Knowledge
from loadtest.lab.households import DAY_S, Households, check_size, generate
from loadtest.lab.metrics import NOTHING, Estimate
from loadtest.lab.provenance import code_digest, versions
from loadtest.lab.recordings import read_recordings
from loadtest.lab.schemes import Scheme, play
from loadtest.lab.transcript import Transcript
from protocol.errors import StromkreisError

HOUSEHOLDS_MIN = 24
METER_SLOT_S = 900
REFERENCE_SHARE = 0.15
REFERENCE_MIN, REFERENCE_MAX = 30, 150


@dataclass(frozen=True, slots=True)
class Settings:
    """
    `households` is the area under attack; as many days again lie before the attacked ones, known to some attacks.

    `slot_s` is the resolution of what the meters measure. Empty `schemes` or `attacks`: all. `data` names a CSV file of
    own readings, which takes the place of generated ones. `real_households` and `real_slots` bound the runs with real
    cryptography, `targets` the households that per-household attacks are tried on, `iterations` the trees
    of a classifier.
    """

    households: int = 1000
    days: int = 7
    slot_s: int = 60
    seed: int = 1
    group_size: int = 64
    targets: int = 80
    trials: int = 400
    iterations: int = 60
    real_households: int = 64
    real_slots: int = 96
    schemes: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    data: str = ""
    processes: int = 2

    def digest(self) -> str:
        """
        A name for everything that a result depends on, code and packages included.

        Which schemes and attacks are asked for is not part of it.
        """
        shown = {key: value for key, value in asdict(self).items() if key not in {"schemes", "attacks", "processes"}}
        if self.data:
            shown["data"] = hashlib.sha256(Path(self.data).read_bytes()).hexdigest()
        named = json.dumps([code_digest(), versions(), shown], sort_keys=True)
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    def check(self) -> None:
        """Raises StromkreisError for settings that no run is possible with."""
        if not self.data and self.households < HOUSEHOLDS_MIN:
            raise StromkreisError(f"{self.households} households; expected {HOUSEHOLDS_MIN} or more")
        if self.slot_s > METER_SLOT_S:
            raise StromkreisError(f"a resolution of {self.slot_s} s; expected at most {METER_SLOT_S} s")
        if not 2 <= self.group_size <= 1024:
            raise StromkreisError(f"groups of {self.group_size}; expected 2 to 1024 households")
        if not self.data:
            check_size(self.households, 2 * self.days, self.slot_s)


SMOKE = Settings(
    households=60,
    days=2,
    group_size=20,
    targets=16,
    trials=60,
    iterations=8,
    real_households=8,
    real_slots=4,
    processes=1,
)


@dataclass(frozen=True, slots=True)
class Row:
    """
    One result: an attack's score on a view, with its controls.

    `blind` is the same attack without the view, `without` the same ring without the household; where a control has no
    meaning it is NOTHING and written as empty. `parameters` hold what the row varies over: `members` (households in a
    sum), `slot_s`, `days`, `appliance`, and so on.
    """

    scheme: str
    coalition: str
    attack: str
    metric: str
    estimate: Estimate
    blind: Estimate = NOTHING
    without: Estimate = NOTHING
    parameters: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def scored(
        cls, scheme: str, coalition: str, attack: str, metric: str, scores: Sequence[Estimate],
        parameters: dict[str, Any],
    ) -> Row:  # fmt: skip
        """From the scores with the view, blind, and without the household."""
        estimate, blind, without = scores
        return cls(scheme, coalition, attack, metric, estimate, blind, without, parameters)

    def flat(self) -> dict[str, Any]:
        """For files: one value each, NaN as None."""
        found: dict[str, Any] = {
            "scheme": self.scheme, "coalition": self.coalition, "attack": self.attack, "metric": self.metric,
        }  # fmt: skip
        for name, each in (("", self.estimate), ("blind_", self.blind), ("without_", self.without)):
            for part in ("value", "low", "high"):
                value = getattr(each, part)
                found[f"{name}{part}"] = None if math.isnan(value) else round(float(value), 6)
        return found | {"count": self.estimate.count, "parameters": self.parameters}

    @classmethod
    def from_flat(cls, flat: dict[str, Any]) -> Row:
        """The reverse of `flat`."""

        def estimate(prefix: str, count: int) -> Estimate:
            value, low, high = (
                math.nan if flat[f"{prefix}{part}"] is None else float(flat[f"{prefix}{part}"])
                for part in ("value", "low", "high")
            )
            return Estimate(value, low, high, count)

        return cls(
            flat["scheme"], flat["coalition"], flat["attack"], flat["metric"], estimate("", flat["count"]),
            estimate("blind_", flat["count"]), estimate("without_", flat["count"]), flat["parameters"],
        )  # fmt: skip


class Lab:
    """
    The households of a run: the area under attack, its earlier days, and others that the attacker knows.

    The reference population is never a target and in no group.
    """

    def __init__(self, settings: Settings, advance: Callable[[int], None] = lambda _households: None) -> None:
        settings.check()
        self.settings = settings
        everything = self._load(advance)
        count, days = everything.count, everything.days
        if days < 2:
            raise StromkreisError("the lab needs two days or more: what an attacker knows, and what it attacks")
        reference = self.reference_count(count) if settings.data else count - settings.households
        half = days // 2 * everything.slots_a_day
        area, others = slice(0, count - reference), slice(count - reference, count)
        if count - reference < HOUSEHOLDS_MIN // 2:
            raise StromkreisError(f"{count} meters in the data; expected {HOUSEHOLDS_MIN} or more")
        self.area = everything.only(area, slice(half, 2 * half))
        self.history = everything.only(area, slice(0, half)).at(max(METER_SLOT_S, everything.slot_s))
        self.reference = everything.only(others, slice(half, 2 * half))
        self.reference_history = everything.only(others, slice(0, half)).at(max(METER_SLOT_S, everything.slot_s))
        self.at = lru_cache(maxsize=8)(self._at)
        self.transcript = lru_cache(maxsize=3)(self._transcript)

    @staticmethod
    def reference_count(area: int) -> int:
        """How many households the attacker knows besides."""
        return min(REFERENCE_MAX, max(REFERENCE_MIN, round(area * REFERENCE_SHARE)))

    def _load(self, advance: Callable[[int], None]) -> Households:
        settings = self.settings
        if settings.data:
            return read_recordings(Path(settings.data))
        total = settings.households + self.reference_count(settings.households)
        return generate(
            total, 2 * settings.days, settings.slot_s, settings.seed, processes=settings.processes, advance=advance
        )

    def rng(self, *purpose: object) -> Generator:
        """Randomness of its own for each purpose: experiments do not depend on what ran before them."""
        name = "/".join(map(str, purpose)).encode()
        return np.random.default_rng((self.settings.seed, zlib.crc32(name)))

    def _at(self, slot_s: int) -> tuple[Households, Households]:
        return self.area.at(max(slot_s, self.area.slot_s)), self.reference.at(max(slot_s, self.area.slot_s))

    def _transcript(self, scheme: Scheme, slot_s: int, group_size: int) -> Transcript:
        return play(scheme, self.at(slot_s)[0], group_size, self.settings.seed)

    def knowledge(self, scheme: Scheme, slot_s: int) -> Knowledge:
        """What an attacker on this scheme knows beforehand."""
        return Knowledge(self.at(slot_s)[1], scheme.local)

    @cached_property
    def slot_s(self) -> int:
        """The meters' resolution."""
        return self.area.slot_s

    @cached_property
    def meter_slot_s(self) -> int:
        """The resolution of a quarter hour, or that of coarser data."""
        return max(METER_SLOT_S, self.area.slot_s)

    @cached_property
    def targets(self) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """The households that per-household attacks are tried on."""
        chosen = self.rng("targets").permutation(self.area.count)[: self.settings.targets]
        return np.sort(chosen)

    def sizes(self, wanted: tuple[int, ...]) -> list[int]:
        """Those group sizes that the area has households for."""
        return [each for each in wanted if each < self.area.count]

    def day_counts(self, wanted: tuple[int, ...] = (1, 2, 4, 7)) -> list[int]:
        """Those numbers of days that the data have."""
        days = self.area.slots * self.area.slot_s // DAY_S
        return [each for each in wanted if each <= days]
