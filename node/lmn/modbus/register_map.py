"""
What the registers of a Modbus meter mean, as data: shipped tables in `maps`, a user's own in the same form.

Modbus has no names: every maker has a table of its own, by address and type.  A table is a TOML file
(docs/reference/lmn.md, "Register maps"); addresses count from 0, as they stand on the wire, not from 40001.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, Literal

from pydantic import Field, model_validator

from node.lmn.tables import ObisField, Part, Table, UnitField, exact, find_table, shipped_tables

_FORMATS: Final[Mapping[str, tuple[str, int]]] = {
    "uint16": ("H", 1), "int16": ("h", 1), "uint32": ("I", 2), "int32": ("i", 2), "uint64": ("Q", 4), "int64": ("q", 4),
    "float32": ("f", 2), "float64": ("d", 4),
}  # fmt: skip
_ADDRESS_MAX: Final = 0xFFFF


class Register(Part):
    """One value: `size` registers from `address` on; without an `obis` code it has its `name` in the record only."""

    address: int = Field(ge=0, le=_ADDRESS_MAX)
    type: Literal["uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "text"]
    size: int | None = Field(default=None, ge=1, le=64)
    name: str = ""
    obis: ObisField = None
    scaler: int = Field(default=0, ge=-10, le=10)
    unit: UnitField = None
    role: Literal["meter-number"] | None = None

    @model_validator(mode="after")
    def _has_a_size(self) -> Register:
        if (self.type == "text") != (self.size is not None):
            raise ValueError("size= is the number of registers of a text, and of nothing else")
        if self.address + self.count > _ADDRESS_MAX + 1:
            raise ValueError("it ends behind the last address, 65535")
        return self

    @property
    def count(self) -> int:
        """How many registers the value takes."""
        return self.size if self.size is not None else _FORMATS[self.type][1]

    def value(self, words: Sequence[int], word_order: str) -> tuple[int | str | None, int]:
        """The value in `count` registers as mantissa and power of ten, or its text; None for what is no number."""
        ordered = words if word_order == "big" else words[::-1]
        octets = b"".join(word.to_bytes(2, "big") for word in ordered)
        if self.type == "text":
            return octets.rstrip(b"\0 ").decode("ascii", "replace") or None, 0
        (number,) = struct.unpack(f">{_FORMATS[self.type][0]}", octets)
        value, shift = exact(number)
        return value, self.scaler + shift


class RegisterMap(Table):
    """The registers of one kind of meter: by which function they are read, and which word of a value comes first."""

    table: Literal["holding", "input"] = "holding"
    word_order: Literal["big", "little"] = "big"
    registers: tuple[Register, ...] = Field(min_length=1, max_length=500)


@cache
def shipped_maps() -> Mapping[str, RegisterMap]:
    """The tables of this package by their names."""
    return shipped_tables(RegisterMap, "node.lmn.modbus", "maps")


def find_map(name_or_file: str) -> RegisterMap:
    """A shipped table by its name, or a user's own out of a file; raises as `find_table`."""
    return find_table(RegisterMap, shipped_maps(), name_or_file, ("sunspec",))
