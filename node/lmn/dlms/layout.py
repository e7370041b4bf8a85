"""
Lists that name nothing: what their elements mean, by place or by code, as data.

Some meters push bare values whose place says everything, others pairs of code and value whose scale is written in a
manual only.  What they mean stands in TOML files, shipped ones in `node/lmn/dlms/layouts`, a user's own in the same
form (docs/reference/lmn.md, "Layouts").  A layout is chosen because a profile or command names it, because the list
names itself, or by its shape: the count and the types of its elements, never the count alone.

How sure a layout is decides what its values are good for where only the shape has chosen it: from a maker's document,
or where independent sources agree, they stay as good as their telegram; otherwise they are not for billing, until
somebody who knows the meter names the layout.  So few elements that any meter may push the same are no shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Final, Literal

from pydantic import Field, model_validator

from node.lmn.dlms.axdr import INTEGER_TYPES, Data, Type
from node.lmn.dlms.clock import CosemDateTime
from node.lmn.dlms.values import TEXT_TYPES, reading_of
from node.lmn.tables import Certainty, ObisField, Part, Table, UnitField, find_table, shipped_tables
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

_TYPES: Final = {kind.name.lower().replace("_", "-"): frozenset({kind}) for kind in Type if kind is not Type.DONT_CARE}
_GROUPS: Final = {"text": TEXT_TYPES, "number": INTEGER_TYPES - {Type.BCD}, "any": frozenset(Type)}
_ACCEPTED: Final[Mapping[str, frozenset[Type]]] = {**_TYPES, **_GROUPS}
_ROLE_SIZES: Final = {"clock": 12, "date": 5, "time": 4}  # of COSEM's date_time, date and time
_SHAPE_MIN: Final = 4  # elements; one number alone would pass for the power of whatever meter sends it
_METER_NUMBER: Final = Obis(0, 0, 96, 1, 0, 255)


class Scale(Part):
    """The power of ten and the unit of a value."""

    scaler: int = Field(default=0, ge=-10, le=10)
    unit: UnitField = None


class Element(Scale):
    """One place of a list: what type stands there, and what it means; without a code or role nothing is certain."""

    type: str
    size: int | None = Field(default=None, ge=0, le=255)
    obis: ObisField = None
    role: Literal["clock", "date", "time", "meter-number"] | None = None

    @model_validator(mode="after")
    def _is_known(self) -> Element:
        if self.type not in _ACCEPTED:
            raise ValueError(f"no type {self.type!r} (expected {', '.join(_ACCEPTED)})")
        if self.unit is not None and self.obis is None:
            raise ValueError("a unit without an obis code")
        return self

    def accepts(self, item: Data) -> bool:
        """Whether a value can stand in this place."""
        if item.type not in _ACCEPTED[self.type]:
            return False
        return self.octets is None or (isinstance(item.value, (bytes, str)) and len(item.value) == self.octets)

    @property
    def octets(self) -> int | None:
        """How many octets stand there, where that is certain."""
        return self.size if self.role is None else _ROLE_SIZES.get(self.role, self.size)


class Layout(Table):
    """
    A list by place (`elements`), or the scales of a list of pairs by the code's groups C and D (`pairs`).

    `identification` is how the list's own name begins; a list by place then has it in its first element.
    """

    certainty: Certainty
    identification: str = ""
    elements: tuple[Element, ...] = ()
    pairs: dict[str, Scale] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_one_kind(self) -> Layout:
        if bool(self.elements) == bool(self.pairs):
            raise ValueError("a layout has elements, or pairs")
        if self.pairs and not self.identification:
            raise ValueError("pairs need an identification: their codes fit any list")
        for groups in self.pairs:
            if len(parts := groups.split(".")) != 2 or not all(part.isdecimal() for part in parts):
                raise ValueError(f"pairs: {groups!r} is no code (expected its groups C.D such as 1.8)")
        return self

    def scale(self, obis: Obis) -> Scale | None:
        """The scale of a pair's code."""
        return self.pairs.get(f"{obis.c}.{obis.d}")

    def deviation(self, items: Sequence[Data]) -> str:
        """Why a list is not of this layout, in words without its values; empty where it is."""
        if len(items) != len(self.elements):
            return f"{len(items)} elements where {len(self.elements)} were expected"
        for index, (element, item) in enumerate(zip(self.elements, items, strict=True)):
            if not element.accepts(item):
                found, size = (
                    item.type.name.lower().replace("_", "-"),
                    f" of {element.size} octets" if element.size else "",
                )
                return f"element {index} is {found} where {element.type}{size} was expected"
        if self.identification and not identifies(items[0], self.identification):
            return f"element 0 does not begin with {self.identification}"
        return ""


