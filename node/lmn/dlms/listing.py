"""
From what a meter says to readings.

A pushed list has no one layout.  Aidon sends rows (code, value, scaler and unit), Austrian meters the same three
without the rows, Kamstrup pairs of code and value whose scale is written in its manual only, Kaifa bare values whose
place says everything, and the standard's own push (class 40) begins with the list of what follows.  The first three
are one walk over the leaves: a code, its value, and a scaler and unit if there is one.  Places and scales that only a
document has are data (`layout`).  What nothing names is kept as a reading without a code and with its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from node.lmn.dlms.axdr import INTEGER_TYPES, Data, Type
from node.lmn.dlms.clock import CosemDateTime
from node.lmn.dlms.fields import Attribute
from node.lmn.dlms.layout import Layout, LayoutBook, Placed
from node.lmn.dlms.values import COMPOUND, reading_of
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Reading

CLOCK: Final = Obis(0, 0, 1, 0, 0, 255)
_LIST_VERSION: Final = Obis(1, 1, 0, 2, 129, 255)
_PUSH_SETUP: Final = (0, 25, 9)  # A, C and D of the push set-up object
_DEVICE_CODES: Final = frozenset(
    {(0, 42, 0, 0), (0, 96, 1, 0), (1, 0, 0, 0), (1, 0, 0, 5), (1, 96, 1, 0)}  # A, C, D, E of a device number
)


@dataclass(frozen=True, slots=True)
class _ScalerUnit:
    scaler: int
    unit: int


def readings_from_list(
    body: Data, when: datetime | None, template: Reading, layouts: LayoutBook | None = None
) -> list[Reading | RemoteProtocolError]:
    """
    Readings out of a pushed list.

    `template` gives what the list does not: the device if the list does not name it, the reception time, and the
    quality.  `when` is the notification's time; a clock in the list is taken where there is none.  `layouts` says what
    lists mean that name nothing; where a layout was named and a list is of another, it stays without names and an error
    stands behind it.
    """
    book = layouts or LayoutBook()
    items = body.value if body.type in COMPOUND else (body,)
    placed = book.place(items, template)
    faults: list[Reading | RemoteProtocolError] = []
    if placed is None:
        readings = _described(items, template)
        if readings is None:
            readings = _walk(list(_leaves(body)), template, book)
        placed = Placed(readings)
        if not any(each.obis for each in readings) and (deviation := book.deviation(items)):
            faults.append(RemoteProtocolError("dlms_layout", f"the list is not of the layout: {deviation}"))
    device = placed.device or next((str(r.value) for r in placed.readings if _names_device(r)), template.device)
    when = when or placed.when or _clock(placed.readings)
    return [*(replace(reading, device=device, measured_at=when) for reading in placed.readings), *faults]


def _clock(readings: Sequence[Reading]) -> datetime | None:
    clock = next((r.value for r in readings if r.obis and (r.obis.a, *r.obis[2:5]) == (0, 1, 0, 0)), None)
    return CosemDateTime.from_bytes(clock).to_datetime() if isinstance(clock, bytes) and len(clock) == 12 else None


def scaler_unit(data: Data) -> tuple[int, int]:
    """A scaler_unit attribute.  Raises RemoteProtocolError for anything else."""
    pair = _as_scaler_unit(data)
    if pair is None:
        raise RemoteProtocolError("dlms_scaler_unit", "no structure of scaler and unit")
    return pair.scaler, pair.unit


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
        if row.type not in COMPOUND or len(row.value) != len(columns):
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
    elif data.type in COMPOUND:
        for item in data.value:
            yield from _leaves(item)
    else:
        yield data


def _as_scaler_unit(data: Data) -> _ScalerUnit | None:
    if data.type is not Type.STRUCTURE or [item.type for item in data.value] != [Type.INTEGER, Type.ENUM]:
        return None
    return _ScalerUnit(data.value[0].value, data.value[1].value)


def _walk(leaves: list[Data | _ScalerUnit], template: Reading, layouts: LayoutBook) -> list[Reading]:
    readings: list[Reading] = []
    pairs: Layout | None = None
    at = 0
    while at < len(leaves):
        leaf = leaves[at]
        following = leaves[at + 1] if at + 1 < len(leaves) else None
        if isinstance(leaf, _ScalerUnit):
            record = {"index": at, "scaler": leaf.scaler, "unit": leaf.unit}
            readings.append(replace(template, value=None, record=record))
        elif _is_code(leaf) and isinstance(following, Data):
            obis = Obis.from_bytes(leaf.value)
            scale = leaves[at + 2] if at + 2 < len(leaves) else None
            pairs = pairs or layouts.pairs(following)
            if isinstance(scale, _ScalerUnit):
                readings.append(reading_of(following, obis, template, scale.scaler, scale.unit))
                at += 1
            else:
                known = pairs.scale(obis) if pairs is not None and following.type in INTEGER_TYPES else None
                scaled = (0, None) if known is None else (known.scaler, known.unit)
                readings.append(reading_of(following, obis, template, *scaled))
            at += 1
        elif (named := layouts.pairs(leaf)) is not None:
            pairs = named
            readings.append(reading_of(leaf, _LIST_VERSION, template))
        elif leaf.type is not Type.NULL:
            readings.append(replace(reading_of(leaf, None, template), record={"index": at}))
        at += 1
    return readings


def _is_code(leaf: Data) -> bool:
    """Whether a value is the code of what follows it; the name of the push set-up in front of a list is not."""
    return leaf.type is Type.OCTET_STRING and len(leaf.value) == 6 and (leaf.value[0], *leaf.value[2:4]) != _PUSH_SETUP


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
