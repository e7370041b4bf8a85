"""
What the signed profiles let one gateway contribute to rings: which registers of which meters, for whom, since when.

A register of a meter may be contributed while a processing profile in force names it, with a recipient whose delivery
is `aggregated`, under a use case that delivers values of registration times (TAF 7, 9, 10, 13), and the meter profile
is valid.  Profiles that follow each other without a gap count as one.  A ring
gets a whole vector or nothing: where a register that the area's totals hold is named for no meter, the gateway takes no
part, since a 0 in its place would make the total wrong and be counted as a household.

The call says which market participants get the total of which register.  Profiles must name each of them, and for the
same meters, since there is one total for all of them: a participant that no profile names gets nothing of this
gateway, and one that is named for two meters is not told the sum with one.

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


class _Permit(NamedTuple):
    """A participant gets a register in totals for so long."""

    span: _Span
    register: MeterRegister
    participant: str


_Named = dict[tuple[Obis, str], dict[MeterRegister, float]]
"""By OBIS code and participant: the registers that profiles let into its totals, and since when (Unix, s)."""


class _Missing(NamedTuple):
    """What profiles do not let into a total: the reason of the refusal, and the register and its recipient."""

    reason: str
    what: str


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

        `no_profiles` where nothing at all may, else, unless the schema is None, as `select` does.
        """
        if self._is_without_profile:
            return None
        now = [each for each in self._permitted(None) if each.span.from_s <= moment_s < each.span.to_s]
        if not now:
            return "no_profiles"
        if schema is None:
            return None
        named: _Named = {}
        for each in now:
            named.setdefault((each.register.obis, each.participant), {})[each.register] = 0.0
        missing = _missing(schema, named)
        return missing[0].reason if missing else None

    def select(self, schema: Schema, interval_s: int, from_s: int, to_s: int) -> Selection:
        """
        What may be contributed in all intervals of `interval_s` from `from_s` up to and without `to_s`.

        Both in metering time (Unix, s).  Raises RemoteProtocolError: `no_profiles` where no set is in force,
        `unprofiled_register` for a register that no profile covers so long, `unprofiled_recipient` for one that
        profiles do not give to everybody whom the schema names.
        """
        if self._is_without_profile:
            return self.of_all(schema)
        if self._profiles.current is None:
            raise RemoteProtocolError("no_profiles", self._why_not_in_force())
        spans: dict[tuple[MeterRegister, str], list[_Span]] = {}
        for each in self._permitted(interval_s):
            spans.setdefault((each.register, each.participant), []).append(each.span)
        named: _Named = {}
        for (register, participant), found in spans.items():
            if (begins_s := _covered_since(found, from_s, to_s)) is not None:
                named.setdefault((register.obis, participant), {})[register] = begins_s
        if missing := _missing(schema, named):
            detail = (
                f"profiles of version {self.version}: none of TAF 7, 9, 10 or 13 with an aggregated recipient in this"
                f" gateway's area and a registration period that {interval_s} s are a multiple of covers"
                f" {', '.join(each.what for each in missing)} from {from_s} to {to_s}"
            )
            raise RemoteProtocolError(missing[0].reason, detail)
        chosen = [named[obis, each] for obis, participants in _wanted(schema) for each in participants]
        registers = frozenset(register for each in chosen for register in each)
        return Selection(registers, max((since_s for each in chosen for since_s in each.values()), default=_ALWAYS[0]))

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

    def _permitted(self, interval_s: int | None) -> Iterator[_Permit]:
        """Every register that a profile names for rings of these intervals, for each recipient; None: of any."""
        current = self._profiles.current
        for profile in () if current is None else current.processing:
            if profile.use_case.taf not in _USE_CASES or (interval_s or 0) % profile.registration_period_s:
                continue
            device = self._profiles.devices_of(profile)[-1]
            if device is None or device not in self._devices or current is None:
                continue
            span = _span_of(profile, current)
            for participant in self._participants(profile):
                for obis in map(Obis.parse, registers_of(profile)):
                    yield _Permit(span, MeterRegister(device, obis), participant)

    def _participants(self, profile: ProcessingProfile) -> list[str]:
        """Who gets totals of this area by a profile."""
        return [
            each.participant
            for each in profile.recipients
            if each.delivery is Delivery.AGGREGATED and each.area in {None, self._area}
        ]


def registers_in(schema: Schema) -> list[Obis]:
    """The registers that a schema's totals hold."""
    return [Obis.parse(slot.obis) for slot in schema.slots if slot.obis is not None]


def _wanted(schema: Schema) -> list[tuple[Obis, tuple[str, ...]]]:
    """The registers that a schema's totals hold, with who gets them."""
    return [(Obis.parse(slot.obis), slot.recipients) for slot in schema.slots if slot.obis is not None]


def _missing(schema: Schema, named: _Named) -> list[_Missing]:
    """What of a schema is not named, or not for the same meters for everybody; registers for nobody first."""
    found: list[_Missing] = []
    known = {obis for obis, _ in named}
    for obis, participants in _wanted(schema):
        if obis not in known:
            found.append(_Missing("unprofiled_register", str(obis)))
        elif not participants:
            found.append(_Missing("unprofiled_recipient", f"{obis} for nobody (the call names no recipient)"))
        else:
            meters = {register for each in participants for register in named.get((obis, each), ())}
            found += [
                _Missing("unprofiled_recipient", f"{obis} for {each}")
                for each in participants
                if named.get((obis, each), {}).keys() != meters
            ]
    return sorted(found, key=lambda each: each.reason != "unprofiled_register")


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
