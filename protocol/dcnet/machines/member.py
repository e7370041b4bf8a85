"""
The member machine: one gateway in one ring for one epoch.  It is what keeps a reading private.

Everything the head says is a claim.  The machine answers only what the rules of docs/explanation/protocol.md, section
7, allow; each is marked with its number where it is checked, here or in what is called from here.  An answer that gives
something away is preceded by a `Persist`, so that a machine restarted from its durable records cannot be led to give
away the other half.

    WAITING --OPEN--> SHARED --ROSTER--> CONFIRMED --CONFIRMED--> SERVED --RESULT--> WAITING
                         |                   |
                         +--- OPEN(a+1) -----+--> SHARED       (never from SERVED: rule 1)

An OPEN that comes before our own reading, or before we know how our last contribution ended, is held (one, the
newest) and answered when we can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from protocol import wire
from protocol.dcnet.crypto.commitments import Pedersen
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.discipline.returns import EpochAttendance
from protocol.dcnet.machines.answers import Answers
from protocol.dcnet.machines.effects import (
    Attempted,
    EpochRefused,
    MemberEffect,
    Note,
    Persist,
    Progress,
    Settled,
    ToCoordinator,
    ToHead,
)
from protocol.dcnet.machines.event_log import EventLog, Local
from protocol.dcnet.machines.history import History
from protocol.dcnet.machines.incarnations import Incarnation
from protocol.dcnet.machines.machine import Machine
from protocol.dcnet.machines.masks import MaskSchedule, Words
from protocol.dcnet.machines.member_attempt import MemberAttempt, Place, Resume, Secrets, SelfMasks
from protocol.dcnet.machines.member_states import TRANSITIONS, State
from protocol.dcnet.machines.returns import Returns
from protocol.dcnet.setup.rings import RingView, result_text
from protocol.dcnet.setup.terms import RoundTerms, mask_terms
from protocol.errors import LocalProtocolError, RemoteProtocolError

# Names: a machine that held its own methods would wait in memory, keys and all, for the garbage collector.
_HANDLERS: dict[type[wire.RingMessage], str] = {
    wire.Open: "_on_open",
    wire.Roster: "_on_roster",
    wire.Confirmed: "_on_confirmed",
    wire.Recover: "_on_recover",
    wire.Result: "_on_result",
}


class Member(Machine[State, MemberEffect]):
    """One member.  Feed it messages and the time; carry out what it returns, in order."""

    KIND = "member"
    TRANSITIONS = TRANSITIONS

    def __init__(
        self, suite: Suite, view: RingView, secrets: Secrets, masks: MaskSchedule, resume: Resume | None = None,
        first_round: int = 0, attendance: EpochAttendance | None = None,
    ) -> None:  # fmt: skip
        """
        Begin, or begin again with what is durable; `masks` are those of this process.  Without `attendance` returns are
        not counted.

        A process contributes to no round before `first_round`, nor to one that another process has shared in.
        """
        past = resume or Resume()
        self.view = view
        self.position = secrets.position
        self.state = State.WAITING
        history = masks.incarnation.history
        served_round = past.round if past.progress == Progress.SERVED else -1
        is_another_process = past.settled and masks.incarnation.last[0] != past.round
        self._returns = Returns(view, self.position, history, attendance, served_round, is_another_process)
        for each in history.since(0, history.settled):
            self._returns.ended(each.round, is_opened=each.outcome == wire.Outcome.OPENED)
        start = {
            **asdict(past), "first_round": first_round, "nonce": masks.incarnation.nonce.hex(),
            "history": history.ends, "attendance": self._returns.start(),
        }  # fmt: skip
        self.events = EventLog(self.position, start)
        self.term = 0
        self.is_out = False  # it has refused the epoch
        self.current = MemberAttempt(past.round, past.attempt)
        self._contributed = past.round
        self.unsettled: int | None = None if past.settled else past.round
        pedersen = Pedersen(suite.group) if view.committed else None
        self._place = place = Place(suite, view, secrets, masks, pedersen, view.neighbourhoods[secrets.position])
        self._answers = Answers(place)
        self._first_round = first_round
        # No later attempt of its round: it ended, or was served, or it was another process that shared in it.
        self._round_closed = past.settled or past.progress == Progress.SERVED or masks.incarnation.last[0] != past.round
        self._self_masks = SelfMasks(place)
        self._offer: tuple[int, Words, Sequence[int]] | None = None
        self._pending_open: wire.Open | None = None
        self._heard_s = float("-inf")
        self._complained = (-1, -1)
        self._is_waiting = False  # as our last READY said
        self._deadline_s = view.timing.open_at_s(max(0, past.round)) + view.timing.silent_s

    # --- what happens here ---------------------------------------------------------------------------------------

    def appointed(self, term: int, now_s: float) -> list[MemberEffect]:
        """The head of `term` can be reached now: ask it to be in its next E."""
        return self._apply(Local.APPOINTED, (term,), now_s, -1, self._on_appointed, term, now_s)

    def _on_appointed(self, term: int, now_s: float) -> list[MemberEffect]:
        if term < self.term:
            return []
        if term > self.term:
            self._pending_open = None  # its head is gone, and its E with it
        self.term = term
        self._deadline_s = self._next_deadline(now_s)
        return [] if self.is_out else [self._ready()]

    def expelled(self, members: int, now_s: float) -> None:
        """These were revoked of the ring, a bitmap: an OPEN that is held, with one of them in its E, is dropped."""
        about = (self.view.to_wire(members),)
        self._apply(Local.EXPELLED, about, now_s, -1, self._on_expelled, members)

    def _on_expelled(self, members: int) -> list[MemberEffect]:
        if self._pending_open is not None and self.view.from_wire(self._pending_open.expected) & members:
            self._pending_open = None
        return []

    def offer(
        self, round_: int, vector: Words, now_s: float, blindings: Sequence[int] = (),
        attendance: EpochAttendance | None = None,
    ) -> list[MemberEffect]:  # fmt: skip
        """
        Our own contribution for a round: m words of which the first is 1, and a blinding per committed slot.

        The driver offers the same vector again after a restart within the round.  `attendance` is what is durable now,
        where returns are counted.
        """
        if len(vector) != self.view.word_count or int(vector[0]) != 1:
            raise LocalProtocolError(f"a contribution has {self.view.word_count} words and counts one gateway")
        if len(blindings) != self.view.committed_count:
            raise LocalProtocolError(f"a contribution has {self.view.committed_count} blindings")
        if self._offer is not None and round_ < self._offer[0]:
            raise LocalProtocolError("contributions are offered in the order of their rounds")
        if self.unsettled not in {None, round_}:
            raise LocalProtocolError("the last contribution is not settled: nobody knows yet what this one carries")
        if attendance is not None:
            self._returns.update(attendance)
        if self.is_out:
            return []
        about = round_, self.history.settled
        return self._apply(Local.OFFERED, about, now_s, -1, self._on_offered, round_, vector, blindings, now_s)

    def _on_offered(self, round_: int, vector: Words, blindings: Sequence[int], now_s: float) -> list[MemberEffect]:
        self._offer = (round_, vector, blindings)
        out: list[MemberEffect] = []
        if self._returns.is_waiting(round_) is not self._is_waiting:
            out.append(self._ready())
        # What the round's first OPEN will need is made now, while the others' readings are still on their way.
        self._place.masks.prepare(round_)
        settled = self.history.settled
        terms = mask_terms(settled, self.history.hash(settled), self.view.to_wire(0))
        self._self_masks.prepare(round_, self.current.attempt + 1 if round_ == self.current.round else 0, terms)
        return out + self._try_share(now_s)

    def receive(self, message: wire.RingMessage, now_s: float) -> list[MemberEffect]:
        """A message of our ring's head.  Raises RemoteProtocolError where it breaks a rule; nothing changes then."""
        if (message.epoch, message.ring) != (self.view.epoch, self.view.ring):
            raise RemoteProtocolError("wrong_ring", "a message for another ring or epoch")
        if (self.state, type(message)) not in TRANSITIONS or self.is_out:
            if type(message) in _HANDLERS:
                return [Note("member_stale_message")]  # late or early, and harmless: the network does that
            raise RemoteProtocolError("message_not_allowed", f"{type(message).__name__} is not for members")
        handler = getattr(self, _HANDLERS[type(message)])
        effects = self._apply(type(message), message, now_s, -1, handler, message, now_s)
        self._heard_s = now_s
        self._deadline_s = self._next_deadline(now_s)
        return effects

    def asked(self, message: wire.Message) -> list[MemberEffect]:
        """What the round ledger asks over its own link (`answers`).  Raises RemoteProtocolError where it may not."""
        return self._answers.asked(message, (self.current.round, self.current.attempt))

    @property
    def next_attempt(self) -> tuple[int, int]:
        """The (round, attempt) that a head which knows what this member knows opens first."""
        current = self.current
        if self.unsettled == current.round and current.attempt + 1 < wire.MAX_ATTEMPTS:
            return current.round, current.attempt + 1
        return current.round + 1, 0

    @property
    def has_served(self) -> bool:
        """Whether we served since the last round that we know to have opened."""
        return self._returns.has_served

    @property
    def is_waiting(self) -> bool:
        """Whether we told the head that we have no token for a return."""
        return self._is_waiting

    @property
    def incarnation(self) -> Incarnation:
        """Our process, and what it knows of the others' in the ring."""
        return self._place.masks.incarnation

    @property
    def history(self) -> History:
        """How the rounds of the epoch ended, as far as we have heard."""
        return self.incarnation.history

    def _ready(self) -> ToHead:
        current = self.current
        is_anothers = current.round >= 0 and self.incarnation.last[0] < current.round and self.unsettled is not None
        first = max(self._first_round, current.round + 1 if is_anothers else 0)
        round_, attempt = max(self.next_attempt, (min(first, self.view.rounds), 0))
        self._is_waiting = self._returns.is_waiting(round_)
        settled = self.history.settled
        ready = wire.Ready(
            self.view.epoch, self.view.ring, self.term, round_, attempt, self.incarnation.nonce,
            self.incarnation.signature, settled, self.history.hash(settled), int(self._is_waiting),
            int(self._returns.has_served),
        )  # fmt: skip
        return ToHead(ready)

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called; infinity for never."""
        return self._deadline_s

    def on_timer(self, now_s: float) -> list[MemberEffect]:
        """The head has been silent for too long: tell the coordinator, ask how the round ended, ask to be let in."""
        if now_s < self._deadline_s:
            return []
        return self._apply(Local.DEADLINE, (), now_s, -1, self._on_deadline, now_s)

    def _on_deadline(self, now_s: float) -> list[MemberEffect]:
        due = self.view.timing.round_at(now_s)
        out: list[MemberEffect] = []
        if self.unsettled is not None:
            out.append(ToCoordinator(wire.RoundStatusRequest(self.view.epoch, self.view.ring, self.unsettled)))
        # An OPEN that we hold for want of our own reading is not the head's fault.
        is_silent = self.state is not State.WAITING or self._heard_s < self.view.timing.open_at_s(due)
        if 0 <= due < self.view.rounds:
            if is_silent and self._complained != (due, self.term):
                self._complained = (due, self.term)
                out.append(ToCoordinator(wire.HeadSilent(self.view.epoch, self.view.ring, self.term, due)))
            out.append(self._ready())
        self._deadline_s = now_s + self.view.timing.silent_s
        if due >= self.view.rounds and self.unsettled is None:
            self._deadline_s = float("inf")
        return out

    # --- the rules -----------------------------------------------------------------------------------------------

    def _on_open(self, message: wire.Open, now_s: float) -> list[MemberEffect]:
        view = self.view
        if message.term != self.term:  # rule 4: no deputy out of turn
            raise RemoteProtocolError(
                "head_out_of_turn", f"term {message.term} opens, the appointed one is {self.term}"
            )
        if message.round >= view.rounds:
            raise RemoteProtocolError("no_such_round", f"round {message.round} of an epoch of {view.rounds}")
        current = self.current
        last = max((current.round, current.attempt), self.incarnation.last)
        if (message.round, message.attempt) <= last:  # rule 4: attempts only go up
            raise RemoteProtocolError("stale_attempt", "an attempt that is not after the last one")
        if message.round == current.round and self._round_closed:  # rule 1: never serve two attempts
            raise RemoteProtocolError("already_served", "this round has ended or was served in an earlier attempt")
        if message.round < self._first_round:
            raise RemoteProtocolError("before_our_start", "a round that had begun when this process started")
        self._place.check_members(view.from_wire(message.expected), view.everybody, "expected")
        self.incarnation.check_open(message)
        served = view.from_wire(message.served)
        self._place.check_history(message, self._contributed)
        is_judged = message.settled <= self.history.settled  # else it is held until we know the ends that it counts
        if is_judged and self._returns.is_left_out(message.round, message.settled, served):
            raise RemoteProtocolError("served_left_out", "V is without this member, which served since")
        self._pending_open = message
        return self._try_share(now_s) if is_judged else [self._ready()]

    def _try_share(self, now_s: float) -> list[MemberEffect]:
        held, offer = self._pending_open, self._offer
        if held is None:
            return []
        if self.unsettled is not None and self.unsettled != held.round:
            return [ToCoordinator(wire.RoundStatusRequest(self.view.epoch, self.view.ring, self.unsettled))]
        if offer is None or offer[0] != held.round or held.settled > self.history.settled:
            return []
        self._pending_open = None
        self.incarnation.least_settled = self._place.least_settled(held.round, self._contributed)
        _, vector, blindings = offer
        expected, served = self.view.from_wire(held.expected), self.view.from_wire(held.served)
        if self._returns.is_left_out(held.round, held.settled, served):  # it was held while we did not know the ends
            return [Note("served_left_out"), self._ready()]
        is_return = self._returns.is_return(held.round, expected, served)
        if is_return and not self._returns.can_pay(held.round):
            return [Note("no_return_left"), self._ready()]
        self._returns.shared(held.round, is_return=is_return)
        self._place.masks.use(held)
        history = self.history.hash(held.settled)
        terms = RoundTerms(self.incarnation.digest(expected), held.settled, history, held.served)
        seed, mask = self._self_masks.take(held.round, held.attempt, terms.of_masks)
        self.current = MemberAttempt(held.round, held.attempt, self.term, expected, seed=seed, terms=terms)
        self.state, self._round_closed, self.unsettled = State.SHARED, False, held.round
        share = self.current.masked_input(self._place, mask, vector, blindings)
        self._deadline_s = self._next_deadline(now_s)
        attempted = Attempted(held.round, held.attempt, Progress.SHARED, is_return)
        return [Persist(attempted), ToHead(share)]  # rule 5

    def _on_roster(self, message: wire.Roster, now_s: float) -> list[MemberEffect]:  # noqa: ARG002
        if not self.current.is_about(message):
            return [Note("member_stale_message")]
        roster = self.view.from_wire(message.roster)
        if self.state is State.CONFIRMED:
            if roster != self.current.roster:  # rule 4: one roster for one attempt
                raise RemoteProtocolError("second_roster", "another roster for an attempt that is confirmed")
            return []
        self._place.check_members(roster, self.current.expected, "roster")
        self.current = self.current.confirmed(roster)
        self.state = State.CONFIRMED
        return [ToHead(self.current.confirm(self._place))]

    def _on_confirmed(self, message: wire.Confirmed, now_s: float) -> list[MemberEffect]:  # noqa: ARG002
        current = self.current
        if not current.is_about(message):
            return [Note("member_stale_message")]
        view = self.view
        if current.valid_confirmations(self._place, message) < view.t_c:  # rule 3
            raise RemoteProtocolError("too_few_confirmations", f"under {view.t_c} neighbours confirmed this roster")
        self.state, self._round_closed = State.SERVED, True
        self._returns.served(current.round)
        return [
            Persist(Attempted(current.round, current.attempt, Progress.SERVED)),  # rule 5
            ToHead(wire.Reveal(view.epoch, view.ring, current.round, current.attempt, current.seed)),
        ]

    def _on_recover(self, message: wire.Recover, now_s: float) -> list[MemberEffect]:  # noqa: ARG002
        # Rules 1 and 3 hold because only SERVED gets here: our MACs were checked and what we did is durable.
        current = self.current
        if not current.is_about(message):
            return [Note("member_stale_message")]
        silent = self.view.from_wire(message.silent)
        if silent & ~current.roster or silent >> self.position & 1:  # rule 2
            raise RemoteProtocolError("not_in_roster", "recovery of somebody outside the confirmed roster")
        asked = silent & self._place.neighbours & ~current.helped
        self.current = replace(current, helped=current.helped | asked)
        return current.help(self._place, asked)

    def _on_result(self, message: wire.Result, now_s: float) -> list[MemberEffect]:
        view, current = self.view, self.current
        roster = view.from_wire(message.roster)
        text = result_text(view, message.round, message.outcome, roster)
        if not self._place.suite.verify_shared(view.result_key, text, message.signature):
            raise RemoteProtocolError("forged_result", "a result that the round ledger did not sign")
        other = self.history.add(message)
        if other is not None:
            return self._refuse_epoch(other, message)
        is_opened = message.outcome == wire.Outcome.OPENED
        included = bool(roster >> self.position & 1) and is_opened
        self._returns.ended(message.round, is_opened=is_opened)
        out: list[MemberEffect] = []
        if message.round == self.unsettled:
            self.unsettled = None
            out.append(Persist(Settled(message.round, included)))
        if message.round == current.round or (message.round > current.round and self.state is State.WAITING):
            if message.outcome == wire.Outcome.VOID:  # we helped, and it did not open: did a dealer cheat?
                out += current.bad_deals(self._place)
            self.current = current.ended(message.round)
            self.state, self._round_closed = State.WAITING, True
            if self._pending_open is not None and self._pending_open.round <= message.round:
                self._pending_open = None
        if not included and is_opened:
            out.append(self._ready())
        return out + (self._try_share(now_s) if self.state is State.WAITING else [])

    def _refuse_epoch(self, first: wire.Result, second: wire.Result) -> list[MemberEffect]:
        """The ledger signed two ends of one round: nothing that it says in this epoch is worth a contribution."""
        self.is_out, self._pending_open, self.state = True, None, State.WAITING
        refused = EpochRefused(first, second)
        return [Persist(refused), ToCoordinator(refused.proof)]

    def _next_deadline(self, now_s: float) -> float:
        """In an attempt: the head's next word.  Otherwise: the opening of the next round, and some patience."""
        timing = self.view.timing
        if self.is_out:
            return float("inf")
        if self.state is not State.WAITING or self._pending_open is not None or self.unsettled is not None:
            return now_s + timing.silent_s
        due = max(self.current.round + 1, timing.round_at(max(now_s, self._heard_s)) + 1, 0)
        if due >= self.view.rounds:
            return float("inf")
        return timing.open_at_s(due) + timing.silent_s
