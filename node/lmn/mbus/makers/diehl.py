"""
Diehl's radio (IZAR, Hydrus, Sharky): addresses in another order, and octets under a shift register.

The cipher is a linear feedback shift register of 32 bits, seeded with a key of 64 bits and the telegram's head; its two
default keys are printed in every reader of such meters, so it hides and proves nothing.  PRIOS telegrams (CI A0 to A7)
begin with a fixed octet under it, "real data" (CI 7A, security mode 16 and up) carry the sum of their octets: enough to
choose a key, not enough to bill by, since one in 128 telegrams of a meter with another key passes.

Source: wmbusmeters, src/manufacturer_specificities.cc (J. Tomasiak 2019, V. Privat 2021) and PRIOS.c of E. Martin's
IZAR collector, which agree.
"""

from __future__ import annotations

from typing import Final

from node.lmn.mbus.device import DeviceAddress, manufacturer_code
from node.lmn.mbus.values import date_g

_SAPPEL: Final = manufacturer_code("SAP")
_MAKERS: Final = frozenset({_SAPPEL, *map(manufacturer_code, ("DME", "EWT", "HYD", "SPL"))})
_PRIOS_CIS: Final = range(0xA0, 0xA8)
_CI_REAL_DATA: Final = 0x7A
_MODE_BIT: Final = 0x10  # of the configuration word's high octet
_CHECKED_BITS: Final = 0xEF  # of that octet: the sum of the data, but for the mode's bit
_DEFAULT_KEYS: Final = (0x39BC8A10 ^ 0xE66D83F8, 0x51728910 ^ 0xE66D83F8)
_HEAD_SIZE: Final = 5  # CI and four octets, in the clear
_PRIOS_MARK: Final = 0x4B
_PRIOS_DAY: Final = slice(9, 11)
_WATER: Final = 0x07


def is_real_data(maker: int, layer: bytes) -> bool:
    """Whether what follows a link header is of this maker and under its cipher; `layer` begins with the CI field."""
    is_long = len(layer) > _HEAD_SIZE
    return maker in _MAKERS and is_long and layer[0] == _CI_REAL_DATA and bool(layer[4] & _MODE_BIT)


def named_address(address: DeviceAddress, layer: bytes) -> DeviceAddress:
    """
    Whose telegram it is.

    In telegrams of its own formats Diehl puts version and type before the number; Sappel uses their octets for digits
    of a number that is printed otherwise, and all such meters are for water.
    """
    if address.manufacturer not in _MAKERS or not layer:
        return address
    is_prios = layer[0] in _PRIOS_CIS
    if is_prios and address.manufacturer == _SAPPEL:
        return DeviceAddress(address.manufacturer, address.number, 0, _WATER)
    if is_prios or is_real_data(address.manufacturer, layer):
        octets = address.to_link()
        return DeviceAddress.from_link(octets[:2] + octets[4:8] + octets[2:4])
    return address


def open_prios(address: DeviceAddress, layer: bytes) -> bytes | None:
    """The octets behind the CI field, deciphered; None where no default key fits.  `address` is the link's."""
    for key in _DEFAULT_KEYS:
        plain = _deciphered(address, layer, key)
        day = plain[_PRIOS_DAY]
        if plain[:1] == bytes([_PRIOS_MARK]) and (len(day) < 2 or not date_g(day).invalid):
            return layer[1:_HEAD_SIZE] + plain
    return None


def open_real_data(address: DeviceAddress, layer: bytes) -> bytes | None:
    """The records behind the transport header; None where no default key fits.  `address` is the link's."""
    for key in _DEFAULT_KEYS:
        plain = _deciphered(address, layer, key)
        if is_intact_real_data(layer, plain):
            return plain
    return None


def is_intact_real_data(layer: bytes, plain: bytes) -> bool:
    """Whether the sum of these octets is the one that the telegram carries."""
    return bool(plain) and not (sum(plain) ^ layer[4]) & _CHECKED_BITS


def _deciphered(address: DeviceAddress, layer: bytes, key: int) -> bytes:
    link = address.to_link()
    register = key
    for head in (link[:4], link[4:8], layer[:4]):
        register ^= int.from_bytes(head, "big")
    out = bytearray()
    for octet in layer[_HEAD_SIZE:]:
        for _ in range(8):
            bit = (register >> 1 ^ register >> 2 ^ register >> 11 ^ register >> 31) & 1
            register = (register << 1 | bit) & 0xFFFF_FFFF
        out.append(octet ^ register & 0xFF)
    return bytes(out)
