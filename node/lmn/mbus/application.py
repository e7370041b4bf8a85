"""
The application layer (EN 13757-3, EN 13757-7): the headers behind a CI field, and records to readings.

Wired and wireless telegrams meet here: both have a transport header (long with the meter's address, short, or none)
and the same records.  Every record becomes a reading: with an OBIS code where that is certain, otherwise without one
and described in the reading's record; a meter's manufacturer data are one reading of raw octets, never used as a
measured value (BSI TR-03109-1 details REQ.WMBUS.apl.30).

A float32 has 24 significant bits, so a counter of that type loses its last digits as it grows; such readings are
marked as not for billing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.obis import obis_of
from node.lmn.mbus.profiles import find_base, unroll
from node.lmn.mbus.records import FUNCTIONS, Header, Item, ManufacturerData, Record
from node.lmn.mbus.status import PERMANENT_ERROR, standard_error_flags, status_word
from node.lmn.mbus.values import REAL32, Decoded
from node.lmn.mbus.vif import Kind
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

CI_LONG: Final = 0x72
CI_SHORT: Final = 0x7A
CI_NONE: Final = 0x78
CI_FIXED: Final = 0x73
CI_APPLICATION_ERROR: Final = 0x70
CI_ALARM: Final = 0x71
CI_SELECT: Final = 0x52
CI_APPLICATION_RESET: Final = 0x50


@dataclass(frozen=True, slots=True)
class TransportHeader:
    """Access number, status octet and configuration word; `address` only where the header was the long one."""

    access: int
    status: int
    configuration: int
    address: DeviceAddress | None = None


def take_long_header(data: bytes) -> tuple[TransportHeader, bytes]:
    """Twelve octets: the meter's address, access number, status, configuration.  Raises RemoteProtocolError."""
    if len(data) < 12:
        raise RemoteProtocolError("header_truncated", "a long header has 12 octets", offset=0)
    address = DeviceAddress.from_transport(data[:8])
    return TransportHeader(data[8], data[9], data[10] | data[11] << 8, address), data[12:]


def take_short_header(data: bytes) -> tuple[TransportHeader, bytes]:
    """Four octets: access number, status, configuration.  Raises RemoteProtocolError."""
    if len(data) < 4:
        raise RemoteProtocolError("header_truncated", "a short header has 4 octets", offset=0)
    return TransportHeader(data[0], data[1], data[2] | data[3] << 8), data[4:]


@dataclass(frozen=True, slots=True)
class Context:
    """What all readings of one telegram share."""

    device: str
    medium: int
    status: int = 0
    received_at: datetime | None = None
    quality: Quality = Quality.VALID
    extra: Mapping[str, Any] | None = None


@lru_cache(maxsize=4096)
def _template(medium: int, header: Header) -> tuple[Obis | None, int, int | None, dict[str, Any]]:
    """What only depends on header and medium: OBIS code, scaler, unit, and the reading's record to be copied."""
    value, data = header.value, header.data
    record: dict[str, Any] = {
        "function": FUNCTIONS[data.function],
        "storage": data.storage,
        "tariff": data.tariff,
        "subunit": data.subunit,
        "quantity": value.quantity,
    }
    if value.unit is None and value.unit_text is not None:
        record["unit"] = value.unit_text
    if value.modifiers:
        record["modifiers"] = list(value.modifiers)
    if value.record_error is not None:
        record["error"] = value.record_error
    if not value.understood:
        record["vib"] = header.vib.hex()
    return obis_of(medium, header), value.scaler, value.unit, record


