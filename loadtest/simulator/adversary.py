"""
A head that is nobody's machine: it plays the members against each other with everything a head can send.

Where `liar` twists what an honest head would say, this one has a plan for each round: it cuts the ring into parties,
shows every party a roster of its own, hands each member exactly the confirmations that fit what it was shown, asks for
the recovery of whoever it likes, and then tries the next attempt with other parties.  It never reports a total; what
it could open with all it was given is the exposure's business.

Where a gateway runs in several copies of its store it has a link to each, and tells every other process which of them
to take for the gateway: once it has told one another copy, that one takes the earlier copy no more.  Now and
then it tries that all the same, or says a nonce that no copy has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from protocol import wire
from protocol.dcnet.crypto.suite import MAC_SIZE
from protocol.dcnet.machines.effects import HeadEffect, ToMember
from protocol.dcnet.machines.history import History
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of
from protocol.dcnet.setup.statements import SIGNATURE_SIZE

Parties = dict[int, int]  # member -> the roster it is shown
Plan = Callable[[RingView, int, Random], Parties]

_CAMPS = 0.3  # rounds in which a part of the circle is told to take other copies for their gateways
_FORGERIES = 0.1  # attempts in which a process is told a nonce that it must not take, which costs its share in it


def _few(view: RingView, present: int, random: Random) -> Parties:
    """A few neighbouring members in a roster of their own, everybody else in one without them."""
    first, count = random.randrange(view.size), random.randint(1, max(2, view.size // 3))
    few = bitmap([(first + step) % view.size for step in range(count)]) & present
    return {i: few if few >> i & 1 else present & ~few for i in positions_of(present)}


def _arcs(view: RingView, present: int, random: Random) -> Parties:
    """Two arcs of the circle that overlap: each party's roster is its arc with a margin of the other."""
    first, half = random.randrange(view.size), view.size // 2
    margin = random.randrange(1 + view.size // 4)
    arcs = [
        bitmap([(first + start + step) % view.size for step in range(half + margin)]) & present for start in (0, half)
    ]
    return {i: arcs[0] if (i - first) % view.size < half else arcs[1] for i in positions_of(present)}


def _own(_view: RingView, present: int, random: Random) -> Parties:
    """A roster of its own for every member."""
    share = random.random() * 0.4
    return {
        i: present & ~bitmap([j for j in positions_of(present) if j != i and random.random() < share])
        for i in positions_of(present)
    }


def _smallest(view: RingView, present: int, random: Random) -> Parties:
    """As few members as a roster may have, drawn anew for two parties."""
    out: Parties = {}
    for _ in range(2):
        chosen = random.sample(positions_of(present), min(view.n_min, present.bit_count()))
        for i in chosen:
            out.setdefault(i, bitmap(chosen))
    return out


PLANS: tuple[Plan, ...] = (_few, _arcs, _own, _smallest)


class Adversary:
    """
    Has the interface of the head machine as far as the simulator uses it; processes are numbers.

    `positions` says where in the ring each process sits; it grows with copies that are started.
    """

    def __init__(self, view: RingView, term: int, now_s: float, random: Random, positions: Sequence[int]) -> None:
        self.view = view
        self._positions = positions
        self._nonces: dict[int, tuple[bytes, bytes]] = {}  # of each process that is there, with its signature
        self._taken: dict[tuple[int, int], int] = {}  # by (process, position): which it was told to take for a gateway
        self._left: dict[tuple[int, int], set[int]] = {}  # those before it
        self._camp = 0  # positions that are told, in this round, what follows, by position
        self._camp_takes: dict[int, int] = {}
        self._history = History(view)
        self._term = term
        self._random = random
        self._round = max(0, view.timing.round_at(now_s))
        self._attempt = -1
        self._tables: dict[int, tuple[tuple[int, bytes, bytes], ...]] = {}  # the nonces that each was told
        self._shown: Parties = {}  # by process
        self._macs: dict[int, bytes] = {}
        self._shared: set[int] = set()
        self._step = 0
        self._deadline_s = max(now_s + view.timing.gather_s, view.timing.open_at_s(self._round))

    def next_timer_s(self) -> float:
        """The next move's time."""
        return self._deadline_s

    def lost(self, process: int, now_s: float) -> None:
        """It does not care."""

    def result(self, message: wire.Result, now_s: float) -> list[HeadEffect]:  # noqa: ARG002
        """Pass it on, so that the members go on to the next round."""
        self._history.add(message)
        return [ToMember(process, message) for process in self._nonces]

    def receive(self, process: int, message: wire.RingMessage, now_s: float) -> list[HeadEffect]:  # noqa: ARG002
        """Collect."""
        match message:
            case wire.Ready():
                self._nonces[process] = message.nonce, message.signature
            case wire.MaskedInput() if (message.round, message.attempt) == (self._round, self._attempt):
                self._shared.add(process)
            case wire.Confirm() if (message.round, message.attempt) == (self._round, self._attempt):
                self._macs[process] = message.macs
            case _:
                pass
        return []

    def on_timer(self, now_s: float) -> list[HeadEffect]:
        """Open, show the parties their rosters, confirm them to themselves, recover at will, and again."""
        if now_s < self._deadline_s:
            return []
        self._deadline_s = now_s + self.view.timing.period_s / 14
        self._step = (self._step + 1) % 5
        match self._step:
            case 1:
                return self._open(now_s)
            case 2:
                self._show()
                self._macs.clear()
                return [
                    ToMember(process, wire.Roster(*self._where(), self.view.to_wire(roster)))
                    for process, roster in self._shown.items()
                ]
            case 3:
                return self._recoveries() + self._confirmations() + self._recoveries()
            case 4:
                return self._recoveries()
            case _:
                return []

    def _where(self) -> tuple[int, int, int, int]:
        return self.view.epoch, self.view.ring, self._round, self._attempt

    def _open(self, now_s: float) -> list[HeadEffect]:
        round_ = max(0, self.view.timing.round_at(now_s))
        if round_ > self._round or self._attempt + 1 >= wire.MAX_ATTEMPTS:
            if round_ <= self._round:  # all attempts are used up: wait for the next round
                self._step = 0
                self._deadline_s = self.view.timing.open_at_s(self._round + 1)
                return []
            self._round, self._attempt = round_, -1
            self._draw_camp()
        if self._round >= self.view.rounds:
            self._deadline_s = float("inf")
            return []
        self._attempt += 1
        self._shared.clear()
        expected = bitmap([self._positions[process] for process in self._nonces])
        self._tables = {process: self._table(process, expected) for process in self._nonces}
        if self._tables and self._random.random() < _FORGERIES:
            self._forge(self._random.choice(sorted(self._tables)), expected)
        return [ToMember(process, self._opening(expected, table)) for process, table in self._tables.items()]

    def _draw_camp(self) -> None:
        """Few enough that the others may still go on among themselves, or all."""
        self._camp, self._camp_takes = 0, {}
        if len(self._nonces) > len(set(self._positions)) and self._random.random() < _CAMPS:
            first, size = self._random.randrange(self.view.size), self.view.size
            count = self._random.choice([self._random.randint(1, size // 3), size])
            self._camp = bitmap([(first + step) % size for step in range(count)])

    def _table(self, process: int, expected: int) -> tuple[tuple[int, bytes, bytes], ...]:
        """Position, nonce and signature of each of E that has another nonce than LAYOUT's, as a process is told."""
        out = []
        for position in positions_of(expected):
            there = [each for each in self._nonces if self._positions[each] == position]
            taken = process if process in there else self._taken.get((process, position), there[0])
            if process not in there and self._camp >> self._positions[process] & 1:
                taken = self._camp_takes.setdefault(position, self._random.choice(there))
            if self._taken.setdefault((process, position), taken) != taken:
                self._left.setdefault((process, position), set()).add(self._taken[process, position])
            self._taken[process, position] = taken
            nonce, signature = self._nonces[taken]
            if nonce != self.view.members[position].nonce:
                out.append((position, nonce, signature))
        return tuple(out)

    def _forge(self, process: int, expected: int) -> None:
        """Tell a process of one other member a nonce that it has replaced before, or that no process has."""
        others = expected & ~(1 << self._positions[process])
        left = {position: self._left.get((process, position), set()) for position in positions_of(others)}
        again = [position for position, each in left.items() if each]
        position = self._random.choice(again or positions_of(others) or [self._positions[process]])
        forged = self._random.randbytes(wire.NONCE_SIZE), self._random.randbytes(SIGNATURE_SIZE)
        nonce, signature = self._nonces[min(left[position])] if again and self._random.random() < 0.5 else forged
        table = [each for each in self._tables[process] if each[0] != position]
        if nonce != self.view.members[position].nonce:
            table.append((position, nonce, signature))
        self._tables[process] = tuple(sorted(table))

    def _opening(self, expected: int, table: tuple[tuple[int, bytes, bytes], ...]) -> wire.Open:
        changed, nonces, signatures = zip(*table, strict=True) if table else ((), (), ())
        return wire.Open(
            self.view.epoch, self.view.ring, self._term, self._round, self._attempt, self.view.to_wire(expected),
            self.view.to_wire(bitmap(changed)), b"".join(nonces), b"".join(signatures),
            min(self._history.settled, self._round), self.view.to_wire(self.view.everybody),
        )  # fmt: skip

    def _show(self) -> None:
        """A plan for the positions; of the copies of one gateway the first has its roster, others any that has it."""
        shared = bitmap([self._positions[process] for process in self._shared])
        parties = self._random.choice(PLANS)(self.view, shared, self._random)
        self._shown, seen = {}, set[int]()
        for process in sorted(self._shared):
            position = self._positions[process]
            rosters = [parties[position]] if position in parties else []
            if position in seen:
                rosters = [each for each in parties.values() if each >> position & 1]
            seen.add(position)
            if rosters:
                self._shown[process] = self._random.choice(rosters)

    def _confirmations(self) -> list[HeadEffect]:
        out: list[HeadEffect] = []
        for process in self._macs:
            target = self._positions[process]
            within = self.view.neighbourhoods[target] & self._shown[process]
            makers = {
                self._positions[each]: each for each in self._macs
                if within >> self._positions[each] & 1 and self._shown[each] == self._shown[process]
                and self._tables[each] == self._tables[process]
            }  # fmt: skip
            joined = b"".join(self._mac(each, target) for _, each in sorted(makers.items()))
            bits = self.view.to_wire(bitmap(list(makers)))
            out.append(ToMember(process, wire.Confirmed(*self._where(), bits, joined)))
        return out

    def _mac(self, maker: int, target: int) -> bytes:
        neighbours = self.view.neighbourhoods[self._positions[maker]] & self._shown[maker]
        index = positions_of(neighbours).index(target)
        return self._macs[maker][MAC_SIZE * index : MAC_SIZE * (index + 1)]

    def _recoveries(self) -> list[HeadEffect]:
        out: list[HeadEffect] = []
        for process, roster in self._shown.items():
            silent = roster & ~(1 << self._positions[process]) & self._random.getrandbits(self.view.size)
            out.append(ToMember(process, wire.Recover(*self._where(), self.view.to_wire(silent))))
        return out
