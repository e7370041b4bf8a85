"""
How a ring's rounds ended, in one order for everybody: what a coordinator that tells two members two ends is caught by.

h_0 stands for the epoch, and h_q = H(h_{q-1}, round, outcome, roster) for its first q rounds.  READY says (q, h_q),
OPEN says q, and h_q is in the round digest and in the self masks' labels (`setup.terms`).  So members that were told
different ends neither confirm each other nor help to open each other's masks, and a member that was told "void" of a
round that opened, to contribute its energy once more, is in no further sum.

A round ends once.  Two RESULTs of one round that both bear the ledger's signature prove that it lied.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from protocol import wire
from protocol.dcnet.crypto.suite import Suite, digest
from protocol.dcnet.setup.rings import RingView, result_text
from protocol.dcnet.setup.terms import history_before
from protocol.errors import RemoteProtocolError

_HASH_SIZE = 32


def check_two_results(suite: Suite, view: RingView, message: wire.TwoResults) -> None:
    """Raise RemoteProtocolError `bad_evidence` unless the ledger's key signed both, two ends of one round."""
    (first, roster, _), (second, other, _) = ends = message.first, message.second
    if (first, roster) == (second, other):
        raise RemoteProtocolError("bad_evidence", "the same end twice")
    for outcome, members, signature in ends:
        text = result_text(view, message.round, outcome, view.from_wire(members))
        if not suite.verify(view.result_key, text, signature):
            raise RemoteProtocolError("bad_evidence", "a result that the round ledger did not sign")


class History:
    """
    The ends of a ring's rounds as one party knows them; who adds a RESULT has checked its signature, or trusts it.

    All are kept until the epoch is over, to be sent to whoever lacks them, in some 100 octets a round.
    """

    def __init__(self, view: RingView) -> None:
        self._view = view
        self._hashes = bytearray(history_before(view.digest))
        self._ends = bytearray()  # outcome, signature, roster of each round
        self._early: dict[int, wire.Result] = {}  # of rounds after one that is missing

    def copy(self) -> History:
        """One of its own for another party that begins with the same knowledge."""
        other = History(self._view)
        other._hashes, other._ends, other._early = self._hashes.copy(), self._ends.copy(), self._early.copy()
        return other

    @property
    def settled(self) -> int:
        """q: the rounds before it have ended, and we know how."""
        return len(self._hashes) // _HASH_SIZE - 1

    def hash(self, settled: int) -> bytes:
        """h_q, 32 bytes; q is at most our own."""
        return bytes(self._hashes[_HASH_SIZE * settled : _HASH_SIZE * (settled + 1)])

    def add(self, result: wire.Result) -> wire.Result | None:
        """
        Take the end of a round; the one that we have heard before, where that is another.

        Raises RemoteProtocolError for a round or roster that is none of the ring's.
        """
        if result.round >= self._view.rounds:
            raise RemoteProtocolError("no_such_round", f"round {result.round} of an epoch of {self._view.rounds}")
        self._view.from_wire(result.roster)
        known = self._early.get(result.round) if result.round >= self.settled else self.result(result.round)
        if known is not None:
            return None if (known.outcome, known.roster) == (result.outcome, result.roster) else known
        self._early[result.round] = result
        while (following := self._early.pop(self.settled, None)) is not None:
            self._append(following)
        return None

    def _append(self, result: wire.Result) -> None:
        self._ends += bytes([result.outcome]) + result.signature + result.roster
        numbers = struct.pack("<QQ", result.round, result.outcome)
        self._hashes += digest("history-round", self.hash(self.settled), numbers, result.roster)

    def result(self, round_: int) -> wire.Result:
        """The RESULT of a round before `settled`."""
        view, size = self._view, 65 + self._view.bitmap_size
        end = bytes(self._ends[size * round_ : size * (round_ + 1)])
        return wire.Result(view.epoch, view.ring, round_, end[0], end[65:], end[1:65])

    def since(self, first: int, until: int) -> Iterator[wire.Result]:
        """The RESULTs of rounds `first` to `until` - 1."""
        return (self.result(round_) for round_ in range(first, min(until, self.settled)))

    @property
    def ends(self) -> list[tuple[int, str]]:
        """Outcome and roster (hex) of each round, for an event log."""
        return [(each.outcome, each.roster.hex()) for each in self.since(0, self.settled)]

    @property
    def leaf(self) -> bytes | None:
        """
        Once every round has ended: 32 bytes for a log that members compare, so that the last round has one end as well.

        No later round of the epoch would show two ends of its last one.
        """
        if self.settled < self._view.rounds:
            return None
        return digest("history-leaf", self._view.digest, struct.pack("<Q", self._view.ring), self.hash(self.settled))
