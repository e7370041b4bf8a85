"""
What happens to simulated meters: a timeline of events that the file of `stromkreis meters --scenario` names.

Events are at simulated quarter hours, or at moments of real time; each is for some households, or for all.  Registers
stay a function of the quarter hour alone, so that truth is known with a scenario too.

    [[events]]
    kind = "exchange"            # another meter in its place: registers begin anew, the old one's end
    households = [0]
    quarter_hour = 40            # or: at = 2026-11-30T12:00:00+01:00
    initial_wh = 0
    id = "1EMH0012345999"        # what the new one calls itself; SML only

    [[events]]
    kind = "clock_error"         # its clock is off by so much from then on
    quarter_hour = 10
    offset_s = 45
    drift_ppm = 200              # and goes on to be

    [[events]]
    kind = "daylight_saving"     # it runs by legal time and does not say so: an hour forward, or back
    quarter_hour = 50
    is_summer = true

    [[events]]
    kind = "manipulation"        # its status word says so (SML, LKS1)
    quarter_hour = 20
    until_quarter_hour = 24
    what = "magnetic"            # or mechanical

    [[events]]
    kind = "silent"              # it hears nothing and says nothing
    quarter_hour = 60
    until_quarter_hour = 64
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from loadtest.config import MeterProtocol
from loadtest.households import Household, Registers
from loadtest.meters.clock import SimulatedClock
from protocol.errors import StromkreisError

_SUMMER_S = 3_600
_STATUS_BITS = {"magnetic": 1 << 9, "mechanical": 1 << 10}
_REASONS_MAX = 5

MeterId = Annotated[str, StringConstraints(pattern=r"^[0-9][A-Z]{3}[0-9]{10}$")]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    households: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Which households' meters, counted from 0 in the order of the meter list; None: all."""
    quarter_hour: Annotated[int, Field(ge=0)] | None = None
    at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if (self.quarter_hour is None) == (self.at is None):
            raise ValueError("expected quarter_hour or at, not both")
        return self


class _Lasting(_Event):
    until_quarter_hour: Annotated[int, Field(ge=0)] | None = None
    until: AwareDatetime | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.until_quarter_hour is None) == (self.until is None):
            raise ValueError("expected until_quarter_hour or until, not both")
        return self


class Exchange(_Event):
    """Another meter in its place."""

    kind: Literal["exchange"]
    initial_wh: Annotated[int, Field(ge=0, le=10**9)] = 0
    id: MeterId | None = None


class ClockError(_Event):
    """Its clock is off by `offset_s`, and by `drift_ppm` more as time goes by."""

    kind: Literal["clock_error"]
    offset_s: Annotated[float, Field(ge=-(10**6), le=10**6)] = 0.0
    drift_ppm: Annotated[float, Field(ge=-(10**5), le=10**5)] = 0.0


class DaylightSaving(_Event):
    """Its clock goes by legal time from then on, summer or winter."""

    kind: Literal["daylight_saving"]
    is_summer: bool


class Manipulation(_Lasting):
    """Its status word tells of a manipulation."""

    kind: Literal["manipulation"]
    what: Literal["magnetic", "mechanical"]


class Silent(_Lasting):
    """It neither hears nor speaks."""

    kind: Literal["silent"]


Event = Annotated[Exchange | ClockError | DaylightSaving | Manipulation | Silent, Field(discriminator="kind")]
_Kind = TypeVar("_Kind", Exchange, ClockError, DaylightSaving, Manipulation, Silent)


class Scenario(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    events: Annotated[tuple[Event, ...], Field(min_length=1, max_length=10_000)]


def read_scenario(path: Path) -> Scenario:
    """Raises StromkreisError, which names the event and the field that do not fit."""
    try:
        return Scenario.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise StromkreisError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StromkreisError(f"{path}: no TOML: {error}") from None
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()[:_REASONS_MAX]
        ]
        raise StromkreisError(f"{path}: no scenario: {'; '.join(found)}") from None


