"""
Who a meter is: manufacturer letters, number, version and medium, and the text form of DIN 43863-5 / DIN 43849.

M-Bus packs three letters into 15 bits, the number as eight BCD digits with the least significant byte first; the
German meter number ("1ISK0012345678") says the same in 14 characters: division, manufacturer, version as the
two-character fabrication block, number.  The order of the fields differs between the wired and transport header
(number first) and the radio link (manufacturer first), so each has its own constructor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# EN 13757-7 table of device types, as far as meters send it; the full text is for people.
MEDIA: Final = {
    0x00: "other", 0x01: "oil", 0x02: "electricity", 0x03: "gas", 0x04: "heat", 0x05: "steam", 0x06: "warm water",
    0x07: "water", 0x08: "heat cost allocator", 0x09: "compressed air", 0x0A: "cooling load at outlet",
    0x0B: "cooling load at inlet", 0x0C: "heat at inlet", 0x0D: "heat/cooling load", 0x0E: "bus/system component",
    0x0F: "unknown", 0x14: "calorific value", 0x15: "hot water", 0x16: "cold water", 0x17: "dual register water",
    0x18: "pressure", 0x19: "A/D converter", 0x1A: "smoke detector", 0x1B: "room sensor", 0x1C: "gas detector",
    0x20: "breaker", 0x21: "valve", 0x25: "customer unit", 0x28: "waste water", 0x29: "garbage",
    0x2A: "carbon dioxide", 0x31: "communication controller", 0x32: "unidirectional repeater",
    0x33: "bidirectional repeater", 0x36: "radio converter at system side", 0x37: "radio converter at meter side",
}  # fmt: skip

# Division of DIN 43849: the OBIS medium as one character; F where DIN has none of its own.
_DIVISIONS: Final = {
    0x02: "1", 0x08: "4", 0x0A: "5", 0x0B: "5", 0x04: "6", 0x0C: "6", 0x0D: "6", 0x03: "7",
    0x07: "8", 0x16: "8", 0x17: "8", 0x06: "9", 0x15: "9", 0x31: "E",
}  # fmt: skip


def manufacturer_letters(code: int) -> str:
    """Three letters of a 16-bit manufacturer code (EN 13757-7); the top bit only says how unique the number is."""
    return "".join(chr(64 + (code >> shift & 0x1F)) for shift in (10, 5, 0))


def manufacturer_code(letters: str) -> int:
    """The 15-bit code of three capital letters.  Raises ValueError for anything else."""
    if len(letters) != 3 or not all("A" <= letter <= "Z" for letter in letters):
        raise ValueError(f"a manufacturer has three capital letters, not {letters[:8]!r}")
    first, second, third = (ord(letter) - 64 for letter in letters)
    return first << 10 | second << 5 | third


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """Manufacturer code, number as eight (hexadecimal, normally decimal) digits, version and device type."""

    manufacturer: int
    number: str
    version: int
    medium: int

    @classmethod
    def from_transport(cls, data: bytes) -> DeviceAddress:
        """Eight bytes: number, manufacturer, version, device type (EN 13757-7 long header, secondary address)."""
        return cls(data[4] | data[5] << 8, data[3::-1].hex().upper(), data[6], data[7])

    @classmethod
    def from_link(cls, data: bytes) -> DeviceAddress:
        """Eight bytes: manufacturer, number, version, device type (EN 13757-4 M and A field)."""
        return cls(data[0] | data[1] << 8, data[5:1:-1].hex().upper(), data[6], data[7])

    @classmethod
    def from_text(cls, device: str, medium: int) -> DeviceAddress:
        """Out of the 14 characters; the device type is finer than the division and must be given."""
        if len(device) != 14:
            raise ValueError(f"a meter number has 14 characters, not {len(device)}")
        return cls(manufacturer_code(device[1:4]), device[6:], int(device[4:6], 16), medium)

    def to_transport(self) -> bytes:
        """Number, manufacturer, version, device type."""
        return bytes.fromhex(self.number)[::-1] + self.manufacturer.to_bytes(2, "little") + self._tail()

    def to_link(self) -> bytes:
        """Manufacturer, number, version, device type."""
        return self.manufacturer.to_bytes(2, "little") + bytes.fromhex(self.number)[::-1] + self._tail()

    def _tail(self) -> bytes:
        return bytes([self.version, self.medium])

    def __str__(self) -> str:
        division = _DIVISIONS.get(self.medium, "F")
        return f"{division}{manufacturer_letters(self.manufacturer)}{self.version:02X}{self.number}"
