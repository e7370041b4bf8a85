"""
Compact profiles (EN 13757-3 annex F): a base value, a base time and a row of differences, unrolled to records.

A meter that may send only rarely packs the last few values into one record.  The octets are a spacing control byte
(how each element is to be read: absolute or as a difference, the unit of the spacing, the element's size), a spacing
value and the elements.  The inverse profile starts at the newest value and goes back in time, the others go forward.
Where an element is marked invalid the chain of differences is broken: what follows is unknown, not guessed.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from node.lmn.mbus.records import Header, Record
from node.lmn.mbus.values import DATA_SIZES, bcd
from node.lmn.mbus.vif import Kind, Profile
from protocol.errors import RemoteProtocolError

_SECONDS: Final = (1, 60, 3600, 86400)
_ABSOLUTE, _INCREMENT, _DECREMENT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class ProfileValue:
    """One unrolled value: how many spacings from the base (negative is older), mantissa or None, and its moment."""

    steps: int
    value: int | None
    moment: datetime | date | None


@dataclass(frozen=True, slots=True)
class Spacing:
    """Time between two values: seconds, or months where the profile counts those; 0 and 0 for a plain array."""

    seconds: int = 0
    months: int = 0

    def shift(self, moment: datetime | date, steps: int) -> datetime | date:
        """`moment` moved by so many spacings; the last day of a month stays the last day."""
        if not self.months:
            return moment + timedelta(seconds=self.seconds * steps)
        month = moment.year * 12 + moment.month - 1 + self.months * steps
        year, month = divmod(month, 12)
        last = calendar.monthrange(year, month + 1)[1]
        is_last = moment.day == calendar.monthrange(moment.year, moment.month)[1]
        return moment.replace(year=year, month=month + 1, day=last if is_last else min(moment.day, last))


def spacing_of(control: int, value: int) -> Spacing | None:
    """The spacing that a control and a value byte say (EN 13757-3 tables F.7, F.8); None for the reserved ones."""
    unit = control >> 4 & 3
    if value == 0:
        return Spacing()
    if value <= 250:
        return Spacing(seconds=_SECONDS[unit] * value)
    if value == 254 and unit:
        return Spacing(months={1: 6, 2: 3, 3: 1}[unit])
    return None


def _same_chain(header: Header, other: Header) -> bool:
    mine, theirs = header.data, other.data
    return (mine.storage, mine.tariff, mine.subunit) == (theirs.storage, theirs.tariff, theirs.subunit)


def find_base(record: Record, records: Iterable[Record]) -> tuple[int | None, datetime | date | None]:
    """The base value (same storage, tariff, subunit, quantity and unit) and the base time (same storage)."""
    value: int | None = None
    moment: datetime | date | None = None
    mine = record.header.value
    for other in records:
        theirs = other.header.value
        if theirs.kind in (Kind.DATE, Kind.DATETIME):
            if other.header.data.storage == record.header.data.storage and not theirs.modifiers and moment is None:
                moment = other.decoded.moment
        elif (
            theirs.profile is None and _same_chain(record.header, other.header) and other.decoded.scaler == 0
            and (theirs.quantity, theirs.unit, theirs.scaler, theirs.modifiers)
            == (mine.quantity, mine.unit, mine.scaler, mine.modifiers)
            and isinstance(other.decoded.value, int)
        ):  # fmt: skip
            value = other.decoded.value
    return value, moment


def unroll(record: Record, base: int | None, moment: datetime | date | None) -> list[ProfileValue]:
    """
    The values of a compact profile record, in the order of the telegram, without the base.

    Raises RemoteProtocolError where the octets are no profile.
    """
    profile, octets = record.header.value.profile, record.octets[1:]
    if profile is None or record.header.data.field != 0xD or len(octets) < 2:
        raise RemoteProtocolError("compact_profile", "too short for its control bytes")
    control = octets[0]
    mode, field = control >> 6, control & 0x0F
    size = DATA_SIZES[field]
    spacing = spacing_of(control, octets[1])
    if size <= 0 or field == 5 or spacing is None or (len(octets) - 2) % size:
        raise RemoteProtocolError("compact_profile", "reserved spacing or element size")
    direction = -1 if profile is Profile.INVERSE else 1
    current = base
    out = []
    for index in range((len(octets) - 2) // size):
        element = _element(octets[2 + index * size : 2 + (index + 1) * size], field, signed=mode in (0, 3))
        if mode == _ABSOLUTE:
            current = element
        elif element is None or current is None:
            current = None
        else:
            current += direction * (-element if mode == _DECREMENT else element)
        steps = direction * (index + 1)
        out.append(ProfileValue(steps, current, _shifted(spacing, moment, steps)))
    return out


def _shifted(spacing: Spacing, moment: datetime | date | None, steps: int) -> datetime | date | None:
    if moment is None or spacing == Spacing():
        return None
    try:
        return spacing.shift(moment, steps)
    except (OverflowError, ValueError):
        return None


def _element(octets: bytes, field: int, *, signed: bool) -> int | None:
    if field > 8:
        return bcd(octets)
    number = int.from_bytes(octets, "little", signed=signed)
    illegal = -1 << (8 * len(octets) - 1) if signed else (1 << 8 * len(octets)) - 1
    return None if number == illegal else number
