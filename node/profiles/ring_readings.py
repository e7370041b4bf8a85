"""
The metering log as rings see it: registers that go on over meter exchanges, at the rings' registration times alone.

A processing profile names, for each meter that was taken out, its last value and its successor's first (PTB-A 50.8).
What the successor shows is raised by the difference, so the register of the metering point goes on as if nothing had
been exchanged, and the gateway goes on contributing.  It holds as long as the profile names the exchange: a set that
leaves it out makes the register fall, which stops contributions until it is named again.

A set counts here from the next ring on.  Within an epoch nothing changes: whoever signs profiles moves no register, and
takes no household out of totals by one that falls, in a round of his choice.  After a restart the set in force is all
that is known, and counts for the ring that is gone on with.

Profiles of shorter periods have values registered that are no ring's (node.metering.delivery): they count for no time
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from node.metering.entries import Entry, LoggedReading
from node.profiles.gateway_profiles import GatewayProfiles
from protocol.metering.interval import RegistrationGrid
from protocol.metering.obis import Obis
from protocol.profiles.meter import BILLABLE_PERIOD_MIN_S
from protocol.profiles.profile_set import ProfileSet

_ADOPTED_MAX = 2  # rings before the newest whose readings may still come


class _Leg(NamedTuple):
    """From `from_s` up to and without `to_s` (metering time, Unix, s) the register counts `delta`·10^`scaler` more."""

    meter: str
    obis: Obis
    from_s: float
    to_s: float
    delta: int
    scaler: int


class _Adopted(NamedTuple):
    """What counts for registration times from `from_s` on (metering time, Unix, s)."""

    from_s: float
    legs: list[_Leg]


class RingReadings:
    """
    Those of one gateway, by the profiles in force; `grid` are the rings' registration periods, None if unknown.

    `adopt` at the begin of each ring; before the first one the set in force counts.
    """

    def __init__(self, profiles: GatewayProfiles, grid: Callable[[], RegistrationGrid | None]) -> None:
        self._profiles = profiles
        self._grid = grid
        self._finest_s: int | None = None
        self._set: ProfileSet | None = None
        self._legs: list[_Leg] = []
        self._adopted: list[_Adopted] = []

    def adopt(self, from_s: int) -> None:
        """A ring begins at `from_s` (metering time, Unix, s): the set in force now counts for all of it."""
        self._look()
        earlier = [each for each in self._adopted if each.from_s < from_s] or [_Adopted(float("-inf"), self._legs)]
        self._adopted = [*earlier[-_ADOPTED_MAX:], _Adopted(from_s, self._legs)]

    def finest_s(self) -> int | None:
        """The shortest registration period of the profiles (s) where it is never billed; None where there is none."""
        self._look()
        return self._finest_s

    def view(self, entry: Entry) -> Entry:
        """An entry of the metering log as rings see it; nearly always the same object."""
        self._look()
        if not self._legs and self._finest_s is None and not any(each.legs for each in self._adopted):
            return entry
        return entry._replace(readings=tuple(map(self._seen, entry.readings)))

    def _look(self) -> None:
        current = self._profiles.current
        if current is not self._set:
            self._set, self._legs = current, self._read(current)
            periods = [each.registration_period_s for each in (() if current is None else current.processing)]
            self._finest_s = min((each for each in periods if each < BILLABLE_PERIOD_MIN_S), default=None)

    def _seen(self, reading: LoggedReading) -> LoggedReading:
        grid, at_s = self._grid(), reading.registration_s
        if grid is not None and at_s is not None and not grid.has(at_s):
            return reading._replace(registration_s=None, deviation_ms=None, on_time=False)
        return self._continued(reading)

    def _continued(self, reading: LoggedReading) -> LoggedReading:
        at_s = reading.registration_s
        if at_s is None or reading.value is None:
            return reading
        for each in self._legs_at(at_s):
            if (each.meter, each.obis) == (reading.meter, reading.obis) and each.from_s <= at_s < each.to_s:
                scaler = min(each.scaler, reading.scaler)
                value = reading.value * 10 ** (reading.scaler - scaler) + each.delta * 10 ** (each.scaler - scaler)
                return reading._replace(value=int(value), scaler=scaler)
        return reading

    def _legs_at(self, at_s: int) -> list[_Leg]:
        found = [each.legs for each in self._adopted if each.from_s <= at_s]
        return found[-1] if found else self._legs

    def _read(self, current: ProfileSet | None) -> list[_Leg]:
        """The first profile that names a meter's exchange counts; others of the same register name it again."""
        legs: list[_Leg] = []
        for profile in () if current is None else current.processing:
            delta, from_s = 0, 0.0
            for assigned, device in zip(profile.meters, self._profiles.devices_of(profile), strict=True):
                to_s = float("inf") if assigned.exchange is None else assigned.exchange.at.timestamp()
                if delta and device is not None:
                    legs.append(_Leg(device, Obis.parse(profile.obis), from_s, to_s, delta, profile.scaler))
                if assigned.exchange is not None:
                    delta, from_s = delta + assigned.exchange.final - assigned.exchange.initial, to_s
        return legs
