"""
How strongly a datagram was received, as receivers say it.

Modules with a CC1101 or CC1125 (CUL, AMBER) give half decibels around an offset of 74 dB (TI SWRS061I, 17.3); iM871A
gives steps that its radio chip's curve makes decibels of (two steps each, 45 is -100 dBm); rtl_433 gives decibels below
full scale and the noise beside it, rtl_wmbus the magnitude of its samples, which compares with itself alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

_OFFSET_DB: Final = 74
_IMST_FLOOR: Final = 45
_IMST_FLOOR_DBM: Final = -100
_IMST_FULL: Final = 230
_LQI_MASK: Final = 0x7F


@dataclass(frozen=True, slots=True)
class Signal:
    """A level in `unit` (dBm, dB below full scale, or none), and a link quality or signal to noise ratio if known."""

    level: float
    unit: str
    snr_db: float | None = None
    link_quality: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a reading's record."""
        out: dict[str, Any] = {"level": self.level, "unit": self.unit}
        if self.snr_db is not None:
            out["snr_db"] = self.snr_db
        if self.link_quality is not None:
            out["link_quality"] = self.link_quality
        return out

    def __str__(self) -> str:
        return f"{self.level:g} {self.unit}".rstrip()


def of_program(level: float, unit: str, snr_db: float | None = None) -> Signal | None:
    """What a program says of a datagram; None where that is no number."""
    if not math.isfinite(level) or (snr_db is not None and not math.isfinite(snr_db)):
        return None
    return Signal(level, unit, snr_db)


def of_cc1101(octet: int, link_quality: int | None = None) -> Signal:
    """The signal strength octet of a CC1101 and, of its second octet, the quality (the lower the better)."""
    signed = octet - 256 if octet >= 128 else octet
    quality = None if link_quality is None else link_quality & _LQI_MASK
    return Signal(signed / 2 - _OFFSET_DB, "dBm", link_quality=quality)


def of_imst(octet: int) -> Signal:
    """The signal strength octet of an iM871A."""
    step = min(octet, _IMST_FULL)
    return Signal(min(0.0, _IMST_FLOOR_DBM + (step - _IMST_FLOOR) / 2), "dBm")
