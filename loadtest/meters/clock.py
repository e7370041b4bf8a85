"""Simulated time: wall clock to quarter hours, `period_s` of wall clock each."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

_PUSH_INTERVAL_S_MAX = 1.0  # what most meters' optical ports do; faster where a quarter hour is only seconds long
_PUSH_DELAY_S = 0.003  # after a quarter hour's begin: surely in it by every clock of one machine


@dataclass(frozen=True, slots=True)
class SimulatedClock:
    """Wall clock to quarter hours: quarter hour q begins `origin_unix_s` + q·`period_s`."""

    origin_unix_s: float
    period_s: float

    def quarter_hour(self, unix_s: float) -> int:
        """The index of the quarter hour at a moment; negative before the origin."""
        return int((unix_s - self.origin_unix_s) // self.period_s)

    def now(self) -> int:
        """The index of the present quarter hour."""
        return self.quarter_hour(time.time())

    def until_push_s(self, unix_s: float) -> float:
        """Seconds to the next telegram of a meter that speaks unasked; one a second, and four a quarter hour."""
        interval_s = self.period_s / max(4, math.ceil(self.period_s / _PUSH_INTERVAL_S_MAX))
        left_s = interval_s - (unix_s - self.origin_unix_s - _PUSH_DELAY_S) % interval_s
        return left_s if left_s > _PUSH_DELAY_S / 2 else left_s + interval_s  # woken a little early, it has just spoken
