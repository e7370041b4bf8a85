"""The numbers that a ring service gives its epochs: reserved in the database, where several draw from one sequence."""

from __future__ import annotations


class EpochNumbers:
    """
    A range of numbers that nobody else draws from: [first, end), without an end for who is alone.

    Gateways take no number that a network's age does not explain, so a range is small and is extended in time.
    """

    def __init__(self, first: int = 0, end: int | None = None) -> None:
        self.at_least = first
        """The lowest number that the next one may be."""
        self._end = end
        self._size = 0 if end is None else end - first

    @property
    def is_used_up(self) -> bool:
        """Whether there is none left: no epoch can be called."""
        return self._end is not None and self.at_least >= self._end

    @property
    def is_low(self) -> bool:
        """Whether more are wanted."""
        return self._end is not None and 2 * (self._end - self.at_least) < self._size

    def draw(self, at_least: int = 0) -> int | None:
        """The next number, `at_least` so high; None where there is none, until more are there."""
        self.at_least = max(self.at_least, at_least)
        if self.is_used_up:
            return None
        self.at_least += 1
        return self.at_least - 1

    def extend(self, first: int, end: int) -> None:
        """Go on with these, [first, end): behind those that are left where they follow, else instead of them."""
        if first != self._end:
            self.at_least = max(self.at_least, first)
        self._end = end
