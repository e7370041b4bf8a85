"""OBIS codes: what a register measures, as six numbers A-B:C.D.E*F (IEC 62056-61, DLMS UA 1000-1 clause 7)."""

from __future__ import annotations

import re
from typing import NamedTuple

_TEXT = re.compile(
    r"^(?:(?P<a>\d{1,3})-(?P<b>\d{1,3}):)?(?P<c>\d{1,3}|[CFLP])\.(?P<d>\d{1,3})(?:\.(?P<e>\d{1,3}))?(?:[*&](?P<f>\d{1,3}))?$"
)
_LETTERS = {"C": 96, "F": 97, "L": 98, "P": 99}  # IEC 62056-61 abbreviations used in readouts


class Obis(NamedTuple):
    """One OBIS code; orders and hashes as the tuple that it is."""

    a: int
    b: int
    c: int
    d: int
    e: int
    f: int

    @classmethod
    def from_bytes(cls, data: bytes) -> Obis:
        """Six bytes A..F.  Raises ValueError for any other length."""
        if len(data) != 6:
            raise ValueError(f"an OBIS code has 6 bytes, these are {len(data)}")
        return cls(*data)

    @classmethod
    def parse(cls, text: str, *, a: int = 1, b: int = 0) -> Obis:
        """
        Read `1-0:1.8.0*255`; missing groups A and B take the arguments, E becomes 0 and F 255.

        Raises ValueError for anything else.
        """
        match = _TEXT.match(text)
        if match is None:
            raise ValueError(f"not an OBIS code: {text[:40]!r} (expected the form 1-0:1.8.0*255)")
        group = match.groupdict()
        c = _LETTERS[group["c"]] if group["c"] in _LETTERS else int(group["c"])
        numbers = (
            int(group["a"] or a), int(group["b"] or b), c,
            int(group["d"]), int(group["e"] or 0), int(group["f"] or 255),
        )  # fmt: skip
        if max(numbers) > 255:
            raise ValueError(f"a group over 255 in OBIS code {text[:40]!r}")
        return cls(*numbers)

    def to_bytes(self) -> bytes:
        """Six bytes A..F."""
        return bytes(self)

    def __str__(self) -> str:
        return f"{self.a}-{self.b}:{self.c}.{self.d}.{self.e}*{self.f}"
