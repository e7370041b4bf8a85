"""
From what a meter says to readings.

A pushed list has no one layout.  Aidon sends rows (code, value, scaler and unit), Austrian meters the same three
without the rows, Kamstrup pairs of code and value whose scale is written in its manual only, Kaifa bare values whose
place says everything, and the standard's own push (class 40) begins with the list of what follows.  The first three
are one walk over the leaves: a code, its value, and a scaler and unit if there is one.  What nothing names is kept
as a reading without a code and with its place.

Kaifa: document KFM_001 (lists 1 to 3 of the Norwegian HAN port); Kamstrup: HAN-NVE interface description (scales).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from node.lmn.dlms.axdr import INTEGER_TYPES, BitString, Data, Type
from node.lmn.dlms.clock import CosemDateTime
from node.lmn.dlms.fields import Attribute
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading
from protocol.metering.units import AMPERE, VAR, VAR_HOUR, VOLT, WATT, WATT_HOUR

CLOCK: Final = Obis(0, 0, 1, 0, 0, 255)
_LIST_VERSION: Final = Obis(1, 1, 0, 2, 129, 255)
_COMPOUND: Final = frozenset({Type.ARRAY, Type.STRUCTURE, Type.COMPACT_ARRAY})
_TEXT_GROUPS: Final = frozenset({0, 42, 96})  # identifiers; their octet strings are text
_DEVICE_CODES: Final = frozenset(
    {(0, 42, 0, 0), (0, 96, 1, 0), (1, 0, 0, 0), (1, 0, 0, 5), (1, 96, 1, 0)}  # A, C, D, E of a device number
)
_KAMSTRUP: Final = {
    (1, 7): (0, WATT), (2, 7): (0, WATT), (3, 7): (0, VAR), (4, 7): (0, VAR),
    (31, 7): (-2, AMPERE), (51, 7): (-2, AMPERE), (71, 7): (-2, AMPERE),
    (32, 7): (0, VOLT), (52, 7): (0, VOLT), (72, 7): (0, VOLT),
    (1, 8): (1, WATT_HOUR), (2, 8): (1, WATT_HOUR), (3, 8): (1, VAR_HOUR), (4, 8): (1, VAR_HOUR),
}  # fmt: skip
_KAIFA_POWER: Final = [(c, 7, 0, unit) for c, unit in ((1, WATT), (2, WATT), (3, VAR), (4, VAR))]
_KAIFA_ENERGY: Final = [(c, 8, 0, unit) for c, unit in ((1, WATT_HOUR), (2, WATT_HOUR), (3, VAR_HOUR), (4, VAR_HOUR))]
_KAIFA_ONE_PHASE: Final = [(31, 7, -3, AMPERE), (32, 7, -1, VOLT)]
_KAIFA_THREE_PHASES: Final = [(c, 7, -3, AMPERE) for c in (31, 51, 71)] + [(c, 7, -1, VOLT) for c in (32, 52, 72)]
_KAIFA: Final = {
    1: _KAIFA_POWER[:1],
    9: _KAIFA_POWER + _KAIFA_ONE_PHASE,
    13: _KAIFA_POWER + _KAIFA_THREE_PHASES,
    14: _KAIFA_POWER + _KAIFA_ONE_PHASE + _KAIFA_ENERGY,
    18: _KAIFA_POWER + _KAIFA_THREE_PHASES + _KAIFA_ENERGY,
}


@dataclass(frozen=True, slots=True)
class _ScalerUnit:
    scaler: int
    unit: int


def readings_from_list(body: Data, when: datetime | None, template: Reading) -> list[Reading]:
    """
    Readings out of a pushed list.

    `template` gives what the list does not: the device if the list does not name it, the reception time, and the
    quality.  `when` is the notification's time; a clock in the list is taken where there is none.
    """
    items = body.value if body.type in _COMPOUND else (body,)
    readings = _kaifa(items, template) or _described(items, template)
    if readings is None:
        readings = _walk(list(_leaves(body)), template)
    device = next((str(r.value) for r in readings if _names_device(r)), template.device)
    clock = next((r.value for r in readings if r.obis and (r.obis.a, *r.obis[2:5]) == (0, 1, 0, 0)), None)
    if when is None and isinstance(clock, bytes) and len(clock) == 12:
        when = CosemDateTime.from_bytes(clock).to_datetime()
    return [replace(reading, device=device, measured_at=when) for reading in readings]


def scaler_unit(data: Data) -> tuple[int, int]:
    """A scaler_unit attribute.  Raises RemoteProtocolError for anything else."""
    pair = _as_scaler_unit(data)
    if pair is None:
        raise RemoteProtocolError("dlms_scaler_unit", "no structure of scaler and unit")
    return pair.scaler, pair.unit


def reading_of(data: Data, obis: Obis | None, template: Reading, scaler: int = 0, unit: int | None = None) -> Reading:
    """One value as a reading; numbers keep their exact value, what is no number its octets."""
    value: int | str | bytes | None
    quality = template.quality
    if data.type is Type.BCD:  # 0x12 is 12 by the standard and 18 to the libraries that read it: no number comes out
        value = bytes((data.value,))
    elif data.type in INTEGER_TYPES or data.type is Type.BOOLEAN:
        value = int(data.value)
    elif data.type in (Type.FLOAT32, Type.FLOAT64):
        value, shift = _exact(data.value)
        scaler += shift
        quality = Quality.METER_ERROR if value is None else quality
    elif data.type in (Type.VISIBLE_STRING, Type.UTF8_STRING):
        value = data.value if isinstance(data.value, str) else data.value.decode("ascii", "backslashreplace")
    elif data.type is Type.OCTET_STRING and data.value and (obis is None or obis.c in _TEXT_GROUPS):
        printable = data.value.isascii() and data.value.decode("latin-1").isprintable()
        value = data.value.decode("ascii") if printable else data.value
    elif isinstance(data.value, bytes):
        value = data.value
    elif isinstance(data.value, BitString):
        value = data.value.data
    else:
        value = data.to_bytes() if data.type in _COMPOUND else None
    return replace(template, obis=obis, value=value, scaler=scaler, unit=unit, quality=quality)


def attribute_reading(
    data: Data, attribute: Attribute, template: Reading, scaler: int = 0, unit: int | None = None
) -> Reading:
    """
    An attribute as a reading; only the second, an object's value, has the object's code.

    A status or a time of capture under the code of its register would pass for the register.
    """
    if attribute.index == 2:
        return reading_of(data, attribute.obis, template, scaler, unit)
    of = {"class": attribute.class_id, "object": str(attribute.obis), "attribute": attribute.index}
    return replace(reading_of(data, None, template), record={**template.record, **of})


def profile_readings(
    buffer: Data, columns: Sequence[tuple[int, Obis, int]], units: dict[Obis, tuple[int, int]], template: Reading
) -> list[Reading]:
    """
    The rows of a profile's buffer as readings.

    `columns` are its capture objects (class, code, attribute); a clock column dates its row, and where a meter
    leaves it empty the row before is not carried on: the period is not ours to guess.  `record["period"]` is the row:
    its values are past ones.  Raises RemoteProtocolError for rows of another width.
    """
    if buffer.type not in (Type.ARRAY, Type.COMPACT_ARRAY):
        raise RemoteProtocolError("dlms_profile", "the buffer is no array")
    readings = []
    for period, row in enumerate(buffer.value):
        if row.type not in _COMPOUND or len(row.value) != len(columns):
            raise RemoteProtocolError("dlms_profile", "a row of another width than the capture objects")
        when = None
        for (class_id, _, attribute), cell in zip(columns, row.value, strict=True):
            if class_id == 8 and attribute == 2 and isinstance(cell.value, bytes) and len(cell.value) == 12:
                when = CosemDateTime.from_bytes(cell.value).to_datetime()
        for (class_id, obis, attribute), cell in zip(columns, row.value, strict=True):
            if class_id == 8 or cell.type is Type.NULL:
                continue
            scale = units.get(obis, (0, None)) if attribute == 2 else (0, None)
            dated = replace(template, measured_at=when, record={"period": period})
            readings.append(attribute_reading(cell, Attribute(class_id, obis, attribute), dated, *scale))
    return readings


def _leaves(data: Data) -> Iterator[Data | _ScalerUnit]:
    pair = _as_scaler_unit(data)
    if pair is not None:
        yield pair
    elif data.type in _COMPOUND:
        for item in data.value:
            yield from _leaves(item)
    else:
        yield data


def _as_scaler_unit(data: Data) -> _ScalerUnit | None:
    if data.type is not Type.STRUCTURE or [item.type for item in data.value] != [Type.INTEGER, Type.ENUM]:
        return None
    return _ScalerUnit(data.value[0].value, data.value[1].value)


def _walk(leaves: list[Data | _ScalerUnit], template: Reading) -> list[Reading]:
    readings: list[Reading] = []
    kamstrup = False
    at = 0
    while at < len(leaves):
        leaf = leaves[at]
        following = leaves[at + 1] if at + 1 < len(leaves) else None
        if isinstance(leaf, _ScalerUnit):
            record = {"index": at, "scaler": leaf.scaler, "unit": leaf.unit}
            readings.append(replace(template, value=None, record=record))
        elif leaf.type is Type.OCTET_STRING and len(leaf.value) == 6 and isinstance(following, Data):
            obis = Obis.from_bytes(leaf.value)
            scale = leaves[at + 2] if at + 2 < len(leaves) else None
            if isinstance(scale, _ScalerUnit):
                readings.append(reading_of(following, obis, template, scale.scaler, scale.unit))
                at += 1
            else:
                known = _KAMSTRUP.get((obis.c, obis.d)) if kamstrup and following.type in INTEGER_TYPES else None
                readings.append(reading_of(following, obis, template, *(known or (0, None))))
            at += 1
        elif leaf.type is Type.VISIBLE_STRING and leaf.value.startswith(b"Kamstrup_V"):
            kamstrup = True
            readings.append(reading_of(leaf, _LIST_VERSION, template))
        elif leaf.type is not Type.NULL:
            readings.append(replace(reading_of(leaf, None, template), record={"index": at}))
        at += 1
    return readings


def _kaifa(items: Sequence[Data], template: Reading) -> list[Reading] | None:
    columns = _KAIFA.get(len(items))
    if columns is None:
        return None
    if len(items) == 1:
        return [_kaifa_value(items[0], columns[0], template)] if items[0].type is Type.DOUBLE_LONG_UNSIGNED else None
    first = items[0]
    if first.type not in (Type.OCTET_STRING, Type.VISIBLE_STRING) or not first.value.upper().startswith(b"KFM_"):
        return None
    codes = (_LIST_VERSION, Obis(0, 0, 96, 1, 0, 255), Obis(0, 0, 96, 1, 7, 255))
    readings = [reading_of(item, obis, template) for item, obis in zip(items[:3], codes, strict=True)]
    values = list(items[3:])
    if len(items) in (14, 18):
        readings.append(reading_of(values.pop(-5), CLOCK, template))
    readings += [_kaifa_value(item, column, template) for item, column in zip(values, columns, strict=True)]
    return readings


def _kaifa_value(item: Data, column: tuple[int, int, int, int], template: Reading) -> Reading:
    c, d, scaler, unit = column
    return reading_of(item, Obis(1, 0, c, d, 0, 255), template, scaler, unit)


def _described(items: Sequence[Data], template: Reading) -> list[Reading] | None:
    """The standard push: element 0 lists class, code, attribute and data index of every element, itself included."""
    if not items or items[0].type is not Type.ARRAY or len(items[0].value) != len(items) or len(items) < 2:
        return None
    descriptors = []
    for entry in items[0].value:
        parts: Sequence[Data] = entry.value if entry.type is Type.STRUCTURE else ()
        kinds = [part.type for part in parts[:3]]
        if kinds != [Type.LONG_UNSIGNED, Type.OCTET_STRING, Type.INTEGER] or len(parts[1].value) != 6:
            return None
        descriptors.append((parts[0].value, Obis.from_bytes(parts[1].value), parts[2].value))
    pairs = list(zip(descriptors, items, strict=True))[1:]
    scales = {obis: _as_scaler_unit(item) for (_, obis, attribute), item in pairs if attribute == 3}
    readings = []
    for (class_id, obis, attribute), item in pairs:
        if attribute == 3 and scales.get(obis) is not None:
            continue
        scale = scales.get(obis) if attribute == 2 else None
        scaled = (scale.scaler, scale.unit) if scale else (0, None)
        readings.append(attribute_reading(item, Attribute(class_id, obis, attribute), template, *scaled))
    return readings


def _names_device(reading: Reading) -> bool:
    obis = reading.obis
    return (
        obis is not None
        and isinstance(reading.value, str)
        and bool(reading.value.strip())
        and (obis.a, obis.c, obis.d, obis.e) in _DEVICE_CODES
    )


def _exact(number: float) -> tuple[int | None, int]:
    """Mantissa and power of ten of a binary fraction, exactly; None for what is no number."""
    if not math.isfinite(number):
        return None, 0
    sign, digits, exponent = Decimal(number).as_tuple()
    mantissa = int("".join(map(str, digits)))
    return (-mantissa if sign else mantissa), int(exponent)
