"""
The tables of makers' formats: whose meters, where in a telegram, and what stands at which octet.

Shipped ones stand in `node/lmn/mbus/makers/formats`, a user's own in the same form (docs/reference/lmn.md, "Makers'
formats").  A field is described by the header that a record of the same meaning would have, so that names, units,
powers of ten and OBIS codes come from the same place as those of standard records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, cached_property
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from node.lmn.mbus.compact import Layout
from node.lmn.mbus.device import DeviceAddress, manufacturer_letters
from node.lmn.mbus.records import take_header
from node.lmn.mbus.values import DATA_SIZES, VARIABLE
from node.lmn.tables import Certainty, Part, Table, find_table, shipped_tables
from protocol.errors import RemoteProtocolError

_METER: Final = re.compile(r"[A-Z]{3} ([0-9A-F]{2}|\*) ([0-9A-F]{2}|\*)")
_UNIT_PLACE: Final = "??"
FIELD_COUNT_MAX: Final = 64


def _octets(text: object) -> object:
    return bytes.fromhex(text) if isinstance(text, str) else text


def _octets_of_each(texts: object) -> object:
    return [_octets(text) for text in texts] if isinstance(texts, list) else texts


Octets = Annotated[bytes, BeforeValidator(_octets)]
OctetsOfEach = Annotated[tuple[bytes, ...], BeforeValidator(_octets_of_each)]


class Value(Part):
    """
    One value: `record` is the header (DIF, VIF and their extensions) of the record that would say the same.

    `coding` is how the octets are written: as that record's would be, or `unsigned`, `power-of-two`, `day` (year 7,
    month 4, day 5 bits from the top), `day-of-year` (month and day, in the year behind the day at `after`).  The
    number is `times`·n/`divided_by` at the record's power of ten and `scaler`; `mask` leaves bits out, `plus` is where
    a second number stands that is added, `none` are octets that mean no value.  `meaning` says what the record's header
    cannot; such a value has no OBIS code.
    """

    record: str
    coding: Literal["record", "unsigned", "power-of-two", "day", "day-of-year"] = "record"
    big_endian: bool = False
    mask: int = Field(default=0, ge=0)
    times: int = Field(default=1, ge=1, le=10**9)
    divided_by: int = Field(default=1, ge=1, le=10**6)
    scaler: int = Field(default=0, ge=-12, le=12)
    meaning: str = ""
    none: OctetsOfEach = ()
    flags: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_a_record(self) -> Value:
        if not re.fullmatch(r"([0-9A-Fa-f]{2}|\?\?)+", self.record):
            raise ValueError(f"record {self.record!r} is no header in hexadecimal")
        header = bytes.fromhex(self.record.replace(_UNIT_PLACE, "13"))
        try:
            found, end = take_header(header, 0)
        except RemoteProtocolError as error:
            raise ValueError(f"record {self.record}: {error.reason}") from None
        has_size = found.data.field != VARIABLE and DATA_SIZES[found.data.field] > 0
        if end != len(header) or not has_size or found.value.profile is not None:
            raise ValueError(f"record {self.record} is no header of one value of a fixed size")
        return self

    @property
    def octet_count(self) -> int:
        """How many octets the value takes."""
        return DATA_SIZES[int(self.record[:2], 16) & 0x0F]

    def header_octets(self, unit: int | None) -> bytes:
        """The record's header; `unit` is the octet that stands for ?? in it."""
        return bytes.fromhex(self.record.replace(_UNIT_PLACE, f"{unit or 0:02x}"))


class Element(Value):
    """A value at a place: `at` octets behind the beginning."""

    at: int = Field(ge=0, le=250)
    plus: int | None = Field(default=None, ge=0, le=250)
    after: int | None = Field(default=None, ge=0, le=250)
    months_back: int | None = Field(default=None, ge=0, le=120)

    @model_validator(mode="after")
    def _has_its_day(self) -> Element:
        if (self.coding == "day-of-year") != (self.after is not None):
            raise ValueError("a day of the year stands after another day, and only that does")
        return self

    @property
    def end(self) -> int:
        """Where the last of its octets ends."""
        starts = [at for at in (self.at, self.plus, self.after) if at is not None]
        return max(starts) + self.octet_count


class Register(Part):
    """A register of a list of registers: how many octets follow its number, and what they mean, if that is known."""

    size: int = Field(ge=0, le=64)
    value: Value | None = None

    @model_validator(mode="after")
    def _holds_its_value(self) -> Register:
        if self.value is not None and self.value.octet_count > self.size:
            raise ValueError(f"a value of {self.value.octet_count} octets in a register of {self.size}")
        return self


