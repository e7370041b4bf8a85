"""
What an adversary that sees every message of a ring could open: kept apart from what the machines believe.

For each attempt the exposure knows who shared under which E, whose words towards whom were given away, and whose self
mask is open (revealed, or t partial evaluations were sent).  The shares of a set of members sum to their readings
exactly when all their self masks are open and every pair of the set's members with somebody outside has been given
away; so the sums that come open are the connected components, over pairs that were not given away, all of whose
members are open.  Giving away the net sum of several pairs is counted as giving away each of them: that favours the
adversary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol import wire
from protocol.dcnet.machines.member import Member
from protocol.dcnet.setup.rings import RingView, positions_of


class PrivacyBroken(AssertionError):
    """Somebody could open a sum that must stay closed."""


@dataclass(slots=True)
class _Attempt:
    shared: dict[int, int] = field(default_factory=dict)  # member -> its E
    given_away: set[tuple[int, int]] = field(default_factory=set)
    opened: int = 0
    partials: dict[int, set[int]] = field(default_factory=dict)


class ExposureLog:
    """Watches what members send."""

    def __init__(self, view: RingView, corrupt: set[int]) -> None:
        self._view = view
        self._corrupt = corrupt
        self._attempts: dict[tuple[int, int], _Attempt] = {}
        self._served: dict[tuple[int, int], int] = {}
        self._in_sum: dict[tuple[int, int], int] = {}  # (member, round) -> the attempt whose opened sum it is in
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

    def served(self, member: int, round_: int, attempt: int) -> None:
        """A member made durable that it serves an attempt."""
        if self._served.setdefault((member, round_), attempt) != attempt:
            raise PrivacyBroken("a member served two attempts of a round")

    def sent(self, member: int, message: wire.RingMessage, machine: Member) -> None:
        """A member sent a message to its head."""
        match message:
            case wire.MaskedInput():
                self._attempt(message.round, message.attempt).shared[member] = machine.current.expected
            case wire.Confirm():
                gone = machine.current.expected & ~machine.current.roster & self._view.neighbourhoods[member]
                attempt = self._attempt(message.round, message.attempt)
                for other in positions_of(gone):
                    attempt.given_away.add((min(member, other), max(member, other)))
            case wire.Reveal():
                self._require_served(member, message.round, message.attempt)
                self._attempt(message.round, message.attempt).opened |= 1 << member
            case wire.Partial():
                self._require_served(member, message.round, message.attempt)
                attempt = self._attempt(message.round, message.attempt)
                helpers = attempt.partials.setdefault(message.silent, set())
                helpers.add(member)
                corrupt = len(self._corrupt & set(positions_of(self._view.neighbourhoods[message.silent])))
                if len(helpers - self._corrupt) + corrupt >= self._view.t:
                    attempt.opened |= 1 << message.silent
            case _:
                return

    def _require_served(self, member: int, round_: int, attempt: int) -> None:
        if self._served.get((member, round_)) != attempt:
            raise PrivacyBroken("something was given away before it was durable")

    def _close(self, key: tuple[int, int]) -> None:
        """Work out which sums came open in an attempt, and check them."""
        attempt = self._attempts.pop(key)
        for component in self._open_components(attempt):
            honest = [member for member in component if member not in self._corrupt]
            if not honest:
                continue
            self.smallest = min(self.smallest, len(honest))
            if len(honest) < self._view.n_min - len(self._corrupt):
                raise PrivacyBroken(f"a sum of {len(honest)} honest members came open")
            for member in honest:
                if self._in_sum.setdefault((member, key[0]), key[1]) != key[1]:
                    raise PrivacyBroken("a reading is in two opened sums")

    def _open_components(self, attempt: _Attempt) -> list[list[int]]:
        left = set(attempt.shared)
        out = []
        while left:
            start = left.pop()
            component, frontier = [start], [start]
            while frontier:
                member = frontier.pop()
                for other in list(left):
                    if self._is_masked(attempt, member, other):
                        left.remove(other)
                        component.append(other)
                        frontier.append(other)
            if all(attempt.opened >> member & 1 for member in component):
                out.append(component)
        return out

    def _is_masked(self, attempt: _Attempt, a: int, b: int) -> bool:
        """Whether the pair's mask is in a's share and was not given away."""
        low, high = min(a, b), max(a, b)
        if not self._view.neighbourhoods[a] >> b & 1 or (low, high) in attempt.given_away:
            return False
        return bool(attempt.shared[a] >> b & 1 or attempt.shared[b] >> a & 1)

    def close(self) -> None:
        """Check what is still under watch."""
        for key in list(self._attempts):
            self._close(key)