@dataclass(frozen=True, slots=True)
class Timeline:
    """
    One household's meter under a scenario; everything is a function of the moment (Unix, s) or the quarter hour.

    Takes the place of a household in `loadtest.meters.servers.speaker`.
    """

    household: Household
    events: tuple[Event, ...]
    clock: SimulatedClock

    @property
    def meter_id(self) -> str:
        """The id of the meter that is there at first, by which its keys are drawn."""
        return self.household.meter_id

    def shown_id(self, unix_s: float) -> str:
        """What the meter of a moment calls itself."""
        now = self._of(Exchange, unix_s)
        return next((each.id for each in reversed(now) if each.id is not None), self.meter_id)

    def registers(self, q: int) -> Registers:
        """What the meter in its place shows during quarter hour `q`: an exchanged one began at its `initial_wh`."""
        true = self.household.registers(q)
        done = [each for each in self.events if isinstance(each, Exchange) and self._quarter_hour(each) <= q]
        if not done:
            return true
        last = max(done, key=self._quarter_hour)
        begun, initial_tenth_wh = self.household.registers(self._quarter_hour(last)), last.initial_wh * 10
        return true._replace(
            import_tenth_wh=true.import_tenth_wh - begun.import_tenth_wh + initial_tenth_wh,
            export_tenth_wh=true.export_tenth_wh - begun.export_tenth_wh + initial_tenth_wh,
        )

    def offset_s(self, unix_s: float) -> float:
        """By how much its clock is ahead."""
        errors, summers = self._of(ClockError, unix_s), self._of(DaylightSaving, unix_s)
        offset_s = _SUMMER_S if summers and summers[-1].is_summer else 0.0
        if errors:
            offset_s += errors[-1].offset_s + errors[-1].drift_ppm * (unix_s - self._begins_s(errors[-1])) / 1e6
        return offset_s

    def status(self, unix_s: float) -> int:
        """The tamper bits of its status word."""
        word = 0
        for each in self._of(Manipulation, unix_s):
            word |= _STATUS_BITS[each.what] if unix_s < self._ends_s(each) else 0
        return word

    def is_silent(self, unix_s: float) -> bool:
        """Whether it neither hears nor speaks."""
        return any(unix_s < self._ends_s(each) for each in self._of(Silent, unix_s))

    def next_change_s(self, unix_s: float) -> float:
        """The next moment at which its id or its status word may be another one; infinity where there is none."""
        moments = [self._begins_s(each) for each in self.events]
        moments += [self._ends_s(each) for each in self.events if isinstance(each, Manipulation)]
        return min((each for each in moments if each > unix_s), default=math.inf)

    def _of(self, kind: type[_Kind], unix_s: float) -> list[_Kind]:
        """Its events of a kind that have begun, the newest last."""
        begun = [each for each in self.events if isinstance(each, kind) and self._begins_s(each) <= unix_s]
        return sorted(begun, key=self._begins_s)

    def _quarter_hour(self, event: _Event) -> int:
        if event.quarter_hour is not None:
            return event.quarter_hour
        return math.ceil((self._begins_s(event) - self.clock.origin_unix_s) / self.clock.period_s)

    def _begins_s(self, event: _Event) -> float:
        return self._moment_s(event.quarter_hour, event.at)

    def _ends_s(self, event: _Lasting) -> float:
        return self._moment_s(event.until_quarter_hour, event.until)

    def _moment_s(self, quarter_hour: int | None, at: datetime | None) -> float:
        if quarter_hour is not None:
            return self.clock.origin_unix_s + quarter_hour * self.clock.period_s
        return math.inf if at is None else at.timestamp()


def timelines(
    scenario: Scenario, homes: Sequence[Household], protocols: Sequence[MeterProtocol], clock: SimulatedClock
) -> list[Timeline]:
    """
    The households under the scenario.

    Raises StromkreisError for a household that is not there, and for an event that its meter's protocol cannot show.
    """
    made = []
    for number, event in enumerate(scenario.events):
        for index in event.households or ():
            if index >= len(homes):
                raise StromkreisError(f"events.{number}: household {index}, and there are {len(homes)}, from 0 on")
    for index, (home, protocol) in enumerate(zip(homes, protocols, strict=True)):
        mine = tuple(each for each in scenario.events if each.households is None or index in each.households)
        for each in mine:
            _check(each, index, protocol)
        made.append(Timeline(home, mine, clock))
    return made


def _check(event: Event, index: int, protocol: MeterProtocol) -> None:
    if isinstance(event, Manipulation) and protocol not in {"sml", "lks1"}:
        raise StromkreisError(f"household {index}: its {protocol} meter shows no manipulation; expected sml or lks1")
    if isinstance(event, Exchange) and event.id is not None and protocol != "sml":
        raise StromkreisError(
            f"household {index}: an exchanged {protocol} meter keeps its id; only of sml may it change"
        )
