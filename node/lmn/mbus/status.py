"""
The meter's half of the combined status word for M-Bus meters (BSI TR-03109-1 detailed specifications, clause 15).

Four octets EF1 EF2 EF3 STS, big-endian, where bit 0 of the specification is the most significant bit: so the
transport header's status octet sits in the lowest eight bits of the integer, its least significant bit being the
specification's bit 31.  EF1 to EF3 come from a record "error flags" that says of itself that its content follows the
standard (VIFE 1D); any other error flags are the manufacturer's language and stay out.
"""

from __future__ import annotations

from typing import Final

from node.lmn.mbus.records import Record
from node.lmn.mbus.values import VARIABLE
from node.lmn.status_word import wireless_word

PERMANENT_ERROR: Final = 0x08  # of the status octet (EN 13757-7 table 8)


def status_word(status: int, error_flags: bytes = b"") -> int:
    """The word as an integer: the status octet and up to three octets of standard error flags in wire order."""
    return int.from_bytes(wireless_word(status, *error_flags[:3]), "big")


def standard_error_flags(records: list[Record]) -> bytes:
    """The octets of the current standard error flags among the records; empty where there are none."""
    for record in records:
        value, data = record.header.value, record.header.data
        if value.quantity == "error flags" and value.standard_conform and not (data.storage or data.subunit):
            return record.octets[1:] if data.field == VARIABLE else record.octets
    return b""
