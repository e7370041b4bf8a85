"""
The fixed data structure (EN 1434-3, CI 73): two counters, one unit code each, of meters from the first years.

Sixteen octets: number, access number, status, medium and units, two counters.  The medium is split over the top two
bits of both unit octets; the status says whether the counters are BCD or binary.  There is no manufacturer, so the
device id has none either.

The status counts its bits from the least significant one, as the variable structure's does (0 binary, 1 stored at a
fixed date, 2 power low, 3 permanent error, 4 temporary error, the rest the manufacturer's).  libmbus and what came
out of it take the top two bits for the first two.  Where the two readings contradict each other about the coding, the
octets are kept and no number comes out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.status import PERMANENT_ERROR, status_word
from node.lmn.mbus.values import bcd
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

_BINARY: Final = 0x01
_BINARY_ELSEWHERE: Final = 0x80
_STORED_AT_DATE: Final = 0x02 | 0x40  # a stored value taken for the present one would be billed
_NOT_STATUS: Final = 0x03  # coding and date: in the status word these bits are the application's state
_SAME_BUT_HISTORIC: Final = 0x3E

# Unit codes (EN 1434-3 table of units): first code, how many, quantity, power of ten of the first, DLMS unit.
_ROWS: Final = (
    (0x02, 9, "energy", 0, 30), (0x0B, 9, "energy", 3, 25), (0x14, 9, "power", 0, 27), (0x1D, 9, "power", 3, 26),
    (0x26, 9, "volume", -6, 13), (0x2F, 9, "volume flow", -6, 15),
)  # fmt: skip
_UNITS: Final = {
    first + step: (quantity, scaler + step, unit)
    for first, count, quantity, scaler, unit in _ROWS
    for step in range(count)
} | {0x38: ("temperature", -3, 9), 0x39: ("heat cost allocation", 0, 255)}  # fmt: skip

# Medium of the fixed structure to device type of the variable one, where the two differ.
_MEDIA: Final = {0x0: 0x00, 0x9: 0x03, 0xA: 0x04, 0xB: 0x06, 0xC: 0x07, 0xD: 0x08, 0xE: 0x09, 0xF: 0x0A}


def fixed_readings(data: bytes, received_at: datetime | None = None) -> list[Reading]:
    """The two counters of a fixed data structure.  Raises RemoteProtocolError where it is not 16 octets."""
    if len(data) != 16:
        raise RemoteProtocolError("fixed_data_size", "the fixed structure has 16 octets", offset=0)
    status, first, second = data[5], data[6], data[7]
    medium = (first >> 6 & 3) | (second >> 6 & 3) << 2
    address = DeviceAddress(0, data[3::-1].hex().upper(), 0, _MEDIA.get(medium, medium))
    out = []
    binary = bool(status & _BINARY)
    contradictory = bool(status & _BINARY_ELSEWHERE) and not binary
    unit_codes = (first & 0x3F, second & 0x3F)
    for index, code in enumerate(unit_codes):
        historic = code == _SAME_BUT_HISTORIC
        octets = data[8 + 4 * index : 12 + 4 * index]
        value = None if contradictory else int.from_bytes(octets, "little", signed=True) if binary else bcd(octets)
        quantity, scaler, unit = _UNITS.get(unit_codes[0] if historic else code, ("unknown", 0, None))
        record: dict[str, Any] = {
            "function": "instantaneous", "storage": 1 if historic or status & _STORED_AT_DATE else 0,
            "tariff": 0, "subunit": 0, "quantity": quantity, "counter": index + 1, "unit_code": code,
        }  # fmt: skip
        if value is None:
            record["raw"] = octets.hex()
        faulty = value is None or bool(status & PERMANENT_ERROR)
        out.append(
            Reading(
                str(address), _obis(address.medium, quantity, record["storage"]), value, scaler, unit,
                status_word(status & ~_NOT_STATUS), None, None, received_at,
                Quality.METER_ERROR if faulty else Quality.VALID, record,
            )
        )  # fmt: skip
    return out


def _obis(medium: int, quantity: str, storage: int) -> Obis | None:
    group_a, c, d = {
        (0x02, "energy"): (1, 1, 8), (0x04, "energy"): (6, 1, 0), (0x04, "volume"): (6, 2, 0),
        (0x07, "volume"): (8, 1, 0), (0x06, "volume"): (9, 1, 0), (0x03, "volume"): (7, 3, 0),
        (0x08, "heat cost allocation"): (4, 1, 0),
    }.get((medium, quantity), (0, 0, 0))  # fmt: skip
    if group_a in (0, 1, 7):
        return Obis(group_a, 0, c, d, 0, 255) if group_a and not storage else None
    return Obis(group_a, 0, c, 2 if storage else d, 0, 255)
