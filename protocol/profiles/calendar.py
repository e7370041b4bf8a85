"""
Tariff calendar of a time-variable tariff (TAF 2): which stage an interval belongs to.

Seasons, weekdays and special days choose a day profile, a day profile switches between stages at wall-clock times of
German legal time.  A season lasts until the next one begins, over the end of the year; a special day goes before the
weekday.  At the end of summer time the hour that comes twice has the same stages twice, in spring the hour that is
missing takes its switches with it: a stage follows the clock on the wall, as the customer's contract says it.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import date, datetime
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints, model_validator

from protocol.profiles.base import Identifier, Profile

LEGAL_TIME = ZoneInfo("Europe/Berlin")
"""German legal time (Zeitgesetz), in which tariffs are agreed on."""

STAGE_COUNT_MAX = 20

Stage = Annotated[int, Field(ge=1, le=STAGE_COUNT_MAX)]
TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
MonthDay = Annotated[str, StringConstraints(pattern=r"^(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")]


class Switch(Profile):
    """From `at` on the tariff is in `stage`."""

    at: TimeOfDay
    stage: Stage

    @property
    def minute(self) -> int:
        """Minutes since midnight."""
        return int(self.at[:2]) * 60 + int(self.at[3:])


class DayProfile(Profile):
    """The stages of a day; the first switch is at 00:00."""

    id: Identifier
    switches: Annotated[tuple[Switch, ...], Field(min_length=1, max_length=96)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        minutes = [each.minute for each in self.switches]
        if minutes[0] or sorted(set(minutes)) != minutes:
            raise ValueError("switches: expected ascending times from 00:00")
        return self


class Season(Profile):
    """From `begins` on, every year, weekdays (Monday first) have these day profiles."""

    begins: MonthDay
    weekdays: Annotated[tuple[Identifier, ...], Field(min_length=7, max_length=7)]


class SpecialDay(Profile):
    """A date with a day profile of its own: once (2026-12-24) or every year (12-24)."""

    day: Annotated[str, StringConstraints(pattern=r"^(\d{4}-)?(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")]
    day_profile: Identifier


class TariffCalendar(Profile):
    """Seasons, special days and day profiles of one tariff."""

    day_profiles: Annotated[tuple[DayProfile, ...], Field(min_length=1, max_length=64)]
    seasons: Annotated[tuple[Season, ...], Field(min_length=1, max_length=12)]
    special_days: Annotated[tuple[SpecialDay, ...], Field(max_length=366)] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        known = [each.id for each in self.day_profiles]
        if len(set(known)) != len(known):
            raise ValueError("day_profiles: an id appears twice")
        used = {day for season in self.seasons for day in season.weekdays}
        used |= {each.day_profile for each in self.special_days}
        if missing := sorted(used - set(known)):
            raise ValueError(f"day profiles that are used and not defined: {', '.join(missing)}")
        begins = [each.begins for each in self.seasons]
        if sorted(set(begins)) != begins:
            raise ValueError("seasons: expected ascending begins, each once")
        days = [each.day for each in self.special_days]
        if len(set(days)) != len(days):
            raise ValueError("special_days: a day appears twice")
        return self

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages that occur, ascending."""
        return tuple(sorted({switch.stage for day in self.day_profiles for switch in day.switches}))

    def check_grid(self, registration_period_s: int) -> None:
        """Raise ValueError where a stage would change between two registration times."""
        for day in self.day_profiles:
            for switch in day.switches:
                if switch.minute * 60 % registration_period_s:
                    raise ValueError(
                        f"day profile {day.id}: {switch.at} is no registration time of {registration_period_s} s"
                    )


class StageLookup:
    """
    The stages of a calendar, moment by moment.

    A bill asks for thousands of intervals, so each date's profile is looked up once.
    """

    def __init__(self, calendar: TariffCalendar) -> None:
        self._profiles = {
            each.id: ([switch.minute for switch in each.switches], [switch.stage for switch in each.switches])
            for each in calendar.day_profiles
        }
        self._special_days = {each.day: each.day_profile for each in calendar.special_days}
        self._seasons = calendar.seasons
        self._begins = [each.begins for each in calendar.seasons]
        self._by_date: dict[date, tuple[list[int], list[int]]] = {}

    def stage_at(self, moment_s: int) -> int:
        """The stage of the interval that starts at a moment (Unix, s)."""
        local = datetime.fromtimestamp(moment_s, LEGAL_TIME)
        day = local.date()
        if day not in self._by_date:
            self._by_date[day] = self._profiles[self._day_profile(day)]
        minutes, stages = self._by_date[day]
        return stages[bisect_right(minutes, local.hour * 60 + local.minute) - 1]

    def _day_profile(self, day: date) -> str:
        month_day = f"{day:%m-%d}"
        special = self._special_days.get(day.isoformat()) or self._special_days.get(month_day)
        if special is not None:
            return special
        season = self._seasons[bisect_right(self._begins, month_day) - 1]  # -1: the last one of the year before
        return season.weekdays[day.weekday()]
