"""
What one attempt at a round is for a member: who is in it, the seed of its self mask, and what it says from that.

What may be said, and when, is the member's (`member`); here is how a message is made or checked for its contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from protocol import wire
from protocol.dcnet.crypto import prf
from protocol.dcnet.crypto.commitments import Pedersen, add_blinding_vectors, encode_blinding_vector
from protocol.dcnet.crypto.suite import MAC_SIZE, Suite, mac_equal
from protocol.dcnet.machines.effects import MemberEffect, Progress, ToCoordinator, ToHead
from protocol.dcnet.machines.masks import MaskSchedule, Words, seed_commitment, self_blinding, self_mask
from protocol.dcnet.setup.rings import RingView, positions_of, round_digest
from protocol.dcnet.setup.schema import signed
from protocol.dcnet.setup.secrets import PairKeys, mask_label
from protocol.dcnet.setup.statements import AttemptContext, text_of_confirm, text_of_input
from protocol.dcnet.setup.terms import NO_TERMS, RoundTerms
from protocol.errors import RemoteProtocolError
from protocol.records import record


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
class Resume:
    """What a restarted member knows of its past: its last attempt, and whether it served and heard the result."""

    round: int = -1
    attempt: int = -1
    progress: Progress = Progress.SHARED
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """The member's place in its ring, and its tools: the same in every attempt of the epoch."""

    suite: Suite
    view: RingView
    secrets: Secrets
    masks: MaskSchedule
    pedersen: Pedersen | None
    neighbours: int

    def check_members(self, members: int, within: int, what: str) -> None:
        """
        Rule 4: a set with ourselves, of n_min members, k_min of them our neighbours, within the larger set.

        Raises RemoteProtocolError.
        """
        if not members >> self.secrets.position & 1:
            raise RemoteProtocolError("not_included", f"the {what} set is without this member")
        if members & ~within:
            raise RemoteProtocolError("not_within", f"the {what} set has members that the attempt did not start with")
        if members.bit_count() < self.view.n_min:
            raise RemoteProtocolError("too_few_members", f"the {what} set is below {self.view.n_min}")
        if (members & self.neighbours).bit_count() < self.view.k_min:
            raise RemoteProtocolError("too_few_neighbours", f"the {what} set has under {self.view.k_min} neighbours")

    def least_settled(self, round_: int, contributed: int) -> int:
        """
        Of how many rounds an OPEN must count the ends: of those up to the last that we contributed to before its own.

        `contributed` is the last such round that is durable.
        """
        incarnation = self.masks.incarnation
        contributed = max(contributed, incarnation.last[0])
        return contributed + 1 if round_ > contributed else incarnation.least_settled

    def check_history(self, message: wire.Open, contributed: int) -> None:
        """
        Rule 7: every sum counts the ends of all rounds before it that we contributed to.

        With fewer a head could have two members, of which one was told a false end, in one sum.  Raises
        RemoteProtocolError.
        """
        if not self.least_settled(message.round, contributed) <= message.settled <= message.round:
            raise RemoteProtocolError("old_history", "an attempt that leaves out the end of a round we contributed to")


