"""What the kernel knows of its clock's synchronisation (Linux).  Source: adjtimex(2)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

_ERROR: Final = 5  # TIME_ERROR: the clock is not synchronised
_NANO: Final = 0x2000  # STA_NANO: the offset is in nanoseconds


class _Timex(ctypes.Structure):
    """`struct timex` of <sys/timex.h> up to what is read here; the kernel fills the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("frequency", ctypes.c_long),
        ("maxerror_us", ctypes.c_long), ("esterror_us", ctypes.c_long), ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class KernelClock:
    """`offset_s`: that is being corrected, by NTP or PTP; `error_us_max`: how far the clock may be off beside it."""

    is_synchronised: bool
    offset_s: float
    error_us_max: int


def kernel_clock() -> KernelClock:
    """The machine's clock as the kernel's record of its synchronisation has it."""
    record = _Timex()
    returned = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(record))
    unit_s = 1e-9 if record.status & _NANO else 1e-6
    return KernelClock(returned not in (-1, _ERROR), record.offset * unit_s, int(record.maxerror_us))


def clock_offset_s() -> float:
    """Its offset in seconds; NaN where nobody synchronises it."""
    clock = kernel_clock()
    return clock.offset_s if clock.is_synchronised else float("nan")
