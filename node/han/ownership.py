"""
From when to when metering points are a consumer's: while HAN profiles of its user name are valid, past ones included.

What the same meter measured before or in between is another household's: of whoever lived there.  A meter that others'
metering points have, too, is one's own only while a processing profile has it at a metering point of one's own: its
place may be another flat's since.  Both ends of a span count, since a register's value there ends the energy of one
household and begins that of the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from protocol.profiles.base import Timed
from protocol.profiles.communication import HanProfile
from protocol.profiles.processing import ProcessingProfile

Span = tuple[float, float]
Devices = Sequence[tuple[ProcessingProfile, Sequence[str | None]]]
"""Processing profiles, each with its meters' names in the metering log, None for one that is not here any more."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """
    `spans` are begin and end (Unix, s), by metering point and by meter (its name in the metering log).

    None: whatever the account may see it may see of all times, as one of the configuration does.
    """

    spans: Mapping[str, Sequence[Span]] | None = None

    def has(self, name: str, from_s: float, to_s: float | None = None) -> bool:
        """Whether a moment, or all of the time from one to another, is the consumer's."""
        end_s = from_s if to_s is None else to_s
        return self.spans is None or any(a <= from_s and end_s <= b for a, b in self.spans.get(name, ()))

    def touches(self, name: str, timed: Timed) -> bool:
        """Whether a profile is valid at a time that is the consumer's."""
        begin_s, end_s = _span(timed)
        return self.spans is None or any(a < end_s and begin_s < b for a, b in self.spans.get(name, ()))

    def has_some(self, at_s: float) -> bool:
        """Whether anything is the consumer's at a moment."""
        return self.spans is None or any(a <= at_s <= b for each in self.spans.values() for a, b in each)


def ownership(mine: Iterable[HanProfile], devices: Devices) -> Ownership:
    """By all HAN profiles of a user."""
    profiles = list(mine)
    points = {point for each in profiles for point in each.metering_points}
    shared = {name for one, found in devices if one.metering_point not in points for name in found}
    spans: dict[str, list[Span]] = {}
    for each in profiles:
        owned = _span(each)
        for point in each.metering_points:
            spans.setdefault(point, []).append(owned)
        for one, found in devices:
            if one.metering_point not in each.metering_points:
                continue
            for name, measures in zip(found, _measures(one), strict=True):
                begin_s, end_s = max(owned[0], measures[0]), min(owned[1], measures[1])
                if name is not None and (name not in shared or begin_s < end_s):
                    spans.setdefault(name, []).append((begin_s, end_s) if name in shared else owned)
    return Ownership({name: _joined(found) for name, found in spans.items()})


def _measures(profile: ProcessingProfile) -> list[Span]:
    """From when to when each meter of a profile measures for it."""
    begin_s, end_s = _span(profile)
    exchanged = [each.exchange.at.timestamp() for each in profile.meters if each.exchange is not None]
    return list(zip([begin_s, *exchanged], [*exchanged, end_s], strict=True))


def _span(timed: Timed) -> Span:
    end: datetime | None = timed.valid_to
    return timed.valid_from.timestamp(), math.inf if end is None else end.timestamp()


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Those that follow one another without a gap as one: a profile was replaced, and nobody has moved."""
    found: list[Span] = []
    for begin_s, end_s in sorted(spans):
        if found and begin_s <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end_s))
        else:
            found.append((begin_s, end_s))
    return found
