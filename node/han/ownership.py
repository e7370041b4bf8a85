"""
From when to when metering points are a consumer's: while HAN profiles of its user name are valid, past ones included.

What the same meter measured before or in between is another household's: of whoever lived there.  Both ends of a span
count, since a register's value there ends the energy of one household and begins that of the next.
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
Devices = Sequence[tuple[ProcessingProfile, Sequence[str]]]
"""Processing profiles, each with its meters' names in the metering log."""


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
    spans: dict[str, list[Span]] = {}
    for each in mine:
        names = {name for one, found in devices if one.metering_point in each.metering_points for name in found}
        for name in {*each.metering_points, *names}:
            spans.setdefault(name, []).append(_span(each))
    return Ownership({name: _joined(found) for name, found in spans.items()})


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
