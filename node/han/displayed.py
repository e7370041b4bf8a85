"""
Present values, new ones as often as the profile of their meter says (its display interval).

Meters push each second; a fine curve of a household tells what it does, so the administrator sets how fine the one is
that is shown at home (15 minutes by PTB-A 50.8, down to a second by BSI TR-03109-1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from node.metering.entries import LoggedReading
from protocol.metering.obis import Obis
from protocol.profiles.meter import MeterProfile

_EARLY_S: Final = 0.5
"""Whoever asks once in an interval asks now and then a little early, and would wait for another one."""


class DisplayedValues:
    """What is shown of each meter, the same to everybody; `clock` is real time (Unix, s).  For any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._shown: dict[str, dict[Obis, tuple[float, LoggedReading]]] = {}

    def of(self, meter: str, newest: Sequence[LoggedReading], profile: MeterProfile | None) -> list[LoggedReading]:
        """A meter's values to show, of its newest ones, by its profile; without one they are these."""
        if profile is None:
            return list(newest)
        now_s, before = self._clock(), self._shown.get(meter, {})
        shown: dict[Obis, tuple[float, LoggedReading]] = {}
        for each in newest:
            known = before.get(each.obis)
            is_due = known is None or not 0 <= now_s - known[0] < profile.display_interval_s - _EARLY_S
            shown[each.obis] = (now_s, each) if known is None or is_due else known
        self._shown[meter] = shown
        return [each for _, each in shown.values()]
