"""
Text to exact numbers: `000004.426*kWh` is 4426 · 10^0 Wh.

The decimals a meter sends become the scaler, the unit's prefix is added to it; nothing passes through a float.
A unit that the DLMS table lacks stays text beside the number, so that nothing is guessed and nothing is lost.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBER = re.compile(r"(?P<sign>[+-]?)(?P<whole>\d{1,24})(?:\.(?P<fraction>\d{1,24}))?")
_PREFIXES = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "T": 12, "m": -3, "c": -2}
# Meters write reactive units in every mixture of cases; only the prefix's case has a meaning.
_ELECTRICAL = {
    "wh": 30, "w": 27, "varh": 32, "var": 29, "vah": 31, "va": 28, "v": 35, "a": 33, "hz": 44, "ah": 57,
    "j": 25, "j/h": 26, "bar": 24, "pa": 23,
}  # fmt: skip
_PLAIN = {
    "m3": (13, 0), "m³": (13, 0), "m^3": (13, 0), "dm3": (13, -3), "m3/h": (15, 0), "m³/h": (15, 0), "m3ph": (15, 0),
    "l": (19, 0), "l/h": (15, -3),
    "°C": (9, 0), "degC": (9, 0), "K": (52, 0), "s": (7, 0), "min": (6, 0), "h": (5, 0), "d": (4, 0), "%": (56, 0),
    "kg": (20, 0), "°": (8, 0), "deg": (8, 0), "dBm": (70, 0), "Ohm": (38, 0), "Ω": (38, 0),
}  # fmt: skip


class Quantity(NamedTuple):
    """value · 10^scaler in the DLMS unit `unit`; `unit_text` is set where the text named a unit the table lacks."""

    value: int
    scaler: int
    unit: int | None
    unit_text: str | None


def unit_of(text: str) -> tuple[int, int] | None:
    """The DLMS unit code and the power of ten that the prefix adds; None for a unit that is not in the table."""
    text = text.strip()
    if text in _PLAIN:
        return _PLAIN[text]
    for prefix, scaler in _PREFIXES.items():
        if text.startswith(prefix) and text[len(prefix) :].lower() in _ELECTRICAL:
            return _ELECTRICAL[text[len(prefix) :].lower()], scaler
    return None


def quantity(number: str, unit: str | None) -> Quantity | None:
    """Read a number in decimal text with its unit's text.  None where the text is no number."""
    match = _NUMBER.fullmatch(number.strip())
    if match is None:
        return None
    fraction = match["fraction"] or ""
    value = int(match["sign"] + match["whole"] + fraction)
    if unit is None:
        return Quantity(value, -len(fraction), None, None)
    known = unit_of(unit)
    if known is None:
        return Quantity(value, -len(fraction), None, unit)
    return Quantity(value, known[1] - len(fraction), known[0], None)


def decimal_text(value: int, scaler: int, *, digits: int = 6) -> str:
    """The other direction, for simulated meters: value · 10^scaler with at least `digits` digits before the point."""
    if scaler >= 0:
        return f"{value * 10**scaler:0{digits}d}"
    sign, number = ("-" if value < 0 else ""), f"{abs(value):0{digits - scaler}d}"
    return f"{sign}{number[:scaler]}.{number[scaler:]}"
