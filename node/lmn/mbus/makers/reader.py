"""
Octets in a maker's format to records, by its table.

What a table names becomes records like those of the standard, so that readings are made of both in the same way.  A
table is tried where maker, version and type are its own and every condition holds; the first that fits is taken.
Nothing here raises for what a telegram says: what fits no table stays octets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, lru_cache
from typing import Any, Final

from node.lmn.mbus.compact import Layout, signature_of
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.makers import diehl
from node.lmn.mbus.makers.table import Element, MakersFormat, Value, shipped_formats, split_headers
from node.lmn.mbus.records import Header, Record, take_header
from node.lmn.mbus.values import Decoded, date_g, decode_value

_INVALID: Final = Decoded(None, invalid=True)
_CENTURY: Final = 2000
_POWER_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class Named:
    """A record that a table makes of octets, and what its reading says beside: the format, a month, flags."""

    record: Record
    extra: Mapping[str, Any]


class FormatBook:
    """
    The formats that octets are looked up in; those of a user go before the shipped ones.

    `compact` are the headers of compact frames, by signature, whose full telegrams need not be heard before.
    """

    def __init__(self, named: Sequence[MakersFormat] = ()) -> None:
        self._formats = (*named, *shipped_formats())
        layouts = [split_headers(text) for each in self._formats for text in each.headers]
        self.compact: Mapping[int, Layout] = {signature_of(layout): layout for layout in layouts}

    def behind_ci(self, address: DeviceAddress, layer: bytes) -> list[Named]:
        """What stands behind a maker's CI field, with which `layer` begins; `address` is the link's."""
        named = diehl.named_address(address, layer)
        for each in self._of(named, "ci"):
            if layer[0] not in {ci[0] for ci in each.ci}:
                continue
            octets: bytes | None = layer if each.from_ci else layer[1:]
            if each.opened_by == "prios":
                octets = diehl.open_prios(address, layer)
            if octets is not None and (found := _named(each, octets)):
                return found
        return []

    def in_data(self, address: DeviceAddress, octets: bytes) -> list[Named]:
        """What stands behind DIF 0F."""
        return next((found for each in self._of(address, "data") if (found := _named(each, octets))), [])

    def in_record(self, address: DeviceAddress, record: Record) -> list[Named]:
        """What stands inside a record of the maker's: variable octets under a VIF of its own."""
        value = record.decoded.value
        if not isinstance(value, bytes):
            return []
        for each in self._of(address, "record"):
            if record.header.vib == each.vib and (found := _named(each, value)):
                return found
        return []

    def _of(self, address: DeviceAddress, where: str) -> Iterator[MakersFormat]:
        for each in self._formats:
            if each.where == where and each.is_sent_by(address):
                yield each


@cache
def shipped_book() -> FormatBook:
    """The shipped formats alone, one for all receivers."""
    return FormatBook()


def _named(each: MakersFormat, octets: bytes) -> list[Named]:
    """The values of a format; empty where the octets are not in it."""
    if each.counted_header:
        octets = octets[1 + octets[0] :] if octets else b""
    if len(octets) < each.size_min or (each.size and len(octets) != each.size):
        return []
    if each.begins and not octets.startswith(each.begins):
        return []
    unit = None if each.unit_at is None else octets[each.unit_at]
    if unit is not None and bytes([unit]) not in each.units:
        return []
    if each.registers:
        return _registers(each, octets)
    return [named for element in each.values if (named := _element(each, element, octets, unit)) is not None]


def _registers(each: MakersFormat, octets: bytes) -> list[Named]:
    """Numbered registers up to an FF; one whose size is not known ends them, since what follows has no place."""
    out: list[Named] = []
    position = each.registers_at
    while position < len(octets) and octets[position] != 0xFF:
        register = each.registers.get(f"{octets[position]:02X}")
        position += 1
        if register is None or position + register.size > len(octets):
            break
        if register.value is not None:
            part = octets[position : position + register.value.octet_count]
            out.append(_record(each, register.value, part, _decoded(register.value, part), None))
        position += register.size
    return out


def _element(each: MakersFormat, element: Element, octets: bytes, unit: int | None) -> Named | None:
    part = octets[element.at : element.at + element.octet_count]
    if part in element.none:
        return None
    if element.after is not None:
        decoded = _day_of_year(part, octets[element.after : element.after + 2])
    elif element.plus is not None:
        other = octets[element.plus : element.plus + element.octet_count]
        decoded = _scaled(element, _unsigned(element, part) + _unsigned(element, other))
    else:
        decoded = _decoded(element, part)
    extra: dict[str, Any] = {}
    if element.months_back is not None:
        if unit is not None and bytes([unit]) in each.tens and isinstance(decoded.value, int):
            decoded = decoded._replace(scaler=decoded.scaler + 1)
        day = date_g(octets[each.set_day_at : each.set_day_at + 2]).moment if each.set_day_at is not None else None
        if day is None:
            return None
        extra["month"] = _month_before(day, element.months_back)
    named = _record(each, element, part, decoded, unit)
    return replace(named, extra={**named.extra, **extra}) if extra else named


def _record(each: MakersFormat, value: Value, part: bytes, decoded: Decoded, unit: int | None) -> Named:
    extra: dict[str, Any] = {"format": each.name}
    if value.flags and isinstance(decoded.value, int):
        extra["flags"] = [name for name, bit in value.flags.items() if decoded.value >> bit & 1]
    return Named(Record(_header(value.header_octets(unit), value.meaning), part, decoded), extra)


@lru_cache(maxsize=1024)
def _header(octets: bytes, meaning: str) -> Header:
    header, _ = take_header(octets, 0)
    if not meaning:
        return header
    value = replace(header.value, modifiers=(*header.value.modifiers, meaning))
    return replace(header, value=value)


def _unsigned(value: Value, part: bytes) -> int:
    number = int.from_bytes(part, "big" if value.big_endian else "little")
    return number & value.mask if value.mask else number


def _scaled(value: Value, number: int) -> Decoded:
    exact = number * value.times
    return Decoded((2 * exact + value.divided_by) // (2 * value.divided_by), value.scaler)


def _decoded(value: Value, part: bytes) -> Decoded:
    if value.coding == "day":
        number = _unsigned(value, part)
        return _day(number >> 9, number >> 5 & 0x0F, number & 0x1F)
    if value.coding == "power-of-two":
        power = _unsigned(value, part)
        return _scaled(value, 1 << power) if power <= _POWER_MAX else _INVALID
    if value.coding == "unsigned":
        return _scaled(value, _unsigned(value, part))
    header = _header(value.header_octets(None), "")
    decoded = decode_value(header.data.field, header.value.kind, part)
    return decoded._replace(scaler=decoded.scaler + value.scaler) if isinstance(decoded.value, int) else decoded


def _day(year: int, month: int, day: int) -> Decoded:
    try:
        moment = date(_CENTURY + year, month, day)
    except ValueError:
        return _INVALID
    return Decoded(moment.isoformat(), moment=moment)


def _day_of_year(part: bytes, before: bytes) -> Decoded:
    """A month and a day, five bits from the fourth on and four from the ninth; the first such day behind `before`."""
    number, earlier = int.from_bytes(part, "little"), int.from_bytes(before, "little")
    month, day = number >> 9 & 0x0F, number >> 4 & 0x1F
    is_next_year = (month, day) <= (earlier >> 5 & 0x0F, earlier & 0x1F)
    return _day((earlier >> 9) + is_next_year, month, day)


def _month_before(day: date, months: int) -> str:
    year, month = divmod(12 * day.year + day.month - 1 - months, 12)
    return f"{year:04}-{month + 1:02}"
