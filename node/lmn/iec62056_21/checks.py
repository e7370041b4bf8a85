"""Check sums and parity of readouts: the block check of ISO 1155, DSMR's CRC-16, even parity in bit 7."""

from __future__ import annotations


def block_check(data: bytes) -> int:
    """BCC: the exclusive or of all 7-bit characters after STX up to and with ETX (ISO 1155)."""
    check = 0
    for character in data:
        check ^= character
    return check & 0x7F


def _crc16_arc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC = _crc16_arc_table()


def crc16_arc(data: bytes) -> int:
    """CRC-16/ARC (polynomial x16+x15+x2+1, least significant bit first, start 0), as DSMR has it after the `!`."""
    crc = 0
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc


def with_even_parity(data: bytes) -> bytes:
    """What a 7E1 line puts on an 8-bit link: bit 7 makes the number of ones even.  `data` has 7-bit characters."""
    return bytes(c | (0x80 if c.bit_count() % 2 else 0) for c in data)
