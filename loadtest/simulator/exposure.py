"""
What an adversary that sees every message of a ring could open: kept apart from what the machines believe.

For each attempt the exposure knows which processes shared, under which E and with which nonces of the others, whose
words towards whom were given away, and whose self mask is open (revealed, or t partial evaluations were sent).  A
pair's mask is known to the adversary where one end is corrupt, or where it was given away; one that only one end has
masked with, the other one being gone or told another process of the first, closes the share that has it.  So the sums
that come open are the connected components, over the other pairs, all of whose shares are open and none closed.  Giving
away the net sum of several pairs is counted as giving away each of them: that favours the adversary.

A gateway may run in several copies of its store (`copies`).  All of them hold the same reading, whatever account each
has: it may be in one opened sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from protocol import wire
from protocol.dcnet.machines.member import Member
from protocol.dcnet.setup.rings import RingView, positions_of


class PrivacyBroken(AssertionError):
    """Somebody could open a sum that must stay closed."""


class Process(NamedTuple):
    """One process of the gateway at a position."""

    position: int
    nonce: bytes


Pair = tuple[Process, Process]


def _pair(one: Process, other: Process) -> Pair:
    return (one, other) if one < other else (other, one)


@dataclass(frozen=True, slots=True)
class _Share:
    """What a process masked towards: E as a bitmap, and by position the process that it took for the gateway there."""

    expected: int
    nonces: tuple[bytes, ...]

    def masks(self, other: Process) -> bool:
        """Whether the pair's mask with a process is in it, if they are neighbours."""
        return bool(self.expected >> other.position & 1) and self.nonces[other.position] == other.nonce


@dataclass(slots=True)
class _Attempt:
    shared: dict[Process, _Share] = field(default_factory=dict)
    given_away: set[Pair] = field(default_factory=set)
    opened: set[Process] = field(default_factory=set)
    partials: dict[Process, set[int]] = field(default_factory=dict)


class ExposureLog:
    """Watches what members send; a `store` is the number of the disk that a process runs on."""

    def __init__(self, view: RingView, corrupt: set[int]) -> None:
        self._view = view
        self._corrupt = corrupt
        self._attempts: dict[tuple[int, int], _Attempt] = {}
        self._served: dict[tuple[int, int], int] = {}
        self._in_sum: dict[tuple[int, int], tuple[int, int]] = {}  # (member, round) -> the opened sum that it is in
        self._current = -1
        self.smallest = view.size  # honest members of the smallest sum that came open

    def _attempt(self, round_: int, attempt: int) -> _Attempt:
        if round_ > self._current:
            for key in [key for key in self._attempts if key[0] < round_ - 2]:
                self._close(key)
            self._current = round_
        known = self._attempts.get((round_, attempt))
        if known is None:
            known = self._attempts[round_, attempt] = _Attempt()
        return known

    def served(self, store: int, round_: int, attempt: int) -> None:
        """A member made durable that it serves an attempt."""
        if self._served.setdefault((store, round_), attempt) != attempt:
            raise PrivacyBroken("a member served two attempts of a round")

    def sent(self, store: int, message: wire.RingMessage, machine: Member) -> None:
        """A member sent a message to its head."""
        if not isinstance(message, wire.MaskedInput | wire.Confirm | wire.Reveal | wire.Partial):
            return
        known = machine.incarnation
        process, attempt = Process(machine.position, known.nonce), self._attempt(message.round, message.attempt)
        match message:
            case wire.MaskedInput():
                attempt.shared[process] = _Share(machine.current.expected, tuple(known.newest))
            case wire.Confirm():
                gone = machine.current.expected & ~machine.current.roster & self._view.neighbourhoods[process.position]
                for other in positions_of(gone):
                    attempt.given_away.add(_pair(process, Process(other, known.newest[other])))
            case wire.Reveal():
                self._require_served(store, message.round, message.attempt)
                attempt.opened.add(process)
            case wire.Partial():
                self._require_served(store, message.round, message.attempt)
                silent = Process(message.silent, known.newest[message.silent])
                helpers = attempt.partials.setdefault(silent, set())
                helpers.add(process.position)
                corrupt = len(self._corrupt & set(positions_of(self._view.neighbourhoods[silent.position])))
                if len(helpers - self._corrupt) + corrupt >= self._view.t:
                    attempt.opened.add(silent)

    def _require_served(self, store: int, round_: int, attempt: int) -> None:
        if self._served.get((store, round_)) != attempt:
            raise PrivacyBroken("something was given away before it was durable")

    def _close(self, key: tuple[int, int]) -> None:
        """Work out which sums came open in an attempt, and check them."""
        round_, number = key
        for index, honest in enumerate(self._open_components(self._attempts.pop(key))):
            self.smallest = min(self.smallest, len(honest))
            if len(honest) < self._view.n_min - len(self._corrupt):
                raise PrivacyBroken(f"a sum of {len(honest)} honest members came open")
            for member in honest:
                if self._in_sum.setdefault((member, round_), (number, index)) != (number, index):
                    raise PrivacyBroken("a reading is in two opened sums")

    def _open_components(self, attempt: _Attempt) -> list[set[int]]:
        """The positions of each."""
        left = {process for process in attempt.shared if process.position not in self._corrupt}
        out = []
        while left:
            start = left.pop()
            component, frontier = [start], [start]
            while frontier:
                one = frontier.pop()
                linked = [other for other in left if self._is_masked(attempt, one, other)]
                left.difference_update(linked)
                component += linked
                frontier += linked
            if all(each in attempt.opened and not self._is_closed(attempt, each) for each in component):
                out.append({each.position for each in component})
        return out

    def _is_masked(self, attempt: _Attempt, one: Process, other: Process) -> bool:
        """Whether the pair's mask is in a share, and was not given away."""
        if not self._view.neighbourhoods[one.position] >> other.position & 1:
            return False
        is_in = attempt.shared[one].masks(other) or attempt.shared[other].masks(one)
        return is_in and _pair(one, other) not in attempt.given_away

    def _is_closed(self, attempt: _Attempt, process: Process) -> bool:
        """Whether a share has a mask that nobody cancels and nobody gave away."""
        share = attempt.shared[process]
        for position in positions_of(share.expected & self._view.neighbourhoods[process.position]):
            other = Process(position, share.nonces[position])
            if position in self._corrupt or _pair(process, other) in attempt.given_away:
                continue
            if other not in attempt.shared or not attempt.shared[other].masks(process):
                return True
        return False

    def close(self) -> None:
        """Check what is still under watch."""
        for key in list(self._attempts):
            self._close(key)
