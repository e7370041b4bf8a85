"""
Who is heard on the air, how often and how strongly: neighbours and meters without a key as well.

A telegram is counted for the address that names its meter.  Anyone can send any address, so the memory is bounded;
what comes beyond it is counted without a name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from node.lmn.wmbus.exchange import senders
from node.lmn.wmbus.framing import Datagram
from node.lmn.wmbus.signal import Signal

METER_COUNT_MAX: Final = 500


@dataclass(slots=True)
class HeardMeter:
    """
    One sender: `first_s` and `last_s` in seconds of the clock given, `signal` of the last telegram that said it.

    `outcome` is what became of the last telegram: "readings", or the reason why there are none.
    """

    device: str
    first_s: float
    last_s: float
    count: int = 0
    signal: Signal | None = None
    outcome: str = ""

    @property
    def interval_s(self) -> float | None:
        """The mean time between its telegrams, once there are two."""
        return (self.last_s - self.first_s) / (self.count - 1) if self.count > 1 else None

    def to_json(self) -> dict[str, Any]:
        """One line of `sniff --heard`."""
        interval_s = None if self.interval_s is None else round(self.interval_s, 3)
        signal = None if self.signal is None else self.signal.to_json()
        return {
            "device": self.device, "count": self.count, "interval_s": interval_s, "signal": signal,
            "outcome": self.outcome,
        }  # fmt: skip


class HeardMeters:
    """The senders by their addresses, in the order in which they were first heard."""

    def __init__(self, clock: Callable[[], float], count_max: int = METER_COUNT_MAX) -> None:
        self._clock, self._count_max = clock, count_max
        self._meters: dict[str, HeardMeter] = {}
        self._new: deque[HeardMeter] = deque(maxlen=METER_COUNT_MAX)
        self.unnamed_count = 0

    def take(self, datagram: Datagram) -> HeardMeter | None:
        """Count a telegram; None where it names nobody or there are too many."""
        who = senders(datagram.octets)
        device = str(who[-1]) if who else ""
        if not device or (device not in self._meters and len(self._meters) >= self._count_max):
            self.unnamed_count += 1
            return None
        now_s = self._clock()
        meter = self._meters.setdefault(device, HeardMeter(device, now_s, now_s))
        meter.last_s = now_s
        meter.count += 1
        meter.signal = datagram.signal or meter.signal
        self._new.append(meter)
        return meter

    def new(self) -> list[HeardMeter]:
        """Whose telegrams came since this was asked last, one entry a telegram."""
        heard = list(self._new)
        self._new.clear()
        return heard

    def __iter__(self) -> Iterator[HeardMeter]:
        return iter(self._meters.values())