class MakersFormat(Table):
    """
    One format: `meters` are maker, version and device type ("TCH 69 80", * for any), `where` the telegram has it.

    `where`: "ci" behind a CI field of `ci` (the octets begin behind it), "data" behind DIF 0F, "record" inside a record
    whose value information is `vib`, "headers" for the headers of a compact frame alone.  `begins` are the beginnings
    that it must have one of, `from_ci` puts the CI field before the octets, `counted_header` passes over a header whose
    first octet counts the rest of it, `opened_by` names the cipher.  `unit_at` is where the VIF of all values marked ??
    stands, `units` are those that are known; `tens` are VIFs whose values with a `months_back` count tens.
    """

    certainty: Certainty
    where: Literal["ci", "data", "record", "headers"]
    meters: tuple[str, ...] = ()
    ci: OctetsOfEach = ()
    vib: Octets = b""
    begins: OctetsOfEach = ()
    size: int = Field(default=0, ge=0, le=255)
    from_ci: bool = False
    counted_header: bool = False
    opened_by: Literal["", "prios"] = ""
    unit_at: int | None = Field(default=None, ge=0, le=250)
    units: OctetsOfEach = ()
    tens: OctetsOfEach = ()
    set_day_at: int | None = Field(default=None, ge=0, le=250)
    values: tuple[Element, ...] = Field(default=(), max_length=FIELD_COUNT_MAX)
    registers_at: int = Field(default=0, ge=0, le=64)
    registers: dict[str, Register] = Field(default_factory=dict)
    headers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_one_kind(self) -> MakersFormat:
        if sum(map(bool, (self.values, self.registers, self.headers))) != 1:
            raise ValueError("a format has values, registers or headers, one of them")
        if (self.where == "headers") != bool(self.headers):
            raise ValueError('headers are of compact frames: where = "headers"')
        if (self.where == "ci") != bool(self.ci) or any(len(each) != 1 for each in self.ci):
            raise ValueError('ci: CI fields in hexadecimal such as "A0", with where = "ci" and only there')
        if (self.where == "record") != bool(self.vib):
            raise ValueError('vib: a value information in hexadecimal, with where = "record" and only there')
        if self.set_day_at is None and any(each.months_back is not None for each in self.values):
            raise ValueError("set_day_at: where does the day stand from which months are counted back?")
        for text in self.headers:
            split_headers(text)
        if self.where != "headers" and not self.meters:
            raise ValueError('whose meters send it? (meters, such as "TCH 69 80")')
        for meter in self.meters:
            if not _METER.fullmatch(meter):
                raise ValueError(f'meters: {meter!r} is not maker, version and type such as "TCH 69 80"')
        for number in self.registers:
            if not re.fullmatch(r"[0-9A-F]{2}", number):
                raise ValueError(f'registers: {number!r} is no octet in hexadecimal such as "0A"')
        if any(_UNIT_PLACE in each.record for each in self.values) and self.unit_at is None:
            raise ValueError("unit_at: where does the VIF stand?")
        return self

    @cached_property
    def size_min(self) -> int:
        """Fewest octets that hold every value."""
        places = [each.end for each in self.values]
        places += [at + 1 for at in (self.unit_at,) if at is not None]
        places += [at + 2 for at in (self.set_day_at,) if at is not None]
        return max([*places, self.registers_at, *map(len, self.begins)], default=0)

    def is_sent_by(self, address: DeviceAddress) -> bool:
        """Whether a meter of this address may send it."""
        maker = manufacturer_letters(address.manufacturer)
        version, medium = f"{address.version:02X}", f"{address.medium:02X}"
        named = {f"{maker} {v} {m}" for v in (version, "*") for m in (medium, "*")}
        return not named.isdisjoint(self.meters)


def split_headers(text: str) -> Layout:
    """The headers of a compact frame, one by one.  Raises ValueError for what is none."""
    octets, out, position = bytes.fromhex(text), [], 0
    while position < len(octets):
        start = position
        if octets[start] & 0x0F == 0x0F:  # the maker's data follow
            position = len(octets)
        else:
            try:
                _, position = take_header(octets, start)
            except RemoteProtocolError as error:
                raise ValueError(f"headers: {text} breaks off ({error.reason})") from None
        out.append(octets[start:position])
    return tuple(out)


@cache
def _by_name() -> Mapping[str, MakersFormat]:
    return shipped_tables(MakersFormat, "node.lmn.mbus.makers", "formats")


def shipped_formats() -> tuple[MakersFormat, ...]:
    """The formats of this package, in the order of their names."""
    return tuple(_by_name().values())


def find_format(name_or_file: str) -> MakersFormat:
    """A shipped format by its name, or a user's own out of a file; raises as `find_table`."""
    return find_table(MakersFormat, _by_name(), name_or_file)
