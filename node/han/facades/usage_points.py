"""
Contracts of the consumer's as devices in the field name them: a metering point, a tariff use case, its meters.

The processing profiles of a metering point and a use case are one usage point, whatever registers they are for.  Before
the first profile set, or where no profile has a use case that a device's clients look for, each meter stands as a usage
point of its own: the consumer's own values, which nobody else gets.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from node.han.accounts import Account
from node.han.models import Meter, UseCase
from node.han.query import Query
from node.han.view import NotThere, View

_QUERY: Final = Query()
_FIRST: Final = {7: 0, 1: 1}


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """One of them; `profiles` is empty where it stands for a meter itself."""

    id: str
    name: str
    taf: int
    metering_point: str
    meters: tuple[Meter, ...]
    profiles: tuple[UseCase, ...] = ()
    valid_from: datetime | None = None
    valid_to: datetime | None = None

    def state(self, now: datetime) -> str:
        """`ready` before it begins, `archive` after its end, else `running`."""
        if self.valid_from is not None and now < self.valid_from:
            return "ready"
        return "archive" if self.valid_to is not None and now >= self.valid_to else "running"

    @property
    def period_s(self) -> int:
        """The registration period."""
        periods = [each.registration_period_s for each in self.profiles]
        return min([*periods, *(each.registration_period_s for each in self.meters)], default=900)

    @property
    def receivers(self) -> tuple[str, ...]:
        """Market participants that get something."""
        names = (each.participant for profile in self.profiles for each in profile.receivers)
        return tuple(dict.fromkeys(names))


def usage_points(view: View, account: Account, own_taf: int, looked_for: Collection[int]) -> list[UsagePoint]:
    """Those of an account, those with TAF 7 first; meters of their own, as `own_taf`, where none is `looked_for`."""
    meters = [view.meter(account, name, _QUERY) for name in view.meter_ids(account)]
    groups: dict[tuple[str, int], list[UseCase]] = {}
    for name in view.profile_ids(account):
        profile = view.use_case(account, name, _QUERY)
        groups.setdefault((profile.metering_point, profile.taf), []).append(profile)
    found = [_of_profiles(point, taf, profiles, meters) for (point, taf), profiles in groups.items()]
    found = [each for each in found if each.meters]
    if not any(each.taf in looked_for for each in found):
        found += [_of_meter(each, own_taf) for each in meters]
    return sorted(found, key=lambda each: (_FIRST.get(each.taf, each.taf + 2), each.id))


def usage_point(points: list[UsagePoint], name: object) -> UsagePoint:
    """The one of that id.  Raises NotThere."""
    for each in points:
        if each.id == name:
            return each
    raise NotThere


def _of_profiles(point: str, taf: int, profiles: list[UseCase], meters: list[Meter]) -> UsagePoint:
    ends = [each.valid_to for each in profiles]
    return UsagePoint(
        f"{point}.taf{taf}", profiles[0].id, taf, point,
        tuple(each for each in meters if point in each.metering_points), tuple(profiles),
        min(each.valid_from for each in profiles),
        None if None in ends else max(each for each in ends if each is not None),
    )  # fmt: skip


def _of_meter(meter: Meter, taf: int) -> UsagePoint:
    return UsagePoint(meter.id, meter.id, taf, next(iter(meter.metering_points), meter.id), (meter,))
