"""
The two check sums of SML, at C speed.

Both are CRCs over the polynomial 0x1021 with bits reflected.  The standard library has that polynomial only
unreflected (`binascii.crc_hqx`), so the bytes are mirrored before and the sum after: three C calls instead of a
Python step per byte, which would cost more than all the rest of decoding a frame.

X-25 is what SML asks for, written low byte first.  Some meters (Holley DTZ541 among them) compute Kermit instead,
which starts at 0 and is not inverted, and write its high byte first.  Both functions return the number that the two
bytes on the wire make when read high byte first, so that callers compare one number with another.
"""

from __future__ import annotations

from binascii import crc_hqx

_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def x25(data: bytes) -> int:
    """CRC-16/X-25 (DIN VDE 0418-63-9 clause 8.1) of `data`, its bytes swapped."""
    crc = crc_hqx(data.translate(_MIRROR), 0xFFFF)
    return (_MIRROR[crc >> 8] << 8 | _MIRROR[crc & 0xFF]) ^ 0xFFFF


def kermit(data: bytes) -> int:
    """CRC-16/KERMIT of `data`."""
    crc = crc_hqx(data.translate(_MIRROR), 0)
    return _MIRROR[crc & 0xFF] << 8 | _MIRROR[crc >> 8]


def matches(data: bytes, crc: int) -> bool:
    """Whether `crc` is either sum of `data`."""
    return crc == x25(data) or crc == kermit(data)