class SelfMasks:
    """The self mask of an attempt and its seed, made ahead: while the others' readings are still on their way."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._prepared: tuple[tuple[int, int, bytes], bytes, Words] | None = None

    def prepare(self, round_: int, attempt: int, terms: bytes) -> tuple[bytes, Words]:
        """Seed and mask, read-only, under these terms; kept until an attempt takes them or another is prepared."""
        if self._prepared is None or self._prepared[0] != (round_, attempt, terms):
            place = self._place
            label = mask_label(place.view, round_, attempt, place.masks.incarnation.nonce, terms)
            seed = prf.mask_seed(place.secrets.evaluate(label), label)
            mask = self_mask(place.suite, seed, place.view.word_count)
            mask.flags.writeable = False
            self._prepared = (round_, attempt, terms), seed, mask
        return self._prepared[1:]

    def take(self, round_: int, attempt: int, terms: bytes) -> tuple[bytes, Words]:
        """As `prepare`, for the attempt that uses them."""
        taken = self.prepare(round_, attempt, terms)
        self._prepared = None
        return taken


@record
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
        said = (
            view.epoch, view.ring, self.round, self.attempt, masked.tobytes(), seed_commitment(self.seed),
            secrets.salt(self.round, self.attempt), commitments, blinding_vector,
        )  # fmt: skip
        text = text_of_input(view, secrets.position, self.context, wire.MaskedInput(*said, b""))
        return wire.MaskedInput(*said, secrets.sign(text))

    def confirmed(self, roster: int) -> MemberAttempt:
        """The same with U."""
        return MemberAttempt(
            self.round, self.attempt, self.term, self.expected, roster, self.helped, self.seed, self.terms
        )

    def ended(self, round_: int) -> MemberAttempt:
        """What is left of it when this round, its own or a later one, has ended."""
        return MemberAttempt(round_, self.attempt, self.term, self.expected, self.roster, 0, self.seed, self.terms)

    @property
    def context(self) -> AttemptContext:
        """What its statements are about."""
        return AttemptContext(self.round, self.attempt, self.term, self.expected, self.terms.digest)

    def _digest(self, view: RingView) -> bytes:
        return round_digest(view, self.round, self.attempt, self.term, self.expected, self.roster, self.terms)

    def confirm(self, place: Place) -> wire.Confirm:
        """MACs over the roster for the neighbours in it, and net words towards those who are gone (rule 2), signed."""
        view, suite = place.view, place.suite
        text = _MAKERS[place.secrets.position] + self._digest(view)
        mac, pair = suite.mac, place.secrets.pair
        macs = b"".join([mac(pair(other).confirm, text) for other in positions_of(self.roster & place.neighbours)])
        # Rule 2: only words towards members outside the one roster we confirmed, and only their net sum.
        gone = place.neighbours & self.expected & ~self.roster
        dropped, blinding_vector = b"", b""
        if gone:
            dropped = place.masks.words(self.round, self.attempt, gone).tobytes()
            blindings = place.masks.blindings(self.round, self.attempt, gone)
            blinding_vector = encode_blinding_vector(suite.group, blindings)
        said = view.epoch, view.ring, self.round, self.attempt, macs, dropped, blinding_vector
        text = text_of_confirm(view, place.secrets.position, self.context, self.roster, wire.Confirm(*said, b""))
        return wire.Confirm(*said, place.secrets.sign(text))

    def help(self, place: Place, asked: int) -> list[MemberEffect]:
        """Our parts of the masks of the silent members `asked`, a bitmap: what a lying dealer dealt is reported."""
        view, out = place.view, list[MemberEffect]()
        for other in positions_of(asked):
            nonce = place.masks.incarnation.newest[other]  # of this attempt's OPEN: no other one was taken since
            part = place.secrets.partial(other, mask_label(view, self.round, self.attempt, nonce, self.terms.of_masks))
            if part is None:
                out.append(ToCoordinator(wire.BadDeal(view.epoch, view.ring, other)))
            else:
                out.append(ToHead(wire.Partial(view.epoch, view.ring, self.round, self.attempt, other, *part)))
        return out

    def bad_deals(self, place: Place) -> list[MemberEffect]:
        """After a void round in which we helped: the dealers whose shares do not fit what they signed."""
        view, secrets = place.view, place.secrets
        bad = [dealer for dealer in positions_of(self.helped) if not secrets.is_good_deal(dealer)]
        return [ToCoordinator(wire.BadDeal(view.epoch, view.ring, dealer)) for dealer in bad]

    def valid_confirmations(self, place: Place, message: wire.Confirmed) -> int:
        """How many neighbours confirmed this very roster.  Raises RemoteProtocolError for a message of another form."""
        makers = place.view.from_wire(message.makers)
        if makers & ~(place.neighbours & self.roster) or len(message.macs) != MAC_SIZE * makers.bit_count():
            raise RemoteProtocolError("bad_confirmations", "expected a MAC from each named neighbour in the roster")
        digest, mac, pair = self._digest(place.view), place.suite.mac, place.secrets.pair
        ours = [mac(pair(other).confirm, _MAKERS[other] + digest) for other in positions_of(makers)]
        if mac_equal(b"".join(ours), message.macs):  # as it is, but for a lie
            return len(ours)
        theirs = (message.macs[MAC_SIZE * index : MAC_SIZE * (index + 1)] for index in range(len(ours)))
        return sum(map(mac_equal, ours, theirs))


# A MAC names its maker before the digest, or a neighbour's own MAC could be handed back to it.
_MAKERS = [position.to_bytes(8, "little") for position in range(wire.MAX_RING)]
