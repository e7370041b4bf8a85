"""For how long the gateway that has waited longest has carried energy that is in no total yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol


class CarriesEnergy(Protocol):
    """A gateway."""

    @property
    def is_carrying(self) -> bool: ...  # noqa: D102


class CarriedAge:
    """Looks when it is asked, so an age begins with the look that finds it; `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since_s: dict[int, float] = {}

    def oldest_s(self, gateways: Iterable[CarriesEnergy]) -> float:
        """The greatest age among these, 0 where none carries energy."""
        now_s = self._clock()
        self._since_s = {
            index: self._since_s.get(index, now_s) for index, each in enumerate(gateways) if each.is_carrying
        }
        return max((now_s - since_s for since_s in self._since_s.values()), default=0.0)
