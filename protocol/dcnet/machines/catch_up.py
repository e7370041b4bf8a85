"""
What a head tells its members of earlier rounds before it opens one: everybody in an attempt counts the same ends.

READY says how far a member's history reaches.  Before an OPEN each gets the signed RESULTs that it lacks; without this
one RESULT that was lost would keep its member out for the rest of the epoch.
"""

from __future__ import annotations

from protocol import wire
from protocol.dcnet.machines.effects import HeadEffect, ToMember
from protocol.dcnet.machines.history import History
from protocol.dcnet.setup.rings import positions_of

_REPEATS_MAX = 2  # for one member in one attempt: what is lost twice waits for the next round


class CatchUp:
    """The head's own history, and how far each member's reaches."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._heard: dict[int, int] = {}
        self._foreign: set[int] = set()
        self._repeats: dict[int, int] = {}

    def ready(self, position: int, message: wire.Ready) -> list[HeadEffect] | None:
        """
        Note how far a member's history reaches; None where it is ours.

        Where it is another one, all that we have: the member holds it against what it was told, and one of the two
        ends of a round is a lie of the ledger's.  It gets that once.
        """
        settled = message.settled
        if settled > self.history.settled or self.history.hash(settled) == message.history:
            self._heard[position] = settled
            return None
        self._heard[position] = self.history.settled
        if position in self._foreign:
            return []
        self._foreign.add(position)
        return [ToMember(position, each) for each in self.history.since(0, self.history.settled)]

    def before(self, position: int, settled: int) -> list[HeadEffect]:
        """The RESULTs of the first `settled` rounds that a member lacks."""
        first = self._heard.get(position, 0)
        self._heard[position] = max(first, settled)
        return [ToMember(position, each) for each in self.history.since(first, settled)]

    def opened(self) -> None:
        """Another attempt begins."""
        self._repeats.clear()

    def again(self, position: int, settled: int) -> list[HeadEffect]:
        """The same for one who says within an attempt that it lacks some; they were lost."""
        self._repeats[position] = self._repeats.get(position, 0) + 1
        return self.before(position, settled) if self._repeats[position] <= _REPEATS_MAX else []

    def result(self, message: wire.Result, present: int) -> bool:
        """A round has ended, and all of `present` are sent the message; False for another end than we have."""
        if self.history.add(message) is not None:
            return False
        for position in positions_of(present):
            if self._heard.get(position, 0) == message.round:
                self._heard[position] = message.round + 1
        return True
