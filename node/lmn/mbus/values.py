"""
Octets to values: the data types A to J of EN 13757-3 annex A, and LVAR.

Three rules.  Numbers stay integers: a float32 becomes the shortest decimal that is that float, with its power of ten.
A value that the type itself calls invalid (BCD with a letter in it, 80..00, NaN, a date with its invalid bit) is no
value: None, with the octets kept.  Dates without a year, month or day are patterns, not moments; they are None too.
"""

from __future__ import annotations

import math
import struct
from datetime import date, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from node.lmn.mbus.vif import Kind

# Octets of a value by the data field of the DIF (EN 13757-3 table 4); 0xD is variable, 0xF special.
DATA_SIZES: Final = (0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, -1, 6, -1)
# Data field of an integer -> the value that type B calls invalid.
_INTEGERS: Final = {field: -1 << (8 * DATA_SIZES[field] - 1) for field in (1, 2, 3, 4, 6, 7)}
REAL32: Final = 5
VARIABLE: Final = 0xD

Value = int | str | bytes | None


class Decoded(NamedTuple):
    """A value, the power of ten that its coding adds, whether it is marked invalid, and the moment if it is one."""

    value: Value
    scaler: int = 0
    invalid: bool = False
    moment: datetime | date | None = None


_INVALID: Final = Decoded(None, invalid=True)


def variable_size(lvar: int) -> int | None:
    """How many octets follow an LVAR byte (EN 13757-3 table 5); None for the reserved ones."""
    if lvar < 0xC0:
        return lvar
    if lvar < 0xF0:
        return lvar & 0x0F
    if lvar <= 0xF4:
        return 4 * (lvar - 0xEC)
    return {0xF5: 48, 0xF6: 64}.get(lvar)


def bcd(data: bytes) -> int | None:
    """Type A, least significant byte first; a leading F is a minus sign, any other letter makes it invalid."""
    digits = data[::-1].hex()
    if digits.isdecimal():
        return int(digits)
    if digits[0] == "f" and digits[1:].isdecimal():
        return -int(digits[1:])
    return None


def real32(data: bytes) -> Decoded:
    """IEEE 754 single, least significant byte first, as the shortest decimal that reads back as the same float."""
    (number,) = struct.unpack("<f", data)
    if not math.isfinite(number):
        return _INVALID
    for digits in range(6, 10):
        text = f"{number:.{digits}g}"
        if struct.pack("<f", float(text)) == data:
            break
    sign, mantissa, exponent = Decimal(text).as_tuple()
    value = int("".join(map(str, mantissa)))
    scaler = int(exponent)
    while value and value % 10 == 0:
        value, scaler = value // 10, scaler + 1
    return Decoded(-value if sign else value, scaler if value else 0)


def _year(low: int, hundred: int = 0) -> int:
    return 1900 + 100 * hundred + low if hundred or low > 80 else 2000 + low


def _moment(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime | None:
    try:
        return datetime(year, month, day, hour, minute, second)  # the meter says no zone
    except ValueError:
        return None


def date_g(data: bytes) -> Decoded:
    """Type G, 2 bytes: a day."""
    low = data[0] >> 5 | (data[1] & 0xF0) >> 1
    moment = _moment(_year(low), data[1] & 0x0F, data[0] & 0x1F) if low < 100 else None
    if moment is None:
        return _INVALID
    return Decoded(moment.date().isoformat(), moment=moment.date())


def datetime_f(data: bytes) -> Decoded:
    """Type F, 4 bytes: a minute, with an invalid bit and the century as two bits."""
    low = data[2] >> 5 | (data[3] & 0xF0) >> 1
    if data[0] & 0x80 or low > 99:
        return _INVALID
    moment = _moment(
        _year(low, data[1] >> 5 & 3), data[3] & 0x0F, data[2] & 0x1F, data[1] & 0x1F, data[0] & 0x3F
    )  # fmt: skip
    return _INVALID if moment is None else Decoded(moment.isoformat(), moment=moment)


def datetime_i(data: bytes) -> Decoded:
    """Type I, 6 bytes: a second."""
    low = data[3] >> 5 | (data[4] & 0xF0) >> 1
    if data[1] & 0x80 or low > 99:
        return _INVALID
    moment = _moment(
        _year(low), data[4] & 0x0F, data[3] & 0x1F, data[2] & 0x1F, data[1] & 0x3F, data[0] & 0x3F
    )  # fmt: skip
    return _INVALID if moment is None else Decoded(moment.isoformat(), moment=moment)


def time_j(data: bytes) -> Decoded:
    """Type J, 3 bytes: a time of day."""
    hour, minute, second = data[2] & 0x1F, data[1] & 0x3F, data[0] & 0x3F
    return _INVALID if hour > 23 or minute > 59 or second > 59 else Decoded(f"{hour:02}:{minute:02}:{second:02}")


_DATE_CODINGS: Final = {2: date_g, 3: time_j, 4: datetime_f, 6: datetime_i}


def _variable(data: bytes, kind: Kind) -> Decoded:
    lvar, octets = data[0], data[1:]
    if lvar < 0xC0:
        if kind in (Kind.OPAQUE, Kind.FOREIGN):
            return Decoded(octets)
        return Decoded(octets[::-1].decode("latin-1"))
    if lvar < 0xE0:
        number = bcd(octets) if octets else None
        if number is None or number < 0:
            return _INVALID
        return Decoded(-number if lvar >= 0xD0 else number)
    return Decoded(octets)


def decode_value(field: int, kind: Kind, data: bytes) -> Decoded:
    """
    The value of one record.

    `field` is the low nibble of the DIF, `data` its octets (for LVAR with the length byte first), whole.
    """
    if kind is Kind.NUMBER and field in _INTEGERS:
        number: int | None = int.from_bytes(data, "little", signed=True)
        return _INVALID if number == _INTEGERS[field] else Decoded(number)
    if field == VARIABLE:
        return _variable(data, kind)
    if kind is Kind.DATE or kind is Kind.DATETIME:
        coding = _DATE_CODINGS.get(field)
        return Decoded(data) if coding is None else coding(data)
    if kind is Kind.OPAQUE:
        return Decoded(data)
    if field == REAL32:
        return real32(data)
    if field > 8:
        number = bcd(data)
        may_be_negative = kind is Kind.NUMBER or kind is Kind.FOREIGN
        return _INVALID if number is None or (number < 0 and not may_be_negative) else Decoded(number)
    if not data:
        return Decoded(None)
    if kind is not Kind.NUMBER and kind is not Kind.FOREIGN:
        return Decoded(int.from_bytes(data, "little"))
    number = int.from_bytes(data, "little", signed=True)
    return _INVALID if number == _INTEGERS[field] else Decoded(number)
