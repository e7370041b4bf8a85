r"""
Who lied, where the masks of an attempt did not cancel: judged from signed statements, and provable to everybody.

Slot 0 of every vector is the constant 1.  So the first mask words of a pair say nothing of a reading and can be asked
for: with them y[0] = 1 + b[0] + Σ ± m[0] is an equation over signed values, for each member of U on its own.

1. The head hands in what U signed: y[0] and the commitment to b in MASKED_INPUT, the net words towards E \ U in
   CONFIRM.  Signatures that do not hold, seeds that do not fit, or sums that do cancel are the head's lie (`Case`
   refuses them), and no member is asked anything.
2. Each of U signs its first words towards its neighbours in E.  Whose words do not give its own y[0], or its own net
   words, lied.
3. Where two neighbours' words differ, one of them lied, and either opens the pair: with the pair's secret everybody
   computes the true word (`crypto.pair_opening`).

If all words are consistent and every pair's agree, the sum cancels; so where it did not and everybody has answered, at
least one member is named, and every member that is named lied (docs/explanation/protocol.md, section 4).  Who owes an
answer is not named; it is left out of E until it answers.

Nothing here knows time or messages' ways; the round ledger drives it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from protocol import wire
from protocol.dcnet.crypto.suite import Suite, mac_equal
from protocol.dcnet.machines.incarnations import nonces_digest
from protocol.dcnet.machines.masks import first_mask_word, seed_commitment, self_mask
from protocol.dcnet.setup.rings import RingView, positions_of
from protocol.dcnet.setup.secrets import pair_keys
from protocol.dcnet.setup.statements import AttemptContext, blame_half, confirm_text, input_text, words_text
from protocol.dcnet.setup.terms import terms_digest
from protocol.errors import RemoteProtocolError

_WORD = struct.Struct("<Q")
_MODULUS = 1 << 64


@dataclass(frozen=True, slots=True)
class _Statement:
    """What a member said in the attempt, slot 0 alone: y[0] - 1 - b[0], and the net words towards E without U."""

    masks: int
    net: int


def context_of(view: RingView, message: wire.CorruptSum | wire.Inquiry | wire.WrongCommitment) -> AttemptContext:
    """The attempt that a message is about.  Raises RemoteProtocolError for nonces that are not E's."""
    expected = view.from_wire(message.expected)
    if len(message.nonces) != wire.NONCE_SIZE * expected.bit_count():
        raise RemoteProtocolError("bad_nonces", "expected a nonce for each member of E")
    terms = terms_digest(nonces_digest(view, expected, message.nonces), message.mask_terms)
    return AttemptContext(message.round, message.attempt, message.term, expected, terms)


def nonces_of(view: RingView, message: wire.CorruptSum | wire.Inquiry | wire.WrongCommitment) -> dict[int, bytes]:
    """The nonces of E, by position."""
    size, members = wire.NONCE_SIZE, positions_of(view.from_wire(message.expected))
    return {each: message.nonces[size * index : size * (index + 1)] for index, each in enumerate(members)}


