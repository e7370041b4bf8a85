"""
The register values of a billing period, from the metering log, as use cases take them.

A period begins with the last value that was fit for billing, wherever it lies: the energy over a gap that spans the
border belongs to the later period, so that periods add up to the meter's register.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from node.metering.entries import LoggedReading
from node.taf.series import RegisterValue, register_values
from protocol.metering.interval import DAY_S
from protocol.metering.obis import Obis
from protocol.metering.units import CUBIC_METRE, VAR_HOUR, WATT_HOUR
from protocol.profiles.processing import ProcessingProfile
from protocol.profiles.use_cases import OnDemand

Registered = Callable[[str, Obis, int, int], list[LoggedReading]]
"""A register's values from one registration time (Unix, s) up to and without another (MeteringLog.registered)."""
_BEFORE_S: Final = DAY_S
_LONG_BEFORE_S: Final = 400 * DAY_S  # as long as the log keeps anything
_ELECTRICITY, _GAS, _COLD_WATER, _HOT_WATER = 1, 7, 8, 9
_ACTIVE: Final = frozenset({1, 2, 21, 22, 41, 42, 61, 62})
_REACTIVE: Final = frozenset({3, 4, 5, 6, 7, 8})
_ENERGY: Final = 8
_OTHER_UNIT: Final = 255
_MANTISSA_MAX: Final = 1 << 56  # no meter shows more; sums of them fit what a delivery says (64 bits)


def unit_of(obis: Obis, readings: Sequence[LoggedReading] = ()) -> int:
    """
    The unit (DLMS code) that a register must have; where its code does not say it, that of the newest reading.

    255 (no unit) where there is none.
    """
    if obis.a == _ELECTRICITY and obis.d == _ENERGY and obis.c in _ACTIVE:
        return WATT_HOUR
    if obis.a == _ELECTRICITY and obis.d == _ENERGY and obis.c in _REACTIVE:
        return VAR_HOUR
    if obis.a in {_GAS, _COLD_WATER, _HOT_WATER}:
        return CUBIC_METRE
    return next((each.unit for each in reversed(readings) if each.unit is not None), _OTHER_UNIT)


def period_values(
    registered: Registered, profile: ProcessingProfile, devices: Sequence[str | None], start_s: int, end_s: int
) -> tuple[list[list[RegisterValue]], int]:
    """
    The values of each of a profile's meters for the period from `start_s` to `end_s` (Unix, s), and the unit.

    `devices` are their names in the log, None for one that left nothing.  Raises StoreError, SealError.
    """
    obis = Obis.parse(profile.obis)
    before_s = _BEFORE_S + DAY_S * profile.use_case.days if isinstance(profile.use_case, OnDemand) else _BEFORE_S
    parts = _read(registered, devices, obis, start_s - before_s, end_s)
    unit = unit_of(obis, [reading for part in parts for reading in part])
    values = [_values(part, profile, unit) for part in parts]
    if not any(each.is_valid and each.at_s <= start_s for part in values for each in part):
        parts = _read(registered, devices, obis, start_s - _LONG_BEFORE_S, end_s)
        values = [_values(part, profile, unit) for part in parts]
    return values, unit


def _values(part: Sequence[LoggedReading], profile: ProcessingProfile, unit: int) -> list[RegisterValue]:
    found = register_values(part, profile.scaler, unit, profile.registration_period_s)
    return [each for each in found if abs(each.value) < _MANTISSA_MAX]


def _read(
    registered: Registered, devices: Sequence[str | None], obis: Obis, from_s: int, end_s: int
) -> list[list[LoggedReading]]:  # fmt: skip
    return [[] if each is None else registered(each, obis, from_s, end_s + 1) for each in devices]
