"""
A member that lies: the real machine, and what it says to its head is changed on the way out.

Each lie is one that the head cannot see in the message itself, and is signed.  `whim` lies in half of its rounds,
`framing` does so exactly where another member is in E, to have that one named; both look at what the head does, as a
liar can.  `usurp` lies to the round ledger, in the head's place.

What the ledger asks afterwards is answered as the kind of lie says: with the true words (whose equation does not hold
then), with words that make up for the lie towards one neighbour (`pair`), sometimes not at all (`mute`), or now so and
now so (`adaptive`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from loadtest.signing import sign_again
from protocol import wire
from protocol.dcnet.crypto.group import Group
from protocol.dcnet.machines.member import Member
from protocol.dcnet.setup.rings import RingView
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.dcnet.setup.statements import words_text


@dataclass(slots=True)
class LyingMember:
    """The member at `position` tells one kind of lie; `victim` is whom it frames."""

    position: int
    lie: str
    victim: int
    group: Group
    random: Random
    told: int = 0
    _deltas: dict[tuple[int, int], int] = field(default_factory=dict)  # of the first word, by round and attempt
    _round: int = -1
    _in_mood: bool = True

    def twist(self, message: wire.RingMessage, member: Member, secrets: EpochSecrets) -> wire.RingMessage | None:
        """What leaves instead of a message of the member's machine."""
        if self.lie in {"whim", "adaptive"} and member.current.round != self._round:
            self._round, self._in_mood = member.current.round, self.random.random() < 0.5
        twisted = LIES[self.lie](self, message, member) if self._in_mood else message
        if twisted == message:
            return message
        self.told += 1
        if twisted is None:
            return None
        return sign_again(twisted, member, secrets)

    def answer(self, message: wire.Message, member: Member, secrets: EpochSecrets) -> wire.Message | None:
        """What leaves instead of an answer to the ledger; None where it keeps still."""
        if not isinstance(message, wire.MaskWords) or self.lie not in {"pair", "mute", "adaptive"}:
            return message
        way = self.lie if self.lie != "adaptive" else self.random.choice(["pair", "mute", "", "any"])
        if way == "mute":
            return message if self.random.random() < 0.2 else None
        context, roster, neighbours, words = member._answers._inquiries[message.round, message.attempt]
        others = [other for other in neighbours if roster >> other & 1]
        if way in {"pair", "any"} and others:
            target = self.victim if self.victim in others else self.random.choice(others)
            delta = self._deltas.get((message.round, message.attempt), 0) if way == "pair" else 1
            start = 8 * neighbours.index(target)
            word = int.from_bytes(words[start : start + 8], "little")
            word = (word + (delta if member.position < target else -delta)) % 2**64
            words = words[:start] + word.to_bytes(8, "little") + words[start + 8 :]
        text = words_text(member.view, member.position, context, words)
        return replace(message, words=words, signature=secrets.sign(text))

    def usurp(self, share: wire.MaskedInput, view: RingView, term: int) -> wire.RingTotal | None:
        """A total of nothing, before the head of `term` has one, as if our turn had been: None where it has."""
        if term % view.size >= self.position:
            return None
        self.told += 1
        bits = view.to_wire(view.everybody)
        total = view.size.to_bytes(8, "little") * view.word_count
        return wire.RingTotal(
            view.epoch, view.ring, share.round, share.attempt, self.position, bits, bits, total, b"", b"", b"",
        )  # fmt: skip


def _share(liar: LyingMember, message: wire.RingMessage, _member: Member) -> wire.RingMessage:
    """A share whose masks do not cancel."""
    if not isinstance(message, wire.MaskedInput):
        return message
    return replace(message, vector=liar.random.randbytes(len(message.vector)))


def _first_word(liar: LyingMember, message: wire.RingMessage, _member: Member) -> wire.RingMessage:
    """A share whose first word is wrong by what the liar remembers."""
    if not isinstance(message, wire.MaskedInput):
        return message
    delta = liar._deltas[message.round, message.attempt] = liar.random.randrange(1, 2**64)
    word = (int.from_bytes(message.vector[:8], "little") + delta) % 2**64
    return replace(message, vector=word.to_bytes(8, "little") + message.vector[8:])


def _silence(_liar: LyingMember, message: wire.RingMessage, _member: Member) -> wire.RingMessage | None:
    """Neither its seed nor help for others."""
    return None if isinstance(message, wire.Reveal | wire.Partial) else message


def _words(liar: LyingMember, message: wire.RingMessage, _member: Member) -> wire.RingMessage:
    """Wrong words towards the dropped, where there are any."""
    if not isinstance(message, wire.Confirm):
        return message
    return replace(message, dropped=liar.random.randbytes(len(message.dropped)))


def _seed(liar: LyingMember, message: wire.RingMessage, _member: Member) -> wire.RingMessage:
    """Another seed than the one that it masked with."""
    return replace(message, seed=liar.random.randbytes(32)) if isinstance(message, wire.Reveal) else message


def _seed_commitment(liar: LyingMember, message: wire.RingMessage, _member: Member) -> wire.RingMessage:
    """The right seed, bound to another one."""
    return (
        replace(message, seed_commitment=liar.random.randbytes(32))
        if isinstance(message, wire.MaskedInput)
        else message
    )


def _partial(liar: LyingMember, message: wire.RingMessage, _member: Member) -> wire.RingMessage:
    """Wrong help for a silent member."""
    if not isinstance(message, wire.Partial):
        return message
    return replace(message, element=liar.group.multiply_base(liar.random.randrange(1, liar.group.order)))


def _macs(liar: LyingMember, message: wire.RingMessage, _member: Member) -> wire.RingMessage:
    """Confirmations that its neighbours cannot count."""
    return (
        replace(message, macs=liar.random.randbytes(len(message.macs)))
        if isinstance(message, wire.Confirm)
        else message
    )


def _usurp(_liar: LyingMember, message: wire.RingMessage, _member: Member) -> wire.RingMessage:
    """To its head it says the truth: see `LyingMember.usurp`."""
    return message


def _whim(liar: LyingMember, message: wire.RingMessage, member: Member) -> wire.RingMessage:
    """A wrong share or wrong words."""
    return _words(liar, _share(liar, message, member), member)


def _framing(liar: LyingMember, message: wire.RingMessage, member: Member) -> wire.RingMessage:
    """A wrong share where the victim is in E."""
    return _share(liar, message, member) if member.current.expected >> liar.victim & 1 else message


LIES: dict[str, Callable[[LyingMember, wire.RingMessage, Member], wire.RingMessage | None]] = {
    "share": _share,
    "words": _words,
    "seed": _seed,
    "seed_commitment": _seed_commitment,
    "partial": _partial,
    "macs": _macs,
    "usurp": _usurp,
    "whim": _whim,
    "framing": _framing,
    "pair": _first_word,
    "mute": _first_word,
    "adaptive": _first_word,
    "silence": _silence,
}
STEADY = frozenset({"share", "seed_commitment", "pair"})  # told in every round, and proved