class Case:
    """One attempt whose masks did not cancel."""

    def __init__(self, suite: Suite, view: RingView, message: wire.CorruptSum) -> None:
        """Raise RemoteProtocolError `bad_evidence` where it proves nothing: then the head lied."""
        self.context = context_of(view, message)
        self.evidence = message
        self.roster = view.from_wire(message.roster)
        self.named = 0
        self._suite = suite
        self._view = view
        self._nonces = nonces_of(view, message)
        self._words: dict[int, wire.MaskWords] = {}
        self._disputed: set[tuple[int, int]] = set()
        self._statements = self._read(message)
        total = sum(each.masks - each.net for each in self._statements.values()) % _MODULUS
        if total == 0:
            raise _bad_evidence("these masks do cancel")

    @property
    def owing(self) -> int:
        """Who owes an answer, a bitmap: its words, or the opening of a pair whose words differ; nobody who is named."""
        out = self.roster
        for position in self._words:
            out &= ~(1 << position)
        for low, high in self._disputed:
            out |= 1 << low | 1 << high
        return out & ~self.named

    def _read(self, message: wire.CorruptSum) -> dict[int, _Statement]:
        view, members = self._view, positions_of(self.roster)
        if self.roster & ~self.context.expected or len(members) < view.n_min or len(message.evidence) != len(members):
            raise _bad_evidence("expected what each member of a roster within E signed")
        return {each: self._read_one(each, *parts) for each, parts in zip(members, message.evidence, strict=True)}

    def _read_one(
        self, position: int, word: bytes, vector: bytes, commitment: bytes, commitments: bytes, signature: bytes,
        seed: bytes, net: bytes, dropped: bytes, confirmed: bytes,
    ) -> _Statement:  # fmt: skip
        suite, view = self._suite, self._view
        key = view.members[position].verify_key
        text = input_text(blame_half(view, position, self.context, word, vector, commitment), commitments)
        if not suite.verify(key, text, signature):
            raise _bad_evidence("a masked input that its member did not sign")
        if not mac_equal(seed_commitment(seed), commitment):
            raise _bad_evidence("a seed that was not committed to")
        owes_words = bool(view.neighbourhoods[position] & self.context.expected & ~self.roster)
        if owes_words or confirmed:
            text = confirm_text(view, position, self.context, self.roster, net, dropped)
            if not suite.verify(key, text, confirmed) or len(net) != 8 * owes_words:
                raise _bad_evidence("a confirmation that its member did not sign")
        mask = int(self_mask(suite, seed, view.word_count)[0])
        masks = (_WORD.unpack(word)[0] - 1 - mask) % _MODULUS
        return _Statement(masks, _WORD.unpack(net)[0] if owes_words else 0)

    def _neighbours(self, position: int) -> list[int]:
        return positions_of(self._view.neighbourhoods[position] & self.context.expected)

    def _word(self, position: int, other: int) -> int:
        words = self._words[position].words
        return int(_WORD.unpack_from(words, 8 * self._neighbours(position).index(other))[0])

    def answer(self, position: int, message: wire.MaskWords) -> bool:
        """
        A member's words; the first that it signed count: False for others.

        Raises RemoteProtocolError where they are of another form or not signed by it.
        """
        if position in self._words or not self.roster >> position & 1:
            return False
        view, neighbours = self._view, self._neighbours(position)
        text = words_text(view, position, self.context, message.words)
        if len(message.words) != 8 * len(neighbours):
            raise RemoteProtocolError("bad_answer", "expected a word for each neighbour in E")
        if not self._suite.verify(view.members[position].verify_key, text, message.signature):
            raise RemoteProtocolError("bad_signature", "mask words that their member did not sign")
        self._words[position] = message
        masks = net = 0
        for other in neighbours:
            word = self._word(position, other) if position < other else -self._word(position, other)
            masks += word
            net += 0 if self.roster >> other & 1 else word
        stated = self._statements[position]
        if (masks - stated.masks) % _MODULUS or (net - stated.net) % _MODULUS:
            self._name(position)
            return True
        for other in positions_of(view.neighbourhoods[position] & self.roster & ~self.named):
            if other in self._words and self._word(position, other) != self._word(other, position):
                self._disputed.add((min(position, other), max(position, other)))
        return True

    def disputes(self, position: int) -> Iterator[tuple[int, wire.MaskWords]]:
        """The neighbours whose words differ from the member's, each with what it signed."""
        for pair in sorted(self._disputed):
            if position in pair:
                other = sum(pair) - position
                yield other, self._words[other]

    def is_disputed(self, position: int, other: int) -> bool:
        """Whether this pair's words differ, and neither is named."""
        return (min(position, other), max(position, other)) in self._disputed

    def _name(self, position: int) -> None:
        """Its words count no more, so neither do the pairs in which they differ from others'."""
        self.named |= 1 << position
        self._disputed = {pair for pair in self._disputed if position not in pair}

    def opened(self, position: int, other: int, secret: bytes) -> None:
        """A pair of which one end has opened the secret, as `Suite.agree` gives it: whose word is wrong is named."""
        low, high = pair = min(position, other), max(position, other)
        if not self.is_disputed(position, other):
            return
        self._disputed.discard(pair)
        key = pair_keys(secret, low, high).mask
        nonces, context = (self._nonces[low], self._nonces[high]), self.context
        word = first_mask_word(self._suite, self._view, key, nonces, context.round, context.attempt)
        for each, its_other in ((low, high), (high, low)):
            if self._word(each, its_other) != word:
                self._name(each)


def _bad_evidence(why: str) -> RemoteProtocolError:
    return RemoteProtocolError("bad_evidence", why)
