"""
What one attempt at a round has brought in at its head, and what follows from that alone: who is sent what, and the sum.

When to go on, how long to wait and what to do where something is missing is the head's (`head`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from protocol import wire
from protocol.dcnet.crypto.commitments import (
    BlindingVector,
    add_blinding_vectors,
    decode_blinding_vector,
    encode_blinding_vector,
    subtract_blinding_vectors,
)
from protocol.dcnet.crypto.suite import MAC_SIZE, Suite, mac_equal
from protocol.dcnet.machines.effects import HeadEffect, Note, ToCoordinator, ToMember
from protocol.dcnet.machines.masks import Words, seed_commitment, self_blinding, self_masks, words_from_bytes
from protocol.dcnet.machines.recovery import Recovery
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of
from protocol.dcnet.setup.secrets import mask_label
from protocol.dcnet.setup.statements import (
    AttemptContext,
    blame_half_of,
    blinding_digest,
    commitment_half,
    dropped_digest,
    text_of_confirm,
    text_of_input,
    vector_digest,
)
from protocol.dcnet.setup.terms import NO_TERMS, RoundTerms
from protocol.errors import RemoteProtocolError


@dataclass(slots=True)
class Attempt:
    """
    Sets of positions are bitmaps; `nonces` are those that the attempt was opened with, by position, `restarted` who has
    had another one since, `wrong_seeds` revealed ones that do not fit what their share was bound to.  `without_share`
    of E, `unconfirmed` of U and `revealed`, a right seed or not, are kept beside what they follow from, since a head
    asks for them with each message.
    """

    round: int
    attempt: int
    term: int
    expected: int
    opened_s: float
    nonces: tuple[bytes, ...] = ()
    terms: RoundTerms = NO_TERMS
    restarted: int = 0
    roster: int = 0
    confirmed: int = 0
    shares: dict[int, wire.MaskedInput] = field(default_factory=dict)
    confirms: dict[int, wire.Confirm] = field(default_factory=dict)
    seeds: dict[int, bytes] = field(default_factory=dict)
    wrong_seeds: dict[int, bytes] = field(default_factory=dict)
    recoveries: dict[int, Recovery] = field(default_factory=dict)
    context: AttemptContext = field(init=False)  # what its members' statements are about
    without_share: int = field(init=False)
    unconfirmed: int = 0
    revealed: int = 0

    def __post_init__(self) -> None:
        self.context = AttemptContext(self.round, self.attempt, self.term, self.expected, self.terms.digest)
        self.without_share = self.expected

    def lacks(self, position: int) -> bool:
        """Whether a member of E has sent no share yet."""
        return bool(self.expected >> position & 1) and position not in self.shares

    def take_share(self, position: int, share: wire.MaskedInput) -> None:
        """A share of a member of E, which was checked."""
        self.shares[position] = share
        self.without_share &= ~(1 << position)

    def take_confirm(self, position: int, confirm: wire.Confirm) -> None:
        """A confirmation of a member of U, which was checked."""
        self.confirms[position] = confirm
        self.unconfirmed &= ~(1 << position)

    def close_roster(self) -> None:
        """U: who of E has sent a share."""
        self.roster = self.unconfirmed = self.expected & ~self.without_share

    def roster_fault(self, view: RingView) -> str | None:
        """Why the members of U would not confirm it; None where they would."""
        if self.roster.bit_count() < view.n_min:
            return f"fewer than {view.n_min} members sent a share"
        if any((view.neighbourhoods[i] & self.roster).bit_count() < view.k_min for i in self.shares):
            return f"a member has fewer than {view.k_min} neighbours left"
        return None

    @property
    def gone(self) -> int:
        r"""E \ U, towards whom the others' words are owed."""
        return self.expected & ~self.roster

    @property
    def silent(self) -> int:
        """The members of U whose seeds are to be recovered: they have revealed none that is right."""
        return self.roster & ~bitmap(list(self.seeds))

    def confirmations(self, view: RingView) -> list[HeadEffect]:
        """CONFIRMED to each that confirmed: the MACs that its neighbours made for it."""
        macs: dict[int, list[bytes]] = {i: [] for i in positions_of(self.roster)}
        for maker in positions_of(self.confirmed):  # rising, as CONFIRMED has them
            made = self.confirms[maker].macs
            for start, i in zip(range(0, len(made), MAC_SIZE), self._neighbours(view, maker), strict=True):
                macs[i].append(made[start : start + MAC_SIZE])
        out: list[HeadEffect] = []
        for i in self.confirms:
            makers = view.to_wire(view.neighbourhoods[i] & self.confirmed)
            message = wire.Confirmed(view.epoch, view.ring, self.round, self.attempt, makers, b"".join(macs[i]))
            out.append(ToMember(i, message))
        return out

    def _neighbours(self, view: RingView, position: int) -> list[int]:
        """Those of a member in U."""
        return positions_of(view.neighbourhoods[position] & self.roster)

    def take_seed(self, position: int, seed: bytes) -> bool:
        """Take a revealed seed; False for the first of a member that is not what its share was bound to."""
        self.revealed |= 1 << position
        if mac_equal(seed_commitment(seed), self.shares[position].seed_commitment):
            self.seeds[position] = seed
            self.recoveries.pop(position, None)
        elif position not in self.wrong_seeds:
            self.wrong_seeds[position] = seed
            return False
        return True

    def is_unrecoverable(self, view: RingView) -> bool:
        """Whether a silent member has fewer than t neighbours who have revealed, and so may help."""
        helpers = bitmap(list(self.seeds))
        return any((view.neighbourhoods[i] & helpers).bit_count() < view.t for i in positions_of(self.silent))

    def begin_recoveries(self, view: RingView, commitments: dict[int, tuple[bytes, ...]]) -> list[HeadEffect]:
        """RECOVER to those who may help; `commitments` are the dealers' that the head holds, by position."""
        silent = self.silent
        self.recoveries = {
            i: Recovery(i, view.t, self._label(view, i), self.shares[i].seed_commitment, commitments.get(i))
            for i in positions_of(silent)
        }
        message = wire.Recover(view.epoch, view.ring, self.round, self.attempt, view.to_wire(silent))
        return [ToMember(i, message) for i in self.seeds if view.neighbourhoods[i] & silent]

    def _label(self, view: RingView, position: int) -> bytes:
        return mask_label(view, self.round, self.attempt, self.nonces[position], self.terms.of_masks)

    def report(self, suite: Suite, view: RingView) -> wire.RingTotal | None:
        """The ring's total; None where slot 0 does not count the roster, so that somebody's masks did not cancel."""
        total, blinding = self.total(suite, view)
        if int(total[0]) != self.roster.bit_count():
            return None
        commitments = b"".join(self.shares[i].commitments for i in positions_of(self.roster))
        attestations = b"".join(self._attestation(view, i) for i in positions_of(self.roster) if view.committed)
        return wire.RingTotal(
            view.epoch, view.ring, self.round, self.attempt, self.term, view.to_wire(self.expected),
            view.to_wire(self.roster), total.tobytes(), commitments, encode_blinding_vector(suite.group, blinding),
            attestations,
        )  # fmt: skip

    @property
    def can_be_proved(self) -> bool:
        """Whether each seed of the sum is what its member committed to: of another one `evidence` proves nothing."""
        return all(each.is_bound for each in self.recoveries.values())

    def evidence(self, view: RingView) -> wire.CorruptSum:
        """What the members of a roster whose masks did not cancel signed, and their seeds."""
        return wire.CorruptSum(
            view.epoch, view.ring, self.round, self.attempt, self.term, view.to_wire(self.expected),
            view.to_wire(self.roster), self._nonces_of_expected(), self.terms.of_masks,
            tuple(self._evidence_of(view, i) for i in positions_of(self.roster)),
        )  # fmt: skip

    def _nonces_of_expected(self) -> bytes:
        return b"".join(self.nonces[i] for i in positions_of(self.expected))

    def _evidence_of(self, view: RingView, position: int) -> wire.Evidence:
        seed = self.seeds[position] if position in self.seeds else self.recoveries[position].seed
        confirm = self.confirms.get(position)
        if confirm is None:
            return (*self._signed_input(view, position), seed, b"", b"", b"")
        dropped = dropped_digest(confirm.dropped, confirm.dropped_blinding)
        return (*self._signed_input(view, position), seed, confirm.dropped[:8], dropped, confirm.signature)

    def _signed_input(self, view: RingView, position: int) -> tuple[bytes, bytes, bytes, bytes, bytes]:
        """What of a MASKED_INPUT shows that it was signed: no word but the first, which carries no data."""
        share = self.shares[position]
        half = commitment_half(
            view, position, self.round, self.attempt, share.commitments, blinding_digest(share.blinding)
        )
        vector = vector_digest(share.salt, share.vector)
        return share.vector[:8], vector, share.seed_commitment, half, share.signature

    def wrong_commitment(self, view: RingView, position: int) -> ToCoordinator:
        """
        What proves that a member committed to another seed than t of its neighbours give.

        It may hold wrong parts: the head may lack the dealer's commitments, the round ledger has them.
        """
        parts = tuple((helper, *part) for helper, part in self.recoveries[position].parts.items())
        message = wire.WrongCommitment(
            view.epoch, view.ring, self.round, self.attempt, self.term, view.to_wire(self.expected),
            self._nonces_of_expected(), self.terms.of_masks, position,
            self._signed_input(view, position), parts,
        )  # fmt: skip
        return ToCoordinator(message)

    def owing_help(self, view: RingView, recovery: Recovery) -> int:
        """Who was asked to help and has not, a bitmap; nobody where the seed is known."""
        asked = view.neighbourhoods[recovery.dealer] & bitmap(list(self.seeds))
        return 0 if recovery.seed else asked & ~recovery.helped

    def silent_helpers(self, view: RingView) -> int:
        """Who was asked to help in a recovery that still lacks parts, and has not: a bitmap."""
        silent = 0
        for each in self.recoveries.values():
            silent |= self.owing_help(view, each)
        return silent

    def help(
        self, suite: Suite, view: RingView, recovery: Recovery, position: int, message: wire.Partial
    ) -> list[HeadEffect]:
        """Take a neighbour's part in a recovery, and say whose lie it shows, if one."""
        before, caught = recovery.refuted, recovery.is_dealers_lie
        wrong = self.wrong_seeds.get(message.silent, b"")
        recovery.help(suite, position, message.element, message.proof, wrong)
        out: list[HeadEffect] = [Note("partial_refuted")] if recovery.refuted != before else []
        if recovery.is_dealers_lie and not caught:
            out += [Note("member_wrong_seed"), self.wrong_commitment(view, message.silent)]
        return out + self.doubt(view, recovery)

    def doubt(self, view: RingView, recovery: Recovery) -> list[HeadEffect]:
        """
        WRONG_COMMITMENT, once, for a member for which all its neighbours helped in vain.

        Whether that is its lie or theirs only the round ledger can tell: a head lacks most dealers' commitments.
        """
        if recovery.seed or recovery.is_doubted or self.owing_help(view, recovery):
            return []
        recovery.is_doubted = True
        return [self.wrong_commitment(view, recovery.dealer)]

    def _attestation(self, view: RingView, position: int) -> bytes:
        """What shows the round ledger that a member signed its commitments."""
        share = self.shares[position]
        half = blame_half_of(view, position, self.context, share)
        return half + blinding_digest(share.blinding) + share.signature

    def total(self, suite: Suite, view: RingView) -> tuple[Words, BlindingVector]:
        """Σ shares - Σ words towards the dropped - Σ self masks, in both blinding_vectors; every seed is there."""
        group, count = suite.group, view.committed_count
        total = np.zeros(view.word_count, dtype=np.uint64)
        blinding_vector: BlindingVector = (0,) * count
        seeds = []
        for i in positions_of(self.roster):
            share = self.shares[i]
            seed = self.seeds[i] if i in self.seeds else self.recoveries[i].seed
            total += words_from_bytes(share.vector)
            seeds.append(seed)
            confirm = self.confirms.get(i)
            towards_dropped = confirm is not None and bool(confirm.dropped)
            if confirm is not None and towards_dropped:
                total -= words_from_bytes(confirm.dropped)
            if count:
                blinding_vector = add_blinding_vectors(
                    group, blinding_vector, decode_blinding_vector(group, share.blinding, count)
                )
                blinding_vector = subtract_blinding_vectors(group, blinding_vector, self_blinding(suite, seed, count))
                if confirm is not None and towards_dropped:
                    blinding_vector = subtract_blinding_vectors(
                        group, blinding_vector, decode_blinding_vector(group, confirm.dropped_blinding, count)
                    )
        total -= self_masks(suite, seeds, view.word_count)
        return total, blinding_vector


