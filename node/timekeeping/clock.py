"""
The gateway's clock: set by the administrator's time service, slewed where that is enough, and honest about its error.

It runs on the monotonic clock, which nobody sets, so a step of the system's clock moves no registration time.

- Before the first answer it shows the system's time and is not synchronised; the first answer sets it, whatever the
  difference (section 14.1.1).
- Up to `SLEW_MAX_US` it is slewed, 1 ms in a second at most: intervals keep their order and nearly their length.
- More sets it at once, which is an event for the calibration log.  Where it was off by over 3 % of the registration
  period (PTB-A 50.8), what is measured is not for billing until the next answer shows that the clock was right again;
  what was measured before may stand for the wrong interval, and the calibration log says since when.
- Without answers it runs free.  Its error grows by the crystal's drift, and once it may have reached 3 % of the
  registration period the clock is not synchronised any more, and what is measured by it is not for billing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from protocol.ntp import Sample

SLEW_MAX_US: Final = 1_000_000
SLEW_PPM: Final = 1_000
DRIFT_PPM: Final = 50
"""What a crystal without temperature compensation may be off by: 4.3 s a day."""
DEVIATION_MAX_PERMILLE: Final = 30


class Correction(Enum):
    """What an answer did to the clock."""

    FIRST = "first"
    SLEWED = "slewed"
    SET = "set"
    SET_FAR = "set-far"  # over 3 % of the registration period


@dataclass(frozen=True, slots=True)
class Deviation:
    """The clock was off by `offset_us` when an answer came, and this was done about it."""

    offset_us: int
    correction: Correction


class GatewayClock:
    """
    Call it for the time (Unix, s).

    `system` is the system's clock (Unix, s) and `monotonic` one that nobody sets (s), both read as floating-point
    seconds and counted in microseconds.  `registration_period_s` is the shortest one that is billed.
    """

    def __init__(
        self, system: Callable[[], float], monotonic: Callable[[], float], registration_period_s: int = 900
    ) -> None:
        self._monotonic = monotonic
        self._limit_us = registration_period_s * 1000 * DEVIATION_MAX_PERMILLE
        self._base_us = round(system() * 1_000_000)  # what the clock showed ...
        self._since_us = self._monotonic_us()  # ... at this moment
        self._slew_us = 0  # still to be added, little by little
        self._error_us: int | None = None  # at `_since_sample_us`; None: never synchronised
        self._since_sample_us = self._since_us
        self._is_doubtful = False

    def __call__(self) -> float:
        """The time, Unix, s."""
        return self.now_us() / 1_000_000

    def now_us(self) -> int:
        """The time, microseconds since 1970; it never goes back but where it is set."""
        elapsed_us = self._monotonic_us() - self._since_us
        slewed_us = min(abs(self._slew_us), elapsed_us * SLEW_PPM // 1_000_000)
        return self._base_us + elapsed_us + (slewed_us if self._slew_us > 0 else -slewed_us)

    @property
    def error_us(self) -> int | None:
        """How far it may be off by now; None where it was never synchronised."""
        if self._error_us is None:
            return None
        left_us = abs(self._slew_us) - abs(self.now_us() - self._base_us - (self._monotonic_us() - self._since_us))
        return self._error_us + left_us + (self._monotonic_us() - self._since_sample_us) * DRIFT_PPM // 1_000_000

    @property
    def is_synchronised(self) -> bool:
        """Whether it is right within 3 % of the registration period."""
        error_us = self.error_us
        return error_us is not None and error_us <= self._limit_us

    @property
    def is_for_billing(self) -> bool:
        """Whether values that are measured by it may be billed."""
        return self.is_synchronised and not self._is_doubtful

    def correct(self, sample: Sample) -> Deviation:
        """Take an answer of the time service."""
        offset_us, now_us = sample.offset_us, self.now_us()
        was_synchronised = self.is_synchronised
        self._since_us = self._since_sample_us = self._monotonic_us()
        self._error_us = sample.error_us
        if was_synchronised and abs(offset_us) <= SLEW_MAX_US:
            self._base_us, self._slew_us = now_us, offset_us
            correction = Correction.SLEWED
        else:
            self._base_us, self._slew_us = now_us + offset_us, 0
            correction = Correction.FIRST
            if was_synchronised:
                correction = Correction.SET_FAR if abs(offset_us) > self._limit_us else Correction.SET
        self._is_doubtful = correction is Correction.SET_FAR
        return Deviation(offset_us, correction)

    def _monotonic_us(self) -> int:
        return round(self._monotonic() * 1_000_000)
