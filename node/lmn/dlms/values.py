"""One value of A-XDR as a reading: numbers exactly, text as text, everything else as its octets."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from node.lmn.dlms.axdr import INTEGER_TYPES, BitString, Data, Type
from node.lmn.tables import exact
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

COMPOUND: Final = frozenset({Type.ARRAY, Type.STRUCTURE, Type.COMPACT_ARRAY})
TEXT_TYPES: Final = frozenset({Type.OCTET_STRING, Type.VISIBLE_STRING, Type.UTF8_STRING})
_TEXT_GROUPS: Final = frozenset({0, 42, 96})  # identifiers; their octet strings are text


def reading_of(data: Data, obis: Obis | None, template: Reading, scaler: int = 0, unit: int | None = None) -> Reading:
    """One value as a reading; numbers keep their exact value (float32: not for billing), what is none its octets."""
    value: int | str | bytes | None
    quality = template.quality
    if data.type is Type.BCD:  # 0x12 is 12 by the standard and 18 to the libraries that read it: no number comes out
        value = bytes((data.value,))
    elif data.type in INTEGER_TYPES or data.type is Type.BOOLEAN:
        value = int(data.value)
    elif data.type in (Type.FLOAT32, Type.FLOAT64):
        value, shift = exact(data.value)
        scaler += shift
        if value is None:
            quality = Quality.METER_ERROR
        elif data.type is Type.FLOAT32 and quality is Quality.VALID:  # 24 bits: a counter loses its last digits
            quality = Quality.NOT_FOR_BILLING
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
        value = data.to_bytes() if data.type in COMPOUND else None
    return replace(template, obis=obis, value=value, scaler=scaler, unit=unit, quality=quality)
