"""
A reading: one register of one meter at one moment, the form all drivers agree on.

The number is an integer mantissa and a power of ten, as meters send it (DLMS UA 1000-1, scaler_unit); it never
passes through a float, because a bill may hang on it.  What a driver could not name it keeps as `Raw`, so that
nothing a meter said is dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from protocol.metering.obis import Obis
from protocol.metering.units import unit_symbol


class Quality(Enum):
    """How far a reading may be relied upon."""

    VALID = "valid"
    UNVERIFIED = "unverified"  # the telegram carries no check sum that covers it
    METER_ERROR = "meter-error"  # the meter itself marks it as erroneous
    NOT_FOR_BILLING = "not-for-billing"  # pulse inputs and the like


@dataclass(frozen=True, slots=True, init=False)
class Reading:
    """
    One value of one meter.

    `value` is the mantissa for numbers (the quantity is value·10^scaler in `unit`, a DLMS unit code or None),
    text or octets otherwise, None where the meter sent an empty value.  `measured_at` is the meter's own time
    if it has one, `meter_seconds` its seconds index where it only counts; `received_at` the gateway's clock.
    `record` holds what a medium adds where there is no OBIS code (M-Bus function, storage, tariff, subunit ...).
    """

    device: str
    obis: Obis | None
    value: int | str | bytes | None
    scaler: int = 0
    unit: int | None = None
    status: int | None = None
    measured_at: datetime | None = None
    meter_seconds: int | None = None
    received_at: datetime | None = None
    quality: Quality = Quality.VALID
    record: Mapping[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        device: str,
        obis: Obis | None,
        value: int | str | bytes | None,
        scaler: int = 0,
        unit: int | None = None,
        status: int | None = None,
        measured_at: datetime | None = None,
        meter_seconds: int | None = None,
        received_at: datetime | None = None,
        quality: Quality = Quality.VALID,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        # Written out, past the lock of `frozen`: the one that dataclasses make takes twice the time, and to make
        # readings is a third of the work of decoding a telegram.
        _set_device(self, device)
        _set_obis(self, obis)
        _set_value(self, value)
        _set_scaler(self, scaler)
        _set_unit(self, unit)
        _set_status(self, status)
        _set_measured_at(self, measured_at)
        _set_meter_seconds(self, meter_seconds)
        _set_received_at(self, received_at)
        _set_quality(self, quality)
        _set_record(self, {} if record is None else record)

    def decimal(self) -> Decimal:
        """The number itself, exactly.  Raises ValueError where the value is no number."""
        if not isinstance(self.value, int):
            raise ValueError(f"{self.obis} of {self.device} is no number")
        return Decimal(self.value).scaleb(self.scaler)

    def at_scaler(self, scaler: int) -> int:
        """
        The mantissa at another power of ten; digits finer than that are floored.

        Flooring a cumulative register keeps its differences telescoping, so energy is late at worst, never lost.
        """
        if not isinstance(self.value, int):
            raise ValueError(f"{self.obis} of {self.device} is no number")
        return mantissa_at(self.value, self.scaler, scaler)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of `stromkreis decode`: numbers as text, so that no reader rounds them."""
        value = self.value.hex() if isinstance(self.value, bytes) else self.value
        when = self.measured_at.isoformat() if self.measured_at is not None else self.meter_seconds
        out: dict[str, Any] = {
            "device": self.device,
            "obis": None if self.obis is None else str(self.obis),
            "value": str(value) if isinstance(value, int) else value,
            "scaler": self.scaler,
            "unit": None if self.unit is None else unit_symbol(self.unit),
            "status": self.status,
            "time": when,
        }
        if self.quality is not Quality.VALID:
            out["quality"] = self.quality.value
        if self.record:
            out["record"] = dict(self.record)
        return out


def mantissa_at(value: int, scaler: int, wanted: int) -> int:
    """The mantissa at the power of ten `wanted` of one at `scaler`, floored."""
    shift = scaler - wanted
    return int(value * 10**shift if shift >= 0 else value // 10**-shift)


def is_billable(reading: Reading) -> bool:
    """
    Whether a reading may enter what is billed: only VALID ones may.

    An impulse, an unchecked telegram and a value the meter itself doubts are refused alike.
    """
    return reading.quality is Quality.VALID


def is_past(reading: Reading) -> bool:
    """Whether it is an older value under a register's code, as rows of a profile and M-Bus storage numbers are."""
    return "period" in reading.record or bool(reading.record.get("storage"))


def _setter(name: str) -> Callable[[Reading, Any], None]:
    setter: Callable[[Reading, Any], None] = getattr(Reading, name).__set__
    return setter


_set_device, _set_obis, _set_value, _set_scaler = map(_setter, ("device", "obis", "value", "scaler"))
_set_unit, _set_status, _set_measured_at = map(_setter, ("unit", "status", "measured_at"))
_set_meter_seconds, _set_received_at = map(_setter, ("meter_seconds", "received_at"))
_set_quality, _set_record = map(_setter, ("quality", "record"))
