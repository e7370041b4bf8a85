"""
What the signed profiles let one gateway contribute to rings: which registers of which meters, and since when.

A register of a meter may be contributed while a processing profile in force names it, with a recipient whose delivery
is `aggregated`, under a use case that delivers values of registration times (TAF 7, 9, 10, 13), and the meter profile
is valid.  Profiles that follow each other without a gap count as one.  A ring
gets a whole vector or nothing: where a register that the area's totals hold is named for no meter, the gateway takes no
part, since a 0 in its place would make the total wrong and be counted as a household.

Where the administrator's set does not hold (refused, expired, not to be opened) nothing is contributed: BSI TR-03109-1
has nothing processed without a profile.  A node that has no administrator at all may say so in its own configuration
(`[node.policy] contribute_without_profile`); that counts only until a gateway's first set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from node.profiles.gateway_profiles import GatewayProfiles
from protocol.dcnet.setup.schema import Schema
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.profiles.processing import Delivery, ProcessingProfile, registers_of
from protocol.profiles.profile_set import ProfileSet

_ALWAYS = float("-inf"), float("inf")
_USE_CASES = (7, 9, 10, 13)


class MeterRegister(NamedTuple):
    """A register of a meter, by the name under which its readings are logged."""

    device: str
    obis: Obis


class _Span(NamedTuple):
    """From `from_s` up to and without `to_s` (metering time, Unix, s)."""

    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Selection:
    """What goes into contributions, permitted without a gap since `since_s` (metering time, Unix, s)."""

    registers: frozenset[MeterRegister]
    since_s: float

    @classmethod
    def of_all(cls, schema: Schema, devices: Sequence[str]) -> Selection:
        """Every register of the schema, of every meter."""
        codes = registers_in(schema)
        return cls(frozenset(MeterRegister(device, obis) for device in devices for obis in codes), _ALWAYS[0])

    @property
    def devices(self) -> tuple[str, ...]:
        """The meters, in order."""
        return tuple(sorted({each.device for each in self.registers}))

    @property
    def digest(self) -> bytes:
        """SHA-256: two selections of one digest are of the same registers."""
        named = sorted(f"{each.device} {each.obis}" for each in self.registers)
        return hashlib.sha256("\n".join(named).encode()).digest()


class ContributionRule:
    """
    That of one gateway in `area`; `devices` are the names under which its meters' readings are logged.

    `without_profile` permits all of them until the gateway's first profile set.
    """

    def __init__(
        self, profiles: GatewayProfiles, devices: Sequence[str], area: str, *, without_profile: bool
    ) -> None:  # fmt: skip
        self._profiles = profiles
        self._devices = devices
        self._area = area
        self._without_profile = without_profile

    @property
    def version(self) -> int:
        """That of the newest profile set, 0 before the first."""
        return self._profiles.newest_version

    def of_all(self, schema: Schema) -> Selection:
        """Every register of the schema, of every meter of the gateway."""
        return Selection.of_all(schema, self._devices)

    def why_not(self, schema: Schema | None, moment_s: float) -> str | None:
        """
        Why nothing may be contributed at a moment of metering time (Unix, s), whatever intervals are; None: it may be.

        `no_profiles` where nothing at all may, `unprofiled_register` where one of the schema's (None: any) may not.
        """
        if self._is_without_profile:
            return None
        now = {each.obis for span, each in self._permitted(None) if span.from_s <= moment_s < span.to_s}
        if not now:
            return "no_profiles"
        return None if schema is None or now.issuperset(registers_in(schema)) else "unprofiled_register"

    def select(self, schema: Schema, interval_s: int, from_s: int, to_s: int) -> Selection:
        """
        What may be contributed in all intervals of `interval_s` from `from_s` up to and without `to_s`.

        Both in metering time (Unix, s).  Raises RemoteProtocolError: `no_profiles` where no set is in force,
        `unprofiled_register` for a register that no profile covers so long.
        """
        if self._is_without_profile:
            return self.of_all(schema)
        if self._profiles.current is None:
            raise RemoteProtocolError("no_profiles", self._why_not_in_force())
        found: dict[MeterRegister, list[_Span]] = {}
        for span, register in self._permitted(interval_s):
            found.setdefault(register, []).append(span)
        wanted, chosen, since_s = registers_in(schema), set[MeterRegister](), _ALWAYS[0]
        for register, spans in found.items():
            begins_s = _covered_since(spans, from_s, to_s)
            if register.obis in wanted and begins_s is not None:
                chosen.add(register)
                since_s = max(since_s, begins_s)
        if missing := [str(each) for each in wanted if each not in {one.obis for one in chosen}]:
            detail = (
                f"profiles of version {self.version}: none of TAF 7, 9, 10 or 13 with an aggregated recipient in this"
                f" gateway's area and a registration period that {interval_s} s are a multiple of covers"
                f" {', '.join(missing)} from {from_s} to {to_s}"
            )
            raise RemoteProtocolError("unprofiled_register", detail)
        return Selection(frozenset(chosen), since_s)

    @property
    def _is_without_profile(self) -> bool:
        return self._without_profile and self.version == 0

    def _why_not_in_force(self) -> str:
        if self.version:
            return f"the profiles of version {self.version} do not hold, the administrator has to send the next version"
        return (
            "no profile set yet: have the administrator roll one out, or, where there is none, set"
            " contribute_without_profile in [node.policy]"
        )

    def _permitted(self, interval_s: int | None) -> Iterator[tuple[_Span, MeterRegister]]:
        """Every register that a profile names for rings of these intervals; None: of any."""
        current = self._profiles.current
        for profile in () if current is None else current.processing:
            if not self._is_for_rings(profile) or (interval_s or 0) % profile.registration_period_s:
                continue
            device = self._profiles.devices_of(profile)[-1]
            if device is None or device not in self._devices or current is None:
                continue
            span = _span_of(profile, current)
            for obis in map(Obis.parse, registers_of(profile)):
                yield span, MeterRegister(device, obis)

    def _is_for_rings(self, profile: ProcessingProfile) -> bool:
        return profile.use_case.taf in _USE_CASES and any(
            each.delivery is Delivery.AGGREGATED and each.area in {None, self._area} for each in profile.recipients
        )


def registers_in(schema: Schema) -> list[Obis]:
    """The registers that a schema's totals hold."""
    return [Obis.parse(slot.obis) for slot in schema.slots if slot.obis is not None]


def _span_of(profile: ProcessingProfile, profiles: ProfileSet) -> _Span:
    """While the processing profile and the one of its present meter are both valid."""
    meter = next(each for each in profiles.meters if each.id == profile.meters[-1].meter)
    ends = [each.valid_to.timestamp() for each in (profile, meter) if each.valid_to is not None]
    return _Span(max(profile.valid_from, meter.valid_from).timestamp(), min(ends, default=_ALWAYS[1]))


def _covered_since(spans: Sequence[_Span], from_s: float, to_s: float) -> float | None:
    """When the spans that together cover all of the time begin, None where they do not."""
    begins_s: float | None = None
    ends_s = _ALWAYS[0]
    for each in sorted(spans):
        if begins_s is None or each.from_s > ends_s:
            if begins_s is not None and begins_s <= from_s and to_s <= ends_s:
                break
            begins_s = each.from_s
        ends_s = max(ends_s, each.to_s)
    return begins_s if begins_s is not None and begins_s <= from_s and to_s <= ends_s else None
