"""
Registers as M-Bus records: what a meter's firmware does, for the wired and the wireless simulated meters.

A register is (OBIS code, mantissa, power of ten, DLMS unit).  The VIF tables know only certain powers of ten per unit;
where one does not fit, a multiplicative correction VIFE makes it fit, as the standard means it to.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from node.lmn.mbus.records import encode_record
from protocol.metering.obis import Obis

Register = tuple[Obis, int, int, int]
Registers = Callable[[datetime], list[Register]]

# Unit -> (octets of VIF and VIFE with the lowest code, its power of ten, how many codes).
_VIFS: Final = {
    30: (b"\x00", -3, 8), 25: (b"\x08", 0, 8), 13: (b"\x10", -6, 8), 27: (b"\x28", -3, 8), 15: (b"\x38", -6, 8),
    35: (b"\xfd\x40", -9, 16), 33: (b"\xfd\x50", -12, 16), 44: (b"\xfb\x2c", -3, 4), 32: (b"\xfb\x02", 3, 2),
    31: (b"\xfb\x04", 3, 2), 29: (b"\xfb\x14", 0, 4), 28: (b"\xfb\x34", 0, 4), 24: (b"\x68", -3, 4),
    255: (b"\x6e", 0, 1),
    52: (b"\x60", -3, 4),
}  # fmt: skip
_TEMPERATURES: Final = {10: b"\x58", 11: b"\x5c"}  # group C of heat: flow, return
_DIFFERENCE_C: Final = 16
_BACKWARD_C: Final = frozenset({2, 4, 10})


def register_record(register: Register) -> bytes:
    """
    One record.

    Raises ValueError for a unit or an OBIS code that the tables cannot say.
    """
    obis, value, scaler, unit = register
    if unit == 9:
        vif, lowest, count = _TEMPERATURES[obis.c], -3, 4
    elif unit in _VIFS:
        vif, lowest, count = _VIFS[unit]
    else:
        raise ValueError(f"no VIF for unit {unit}")
    step = min(max(scaler - lowest, 0), count - 1)
    correction = scaler - lowest - step
    vib = bytearray(vif)
    vib[-1] += step
    if correction:
        if not -6 <= correction <= 1:
            raise ValueError(f"no VIF for unit {unit} at 10^{scaler}")
        vib[-1] |= 0x80
        vib.append(0x76 + correction)
    if obis.a == 1:
        if obis.c in _BACKWARD_C:
            vib[-1] |= 0x80
            vib.append(0x3C)
        if obis.c == _DIFFERENCE_C:
            vib[-1] |= 0x80
            vib += b"\xfc\x0c"  # import minus export
        phase, c = divmod(obis.c, 20)
        if obis.d == 7 and phase in (1, 2, 3) and c in (1, 11, 12):
            vib[-1] |= 0x80
            vib += bytes([0xFC, phase])
    field, size = next((f, s) for f, s in ((2, 2), (4, 4), (6, 6), (7, 8)) if abs(value) < 1 << (8 * s - 1))
    set_date = obis.d == 2 and obis.a not in (1, 7)
    return encode_record(
        bytes(vib), value.to_bytes(size, "little", signed=True), field, storage=1 if set_date else 0, tariff=obis.e
    )  # fmt: skip


def clock_record(now: datetime) -> bytes:
    """The meter's clock as type F."""
    year = now.year - 2000
    octets = bytes([now.minute, now.hour, now.day | (year & 7) << 5, now.month | (year >> 3) << 4])
    return encode_record(b"\x6d", octets, 4)
