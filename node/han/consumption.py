"""
Values of the metering log as the HAN API shows them, and the energy between them.

Nothing here is rounded, but where a scaler is asked for that has not all digits.  A register that falls measured
nothing that can be shown as energy; a gap shows as one interval over all of it, marked as not valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from node.han.models import Interval, RegisterValue
from node.metering.entries import LoggedReading
from protocol.metering.reading import Quality, mantissa_at
from protocol.metering.units import unit_code, unit_symbol


def moment(seconds: float) -> datetime:
    """A time of the API."""
    return datetime.fromtimestamp(seconds, UTC)


def register_value(reading: LoggedReading) -> RegisterValue:
    """One logged value that has a number."""
    return RegisterValue(
        obis=str(reading.obis), value=str(reading.value), scaler=reading.scaler, unit=_unit(reading.unit),
        measured_at=moment(reading.measured_ms / 1000),
        registered_for=None if reading.registration_s is None else moment(reading.registration_s),
        is_on_time=reading.on_time, quality=reading.quality.value,
        status=None if reading.status is None else f"{reading.status:016x}",
    )  # fmt: skip


def at_scaler(value: RegisterValue, scaler: int) -> RegisterValue:
    """The value with a mantissa at another scaler; digits behind it are cut off."""
    mantissa = mantissa_at(int(value.value), value.scaler, scaler)
    return value.model_copy(update={"value": str(mantissa), "scaler": scaler})


def code_of(unit: str | None) -> int:
    """The DLMS code of a unit; 255 for none."""
    try:
        return 255 if unit is None else unit_code(unit)
    except KeyError:
        return 255


def intervals(readings: Sequence[LoggedReading], period_s: int) -> list[Interval]:
    """The energy between neighbouring values of one register, in order of time."""
    return [_interval(before, after, period_s) for before, after in pairwise(readings)]


def _interval(before: LoggedReading, after: LoggedReading, period_s: int) -> Interval:
    scaler = min(before.scaler, after.scaler)
    energy = mantissa_at(after.value or 0, after.scaler, scaler) - mantissa_at(before.value or 0, before.scaler, scaler)
    start_s, end_s = before.registration_s or 0, after.registration_s or 0
    is_valid = energy >= 0 and end_s - start_s == period_s and before.unit == after.unit
    return Interval(
        obis=str(after.obis), start=moment(start_s), end=moment(end_s), energy=str(max(energy, 0)), scaler=scaler,
        unit=_unit(after.unit), is_valid=is_valid and all(map(_is_fit, (before, after))),
    )  # fmt: skip


def _is_fit(reading: LoggedReading) -> bool:
    return reading.on_time and reading.quality is Quality.VALID


def _unit(code: int | None) -> str | None:
    return None if code is None else unit_symbol(code)
