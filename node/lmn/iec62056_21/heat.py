"""
Heat meters on IEC 62056-21: the codes of EN 1434-3, two parts each, which electricity gives other meanings.

`6.8` is heat energy here and reactive energy of quadrant 2 there.  A readout is a heat meter's where an address of two
parts begins with 6 or 9, unless its unit is one that only electricity has; then its addresses of three parts in these
groups (`6.8.1`, the energy of tariff 1) are heat codes too.  The present counters and their tariffs get OBIS codes
(EN 13757-1, group A = 6); maxima, set days (`*01`) and identifications have none that is certain: they keep their
address and what the standard calls them.  Two values joined by `&` are flow and return.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from node.lmn.iec62056_21.datasets import DataSet
from protocol.metering.obis import Obis

MEDIUM_HEAT: Final = 6
_CODE: Final = re.compile(r"(?P<c>[69])\.(?P<d>\d{1,2})(?:\.(?P<e>\d{1,2}))?(?:[*&](?P<f>\d{1,3}))?")
_ELECTRICAL_UNIT: Final = re.compile(r"[kMG]?(?:var|va)h?", re.IGNORECASE)
_QUANTITIES: Final[dict[tuple[int, int], tuple[str, ...]]] = {
    (6, 4): ("power",),
    (6, 6): ("power, maximum",),
    (6, 8): ("energy",),
    (6, 26): ("volume",),
    (6, 27): ("volume flow",),
    (6, 29): ("temperature, flow",),
    (6, 31): ("operating time",),
    (6, 32): ("fault time",),
    (6, 33): ("flow, maximum",),
    (6, 35): ("measuring period",),
    (6, 36): ("set day",),
    (9, 4): ("flow temperature, maximum", "return temperature, maximum"),
    (9, 20): ("property number",),
    (9, 21): ("device number",),
    (9, 24): ("nominal flow",),
    (9, 36): ("date and time",),
}
_CLOCK: Final = "9.36"
_COUNTERS: Final = {(6, 8): 1, (6, 26): 2}  # OBIS group C of the present counters (EN 13757-1, heat)
_UNITS: Final = {"C": "°C", "m": "min"}  # Celsius and minutes; elsewhere coulomb and metres


def is_heat_meter(sets: Sequence[DataSet]) -> bool:
    """Whether a readout speaks in heat meter codes."""
    return any(
        (match := _CODE.fullmatch(item.address.strip())) is not None
        and match["e"] is None
        and not any(unit is not None and _ELECTRICAL_UNIT.fullmatch(unit.strip()) for _, unit in item.values)
        for item in sets
    )


def is_heat_code(address: str) -> bool:
    """Whether an address of a heat meter's readout is one of the codes above."""
    return _CODE.fullmatch(address.strip()) is not None


def values_of(item: DataSet) -> list[tuple[str, str | None]]:
    """The values of a set, those joined by `&` apart where each has its unit; with units that all readouts know."""
    values: list[tuple[str, str | None]] = []
    for text, unit in item.values:
        parts = f"{text}*{unit}".split("&") if unit is not None else []
        for number, star, name in [part.partition("*") for part in parts] or [(text, "", "")]:
            values.append((number, _UNITS.get(name, name) if star else None))
    return values


def name_of(address: str, index: int) -> tuple[Obis | None, dict[str, str | int]]:
    """The OBIS code of the value at `index` of a set, if there is a certain one, and what to note in its record."""
    match = _CODE.fullmatch(address.strip())
    record: dict[str, str | int] = {"address": address.strip()}
    if match is None:
        return None, record
    names = _QUANTITIES.get((int(match["c"]), int(match["d"])), ())
    if index < len(names):
        record["quantity"] = names[index]
    if match["f"] is not None:
        record["storage"] = int(match["f"])
    c, tariff = _COUNTERS.get((int(match["c"]), int(match["d"]))), int(match["e"] or 0)
    if c is None or index or match["f"] is not None or (tariff and c != 1):
        return None, record
    return Obis(MEDIUM_HEAT, 0, c, 0, tariff, 255), record


def clock_of(sets: Sequence[DataSet]) -> str | None:
    """The meter's clock, `9.36(YYYY-MM-DD&hh:mm:ss)`, as one stamp; None where it has none."""
    texts = (item.values[0][0] for item in sets if item.is_heat and item.address.strip() == _CLOCK)
    return next((text.replace("&", " ") for text in texts), None)
