"""Simulated time: wall clock to quarter hours, `period_s` of wall clock each."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from loadtest.config import MetersConfig
from loadtest.profiles import QUARTER_HOURS
from protocol.metering.interval import QUARTER_HOUR_S, index_at, latest_start, next_start

_YEARS = 4
_PUSH_INTERVAL_S_MAX = 1.0  # what most meters' optical ports do; faster where a quarter hour is only seconds long
_PUSH_DELAY_S = 0.003  # after a quarter hour's begin: surely in it by every clock of one machine


def clock_of(config: MetersConfig, now_s: float) -> SimulatedClock:
    """
    The clock of meters that are started at `now_s`, Unix time.

    Without an origin of their own it is the last multiple of four years, simulated ones where they go by faster:
    whoever starts again within them, and that is nearly always, shows registers that have gone on; no register
    outgrows its telegrams, and no certificate of a meter, which are as old as the origin, has ended.
    """
    span_s = _YEARS * QUARTER_HOURS * min(config.period_s, QUARTER_HOUR_S)
    origin_unix_s = config.origin_unix_s if config.origin_unix_s is not None else latest_start(now_s, 0.0, span_s)
    return SimulatedClock(origin_unix_s, config.period_s)


@dataclass(frozen=True, slots=True)
class SimulatedClock:
    """Wall clock to quarter hours: quarter hour q begins `origin_unix_s` + q·`period_s`."""

    origin_unix_s: float
    period_s: float

    def quarter_hour(self, unix_s: float) -> int:
        """The index of the quarter hour at a moment; negative before the origin."""
        return index_at(unix_s, self.origin_unix_s, self.period_s)

    def now(self) -> int:
        """The index of the present quarter hour."""
        return self.quarter_hour(time.time())

    def until_push_s(self, unix_s: float) -> float:
        """Seconds to the next telegram of a meter that speaks unasked; one a second, and four a quarter hour."""
        interval_s = self.period_s / max(4, math.ceil(self.period_s / _PUSH_INTERVAL_S_MAX))
        left_s = next_start(unix_s, self.origin_unix_s + _PUSH_DELAY_S, interval_s) - unix_s
        return left_s if left_s > _PUSH_DELAY_S / 2 else left_s + interval_s  # woken a little early, it has just spoken
