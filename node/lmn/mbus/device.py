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

# Division of DIN 43849 by device type (EN 13757-7): the OBIS medium as one character; F where DIN has none.
_DIVISIONS: Final = {
    0x02: "1", 0x08: "4", 0x0A: "5", 0x0B: "5", 0x04: "6", 0x0C: "6", 0x0D: "6", 0x03: "7",
    0x07: "8", 0x16: "8", 0x17: "8", 0x06: "9", 0x15: "9", 0x31: "E",
}  # fmt: skip

SYSTEM_COMPONENT: Final = 0x0E  # device type "bus, system component" (EN 13757-7)
_ELECTRICITY: Final = 0x02
_AMIS: Final = 0x4C2D  # SAM: Siemens AMIS


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

    @property
    def medium_of_records(self) -> int:
        """
        The device type by which records are named.

        The customer interface of an AMIS meter says of itself that it is a system component; what it sends are the
        registers of the electricity meter (Netz Oberösterreich's description of the interface).
        """
        is_amis = (self.manufacturer, self.medium) == (_AMIS, SYSTEM_COMPONENT)
        return _ELECTRICITY if is_amis else self.medium

    def __str__(self) -> str:
        division = _DIVISIONS.get(self.medium, "F")
        return f"{division}{manufacturer_letters(self.manufacturer)}{self.version:02X}{self.number}"