def check_share(
    suite: Suite, view: RingView, context: AttemptContext, position: int, message: wire.MaskedInput
) -> None:
    """A share's shape and signature.  Raises RemoteProtocolError: its sender bears it, not who passes it on."""
    count = view.committed_count
    if (
        len(message.vector) != 8 * view.word_count
        or len(message.commitments) != 32 * count
        or len(message.blinding) != 32 * count
    ):
        raise RemoteProtocolError("bad_share", f"expected {view.word_count} words and {count} commitments")
    decode_blinding_vector(suite.group, message.blinding, count)
    if not all(suite.group.is_element(message.commitments[32 * i : 32 * (i + 1)]) for i in range(count)):
        raise RemoteProtocolError("bad_share", "a commitment is no group element")
    text = text_of_input(view, position, context, message)
    if not suite.verify(view.members[position].verify_key, text, message.signature):
        raise RemoteProtocolError("bad_signature", "a share that its member did not sign for this attempt")


def check_confirm(suite: Suite, view: RingView, attempt: Attempt, position: int, message: wire.Confirm) -> None:
    """The shape and signature of a confirmation of a member in U.  Raises RemoteProtocolError."""
    neighbours = view.neighbourhoods[position]
    has_gone = bool(neighbours & attempt.gone)
    if (
        len(message.macs) != MAC_SIZE * (neighbours & attempt.roster).bit_count()
        or len(message.dropped) != 8 * view.word_count * has_gone
        or len(message.dropped_blinding) != 32 * view.committed_count * has_gone
    ):
        raise RemoteProtocolError("bad_confirm", "expected a MAC per neighbour and the words towards the dropped")
    decode_blinding_vector(suite.group, message.dropped_blinding, view.committed_count * has_gone)
    text = text_of_confirm(view, position, attempt.context, attempt.roster, message)
    if not suite.verify(view.members[position].verify_key, text, message.signature):
        raise RemoteProtocolError("bad_signature", "a confirmation that its member did not sign for this roster")
