"""How numbers lie in BLOBs: 64-bit words, sums of such words, bitmaps of ring positions; all little-endian."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_SUM_SIZE = 16  # a sum of 2^64 signed words of 64 bits fits


def pack_words(words: Sequence[int]) -> bytes:
    """Words mod 2^64 as 64-bit little-endian."""
    return struct.pack(f"<{len(words)}Q", *words)


def unpack_words(data: bytes) -> tuple[int, ...]:
    """The inverse of `pack_words`: unsigned."""
    return struct.unpack(f"<{len(data) // 8}Q", data)


def pack_positions(bitmap: int) -> bytes:
    """A bitmap of ring positions without leading zeros; position i is bit i mod 8 of byte i//8."""
    return bitmap.to_bytes((bitmap.bit_length() + 7) // 8, "little")


def unpack_positions(data: bytes) -> int:
    """The inverse of `pack_positions`."""
    return int.from_bytes(data, "little")


def pack_sums(sums: Sequence[int]) -> bytes:
    """Signed sums of words, 128 bits each."""
    return b"".join(value.to_bytes(_SUM_SIZE, "little", signed=True) for value in sums)


def unpack_sums(data: bytes) -> tuple[int, ...]:
    """The inverse of `pack_sums`."""
    return tuple(
        int.from_bytes(data[at : at + _SUM_SIZE], "little", signed=True) for at in range(0, len(data), _SUM_SIZE)
    )
