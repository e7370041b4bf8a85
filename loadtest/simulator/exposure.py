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

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from protocol import wire
from protocol.dcnet.machines.member import Member
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of

_WATCHED = wire.MaskedInput, wire.Confirm, wire.Reveal, wire.Partial


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


@lru_cache(maxsize=256)
def _processes(nonces: tuple[bytes, ...]) -> tuple[Process, ...]:
    """Of all positions: most shares of an attempt name the same."""
    return tuple(map(Process, range(len(nonces)), nonces))


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
        self._known = bitmap(corrupt)  # whose masks with others the adversary knows
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
        if not isinstance(message, _WATCHED):
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
        masked = self._masked_with(attempt)
        left, out = set(masked), []
        while left:
            start = left.pop()
            component, frontier = [start], [start]
            while frontier:
                one = frontier.pop()
                linked = left & masked[one]
                linked |= {other for other in left - linked if one in masked[other]}
                left -= linked
                component += linked
                frontier += linked
            if all(each in attempt.opened and not _is_closed(masked, each) for each in component):
                out.append({each.position for each in component})
        return out

    def _masked_with(self, attempt: _Attempt) -> dict[Process, Set[Process]]:
        """With whom each honest process that shared has a mask in its share that the adversary does not know."""
        out: dict[Process, Set[Process]] = {}
        for process, share in attempt.shared.items():
            if process.position in self._corrupt:
                continue
            others = share.expected & self._view.neighbourhoods[process.position] & ~self._known
            processes = _processes(share.nonces)
            masked = {processes[position] for position in positions_of(others)}
            if attempt.given_away:
                masked = {other for other in masked if _pair(process, other) not in attempt.given_away}
            out[process] = masked
        return out

    def close(self) -> None:
        """Check what is still under watch."""
        for key in list(self._attempts):
            self._close(key)


def _is_closed(masked: Mapping[Process, Set[Process]], process: Process) -> bool:
    """Whether a share has a mask that nobody cancels and nobody gave away."""
    return any(process not in masked.get(other, ()) for other in masked[process])
