"""
The combined status word: 32 bits of the gateway, 32 bits of the meter (TR-03109-1 detail specification 2.0, ch. 15).

The trap is the order: bit 0 is the most significant bit of byte 0, so `a0000000 208c3800` has the gateway bits
{0, 2} and the meter bits {2, 8, 12, 13, 18, 19, 20}.  A base meter's SML status counts its bits from the other end
(bit 0 worth 1: 1c0104 has {2, 8, 18, 19, 20}), so the word is mirrored when it is taken over; error flags and STS of
wireless meters keep their bytes, because the table numbers those from the most significant bit too.

Which meter a word comes from it says itself: gateway bit 17 for wireless, else meter bit 2 (base meter) or 3 (gas).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from protocol.errors import LocalProtocolError, RemoteProtocolError

WORD_BITS: Final = 32


class GatewayBit(IntEnum):
    """Table 15.1, the gateway's half.  Bits 0 and 2 are always set, those not named are 0."""

    NOT_FOR_BILLING = 1
    FATAL_ERROR = 8
    TIME_NOT_VALID = 9
    WARNING = 12
    NO_VALUE = 13
    METER_TAMPER = 14
    METER_ERROR = 15
    VALUE_TRIGGERED = 16
    WIRELESS = 17


class MeterKind(Enum):
    """The three columns of table 15.1."""

    BASE_METER = "base-meter"  # wired electricity meter, FNN
    WIRED_GAS = "wired-gas"  # DVGW G697
    WIRELESS = "wireless"  # OMS: gas, water, heat
    OTHER = "other"  # a wired meter that is neither


class Severity(Enum):
    """What a meter bit means for the value, as the table marks it in brackets."""

    WARNING = "warning"
    TIME = "time-not-valid"
    TAMPER = "tamper"
    ERROR = "error"
    FATAL = "fatal"


_PERMANENT_ERROR: Final = 28  # of a wireless meter
_ALWAYS: Final = frozenset({0, 2})
_GATEWAY_BITS: Final = _ALWAYS | frozenset(GatewayBit)
_W, _TIME, _T, _E, _F = Severity.WARNING, Severity.TIME, Severity.TAMPER, Severity.ERROR, Severity.FATAL
_SEVERITIES: Final[dict[MeterKind, dict[int, Severity]]] = {
    MeterKind.BASE_METER: {9: _T, 10: _T, 17: _F},
    MeterKind.WIRED_GAS: {
        8: _W, 9: _T, 10: _T, 11: _W, 12: _W, 13: _W, 14: _W, 15: _W, 16: _W, 17: _F, 18: _W, 19: _W, 20: _W, 21: _W,
        22: _W, 23: _W, 24: _W, 25: _W, 26: _W, 27: _W,
    },
    MeterKind.WIRELESS: {
        1: _T, 2: _W, 3: _E, 4: _W, 5: _F, 6: _W, 7: _T, 9: _TIME, 10: _W, 11: _W, 12: _W, 13: _W,
        27: _E, 28: _F, 29: _W, 30: _E,
    },
    MeterKind.OTHER: {},
}  # fmt: skip


def bits_of(word: bytes) -> frozenset[int]:
    """The numbers of the set bits, bit 0 being the most significant bit of byte 0."""
    return frozenset(8 * i + j for i, byte in enumerate(word) for j in range(8) if byte & 0x80 >> j)


def word_of(bits: Iterable[int]) -> bytes:
    """Four bytes with these bits set.  Raises LocalProtocolError for a bit that is not 0..31."""
    word = 0
    for bit in bits:
        if not 0 <= bit < WORD_BITS:
            raise LocalProtocolError(f"a status word has bits 0 to 31, not {bit}")
        word |= 0x8000_0000 >> bit
    return word.to_bytes(4, "big")


def mirrored(status: int) -> bytes:
    """A base meter's SML status, bit 0 worth 1, in the order of the table.  Raises RemoteProtocolError over 32 bits."""
    if not 0 <= status < 1 << WORD_BITS:
        raise RemoteProtocolError("status_too_wide", "a meter status word has 32 bits")
    return word_of(bit for bit in range(WORD_BITS) if status >> bit & 1)


def wireless_word(sts: int, ef1: int = 0, ef2: int = 0, ef3: int = 0) -> bytes:
    """
    A wireless meter's word: the error flags EF1 to EF3 (EN 13757-3 annex A, MM02 and MM03) and the status byte STS.

    The first bit of each flag byte says in the table that the byte is there.  STS keeps temporary error, permanent
    error, power low and application error; its two lowest bits count in EN 13757-3 (1 busy, 2 error, 3 abnormal) and
    stand side by side here.  Raises LocalProtocolError for numbers that are no bytes.
    """
    try:
        return bytes([ef1, ef2, ef3, sts])
    except ValueError as error:
        raise LocalProtocolError("EF1 to EF3 and STS are bytes") from error


@dataclass(frozen=True, slots=True)
class CombinedStatus:
    """Both halves, as sent to the WAN and HAN sides: `bytes(status)` has 8 bytes."""

    gateway: frozenset[int]
    meter: frozenset[int]

    @classmethod
    def from_bytes(cls, data: bytes) -> CombinedStatus:
        """Eight bytes.  Raises RemoteProtocolError for another length, a missing fixed bit or one without meaning."""
        if len(data) != 8:
            raise RemoteProtocolError("status_length", f"a combined status word has 8 bytes, not {len(data)}")
        gateway = bits_of(data[:4])
        if not _ALWAYS <= gateway <= _GATEWAY_BITS:
            raise RemoteProtocolError("status_reserved_bits", "gateway bits 0 and 2 must be 1, unnamed ones 0")
        return cls(gateway, bits_of(data[4:]))

    def __bytes__(self) -> bytes:
        return word_of(self.gateway) + word_of(self.meter)

    @property
    def kind(self) -> MeterKind:
        """Which column of table 15.1 the meter's bits belong to."""
        if GatewayBit.WIRELESS in self.gateway:
            return MeterKind.WIRELESS
        if 2 in self.meter:
            return MeterKind.BASE_METER
        return MeterKind.WIRED_GAS if 3 in self.meter else MeterKind.OTHER

    def severities(self) -> frozenset[Severity]:
        """What the meter's bits amount to; bits without a mark in the table (phases, direction) say nothing here."""
        table = _SEVERITIES[self.kind]
        return frozenset(table[bit] for bit in self.meter if bit in table)


def combine(
    meter_word: bytes = bytes(4), gateway_bits: Iterable[GatewayBit] = (), *, wireless: bool = False
) -> CombinedStatus:
    """
    The word that the gateway forms from a meter's word (bytes in the order of the table) and its own findings.

    What the meter reports, the gateway's half repeats: manipulation sets bit 14, and for wireless meters an anomaly or
    error (the bits that the table marks MTR_Error, and the permanent error) sets bit 15.  A meter without a status has
    none set (REQ.TLSHDLC.SMGW.100, hint).
    """
    if len(meter_word) != 4:
        raise LocalProtocolError("a meter's status word has 4 bytes")
    gateway = set(_ALWAYS) | {int(bit) for bit in gateway_bits}
    if wireless:
        gateway.add(GatewayBit.WIRELESS)
    status = CombinedStatus(frozenset(gateway), bits_of(meter_word))
    if Severity.TAMPER in status.severities():
        gateway.add(GatewayBit.METER_TAMPER)
    if wireless and (Severity.ERROR in status.severities() or _PERMANENT_ERROR in status.meter):
        gateway.add(GatewayBit.METER_ERROR)
    return CombinedStatus(frozenset(gateway), status.meter)
