"""
A head that lies: it runs the real machine and twists what leaves it, to get more than the one sum it may have.

Each lie aims at a rule of docs/explanation/protocol.md, section 7; a round's lie is drawn at random, so that they also
combine over the rounds.  Corrupt gateways other than the head follow the protocol and lend the adversary their keys,
which the exposure accounts for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from protocol import wire
from protocol.dcnet.machines.effects import HeadEffect, ToCoordinator, ToMember
from protocol.dcnet.machines.head import Head
from protocol.dcnet.setup.rings import RingView, positions_of

Outgoing = ToMember[wire.RingMessage]
Misbehaviour = Callable[["Liar", RingView, Outgoing, Random], list[Outgoing]]


def _split_roster(liar: Liar, view: RingView, to: Outgoing, random: Random) -> list[Outgoing]:
    """Show every member a roster of its own (rules 3 and 4)."""
    message = to.message
    if not isinstance(message, wire.Roster):
        return [to]
    roster = view.from_wire(message.roster)
    smaller = roster
    for position in positions_of(roster & ~(1 << to.position)):
        if random.random() < liar.boldness:
            smaller &= ~(1 << position)
    return [ToMember(to.position, replace(message, roster=view.to_wire(smaller)))]


def _two_camps(liar: Liar, view: RingView, to: Outgoing, random: Random) -> list[Outgoing]:  # noqa: ARG001
    """Show two camps of neighbouring positions two rosters, each without the other's heart."""
    message = to.message
    if not isinstance(message, wire.Roster):
        return [to]
    roster = view.from_wire(message.roster)
    half = view.size // 2
    camp = [p for p in positions_of(roster) if (p < half) == (to.position < half)]
    others = [p for p in positions_of(roster) if p not in camp]
    for position in others[len(others) // 3 : -len(others) // 3 or None]:
        roster &= ~(1 << position)
    return [ToMember(to.position, replace(message, roster=view.to_wire(roster)))]


def _isolate(liar: Liar, view: RingView, to: Outgoing, random: Random) -> list[Outgoing]:  # noqa: ARG001
    """Leave a few out of everybody's roster and show the few one of their own (rules 3 and 4)."""
    message = to.message
    if not isinstance(message, wire.Roster):
        return [to]
    roster = view.from_wire(message.roster)
    first = 1 + message.round % (view.size - 2)
    few = ((1 << 2) - 1) << first & roster
    shown = few if few >> to.position & 1 else roster & ~few
    return [ToMember(to.position, replace(message, roster=view.to_wire(shown)))]


def _second_roster(liar: Liar, view: RingView, to: Outgoing, random: Random) -> list[Outgoing]:
    """Show a member one roster and then another (rule 4)."""
    if not isinstance(to.message, wire.Roster):
        return [to]
    return [to, *_split_roster(liar, view, to, random)]


def _recover_the_living(liar: Liar, view: RingView, to: Outgoing, random: Random) -> list[Outgoing]:  # noqa: ARG001
    """Ask for the recovery of members that are alive, together with the confirmations and before them (rules 2, 3)."""
    message = to.message
    if not isinstance(message, wire.Confirmed):
        return [to]
    everybody = view.to_wire(view.everybody & ~(1 << to.position))
    some = view.to_wire(view.neighbourhoods[to.position] & random.getrandbits(view.size))
    recover = [
        ToMember(
            to.position,
            wire.Recover(message.epoch, message.ring, message.round, message.attempt, silent),
        )
        for silent in (everybody, some)
    ]
    return [*recover, to, *recover]


def _next_attempt_too(liar: Liar, view: RingView, to: Outgoing, random: Random) -> list[Outgoing]:  # noqa: ARG001
    """Open another attempt after the reveals were asked for (rule 1)."""
    message = to.message
    opening = liar.opening
    if not isinstance(message, wire.Confirmed) or message.attempt + 1 >= wire.MAX_ATTEMPTS or opening is None:
        return [to]
    again = replace(opening, attempt=message.attempt + 1)
    roster = wire.Roster(message.epoch, message.ring, message.round, message.attempt + 1, opening.expected)
    return [to, ToMember(to.position, again), ToMember(to.position, roster)]


def _few_confirmations(liar: Liar, view: RingView, to: Outgoing, random: Random) -> list[Outgoing]:  # noqa: ARG001
    """Hand out fewer confirmations, or broken ones (rule 3)."""
    message = to.message
    if not isinstance(message, wire.Confirmed):
        return [to]
    if random.random() < 0.5:
        macs = bytearray(message.macs)
        for index in range(0, len(macs), 16):
            if random.random() < 0.7:
                macs[index] ^= 1
        return [ToMember(to.position, replace(message, macs=bytes(macs)))]
    makers = positions_of(view.from_wire(message.makers))
    keep = makers[: view.t_c - 1]
    return [
        ToMember(
            to.position,
            replace(message, makers=view.to_wire(sum(1 << p for p in keep)), macs=message.macs[: 16 * len(keep)]),
        )
    ]


def _small_expected(liar: Liar, view: RingView, to: Outgoing, random: Random) -> list[Outgoing]:
    """Start with an E of its own for each member, too small for some (rule 4)."""
    message = to.message
    if not isinstance(message, wire.Open):
        return [to]
    expected = view.from_wire(message.expected)
    for position in positions_of(expected & ~(1 << to.position)):
        if random.random() < liar.boldness:
            expected &= ~(1 << position)
    changed = view.from_wire(message.changed)
    nonces = b"".join(
        message.nonces[wire.NONCE_SIZE * index : wire.NONCE_SIZE * (index + 1)]
        for index, position in enumerate(positions_of(changed))
        if expected >> position & 1
    )
    smaller = replace(message, expected=view.to_wire(expected), changed=view.to_wire(changed & expected), nonces=nonces)
    return [ToMember(to.position, smaller)]


def _forged_result(liar: Liar, view: RingView, to: Outgoing, random: Random) -> list[Outgoing]:  # noqa: ARG001
    """Tell a member that the round ended otherwise."""
    message = to.message
    if not isinstance(message, wire.Result):
        return [to]
    other = wire.Outcome.VOID if message.outcome == wire.Outcome.OPENED else wire.Outcome.OPENED
    return [ToMember(to.position, replace(message, outcome=int(other))), to]


LIES: dict[str, Misbehaviour] = {
    "split_roster": _split_roster,
    "two_camps": _two_camps,
    "isolate": _isolate,
    "second_roster": _second_roster,
    "recover_the_living": _recover_the_living,
    "next_attempt_too": _next_attempt_too,
    "few_confirmations": _few_confirmations,
    "small_expected": _small_expected,
    "forged_result": _forged_result,
}


@dataclass(slots=True)
class Liar:
    """Twists the instructions of the heads that are corrupt."""

    corrupt: set[int]
    lies: Sequence[str] = tuple(LIES)
    boldness: float = 0.25
    is_adaptive: bool = (
        False  # the corrupt heads are `adversary.Adversary`, not honest machines whose messages are altered
    )
    is_colluding: bool = False  # so is the coordinator: it appoints no other head, and hears every copy of a gateway
    opening: wire.Open | None = None
    told: dict[str, int] = field(default_factory=dict)
    _lie: str = ""
    _round: int = -1

    def blame(self, head: Head, effects: Sequence[HeadEffect], random: Random) -> list[HeadEffect]:
        """A sum that opens is told to be corrupt, with the true evidence, with a word changed, or with none."""
        out: list[HeadEffect] = []
        for each in effects:
            if isinstance(each, ToCoordinator) and isinstance(each.message, wire.RingTotal) and random.random() < 0.3:
                said = head.current.evidence(head.view)
                first, *others = said.evidence
                changed = (random.randbytes(8), *first[1:]), *others
                evidence: tuple[wire.Evidence, ...] = random.choice([said.evidence, changed, ()])
                self.told["blame"] = self.told.get("blame", 0) + 1
                out.append(ToCoordinator(replace(said, evidence=evidence)))
            else:
                out.append(each)
        return out

    def twist(self, view: RingView, instructions: Sequence[HeadEffect], random: Random) -> list[HeadEffect]:
        """What leaves instead."""
        out: list[HeadEffect] = []
        for each in instructions:
            if not isinstance(each, ToMember):
                out.append(each)
                continue
            if isinstance(each.message, wire.Open):
                self.opening = each.message
                if each.message.round != self._round:
                    self._round = each.message.round
                    self._lie = random.choice(list(self.lies))
            if self._lie:
                twisted = LIES[self._lie](self, view, each, random)
                if twisted != [each]:
                    self.told[self._lie] = self.told.get(self._lie, 0) + 1
                out += twisted
            else:
                out.append(each)
        return out
