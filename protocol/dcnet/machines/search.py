"""
Who spoils a ring's sums: a head's search for it by leaving members out of the next rounds.

A sum in which masks are left over says that somebody of its roster sent a wrong share or wrong words, and not who: the
words of one member look like any other's.  But whoever sits out a round spoils nothing in it, and loses nothing, since
energy is carried.  So the head leaves a part of the members out of the next E, looks whether the round opens, and
narrows it down, one round a step (a member that has revealed takes part in no other attempt of its round).

One liar is assumed first (`_OneLiar`), and nothing of how it behaves: it may lie whenever it likes, and it sees E.  A
sum that opens therefore clears nobody, it only says where to look next; a spoilt one proves that the liar is in its
roster.  What is common to all spoilt rosters, once it is one member, is the liar, if there is only one.  It is named
when a round without it has opened.  Where the rosters have nothing in common there are several liars, and they are
searched for (`_SeveralLiars`) as what lies in every round: a sum that opens then clears its roster.

All sets of members are bitmaps.  Nothing here knows time, messages, or whose word the evidence is: a head that lies can
name whom it likes, so what it finds is its own business and a claim to everybody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from protocol.dcnet.setup.rings import RingView, bitmap, positions_of

_TRIES_OF_A_HEAD = 5  # sets that a head gets to leave out before it is replaced: where its successor goes on


def _usable(room: int) -> int:
    """Two thirds of what may be missing, rounded up: the rest is for members that fall silent meanwhile."""
    return max(0, -(-2 * room // 3))


def leave_out(view: RingView, present: int, *wishes: tuple[Sequence[int], int]) -> int:
    """
    Whom of the wishes a round of those present can do without: as many of each as it says, first come first served.

    What is left has n_min members, each with k_min neighbours in it, and some of both to spare.
    """
    room = _usable(present.bit_count() - view.n_min)
    near = {i: _usable((view.neighbourhoods[i] & present).bit_count() - view.k_min) for i in positions_of(present)}
    out = 0
    for members, most in wishes:
        left = min(most, room - out.bit_count())
        for position in members:
            stay = positions_of(view.neighbourhoods[position] & present & ~out)
            if left > 0 and all(near[i] for i in stay):
                out |= 1 << position
                left -= 1
                for i in stay:
                    near[i] -= 1
    return out


def spread(members: int, count: int) -> list[int]:
    """All of them, `count` that lie evenly on the circle first."""
    everybody = positions_of(members)
    first = [everybody[index * len(everybody) // count] for index in range(count)]
    return first + [position for position in everybody if position not in first]


def room(view: RingView) -> int:
    """How many members a round can do without while everybody is there."""
    count = _usable(view.size - view.n_min)
    return leave_out(view, view.everybody, (spread(view.everybody, count), count)).bit_count()


def lost_rounds_max(size: int, room: int) -> int:
    """
    How many rounds one liar among `size` members can spoil until it is known, `room` being left out at a time.

    The first one, and one for each step s -> s - min(room, ⌈s/2⌉) from `size` down to 1; 0 without any room.
    """
    if not room:
        return 0
    lost = 1
    while size > 1:
        size -= min(room, -(-size // 2))
        lost += 1
    return lost


def lost_rounds_granted(view: RingView) -> int:
    """
    What the round ledger lets a head lose by its search: with half of the room.

    That is for members that are away, and for suspects that sit too close on a sparse circle to be left out together.
    """
    most = room(view)
    return lost_rounds_max(view.size, -(-most // 2))


class Search:
    """What the head of one term has found out; `turn` is the term, so that its successor does not repeat it."""

    def __init__(self, view: RingView, turn: int) -> None:
        self.named = 0
        self._view = view
        self._turn = turn
        self._hunt: _OneLiar | _SeveralLiars | None = None

    @property
    def suspects(self) -> int:
        """Among whom a liar is searched for; 0 where no search is on."""
        return 0 if self._hunt is None else self._hunt.suspects

    def expected(self, present: int) -> int:
        """E of the next round: those present, without the named and without whom the search leaves out."""
        base = present & ~self.named
        return base if self._hunt is None else base & ~self._hunt.leave_out(base)

    def name(self, position: int) -> None:
        """A member has been caught in the act: it explains what was spoilt so far."""
        self.named |= 1 << position
        self._hunt = None

    def opened(self, roster: int) -> int:
        """The sum over `roster` opened.  Who is named by that, if anybody."""
        if self._hunt is None:
            return 0
        found = self._hunt.opened(roster)
        self.named |= found
        if self._hunt.is_over:
            self._hunt = None
        return found

    def spoilt(self, culprits: int) -> int:
        """One of `culprits` lied: the roster of a sum that did not open.  Who is named by that, if anybody."""
        if culprits & self.named:
            return 0
        if self._hunt is None:
            self._hunt = _OneLiar(self._view, culprits)
            return 0
        found = self._hunt.spoilt(culprits)
        self.named |= found
        if self._hunt.is_refuted:
            self._hunt = (
                _SeveralLiars(self._view, self._view.everybody & ~self.named, self._turn)
                if isinstance(self._hunt, _OneLiar)
                else _OneLiar(self._view, culprits)
            )
        return found


class _OneLiar:
    """
    `suspects` are in every spoilt roster; the liar is among the `hot` ones, if it lies in every round.

    Every round leaves out half of the hot ones and as many of the other suspects as it can, so a spoilt one takes at
    least half of the suspects away, or as many as can be left out, whatever the liar does.  A liar that keeps still
    would have members left out for ever: after `patience` opened rounds in a row the search is laid down; the next
    spoilt roster takes it up again, suspects and all, for twice as long.
    """

    def __init__(self, view: RingView, culprits: int) -> None:
        self.suspects = self._hot = culprits
        self.is_over = False
        self._view = view
        # More than a liar that always lies can keep still: it is halved.
        self._quiet_rounds_max = view.size.bit_length() + 1
        self._quiet = 0

    @property
    def is_refuted(self) -> bool:
        """Whether one liar cannot have done it."""
        return not self.suspects

    def leave_out(self, base: int) -> int:
        there = self.suspects & base
        if self._quiet >= self._quiet_rounds_max:
            return 0
        if self.suspects.bit_count() == 1:
            return leave_out(self._view, base, (positions_of(there), 1))
        hot = self._hot & there or there
        half = -(-hot.bit_count() // 2) if hot & (hot - 1) else 0
        cold = there & ~hot
        most = _usable(base.bit_count() - self._view.n_min)
        evenly = min(half, most)
        others = min(cold.bit_count(), most - evenly)
        return leave_out(self._view, base, (spread(hot, evenly), half), (spread(cold, others), others))

    def opened(self, roster: int) -> int:
        if self.suspects.bit_count() == 1 and not self.suspects & roster:
            self.is_over = True
            return self.suspects
        self._quiet += 1
        self._hot = self._hot & ~roster or self.suspects
        return 0

    def spoilt(self, culprits: int) -> int:
        if self._quiet >= self._quiet_rounds_max:
            self._quiet_rounds_max *= 2
        self._quiet = 0
        self.suspects &= culprits
        self._hot = self._hot & self.suspects or self.suspects
        return 0


class _SeveralLiars:
    """
    First two sets of members out of many are left out, then three, until a round opens: its roster is cleared.

    Then those left out come back, half of the doubtful ones at a time.  A spoilt roster has a liar among its members
    that are not cleared; where that is one member, it is named.  Where everybody was cleared, somebody lies by whim.
    """

    def __init__(self, view: RingView, members: int, turn: int) -> None:
        self.is_refuted = False
        self._view = view
        self._members = members
        self._cleared = 0
        self._doubtful = 0
        self._waiting = 0  # who was there in the last round and is not cleared
        self._sets = _unions(members, room(view), turn)
        self._set = next(self._sets)

    @property
    def suspects(self) -> int:
        return self._doubtful or self._members & ~self._cleared

    @property
    def is_over(self) -> bool:
        return bool(self._cleared) and not self._waiting

    def leave_out(self, base: int) -> int:
        if not self._cleared:
            return leave_out(self._view, base, (positions_of(self._set & base), self._view.size))
        self._waiting = base & ~self._cleared
        doubtful = self._doubtful & base or self._waiting
        half = -(-doubtful.bit_count() // 2)
        back = bitmap(spread(doubtful, half)[:half])
        return leave_out(self._view, base, (positions_of(self._waiting & ~back), self._view.size))

    def opened(self, roster: int) -> int:
        if not self._cleared:
            self._waiting = self._members & ~roster
        self._cleared |= roster
        self._doubtful &= ~roster
        self._waiting &= ~roster
        return self._only_one()

    def spoilt(self, culprits: int) -> int:
        if not self._cleared:
            self._set = next(self._sets)
            return 0
        self._doubtful = culprits & ~self._cleared
        self.is_refuted = not self._doubtful
        return self._only_one()

    def _only_one(self) -> int:
        if self._doubtful.bit_count() != 1:
            return 0
        found, self._doubtful = self._doubtful, 0
        self._members &= ~found
        self._waiting &= ~found
        return found


def _unions(members: int, room: int, turn: int) -> Iterator[int]:
    """Which members to leave out together: any two at some time, then any three, as `room` allows, for ever."""
    everybody = positions_of(members)
    while True:
        for many in sorted({min(2, room), min(3, room)}):
            size = max(1, room // max(1, many))
            count = min(len(everybody), -(-len(everybody) // size))
            sets = [bitmap(everybody[index::count]) for index in range(count)]
            unions = [sum(chosen) for chosen in combinations(sets, many)]
            first = turn * _TRIES_OF_A_HEAD % len(unions)
            yield from unions[first:] + unions[:first]
