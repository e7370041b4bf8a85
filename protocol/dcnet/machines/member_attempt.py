"""
What one attempt at a round is for a member: who is in it, the seed of its self mask, and what it says from that.

What may be said, and when, is the member's (`member`); here is how a message is made or checked for its contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen, add_blinding_vectors, encode_blinding_vector
from protocol.dcnet.crypto.suite import MAC_SIZE, Suite, mac_equal
from protocol.dcnet.machines.masks import MaskSchedule, Words, seed_commitment, self_blinding
from protocol.dcnet.setup.rings import RingView, positions_of, round_digest
from protocol.dcnet.setup.schema import signed
from protocol.dcnet.setup.secrets import PairKeys
from protocol.dcnet.setup.statements import AttemptContext, text_of_confirm, text_of_input
from protocol.dcnet.setup.terms import NO_TERMS, RoundTerms
from protocol.errors import RemoteProtocolError


class Secrets(Protocol):
    """What the machine asks of the security module; `secrets.EpochSecrets` is one."""

    position: int

    def pair(self, other: int) -> PairKeys: ...  # noqa: D102
    def evaluate(self, label: bytes) -> bytes: ...  # noqa: D102
    def sign(self, text: bytes) -> bytes: ...  # noqa: D102
    def open_pair(self, other: int) -> bytes: ...  # noqa: D102
    def salt(self, round_: int, attempt: int) -> bytes: ...  # noqa: D102
    def partial(self, dealer: int, label: bytes) -> tuple[bytes, bytes] | None: ...  # noqa: D102
    def is_good_deal(self, dealer: int) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Place:
    """The member's place in its ring, and its tools: the same in every attempt of the epoch."""

    suite: Suite
    view: RingView
    secrets: Secrets
    masks: MaskSchedule
    pedersen: Pedersen | None
    neighbours: int


@dataclass(frozen=True, slots=True)
class MemberAttempt:
    """
    The newest attempt that the member took part in; sets of positions are bitmaps.

    `term` is that of the head that opened it, `helped` are the silent members that it helped to recover, `terms` what
    the OPEN fixed beside E.
    """

    round: int
    attempt: int
    term: int = 0
    expected: int = 0
    roster: int = 0
    helped: int = 0
    seed: bytes = field(default=b"", repr=False)
    terms: RoundTerms = NO_TERMS

    def is_about(self, message: wire.Roster | wire.Confirmed | wire.Recover) -> bool:
        """Whether a message belongs to this attempt."""
        return (message.round, message.attempt) == (self.round, self.attempt)

    def masked_input(self, place: Place, mask: Words, vector: Words, blindings: Sequence[int]) -> wire.MaskedInput:
        """The contribution under all its masks, with commitments where slots are committed, signed."""
        view, group, secrets = place.view, place.suite.group, place.secrets
        masked = mask + vector
        place.masks.add(masked, self.round, self.attempt, self.expected)
        commitments, blinding_vector = b"", b""
        if place.pedersen is not None:
            values = [signed(int(vector[index])) for index in view.committed]
            pairs = zip(values, blindings, strict=True)
            commitments = b"".join(place.pedersen.commit(value, blinding) for value, blinding in pairs)
            masks = place.masks.blindings(self.round, self.attempt, self.expected)
            own = self_blinding(place.suite, self.seed, len(values))
            blinding_vector = encode_blinding_vector(group, add_blinding_vectors(group, tuple(blindings), masks, own))
        unsigned = wire.MaskedInput(
            view.epoch, view.ring, self.round, self.attempt, masked.tobytes(), seed_commitment(self.seed),
            secrets.salt(self.round, self.attempt), commitments, blinding_vector, b"",
        )  # fmt: skip
        text = text_of_input(view, secrets.position, self.context, unsigned)
        return replace(unsigned, signature=secrets.sign(text))

    @property
    def context(self) -> AttemptContext:
        """What its statements are about."""
        return AttemptContext(self.round, self.attempt, self.term, self.expected, self.terms.digest)

    def _digest(self, view: RingView) -> bytes:
        return round_digest(view, self.round, self.attempt, self.term, self.expected, self.roster, self.terms)

    def confirm(self, place: Place) -> wire.Confirm:
        """MACs over the roster for the neighbours in it, and net words towards those who are gone (rule 2), signed."""
        view, suite = place.view, place.suite
        text = _mac_text(place.secrets.position, self._digest(view))
        macs = b"".join(
            suite.mac(place.secrets.pair(other).confirm, text) for other in positions_of(self.roster & place.neighbours)
        )
        # Rule 2: only words towards members outside the one roster we confirmed, and only their net sum.
        gone = place.neighbours & self.expected & ~self.roster
        dropped, blinding_vector = b"", b""
        if gone:
            dropped = place.masks.words(self.round, self.attempt, gone).tobytes()
            blindings = place.masks.blindings(self.round, self.attempt, gone)
            blinding_vector = encode_blinding_vector(suite.group, blindings)
        unsigned = wire.Confirm(view.epoch, view.ring, self.round, self.attempt, macs, dropped, blinding_vector, b"")
        text = text_of_confirm(view, place.secrets.position, self.context, self.roster, unsigned)
        return replace(unsigned, signature=place.secrets.sign(text))

    def valid_confirmations(self, place: Place, message: wire.Confirmed) -> int:
        """How many neighbours confirmed this very roster.  Raises RemoteProtocolError for a message of another form."""
        makers = place.view.from_wire(message.makers)
        if makers & ~(place.neighbours & self.roster) or len(message.macs) != MAC_SIZE * makers.bit_count():
            raise RemoteProtocolError("bad_confirmations", "expected a MAC from each named neighbour in the roster")
        valid, digest = 0, self._digest(place.view)
        for index, other in enumerate(positions_of(makers)):
            ours = place.suite.mac(place.secrets.pair(other).confirm, _mac_text(other, digest))
            valid += mac_equal(ours, message.macs[MAC_SIZE * index : MAC_SIZE * (index + 1)])
        return valid


def _mac_text(maker: int, digest: bytes) -> bytes:
    """A MAC names its maker, or a neighbour's own MAC could be handed back to it."""
    return maker.to_bytes(8, "little") + digest
