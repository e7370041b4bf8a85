"""
What the round ledger of a ring asks its members, and whom a head is to leave out by what comes of it.

The ledger asks over its own links, never through a head, so no head alone can make anybody seem silent.  A head leaves
out:

- who was proved to lie (`blame`; a deal that does not fit; a commitment to another seed), for the rest of the epoch;
- who has dealt no shares of its key: nobody could recover its self mask;
- who owes an answer, until it answers; it gets `silent_s` for it, and is asked again when a round ends;
- who, by a head's word, fell silent in a round that was lost, and does not answer the ledger either: for 2^j rounds,
  j counting how often (6 at most), one less for every day of rounds;
- who does answer, and is said to be silent by more heads than can be corrupt: then it is, and out for as long.

This can be used against nobody's privacy: E is the head's choice anyway, and what members check of it stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from protocol import wire
from protocol.dcnet.crypto import prf, shamir
from protocol.dcnet.crypto.pair_opening import PairContext
from protocol.dcnet.crypto.suite import Suite, mac_equal
from protocol.dcnet.machines.blame import Case, context_of, nonces_of
from protocol.dcnet.machines.effects import LedgerEffect, Misbehaviour, Note, ReportMisbehaviour, ToMember
from protocol.dcnet.machines.masks import seed_commitment
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of
from protocol.dcnet.setup.secrets import is_good_share, mask_label, pair_keys
from protocol.dcnet.setup.statements import blame_half, input_text, inquiry_text
from protocol.errors import RemoteProtocolError

_NEVER = float("inf")
_CASES_MAX = 16  # at once; each has somebody who owes an answer and is out until it comes
_DOUBTS_MAX = 8  # commitments that a head doubts in a round: to judge one takes t·k group operations
_SILENCE_MAX = 6
_DAY_ROUNDS = 96


@dataclass(slots=True)
class _Silence:
    """How often a member was silent, up to which round it is out for it, and when that began."""

    times: int
    until: int
    since: int


class Inquiries:
    """The open questions of one ring in one epoch; `deals` are those that the coordinator holds, None for all."""

    def __init__(
        self, suite: Suite, view: RingView, sign: Callable[[bytes], bytes], deals: Mapping[int, wire.Deal] | None
    ) -> None:
        self.named: dict[int, Misbehaviour] = {}
        self._suite = suite
        self._view = view
        self._sign = sign
        self._deals = deals
        self._cases: dict[tuple[int, int], tuple[Case, int, float]] = {}  # with the head's position, and the time
        self._complaints: set[tuple[int, int]] = set()  # holder and dealer, by position
        self._asked: dict[int, tuple[int, float]] = {}  # who is said to be silent: in which round, asked when
        self._present: dict[int, int] = {}  # who was there: in the newest round that it was asked about
        self._opened: set[tuple[int, int]] = set()  # complaints whose pair was opened: judged, once
        self._doubts = -1, 0  # the newest round in which a head doubted a commitment, and how often it did
        self._silences: dict[int, _Silence] = {}
        self._reports: dict[int, int] = {}  # of whom which heads, a bitmap, said that it was silent

    # --- what a head hands in ------------------------------------------------------------------------------------

    def open(self, head: int, message: wire.CorruptSum, now_s: float) -> list[LedgerEffect]:
        """Ask the roster of an attempt for its words.  Raises RemoteProtocolError where the evidence proves nothing."""
        case = Case(self._suite, self._view, message)
        while len(self._cases) >= _CASES_MAX:
            del self._cases[min(self._cases)]
        self._cases[message.round, message.attempt] = case, head, now_s
        return [effect for position in positions_of(case.roster) for effect in self._questions(case, position)]

    def _questions(self, case: Case, position: int) -> list[LedgerEffect]:
        """What a member owes an answer to: the attempt, and then the pairs in which its word differs."""
        view, said, context = self._view, case.evidence, case.context
        signature = self._sign(inquiry_text(view, context, case.roster))
        out: list[LedgerEffect] = [
            ToMember(
                position,
                wire.Inquiry(
                    view.epoch, view.ring, context.round, context.attempt, context.term, said.expected, said.roster,
                    said.nonces, said.mask_terms, signature,
                ),
            )
        ]  # fmt: skip
        return out + self._disputes(case, position)

    def _disputes(self, case: Case, position: int) -> list[LedgerEffect]:
        view, context = self._view, case.context
        return [
            ToMember(
                position,
                wire.DisputedPair(
                    view.epoch, view.ring, context.round, context.attempt, other, said.words, said.signature
                ),
            )
            for other, said in case.disputes(position)
        ]

    def wrong_commitment(self, head: int, message: wire.WrongCommitment) -> list[LedgerEffect]:
        """
        A member that committed to another seed than t of its neighbours prove to be that of its self mask: named.

        Parts that are not proved count nothing, and nobody is named where fewer than t are left: a head without the
        dealer's commitments cannot tell them.  Raises RemoteProtocolError `bad_evidence` for an input that the member
        did not sign.
        """
        suite, view, position = self._suite, self._view, message.position
        if position >= view.size:
            raise RemoteProtocolError("bad_evidence", "expected a member of the ring")
        word, vector, commitment, commitments, signature = message.evidence
        half = blame_half(view, position, context_of(view, message), word, vector, commitment)
        if not suite.verify(view.members[position].verify_key, input_text(half, commitments), signature):
            raise RemoteProtocolError("bad_evidence", "a masked input that its member did not sign")
        nonce = nonces_of(view, message).get(position, b"")
        label = mask_label(view, message.round, message.attempt, nonce, message.mask_terms)
        newest, count = self._doubts
        if message.round < newest or (message.round == newest and count >= _DOUBTS_MAX):
            return [Note("too_many_doubts")]
        self._doubts = message.round, count + 1 if message.round == newest else 1
        seed = self._proved_seed(position, label, message.parts)
        if not seed or mac_equal(seed_commitment(seed), commitment):
            return [Note("commitment_not_refuted")]
        return self._name(1 << position, Misbehaviour.WRONG_SEED, message.round, head)

    def _proved_seed(self, dealer: int, label: bytes, parts: Sequence[tuple[int, bytes, bytes]]) -> bytes:
        """The seed that t proved parts give; empty where they are fewer."""
        group, view = self._suite.group, self._view
        deal = None if self._deals is None else self._deals.get(dealer)
        if deal is None or not all(map(group.is_element, deal.commitments)):
            return b""
        proved: dict[int, bytes] = {}
        for helper, element, proof in parts:
            if len(proved) < view.t and view.neighbourhoods[dealer] >> helper & 1:
                key = shamir.share_key(group, deal.commitments, helper + 1)
                if prf.verify_partial(group, key, label, element, proof):
                    proved[helper + 1] = element
        return b"" if len(proved) < view.t else prf.mask_seed(prf.combine(group, proved), label)

    # --- what members answer -------------------------------------------------------------------------------------

    def words(self, position: int, message: wire.MaskWords) -> list[LedgerEffect]:
        """The answer to an inquiry.  Raises RemoteProtocolError for one of another form or without its signature."""
        found = self._cases.get((message.round, message.attempt))
        if found is None:
            return [Note("answer_out_of_turn")]
        case, head, _ = found
        if not case.answer(position, message):  # who differs was asked: `reminders` ask again
            return [Note("answer_out_of_turn")]
        others = [other for other, _ in case.disputes(position)]
        asked = [effect for each in (position, *others) for effect in self._disputes(case, each)]
        return self._judged(case, head) + asked

    def opening(self, position: int, message: wire.PairOpening, round_: int) -> list[LedgerEffect]:
        """A pair that one end opened.  Raises RemoteProtocolError where the proof does not hold."""
        suite, view, other = self._suite, self._view, message.position
        if other >= view.size or not view.neighbourhoods[position] >> other & 1:
            raise RemoteProtocolError("not_a_neighbour", "an opening of a pair that is none")
        is_asked = any(case.is_disputed(position, other) for case, _, _ in self._cases.values())
        if not is_asked and (position, other) not in self._complaints:
            return [Note("answer_out_of_turn")]
        keys = view.members[position].public_key, view.members[other].public_key
        context = PairContext(view.digest, view.ring, position, other)
        secret = suite.opened(*keys, context, message.opening)
        out: list[LedgerEffect] = []
        for case, head, _ in list(self._cases.values()):
            case.opened(position, other, secret)
            out += self._judged(case, head)
        deal = None if self._deals is None else self._deals.get(other)
        if (position, other) in self._complaints and deal is not None:
            self._complaints.discard((position, other))
            self._opened.add((position, other))
            if not is_good_share(suite, view, pair_keys(secret, position, other), other, position, deal):
                out += self._name(1 << other, Misbehaviour.BAD_DEAL, round_, position)
        return out

    def complaint(self, position: int, message: wire.BadDeal) -> list[LedgerEffect]:
        """A member says that its share of a deal is bad: it gets the whole signed deal, to prove it or to take it."""
        view, dealer = self._view, message.dealer
        if dealer >= view.size or not view.neighbourhoods[position] >> dealer & 1:
            raise RemoteProtocolError("not_a_neighbour", "a complaint about a deal of somebody who deals it nothing")
        deal = None if self._deals is None else self._deals.get(dealer)
        if deal is None or dealer in self.named or (position, dealer) in self._opened:
            return []
        self._complaints.add((position, dealer))
        disputed = wire.DisputedDeal(view.epoch, view.ring, dealer, deal.commitments, deal.sealed, deal.signature)
        return [Note("deal_complaint"), ToMember(position, disputed)]

    def _judged(self, case: Case, head: int) -> list[LedgerEffect]:
        """Whom a case names by now; it is closed when everybody has answered."""
        if not case.owing:
            del self._cases[case.context.round, case.context.attempt]
        return self._name(case.named, Misbehaviour.CORRUPT_SUM, case.context.round, head)

    def _name(self, found: int, misbehaviour: Misbehaviour, round_: int, reporter: int) -> list[LedgerEffect]:
        out: list[LedgerEffect] = []
        for position in positions_of(found & ~bitmap(list(self.named))):
            self.named[position] = misbehaviour
            out.append(ReportMisbehaviour(round_, reporter, position, misbehaviour))
        return out

    # --- silence -------------------------------------------------------------------------------------------------

    def has_said(self, head: int, members: int) -> bool:
        """
        Whether this head has said before that one of these was silent, and that one was there.

        Then it or the head is the liar, and another head may tell which.
        """
        return any(self._reports.get(position, 0) >> head & 1 for position in positions_of(members))

    def silent(self, head: int, members: int, round_: int, now_s: float) -> list[LedgerEffect]:
        """
        A head says that these fell silent in a round that is lost: ask them, each over the ledger's own link.

        Who answers and is silent to its heads alone costs every round as much.  Of as many heads as this takes one is
        honest, and two it takes in any case: a link between two that are honest may fail.  Who was there is asked about
        no round again, or a head could have all of them asked without end.
        """
        view, out = self._view, []
        for position in positions_of(members):
            heads = self._reports[position] = self._reports.get(position, 0) | 1 << head
            if heads.bit_count() > max(1, view.corrupt):
                self._asked.pop(position, None)
                self._count_silence(position, round_)
            elif position not in self._asked and round_ > self._present.get(position, -1):
                self._asked[position] = round_, now_s
                out.append(ToMember(position, wire.PresenceRequest(view.epoch, view.ring, round_)))
        return [*out]

    def present(self, position: int) -> list[LedgerEffect]:
        """It is there: whatever kept its word from the head, it was not silence."""
        round_, _ = self._asked.pop(position, (-1, 0.0))
        self._present[position] = max(round_, self._present.get(position, -1))
        return []

    def _judge_silence(self, now_s: float) -> None:
        for position, (round_, asked_s) in list(self._asked.items()):
            if now_s < asked_s + self._view.timing.silent_s:
                continue
            del self._asked[position]
            self._count_silence(position, round_)

    def _count_silence(self, position: int, round_: int) -> None:
        self._reports.pop(position, None)
        known = self._silences.get(position)
        times = 0 if known is None else max(0, known.times - (round_ - known.since) // _DAY_ROUNDS)
        self._silences[position] = _Silence(min(_SILENCE_MAX, times + 1), round_ + 2**times, round_)

    # --- whom a head leaves out -----------------------------------------------------------------------------------

    def next_timer_s(self, now_s: float) -> float:
        """When somebody's time to answer is over."""
        since = [asked_s for _, asked_s in self._asked.values()]
        since += [opened_s for case, _, opened_s in self._cases.values() if case.owing]
        return min((each + self._view.timing.silent_s for each in since if now_s < each + self._view.timing.silent_s),
                   default=_NEVER)  # fmt: skip

    def excluded(self, round_: int, now_s: float) -> int:
        """Whom a head leaves out of E in the round after `round_`, a bitmap."""
        self._judge_silence(now_s)
        due_s = now_s - self._view.timing.silent_s
        out = bitmap(list(self.named))
        if self._deals is not None:
            out |= self._view.everybody & ~bitmap(list(self._deals))
        for case, _, opened_s in self._cases.values():
            if opened_s <= due_s:
                out |= case.owing
        return out | bitmap([i for i, each in self._silences.items() if round_ < each.until])

    def reminders(self, round_: int) -> Sequence[LedgerEffect]:
        """All that is still owed of rounds before this one, asked again."""
        return [
            effect
            for (of, _), (case, _, _) in self._cases.items()
            if of < round_
            for position in positions_of(case.owing)
            for effect in self._questions(case, position)
        ]
