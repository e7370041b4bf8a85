"""
A head that is nobody's machine: it plays the members against each other with everything a head can send.

Where `liar` twists what an honest head would say, this one has a plan for each round: it cuts the ring into parties,
shows every party a roster of its own, hands each member exactly the confirmations that fit what it was shown, asks for
the recovery of whoever it likes, and then tries the next attempt with other parties.  It never reports a total; what
it could open with all it was given is the exposure's business.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto.suite import MAC_SIZE
from protocol.dcnet.machines.effects import HeadEffect, ToMember
from protocol.dcnet.machines.history import History
from protocol.dcnet.machines.incarnations import NonceTable
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of

Parties = dict[int, int]  # member -> the roster it is shown
Plan = Callable[[RingView, int, Random], Parties]


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
    """Has the interface of the head machine as far as the simulator uses it."""

    def __init__(self, view: RingView, term: int, now_s: float, random: Random) -> None:
        self.view = view
        self.present = 0
        self._nonces = NonceTable(CheapSuite(), view)
        self._history = History(view)
        self._term = term
        self._random = random
        self._round = max(0, view.timing.round_at(now_s))
        self._attempt = -1
        self._shown: Parties = {}
        self._macs: dict[int, bytes] = {}
        self._shared = 0
        self._step = 0
        self._deadline_s = max(now_s + view.timing.gather_s, view.timing.open_at_s(self._round))

    def next_timer_s(self) -> float:
        """The next move's time."""
        return self._deadline_s

    def lost(self, position: int, now_s: float) -> None:
        """It does not care."""

    def result(self, message: wire.Result, now_s: float) -> list[HeadEffect]:  # noqa: ARG002
        """Pass it on, so that the members go on to the next round."""
        self._history.add(message)
        return [ToMember(i, message) for i in positions_of(self.present)]

    def receive(self, position: int, message: wire.RingMessage, now_s: float) -> list[HeadEffect]:  # noqa: ARG002
        """Collect."""
        match message:
            case wire.Ready():
                self.present |= 1 << position
                self._nonces.newest[position] = message.nonce
                self._nonces.signatures[position] = message.signature
            case wire.MaskedInput() if (message.round, message.attempt) == (self._round, self._attempt):
                self._shared |= 1 << position
            case wire.Confirm() if (message.round, message.attempt) == (self._round, self._attempt):
                self._macs[position] = message.macs
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
                self._shown = self._random.choice(PLANS)(self.view, self._shared, self._random)
                self._macs.clear()
                return [
                    ToMember(i, wire.Roster(*self._where(), self.view.to_wire(roster)))
                    for i, roster in self._shown.items()
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
        if self._round >= self.view.rounds:
            self._deadline_s = float("inf")
            return []
        self._attempt += 1
        self._shared = 0
        opening = wire.Open(
            self.view.epoch, self.view.ring, self._term, self._round, self._attempt, self.view.to_wire(self.present),
            *self._nonces.difference(self.present), min(self._history.settled, self._round),
            self.view.to_wire(self.view.everybody),
        )  # fmt: skip
        return [ToMember(i, opening) for i in positions_of(self.present)]

    def _confirmations(self) -> list[HeadEffect]:
        out: list[HeadEffect] = []
        for i in self._macs:
            makers = [
                j for j in positions_of(self.view.neighbourhoods[i] & self._shown[i])
                if j in self._macs and self._shown[j] == self._shown[i]
            ]  # fmt: skip
            joined = b"".join(self._mac(j, i) for j in makers)
            out.append(ToMember(i, wire.Confirmed(*self._where(), self.view.to_wire(bitmap(makers)), joined)))
        return out

    def _mac(self, maker: int, target: int) -> bytes:
        index = positions_of(self.view.neighbourhoods[maker] & self._shown[maker]).index(target)
        return self._macs[maker][MAC_SIZE * index : MAC_SIZE * (index + 1)]

    def _recoveries(self) -> list[HeadEffect]:
        out: list[HeadEffect] = []
        for i, roster in self._shown.items():
            silent = roster & ~(1 << i) & self._random.getrandbits(self.view.size)
            out.append(ToMember(i, wire.Recover(*self._where(), self.view.to_wire(silent))))
        return out