@dataclass(frozen=True, slots=True)
class Placed:
    """What a layout makes of a list: its readings, the meter's number and time where the list has them."""

    readings: list[Reading]
    device: str = ""
    when: datetime | None = None


def _shipped() -> tuple[Layout, ...]:
    return shipped_layouts()


@dataclass(frozen=True, slots=True)
class LayoutBook:
    """
    The layouts that lists are looked up in.

    `named` are those that a profile or command names: they go before the shipped ones, and where any is named no other
    is chosen by shape alone.
    """

    named: tuple[Layout, ...] = ()
    shipped: tuple[Layout, ...] = field(default_factory=_shipped)

    def place(self, items: Sequence[Data], template: Reading) -> Placed | None:
        """The readings of a list by place; None where no layout or more than one fits it."""
        for layout in (*self.named, *(each for each in self.shipped if each.identification)):
            if layout.elements and not layout.deviation(items):
                return _place(layout, items, template)
        if self.named:
            return None
        fitting = [each for each in self.shipped if each.elements and not each.identification]
        fitting = [each for each in fitting if not each.deviation(items)]
        if len(fitting) != 1:
            return None
        is_sure = len(items) >= _SHAPE_MIN and fitting[0].certainty not in (Certainty.ONE, Certainty.SEEN)
        if not is_sure and template.quality is Quality.VALID:
            template = replace(template, quality=Quality.NOT_FOR_BILLING)
        return _place(fitting[0], items, template)

    def pairs(self, text: Data) -> Layout | None:
        """The layout of pairs whose list is identified by this value."""
        pairs = (each for each in (*self.named, *self.shipped) if each.pairs)
        return next((each for each in pairs if identifies(text, each.identification)), None)

    def deviation(self, items: Sequence[Data]) -> str:
        """Why a list is of none of the named layouts; empty where none is named or one of them is for pairs."""
        if not self.named or any(layout.pairs for layout in self.named):
            return ""
        return "; ".join(f"{layout.name}: {layout.deviation(items)}" for layout in self.named)


def identifies(item: Data, identification: str) -> bool:
    """Whether a value is text that begins so, in letters of either case."""
    if item.type not in TEXT_TYPES:
        return False
    text = item.value if isinstance(item.value, str) else item.value.decode("latin-1")
    return text.upper().startswith(identification.upper())


def _place(layout: Layout, items: Sequence[Data], template: Reading) -> Placed:
    readings, device, when, date, time = [], "", None, b"", b""
    for index, (element, item) in enumerate(zip(layout.elements, items, strict=True)):
        obis = element.obis
        match element.role:
            case "meter-number":
                obis = obis or _METER_NUMBER
            case "clock":
                when = CosemDateTime.from_bytes(item.value).to_datetime()
            case "date":
                date = item.value
            case "time":
                time = item.value
        reading = reading_of(item, obis, template, element.scaler, element.unit)
        if element.role == "meter-number" and isinstance(reading.value, str) and reading.value.strip():
            device = reading.value.strip()
        if obis is None and item.type is Type.NULL:
            continue
        readings.append(replace(reading, record={"layout": layout.name, "index": index}))
    if date and time:
        when = CosemDateTime.from_bytes(date + time + b"\x80\x00\xff").to_datetime()
    return Placed(readings, device, when)


@cache
def _by_name() -> Mapping[str, Layout]:
    return shipped_tables(Layout, "node.lmn.dlms", "layouts")


def shipped_layouts() -> tuple[Layout, ...]:
    """The layouts of this package, in the order of their names."""
    return tuple(_by_name().values())


def find_layout(name_or_file: str) -> Layout:
    """A shipped layout by its name, or a user's own out of a file; raises as `find_table`."""
    return find_table(Layout, _by_name(), name_or_file)
