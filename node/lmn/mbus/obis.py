"""
From M-Bus records to OBIS codes, by medium (EN 13757-1 clause 13, OMS volume 2 annex A).

The same VIF means another register in each medium: energy is 1-0:1.8.0 for electricity, 6-0:1.0.0 for heat.  Only
what is certain is mapped; a record with an unknown modifier, of another subunit or with a function that the code
cannot say has no OBIS code and keeps its DIF and VIF names in the reading's record instead: no code is better than
a wrong one on a bill.

The annex A of OMS is not among the documents at hand.  Its rules as used here come from EN 13757-1's value groups
(public tables of group A 4 to 9: group D 0 current, 2 set date, 4 minimum, 5 maximum; group E the tariff) and from
the mapping that jMBus publishes; the electricity codes are those of DLMS UA 1000-1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from node.lmn.mbus.records import Header
from protocol.metering.obis import Obis

# Group A by device type.
_GROUP_A: Final = {
    0x02: 1, 0x08: 4, 0x0A: 5, 0x0B: 5, 0x04: 6, 0x0C: 6, 0x0D: 6, 0x03: 7, 0x07: 8, 0x16: 8, 0x17: 8, 0x06: 9, 0x15: 9,
}  # fmt: skip

# Electricity: (quantity, direction) -> C, D of the current value; None is the plain record.
_ELECTRICITY: Final = {
    ("energy", None): (1, 8), ("energy", "forward"): (1, 8), ("energy", "backward"): (2, 8),
    ("energy", "absolute"): (15, 8),
    ("energy", "import minus export"): (16, 8),
    ("reactive energy", None): (3, 8), ("reactive energy", "forward"): (3, 8), ("reactive energy", "backward"): (4, 8),
    ("reactive energy", "quadrant 1"): (5, 8), ("reactive energy", "quadrant 2"): (6, 8),
    ("reactive energy", "quadrant 3"): (7, 8), ("reactive energy", "quadrant 4"): (8, 8),
    ("apparent energy", None): (9, 8), ("apparent energy", "forward"): (9, 8), ("apparent energy", "backward"): (10, 8),
    ("power", None): (1, 7), ("power", "forward"): (1, 7), ("power", "backward"): (2, 7),
    ("power", "absolute"): (15, 7),
    ("power", "import minus export"): (16, 7),
    ("reactive power", None): (3, 7), ("reactive power", "forward"): (3, 7), ("reactive power", "backward"): (4, 7),
    ("apparent power", None): (9, 7), ("frequency", None): (14, 7), ("voltage", None): (12, 7),
    ("current", None): (11, 7),
}  # fmt: skip
_PHASE_OFFSET: Final = {"L1": 20, "L2": 40, "L3": 60}
_PHASED: Final = {1: 1, 2: 2, 3: 3, 4: 4, 9: 9, 10: 10, 11: 11, 12: 12, 15: 15, 16: 16}

# Thermal and volume meters: quantity -> C.
_THERMAL: Final = {
    "energy": 1, "volume": 2, "power": 8, "volume flow": 9, "flow temperature": 10, "return temperature": 11,
    "temperature difference": 12,
}  # fmt: skip
_WATER: Final = {"volume": 1, "volume flow": 2}
_CUMULATIVE: Final = frozenset({"energy", "volume", "heat cost allocation"})
_BASE_C: Final = {"uncorrected": 0, "base conditions": 2}


@lru_cache(maxsize=4096)
def obis_of(medium: int, header: Header) -> Obis | None:
    """The OBIS code of a record of a meter of device type `medium`, or None where there is no certain one."""
    value, data = header.value, header.data
    if value.record_error or value.profile or not value.understood:
        return None
    if value.quantity == "fabrication number" and not (value.modifiers or data.storage or data.subunit):
        return Obis(0, 0, 96, 1, 0, 255)
    if value.quantity == "error flags" and not (value.modifiers or data.storage or data.subunit or data.function):
        return Obis(0, 0, 97, 97, 0, 255)
    group_a = _GROUP_A.get(medium)
    if group_a is None or data.subunit or data.function == 3 or data.tariff > 63:
        return None
    if value.unit is None:
        return None
    if group_a == 1:
        return _electricity(header)
    if group_a == 7:
        return _gas(header)
    if group_a == 4:
        c = 1 if value.quantity == "heat cost allocation" and not value.modifiers else None
    elif value.modifiers:
        c = None
    else:
        c = (_THERMAL if group_a in (5, 6) else _WATER).get(value.quantity)
    d = _value_type(header)
    if c is None or d is None:
        return None
    return Obis(group_a, 0, c, d, data.tariff, 255)


def _value_type(header: Header) -> int | None:
    """Group D of EN 13757-1: 0 now, 2 at the set date (storage 1), 4 lowest, 5 highest; later storages have none."""
    data = header.data
    if data.storage > 1:
        return None
    if data.function:
        return {1: 5, 2: 4}[data.function] if data.storage == 0 else None
    if data.storage == 0:
        return 0
    return 2 if header.value.quantity in _CUMULATIVE else None


def _electricity(header: Header) -> Obis | None:
    data, value = header.data, header.value
    phases = [name for name in value.modifiers if name in _PHASE_OFFSET]
    others = [name for name in value.modifiers if name not in _PHASE_OFFSET]
    if len(phases) > 1 or len(others) > 1 or data.storage or data.function == 2:
        return None
    found = _ELECTRICITY.get((value.quantity, others[0] if others else None))
    if found is None:
        return None
    c, d = found
    if phases:
        if c not in _PHASED:
            return None
        c += _PHASE_OFFSET[phases[0]]
    if data.function == 1:
        if d != 7:
            return None
        d = 6
    return Obis(1, 0, c, d, data.tariff if d in (6, 8) else 0, 255) if d in (6, 8) or not data.tariff else None


def _gas(header: Header) -> Obis | None:
    data, value = header.data, header.value
    if value.quantity != "volume" or data.storage or data.function or len(value.modifiers) > 1:
        return None
    d = _BASE_C.get(value.modifiers[0]) if value.modifiers else 0
    return None if d is None else Obis(7, 0, 3, d, data.tariff, 255)
