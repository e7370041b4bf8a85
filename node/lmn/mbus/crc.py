"""The check sum of wireless datagrams (EN 13757-4), of compact frames (EN 13757-3) and of payloads inside them."""

from __future__ import annotations

from typing import Final


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        register = byte << 8
        for _ in range(8):
            register = (register << 1 ^ 0x3D65 if register & 0x8000 else register << 1) & 0xFFFF
        table.append(register)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc16(data: bytes) -> int:
    """CRC-16/EN-13757: polynomial 3D65, initial value 0, complemented."""
    register = 0
    for byte in data:
        register = (register << 8 & 0xFF00) ^ _CRC_TABLE[register >> 8 ^ byte]
    return register ^ 0xFFFF
