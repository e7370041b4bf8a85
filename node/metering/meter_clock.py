"""
A meter's own time as evidence of when a value was measured, whatever its clock shows.

Few meters have a clock that is right; many have one that runs: a calendar that is off by minutes, or a count of seconds
since the meter was switched on.  What such a clock says is how long after one telegram the next was made.  The
smallest difference between reception and meter time is that of a telegram that came at once; one that lay in a buffer,
or in the gateway while its process was stopped, shows a larger one, and by that much it is older than its reception.

Where a clock stands still or was set the evidence is dropped.  Differences older than the registration period before
the last are forgotten, so that a clock that goes slow is followed.
"""

from __future__ import annotations

import math
from typing import Final

from node.metering.interval import Measured

_RESOLUTIONS_S: Final = (3600.0, 900.0, 60.0, 1.0)  # M-Bus has minutes (EN 13757-3, type F), most others seconds
_SLACK_S: Final = 2.0  # a telegram takes this long on a slow line; below it a difference says nothing


class MeterClock:
    """What is known of one meter's clock."""

    __slots__ = ("_before_s", "_last_s", "_least_s", "_period", "_received_s", "_resolution")

    def __init__(self) -> None:
        self._resolution = 0  # the coarsest in which all stamps are whole
        self._forget()

    def _forget(self) -> None:
        self._last_s = -math.inf
        self._received_s = -math.inf
        self._least_s = self._before_s = math.inf
        self._period = 0

    def measured(self, stamp_s: float, received: Measured, period: int) -> Measured:
        """
        When the value of meter time `stamp_s` was measured, given when its telegram came, in registration `period`.

        All in seconds; `received` is in the gateway's time.
        """
        while _RESOLUTIONS_S[self._resolution] > 1.0 and stamp_s % _RESOLUTIONS_S[self._resolution]:
            self._resolution += 1
        resolution_s = _RESOLUTIONS_S[self._resolution]
        stood = stamp_s == self._last_s and received.latest_s - self._received_s > resolution_s + _SLACK_S
        if stood or stamp_s < self._last_s:
            self._forget()
        if stamp_s != self._last_s:
            self._last_s, self._received_s = stamp_s, received.latest_s
        is_certain = received.latest_s - received.earliest_s <= resolution_s
        if is_certain:
            self._learn(received.latest_s - stamp_s, period)
        moment_s = stamp_s + min(self._least_s, self._before_s)
        if math.isinf(moment_s):
            return received
        earliest_s, latest_s = moment_s - resolution_s, moment_s + resolution_s
        if is_certain:
            return received if received.earliest_s <= latest_s + _SLACK_S else Measured(earliest_s, latest_s)
        return received.within(earliest_s, latest_s)

    def _learn(self, difference_s: float, period: int) -> None:
        if period != self._period:
            self._before_s, self._least_s, self._period = self._least_s, math.inf, period
        self._least_s = min(self._least_s, difference_s)