def readings_of(items: Iterable[Item], context: Context) -> list[Reading]:
    """
    Readings out of records, in order.

    Raises RemoteProtocolError where the records break off or contradict themselves: then there are no readings at all.
    """
    parsed = list(items)
    records = [item for item in parsed if isinstance(item, Record)]
    moments, measured_at = _times(records, context.received_at)
    status = status_word(context.status, standard_error_flags(records))
    telegram_quality = context.quality
    if context.status & PERMANENT_ERROR and telegram_quality is Quality.VALID:
        telegram_quality = Quality.METER_ERROR
    out: list[Reading] = []
    for item in parsed:
        if isinstance(item, ManufacturerData):
            if item.octets:
                out.append(_manufacturer_reading(item, context, status))
            continue
        if item.header.value.profile is not None:
            out.extend(_profile_readings(item, records, context, status, telegram_quality))
            continue
        obis, scaler, unit, template = _template(context.medium, item.header)
        record = {**template, **context.extra} if context.extra else template.copy()
        quality = telegram_quality
        decoded, data = item.decoded, item.header.data
        if decoded.invalid:
            record["raw"] = item.octets.hex()
        if "error" in template or data.function == 3 or (decoded.invalid and not _is_date(item)):
            quality = Quality.METER_ERROR
        elif data.field == REAL32 and quality is Quality.VALID:
            quality = Quality.NOT_FOR_BILLING
        moment = moments.get(data.storage)
        if moment is not None and decoded.moment is None:
            record["meter_time"] = moment
        out.append(
            Reading(
                context.device, obis, decoded.value, scaler + decoded.scaler if isinstance(decoded.value, int) else 0,
                unit, status, None if data.storage else measured_at, None, context.received_at, quality, record,
            )
        )  # fmt: skip
    return out


def _is_date(record: Record) -> bool:
    """An unset date is no fault: FF FF is how meters say "never"."""
    return record.header.value.kind in (Kind.DATE, Kind.DATETIME)


def _times(records: list[Record], received_at: datetime | None) -> tuple[dict[int, str], datetime | None]:
    """
    The meter's own time by storage number, and when the current values were measured.

    The meter's clock says no time zone, so it is only noted; the moment of measurement is the moment of reception
    less the actuality duration, if the meter tells that (REQ.WMBUS.apl.12, .13).
    """
    moments: dict[int, str] = {}
    measured_at: datetime | None = None
    for record in records:
        value, data = record.header.value, record.header.data
        if value.modifiers or data.function or data.subunit or data.tariff:
            continue
        if value.quantity in ("date", "date and time") and record.decoded.moment is not None:
            moments.setdefault(data.storage, record.decoded.moment.isoformat())
        elif value.quantity == "actuality duration" and received_at is not None and not data.storage:
            seconds = actuality_seconds(record.decoded, value.unit)
            if seconds is not None:
                measured_at = received_at - timedelta(seconds=seconds)
    return moments, measured_at


def actuality_seconds(decoded: Decoded, unit: int | None) -> int | None:
    """The actuality duration in seconds, None where it is no sensible number (DLMS units s, min, h, d)."""
    factor = {7: 1, 6: 60, 5: 3600, 4: 86400}.get(unit or 0)
    if (
        factor is None
        or not isinstance(decoded.value, int)
        or decoded.scaler
        or not 0 <= decoded.value * factor <= 1 << 31
    ):
        return None
    return decoded.value * factor


def _manufacturer_reading(item: ManufacturerData, context: Context, status: int) -> Reading:
    quantity = "trailing octets" if item.is_tail else "manufacturer data"
    record: dict[str, Any] = {
        "function": "manufacturer", "storage": 0, "tariff": 0, "subunit": 0, "quantity": quantity,
    }  # fmt: skip
    if item.more_records_follow:
        record["more_records_follow"] = True
    if context.extra:
        record.update(context.extra)
    return Reading(
        context.device, None, item.octets, status=status, received_at=context.received_at,
        quality=Quality.NOT_FOR_BILLING, record=record,
    )  # fmt: skip


def _profile_readings(
    record: Record, records: list[Record], context: Context, status: int, quality: Quality
) -> list[Reading]:
    base, moment = find_base(record, records)
    _, scaler, unit, template = _template(context.medium, record.header)
    out = []
    for entry in unroll(record, base, moment):
        described = {**template, "profile_steps": entry.steps, **(context.extra or {})}
        if entry.moment is not None:
            described["meter_time"] = _iso(entry.moment)
        out.append(
            Reading(
                context.device, None, entry.value, scaler, unit, status, None, None, context.received_at,
                quality if entry.value is not None else Quality.METER_ERROR, described,
            )
        )  # fmt: skip
    return out


def _iso(moment: date | datetime) -> str:
    return moment.isoformat()
