"""
The round ledger: the one arbiter of how a ring's rounds ended, and of who is its head.

A round ends as OPENED with one total or as VOID, once; the record is durable before anybody hears of it.  A total
that comes after void, and a second total, are answered with the outcome that stands.  The head is a matter of terms,
numbered upwards, the head of a term being the member at position term mod n: when enough members complain of the
same term, or two rounds in a row end void under it, in silence or given up, the next deputy is appointed.  Nobody would
complain of a head that keeps talking and opens nothing.  Where it is the ring that has too few members, a change of
head costs their reconnection and no total.

A sum whose masks did not cancel is no fault of its head, if it hands in what its members signed: the ledger judges who
lied (`inquiries`, `blame`) and tells heads whom to leave out of E.  A head whose evidence proves nothing lied itself:
it is replaced, and is head no more in this epoch.

The ledger checks what it can: that the count in slot 0 is the roster's size, and where slots are committed that each
member of the roster signed its commitments in this very attempt, and that the total is what they committed to.
It never sees more than sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen, decode_blinding_vector
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.effects import Ended, LedgerEffect, Note, Persist, RoundEnded, ToMember, ToRing
from protocol.dcnet.machines.event_log import EventLog, Local
from protocol.dcnet.machines.history import check_two_results
from protocol.dcnet.machines.inquiries import Inquiries
from protocol.dcnet.machines.machine import Machine, Transitions
from protocol.dcnet.machines.masks import words_from_bytes
from protocol.dcnet.setup.ledger_keys import LedgerSecrets
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of, result_text
from protocol.dcnet.setup.schema import signed
from protocol.dcnet.setup.statements import ATTESTATION_SIZE, commitment_half, input_text
from protocol.errors import RemoteProtocolError

_NEVER = float("inf")
HISTORY_MAX = 96  # RESULTs in one answer
_VOID_ROUNDS_MAX = 2  # one void round may be the network's doing; the one after it shows whether it was
_EVENTS_PER_MEMBER = 6


class State(StrEnum):
    """Whether rounds of the epoch are still to end."""

    RUNNING = "running"
    OVER = "over"


# What may end the epoch's last round.  Of one round there is no way back: `RoundLedger.ended` only grows.
_ENDINGS = (wire.RingTotal, wire.RingVoid, wire.CorruptSum)
TRANSITIONS: Transitions[State] = {
    **{(State.RUNNING, event): (State.RUNNING, State.OVER) for event in (*_ENDINGS, Local.DEADLINE)},
    **{
        (state, event): (state,)
        for state in State
        for event in (wire.HeadSilent, wire.RoundStatusRequest, wire.HistoryRequest, Local.EXPELLED)
    },
    **{(State.OVER, event): (State.OVER,) for event in (*_ENDINGS, Local.DEADLINE)},
}

# Names, as the member's.
_HANDLERS: dict[type[wire.Message], str] = {
    wire.RingTotal: "_on_total",
    wire.RingVoid: "_on_void",
    wire.CorruptSum: "_on_corrupt_sum",
    wire.HeadSilent: "_on_head_silent",
    wire.RoundStatusRequest: "_on_request",
    wire.HistoryRequest: "_on_history_request",
}


class RoundLedger(Machine[State, LedgerEffect]):
    """One ring's ledger for one epoch."""

    KIND = "ledger"
    TRANSITIONS = TRANSITIONS

    def __init__(
        self, suite: Suite, view: RingView, secrets: LedgerSecrets, now_s: float, ended: dict[int, Ended] | None = None,
        term: int = 0, deals: Mapping[int, wire.Deal] | None = None,
    ) -> None:  # fmt: skip
        """Begin, or begin again with what has ended; `deals` are those that came, by dealer, None for all of them."""
        self.view = view
        self.term = term
        self.ended: dict[int, Ended] = dict(ended or {})
        self._suite = suite
        self._pedersen = Pedersen(suite.group) if view.committed else None
        self._secrets = secrets
        self._complaints: set[int] = set()
        self._last_round_as_head: dict[int, int] = {}  # of who was replaced: the last round that had begun by then
        self._expelled = 0
        self.unfit = 0  # heads whose evidence proved nothing
        self._void_rounds = 0  # in a row, under the present head
        self.inquiries = Inquiries(suite, view, secrets.sign, deals)
        self._appointed_s = self._heard_s = now_s
        self._void_next = max(self.ended, default=-1) + 1  # rounds before it have ended
        self._results: dict[int, wire.Result] = {}
        self._history_told_s: dict[int, float] = {}  # when each member was last sent the ends of many rounds
        self._excluded = self.inquiries.excluded(self._void_next - 1, now_s)  # whom the present head leaves out
        self._has_excluded = False
        self.state = State.OVER if self.over else State.RUNNING
        start = {"term": term, "now_s": now_s, "ended": sorted(self.ended)}
        self.events = EventLog(-1, start, _EVENTS_PER_MEMBER * view.size)

    @property
    def over(self) -> bool:
        """Whether every round of the epoch has ended."""
        return self._void_next >= self.view.rounds

    def start(self) -> list[LedgerEffect]:
        """Appoint the head of the current term, and tell it whom to leave out."""
        out: list[LedgerEffect] = [ToRing(wire.Appoint(self.view.epoch, self.view.ring, self.term))]
        return [*out, self._exclusion()] if self._excluded else out

    def _exclusion(self) -> LedgerEffect:
        view, self._has_excluded = self.view, True
        message = wire.LeftOut(view.epoch, view.ring, view.to_wire(self._excluded))
        return ToMember(view.head_of(self.term), message)

    def next_timer_s(self) -> float:
        """When the next open round must be closed, or somebody's time to answer is over."""
        return min(self._void_at_s(), self.inquiries.next_timer_s(self._heard_s))

    def _void_at_s(self) -> float:
        if self.over:
            return _NEVER
        return self.view.timing.open_at_s(self._void_next) + self.view.timing.void_s

    def on_timer(self, now_s: float) -> list[LedgerEffect]:
        """
        Close every round whose time is over; a head that let two pass in silence is replaced.

        One round may be the machine's fault, and a change of head costs every member a new connection: on a busy
        machine heads that follow each other too quickly are what keeps rounds from opening.
        """
        if now_s < self.next_timer_s() and not self._is_head_overdue(now_s):
            return []
        return self._apply(Local.DEADLINE, (), now_s, -1, self._on_deadline, now_s)

    def _on_deadline(self, now_s: float) -> list[LedgerEffect]:
        out: list[LedgerEffect] = []
        self._heard_s = now_s
        while now_s >= self._void_at_s():
            out += self._end_void(self._void_next, "no total in time", now_s, everybody=True)
            self._void_rounds += 1
        if self._is_head_overdue(now_s):
            out += self._next_term(now_s)
        return out + self._tell_head(now_s)

    def _is_head_overdue(self, now_s: float) -> bool:
        return self._void_rounds >= _VOID_ROUNDS_MAX and now_s >= self._appointed_s + self.view.timing.void_s

    def receive(self, position: int, message: wire.Message, now_s: float) -> list[LedgerEffect]:
        """A message of the ring's member at `position`.  Raises RemoteProtocolError where it breaks a rule."""
        self._heard_s = max(self._heard_s, now_s)
        answered = self._on_answer(position, message, now_s)
        if answered is not None:
            return answered + self._tell_head(now_s)
        if type(message) not in _HANDLERS:
            raise RemoteProtocolError("message_not_allowed", f"{type(message).__name__} is not for the round ledger")
        handler = getattr(self, _HANDLERS[type(message)])
        return self._apply(type(message), message, now_s, position, handler, position, message, now_s)

    def _on_answer(self, position: int, message: wire.Message, now_s: float) -> list[LedgerEffect] | None:
        """What members answer to `inquiries`, which moves no round; None where it is about a round."""
        round_ = min(max(0, self.view.timing.round_at(now_s)), self.view.rounds - 1)
        match message:
            case wire.MaskWords():
                return self.inquiries.words(position, message)
            case wire.PairOpening():
                return self.inquiries.opening(position, message, round_)
            case wire.BadDeal():
                return self.inquiries.complaint(position, message)
            case wire.Presence():
                return self.inquiries.present(position)
            case wire.TwoResults():
                check_two_results(self._suite, self.view, message)
                return [Note("two_results")]
            case wire.WrongCommitment():
                self._check_head(position, message.term)
                self._check_round(message.round, now_s)
                if not self._is_head_of(position, message.round):
                    return [Note("report_out_of_turn")]
                return self.inquiries.wrong_commitment(position, message)
        return None

    @property
    def excluded(self) -> int:
        """Whom the present head leaves out of E, a bitmap."""
        return self._excluded

    def _tell_head(self, now_s: float) -> list[LedgerEffect]:
        """Whom to leave out, where that has changed; a head that was itself proved to lie is replaced."""
        head = self.view.head_of(self.term)
        if head in self.inquiries.named and self._unfit_heads() >> head & 1:
            return self._next_term(now_s)
        excluded = self.inquiries.excluded(self._void_next - 1, now_s)
        if excluded == self._excluded:
            return []
        self._excluded = excluded
        return [self._exclusion()]

    def _on_request(self, position: int, message: wire.RoundStatusRequest, now_s: float) -> list[LedgerEffect]:  # noqa: ARG002
        return self._answer(position, message.round)

    def _on_history_request(self, position: int, message: wire.HistoryRequest, now_s: float) -> list[LedgerEffect]:
        """The ends from a round on, as far as there is none missing; who asks again at once gets nothing."""
        if now_s < self._history_told_s.get(position, -_NEVER) + self.view.timing.reveal_s / 4:
            return []
        self._history_told_s[position] = now_s
        last = min(self._void_next, message.round + HISTORY_MAX)
        return [each for round_ in range(message.round, last) for each in self._answer(position, round_)]

    def _check_head(self, position: int, term: int) -> None:
        if term > self.term or position != self.view.head_of(term):
            raise RemoteProtocolError("not_the_head", "a report from somebody who was not appointed")

    def _is_head_of(self, position: int, round_: int) -> bool:
        """
        Whether a head's report on a round counts: a replaced one's does if that began before; a sum is a sum.

        Nothing later: the first total stands, and a false one would come before its successor's.  After a restart
        every member has a term in the past, and hardly any was head.  An honest one is only late, so nobody is blamed.
        """
        return position == self.view.head_of(self.term) or round_ <= self._last_round_as_head.get(position, -1)

    def _check_round(self, round_: int, now_s: float) -> None:
        if round_ >= self.view.rounds or round_ > self.view.timing.round_at(now_s):
            raise RemoteProtocolError("no_such_round", "a report on a round that has not begun")

    def _on_void(self, position: int, message: wire.RingVoid, now_s: float) -> list[LedgerEffect]:
        self._check_head(position, message.term)
        silent = self.view.from_wire(message.silent)
        is_repeated = self.inquiries.has_said(position, silent)
        ended = self.ended.get(message.round)
        if ended is not None and (ended.outcome == wire.Outcome.OPENED or not self._is_head_of(position, ended.round)):
            return self._answer(position, message.round)
        if ended is None and message.term < self.term:  # its successor may still open the round
            return []
        self._check_round(message.round, now_s)
        asked = self.inquiries.silent(position, silent, message.round, now_s)
        if ended is not None:  # the round was over before the head gave it up
            is_replaced, out = is_repeated and message.term == self.term, self._answer(position, message.round)
        else:
            self._void_rounds += 1
            is_replaced = is_repeated or self._void_rounds >= _VOID_ROUNDS_MAX
            out = self._end_void(message.round, message.reason, now_s, everybody=is_replaced)
        return [*out, *asked, *(self._next_term(now_s) if is_replaced else ())]

    def _on_corrupt_sum(self, position: int, message: wire.CorruptSum, now_s: float) -> list[LedgerEffect]:
        """The head gives a round up because masks did not cancel: who lied, a member or the head?"""
        self._check_head(position, message.term)
        if message.round in self.ended:
            return self._answer(position, message.round)
        if message.term < self.term:
            return []
        self._check_round(message.round, now_s)
        try:
            questions = self.inquiries.open(position, message, now_s)
        except RemoteProtocolError as error:
            self.unfit |= 1 << position
            out = self._end_void(message.round, "the head's evidence proves nothing", now_s, everybody=True)
            return [Note(error.reason), *out, *self._next_term(now_s)]
        self._complaints.clear()  # it heard the ring out, as where a round opens
        return [*self._end_void(message.round, "the masks did not cancel", now_s, everybody=False), *questions]

    def _on_total(self, position: int, message: wire.RingTotal, now_s: float) -> list[LedgerEffect]:
        view = self.view
        if message.round in self.ended:  # opened or void, once: what stands is repeated, never changed
            return [*self._answer(position, message.round), Note("total_after_end")]
        self._check_head(position, message.term)
        self._check_round(message.round, now_s)
        if not self._is_head_of(position, message.round):
            return [Note("report_out_of_turn")]
        roster, expected = view.from_wire(message.roster), view.from_wire(message.expected)
        if roster & ~expected or roster.bit_count() < view.n_min or len(message.total) != 8 * view.word_count:
            raise RemoteProtocolError("bad_total", f"expected {view.word_count} words of at least {view.n_min} members")
        total = tuple(map(int, words_from_bytes(message.total)))
        if total[0] != roster.bit_count():
            raise RemoteProtocolError("bad_total", "the count slot is not the size of the roster")
        ended = Ended(
            view.epoch, view.ring, message.round, wire.Outcome.OPENED, message.attempt, message.term, expected,
            roster, total, self._is_verified(message, roster, total), "", view.timing.open_at_s(message.round), now_s,
        )  # fmt: skip
        commitments = message.commitments if ended.verified else b""
        return [*self._end(ended, commitments), *self._answer(position, message.round)]

    def _is_verified(self, message: wire.RingTotal, roster: int, total: tuple[int, ...]) -> bool:
        """Whether the total is what the members signed that they committed to; without commitments none is."""
        if self._pedersen is None:
            return False
        count, group = self.view.committed_count, self._suite.group
        if len(message.commitments) != 32 * count * roster.bit_count():
            raise RemoteProtocolError("bad_total", "expected a commitment of each member to each committed slot")
        if len(message.attestations) != ATTESTATION_SIZE * roster.bit_count():
            raise RemoteProtocolError("bad_total", "expected the signature of each member")
        blindings = decode_blinding_vector(group, message.blinding, count)
        elements = [message.commitments[i : i + 32] for i in range(0, len(message.commitments), 32)]
        rows = [elements[i : i + count] for i in range(0, len(elements), count)]
        totals = [signed(total[index]) for index in self.view.committed]
        are_signed = self._are_signed(message, positions_of(roster))
        return self._pedersen.verify_totals(rows, totals, blindings) and are_signed

    def _are_signed(self, message: wire.RingTotal, members: list[int]) -> bool:
        """Whether each of `members` signed in this attempt the commitments that are said to be its own."""
        view, size = self.view, 32 * self.view.committed_count
        for i, position in enumerate(members):
            own = message.commitments[size * i : size * (i + 1)]
            said = message.attestations[ATTESTATION_SIZE * i : ATTESTATION_SIZE * (i + 1)]
            half = commitment_half(view, position, message.round, message.attempt, own, blinding=said[32:64])
            if not self._suite.verify(view.members[position].verify_key, input_text(said[:32], half), said[64:]):
                return False
        return True

    def _on_head_silent(self, position: int, message: wire.HeadSilent, now_s: float) -> list[LedgerEffect]:
        if message.term < self.term:  # it has not heard of the new head yet
            return [ToMember(position, wire.Appoint(self.view.epoch, self.view.ring, self.term))]
        if message.term > self.term:
            raise RemoteProtocolError("no_such_term", "a complaint about a head that was never appointed")
        if message.round in self.ended:  # it only has not heard how
            return self._answer(position, message.round)
        if position == self.view.head_of(self.term):
            return []
        self._complaints.add(position)
        quorum = max(2, -(-self.view.size // 2))
        if len(self._complaints) < quorum or now_s < self._appointed_s + self.view.timing.silent_s:
            return []
        return self._next_term(now_s)

    def expel(self, members: int, now_s: float) -> list[LedgerEffect]:
        """Members that were revoked, a bitmap: none of them is head any more.  What they opened before stands."""
        return self._apply(Local.EXPELLED, (self.view.to_wire(members),), now_s, -1, self._on_expelled, members, now_s)

    def _on_expelled(self, members: int, now_s: float) -> list[LedgerEffect]:
        self._expelled |= members
        return self._next_term(now_s) if self._expelled >> self.view.head_of(self.term) & 1 else []

    def _next_term(self, now_s: float) -> list[LedgerEffect]:
        unfit = self._unfit_heads()
        if not self.view.everybody & ~unfit:
            return []
        self._last_round_as_head[self.view.head_of(self.term)] = self.view.timing.round_at(now_s)
        self.term += 1
        while unfit >> self.view.head_of(self.term) & 1:
            self.term += 1
        self._appointed_s = now_s
        self._complaints.clear()
        self._void_rounds = 0
        self._excluded = self.inquiries.excluded(self._void_next - 1, now_s)
        out: list[LedgerEffect] = [Note("head_replaced"), *self.start()]
        if self._has_excluded and not self._excluded:  # it may remember whom it left out in another term
            out.append(self._exclusion())
        return out

    def _unfit_heads(self) -> int:
        """Who is head no more; where nobody would be left, only who was revoked."""
        unfit = self._expelled | self.unfit | bitmap(list(self.inquiries.named))
        return unfit if self.view.everybody & ~unfit else self._expelled

    def _end_void(self, round_: int, reason: str, now_s: float, *, everybody: bool) -> list[LedgerEffect]:
        view = self.view
        ended = Ended(
            view.epoch, view.ring, round_, wire.Outcome.VOID, 0, self.term, 0, 0, (), False, reason,
            view.timing.open_at_s(round_), now_s,
        )  # fmt: skip
        return [*self._end(ended), *self._answer(None if everybody else view.head_of(self.term), round_)]

    def _end(self, ended: Ended, commitments: bytes = b"") -> list[LedgerEffect]:
        self.ended[ended.round] = ended
        if ended.outcome is wire.Outcome.OPENED:  # the head works: what was said of it before is settled
            self._complaints.clear()
            self._void_rounds = 0
        while self._void_next in self.ended:
            self._void_next += 1
        self.state = State.OVER if self.over else State.RUNNING
        out: list[LedgerEffect] = [Persist(RoundEnded(ended, commitments)), *self.inquiries.reminders(ended.round)]
        told = self._tell_head(ended.ended_s)
        again = [self._exclusion()] if self._excluded else []  # it may have been lost
        return out + (told or again)

    def _answer(self, position: int | None, round_: int) -> list[LedgerEffect]:
        ended = self.ended.get(round_)
        if ended is None:
            return []  # still open: the result goes out when it ends
        result = self._results.get(round_)
        if result is None:
            text = result_text(self.view, round_, ended.outcome, ended.roster)
            result = self._results[round_] = wire.Result(
                self.view.epoch, self.view.ring, round_, int(ended.outcome), self.view.to_wire(ended.roster),
                self._secrets.sign(text),
            )  # fmt: skip
        return [ToRing(result) if position is None else ToMember(position, result)]
