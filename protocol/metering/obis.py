"""OBIS codes: what a register measures, as six numbers A-B:C.D.E*F (IEC 62056-61, DLMS UA 1000-1 clause 7)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_TEXT = re.compile(
    r"^(?:(?P<a>\d{1,3})-(?P<b>\d{1,3}):)?(?P<c>\d{1,3}|[CFLP])\.(?P<d>\d{1,3})(?:\.(?P<e>\d{1,3}))?(?:[*&](?P<f>\d{1,3}))?$"
)
_NET_QUANTITIES: Final = frozenset(
    {15, 16, 35, 36, 55, 56, 75, 76}
)  # sums of both directions: 16 and its phases may fall
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


def is_cumulative(obis: Obis) -> bool:
    """
    Whether a present register can only rise (DLMS UA 1000-1 clause 7.5: group D 8 is the integral since the start).

    Electricity D = 8 but for net sums; the counters of heat, cold, gas and water; the last value of an M-Bus channel.
    Registers of closed billing periods (F below 255) change at each closing and are none.
    """
    if obis.f != 255:
        return False
    if obis.a == 1:
        return obis.d == 8 and obis.c <= 80 and obis.c not in _NET_QUANTITIES
    if obis.a in {5, 6, 7, 8, 9}:
        counters = {1, 2, 3} if obis.a in {5, 6} else {1, 3}  # C = 2 is the volume of a heat meter, a flow of water
        return obis.c in counters and obis.d <= 3
    return obis.a == 0 and obis.b > 0 and (obis.c, obis.d) == (24, 2)
