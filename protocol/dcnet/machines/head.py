r"""
The head machine: collects one ring's shares, opens the sum, and reports it.  Nobody trusts it with a secret.

    GATHERING -> IDLE -> COLLECTING -> CONFIRMING -> REVEALING -> RECOVERING -> REPORTED -> IDLE
                           ^               |
                           +-- attempt+1 --+   a member fell silent before CONFIRM and its mask words are missing

Every wait has a deadline.  A member that misses one is left out of the following E until it says READY again.
What a member sends is believed as far as it can be checked: inputs and confirmations are signed; a seed is held against
what its input committed to, and a member that reveals another one is recovered like a silent one (`recovery`); slot 0
of the sum must count the roster.  Where it does not, the round ledger gets what the members signed and judges who lied
(`blame`); where t proved parts give another seed than was committed to, it gets those.  It says whom to leave out of E.

The words that a member with no neighbour in E \ U would have sent in CONFIRM are none, so its silence there costs
no new attempt: it is recovered like one that fell silent later.  The members' rules do not depend on it.
"""

from __future__ import annotations

from enum import StrEnum

from protocol import wire
from protocol.dcnet.crypto.suite import Suite, mac_equal
from protocol.dcnet.machines.attempt import Attempt, check_confirm, check_share
from protocol.dcnet.machines.catch_up import CatchUp
from protocol.dcnet.machines.effects import HeadEffect, Note, ToCoordinator, ToMember
from protocol.dcnet.machines.event_log import EventLog, Local
from protocol.dcnet.machines.history import History
from protocol.dcnet.machines.incarnations import Incarnation, NonceTable
from protocol.dcnet.machines.machine import Machine, Transitions
from protocol.dcnet.machines.masks import seed_commitment
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of
from protocol.dcnet.setup.terms import RoundTerms
from protocol.errors import RemoteProtocolError

_NEVER = float("inf")
_EVENTS_PER_MEMBER = 8  # two or three rounds
_RECONNECT_FRACTION = 1 / 16  # of the wait for shares: what a link that broke gets to come back


class State(StrEnum):
    """Where the head stands."""

    GATHERING = "gathering"
    IDLE = "idle"
    COLLECTING = "collecting"
    CONFIRMING = "confirming"
    REVEALING = "revealing"
    RECOVERING = "recovering"
    REPORTED = "reported"


_IN_ROUND = (State.COLLECTING, State.CONFIRMING, State.REVEALING, State.RECOVERING)

# Which event moves what in which state.  READY is noted in every state, any other message of a member is late or early.
TRANSITIONS: Transitions[State] = {
    (State.GATHERING, wire.Ready): (State.GATHERING, State.COLLECTING, State.IDLE),
    (State.COLLECTING, wire.MaskedInput): (State.COLLECTING, State.CONFIRMING, State.REPORTED),
    (State.CONFIRMING, wire.Confirm): (State.CONFIRMING, State.REVEALING),
    (State.REVEALING, wire.Reveal): (State.REVEALING, State.RECOVERING, State.REPORTED),
    (State.RECOVERING, wire.Reveal): (State.RECOVERING, State.REPORTED),
    (State.RECOVERING, wire.Partial): (State.RECOVERING, State.REPORTED),
    **{(state, wire.Result): (State.IDLE,) for state in (*_IN_ROUND, State.REPORTED)},
    (State.GATHERING, Local.DEADLINE): (State.GATHERING, State.COLLECTING, State.REPORTED, State.IDLE),
    (State.IDLE, Local.DEADLINE): (State.IDLE, State.COLLECTING, State.REPORTED),
    (State.COLLECTING, Local.DEADLINE): (State.COLLECTING, State.CONFIRMING, State.REPORTED),
    (State.CONFIRMING, Local.DEADLINE): (State.COLLECTING, State.REVEALING, State.REPORTED),
    (State.REVEALING, Local.DEADLINE): (State.REVEALING, State.RECOVERING, State.REPORTED),
    (State.RECOVERING, Local.DEADLINE): (State.RECOVERING, State.REPORTED),
    (State.REPORTED, Local.DEADLINE): (State.IDLE,),
}

# Names, as the member's.
_HANDLERS: dict[type[wire.RingMessage], str] = {
    wire.MaskedInput: "_on_share",
    wire.Confirm: "_on_confirm",
    wire.Reveal: "_on_reveal",
    wire.Partial: "_on_partial",
}

_NO_ATTEMPT = Attempt(round=-1, attempt=-1, term=-1, expected=0, opened_s=0.0)


class Head(Machine[State, HeadEffect]):
    """The head of a ring for one term."""

    KIND = "head"
    ARRIVALS = frozenset({wire.MaskedInput, wire.Confirm, wire.Reveal})
    TRANSITIONS = TRANSITIONS

    def __init__(
        self,
        suite: Suite,
        view: RingView,
        term: int,
        now_s: float,
        commitments: dict[int, tuple[bytes, ...]] | None = None,
        first_round: int = 0,
        first_attempt: int = 0,
        known: Incarnation | None = None,
    ) -> None:
        """Begin a term; `known` is what our own member knows of its ring's processes and of how rounds ended."""
        self.view = view
        self.term = term
        self.state = State.GATHERING
        self._nonces = NonceTable(suite, view) if known is None else known.copy()
        self._catch_up = CatchUp(History(view) if known is None else known.history.copy())
        start = {
            "term": term, "now_s": now_s, "round": first_round, "attempt": first_attempt,
            "nonces": self._nonces.replacements, "history": self._catch_up.history.ends,
        }  # fmt: skip
        self.events = EventLog(view.head_of(term), start, _EVENTS_PER_MEMBER * view.size)
        self.present = 0
        self.left_out = 0  # whom the coordinator says to leave out
        self._suite = suite
        self._commitments = commitments or {}
        self.refuted = 0  # whose partial evaluations did not fit the dealer's commitments: its lie or the dealer's
        self.caught = 0  # who revealed a wrong seed: nobody can prove it, and this head leaves it out for its term
        self._silent = 0  # whose silence has lost an attempt of the round
        self.current = _NO_ATTEMPT
        self._last_result: wire.Result | None = None
        self._is_waiting_for_ends = False
        self._claims: dict[int, tuple[int, int]] = {}  # what members said they can still take part in
        self._not_before: dict[int, int] = {}  # the first round that each can take part in
        self._waiting = 0  # who has no token for a return: it hears RESULTs, and is in no E
        self._served = 0  # V: who served since the last opened round
        self._served_round = -1  # the last round in which somebody was sent CONFIRMED
        self._next_round = max(first_round, view.timing.round_at(now_s), 0)
        self._next_attempt = first_attempt if self._next_round == first_round else 0
        opening_s = view.timing.open_at_s(self._next_round)
        self._deadline_s = max(now_s + view.timing.gather_s, opening_s)
        self._early = opening_s <= now_s  # a round is under way: open it as soon as everybody is here

    # --- events --------------------------------------------------------------------------------------------------

    def receive(self, position: int, message: wire.RingMessage, now_s: float) -> list[HeadEffect]:
        """A message of the member at `position`.  Raises RemoteProtocolError where it is malformed."""
        if (message.epoch, message.ring) != (self.view.epoch, self.view.ring):
            raise RemoteProtocolError("wrong_ring", "a message for another ring or epoch")
        kind, attempt = type(message), self.current
        if isinstance(message, wire.Ready):
            return self._apply(kind, message, now_s, position, self._on_ready, position, message, now_s)
        if not isinstance(message, wire.MaskedInput | wire.Confirm | wire.Reveal | wire.Partial):
            raise RemoteProtocolError("message_not_allowed", f"{kind.__name__} is not for heads")
        is_current = message.round == attempt.round and message.attempt == attempt.attempt
        if not is_current or (self.state, kind) not in TRANSITIONS:
            return self._apply(kind, message, now_s, position, self._on_stale)
        handler = getattr(self, _HANDLERS[kind])
        return self._apply(kind, message, now_s, position, handler, attempt, position, message, now_s)

    def _on_stale(self) -> list[HeadEffect]:
        return [Note("head_stale_message")]

    def lost(self, position: int, now_s: float) -> None:
        """The link to a member is gone: leave it out until it says READY, and hardly wait for its next word."""
        self._apply(Local.LOST, (), now_s, position, self._on_lost, position, now_s)

    def _on_lost(self, position: int, now_s: float) -> list[HeadEffect]:
        self.present &= ~(1 << position)
        self._shorten_deadline(self.current, now_s)
        return []

    def leave_out(self, members: int, now_s: float) -> None:
        """The coordinator says whom to leave out, a bitmap: no attempt starts with one until it is said anew."""
        self._apply(Local.LEFT_OUT, (self.view.to_wire(members),), now_s, -1, self._on_left_out, members)

    def _on_left_out(self, members: int) -> list[HeadEffect]:
        self.left_out = members
        return []

    def result(self, message: wire.Result, now_s: float) -> list[HeadEffect]:
        """The round ledger's answer: pass it to everybody who can hear it, then wait for the next round's time."""
        return self._apply(wire.Result, message, now_s, -1, self._on_result, message, now_s)

    def _on_result(self, message: wire.Result, now_s: float) -> list[HeadEffect]:
        try:
            is_ours = self._catch_up.result(message, self.present)
        except RemoteProtocolError as error:
            return [Note(error.reason)]
        if not is_ours:
            return [Note("two_results")]
        out: list[HeadEffect] = [ToMember(other, message) for other in positions_of(self.present)]
        self._last_result = message
        if message.outcome == wire.Outcome.OPENED and message.round >= self._served_round:
            self._served = 0
        attempt = self.current
        if message.round == attempt.round:
            out.append(Note("round", now_s - attempt.opened_s))
            self._to_idle(now_s)
        elif self._is_waiting_for_ends and self._catch_up.history.settled >= self._next_round:
            self._is_waiting_for_ends, self._deadline_s = False, now_s
        return out

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called; infinity for never."""
        return self._deadline_s

    def on_timer(self, now_s: float) -> list[HeadEffect]:
        """A deadline has passed."""
        if now_s < self._deadline_s:
            return []
        return self._apply(Local.DEADLINE, (), now_s, -1, self._on_deadline, now_s)

    def _on_deadline(self, now_s: float) -> list[HeadEffect]:
        attempt = self.current
        match self.state:
            case State.GATHERING | State.IDLE:
                there = self._eligible(self._next_round)
                if there.bit_count() < self.view.n_min and self._wait_until(self._next_round, now_s):
                    return []
                return self._open(now_s)
            case State.REPORTED:
                self._to_idle(now_s)
                return [Note("result_overdue")]
            case State.COLLECTING:
                if len(attempt.shares) < self.view.n_min and self._wait_until(attempt.round, now_s):
                    return []
                return self._close_roster(attempt, now_s)
            case State.CONFIRMING:
                return self._close_confirmations(attempt, now_s)
            case State.REVEALING:
                if attempt.is_unrecoverable(self.view) and self._wait_until(attempt.round, now_s):
                    return []
                return self._recover(attempt, now_s)
            case _:
                if self._wait_until(attempt.round, now_s):
                    return []
                return self._give_recovery_up(attempt, now_s)

    def _wait_until(self, round_: int, now_s: float) -> bool:
        """Where going on now would lose the round, late is better than never: wait while the round lasts."""
        timing = self.view.timing
        last_s = timing.open_at_s(round_) + timing.void_s - timing.reveal_s / 2
        if now_s >= last_s:
            return False
        self._deadline_s = min(last_s, now_s + timing.reveal_s / 2)
        return True

    # --- one attempt ---------------------------------------------------------------------------------------------

    def _on_ready(self, position: int, message: wire.Ready, now_s: float) -> list[HeadEffect]:
        if message.term != self.term:
            return [Note("head_stale_message")]
        try:
            is_new = self._nonces.take(position, message.nonce, message.signature)
        except RemoteProtocolError as error:  # an older process of that gateway, or one too many: the others refuse it
            if error.reason == "bad_signature":
                raise
            if error.reason == "too_many_nonces":  # the one before it is gone
                self.present &= ~(1 << position)
            return [Note(error.reason)]
        lacks = self._catch_up.ready(position, message)
        if lacks is not None:  # an attempt with it would open nothing
            self.present &= ~(1 << position)
            return [Note("foreign_history"), *lacks]
        self.present |= 1 << position
        self._not_before[position] = message.round
        self._waiting = self._waiting & ~(1 << position) | message.is_waiting << position
        self._served |= message.has_served << position
        if is_new:
            self._on_restarted(position, now_s)
        elif message.is_waiting:
            self._shorten_deadline(self.current, now_s)
        attempt = self.current
        if self.state is State.COLLECTING and attempt.lacks(position) and message.settled < attempt.terms.settled:
            return self._catch_up.again(position, attempt.terms.settled)
        if self.state is not State.GATHERING:
            return []
        self._claims[position] = message.round, message.attempt
        is_all = self.present == self.view.everybody and self._eligible(self._next_round).bit_count() >= self.view.n_min
        return self._open(now_s) if self._early and is_all else []

    def _on_restarted(self, position: int, now_s: float) -> None:
        """What the process before it has sent counts; nothing more will come of it in this attempt."""
        attempt = self.current
        attempt.restarted |= attempt.expected & 1 << position
        self._shorten_deadline(attempt, now_s)

    def _eligible(self, round_: int) -> int:
        """Who is there, can take part in a round and owes no answer."""
        late = [position for position, first in self._not_before.items() if first > round_]
        return self.present & ~bitmap(late) & ~self.left_out & ~self._waiting & ~self.caught

    def _attempt_of(self, round_: int) -> int:
        """
        The attempt that a new head opens a round with: one that it never saw may have been opened by the last head.

        Of what the members say the second highest counts, so that one alone, liar or straggler, uses up no attempts.
        """
        claims = sorted((attempt for of, attempt in self._claims.values() if of == round_), reverse=True)
        return max([self._next_attempt, *claims[1:2]])

    def _to_idle(self, now_s: float) -> None:
        self._next_round = max(self.current.round + 1, self.view.timing.round_at(now_s))
        self.current = _NO_ATTEMPT
        self._next_attempt = self._silent = 0
        self.state = State.IDLE
        over = self._next_round >= self.view.rounds
        self._deadline_s = _NEVER if over else self.view.timing.open_at_s(self._next_round)

    def _open(self, now_s: float) -> list[HeadEffect]:
        timing = self.view.timing
        latest = timing.round_at(now_s)
        if latest > self._next_round:  # we overslept: the round ledger has closed the earlier ones
            self._next_round, self._next_attempt = latest, 0
        if self._next_round >= self.view.rounds:
            self.state, self._deadline_s = State.IDLE, _NEVER
            return []
        self._is_waiting_for_ends = self._catch_up.history.settled < self._next_round
        if self._is_waiting_for_ends and self._wait_until(self._next_round, now_s):
            first = self._catch_up.history.settled
            return [ToCoordinator(wire.HistoryRequest(self.view.epoch, self.view.ring, first))]
        attempt = self._attempt_of(self._next_round)
        self._claims.clear()
        return self._start(self._next_round, attempt, self._eligible(self._next_round), now_s, now_s)

    def _start(self, round_: int, attempt: int, expected: int, opened_s: float, now_s: float) -> list[HeadEffect]:
        served = self.view.to_wire(self._served)
        history = self._catch_up.history
        settled = min(history.settled, round_)
        terms = RoundTerms(self._nonces.digest(expected), settled, history.hash(settled), served)
        self._catch_up.opened()
        self._is_waiting_for_ends = False
        self.current = Attempt(round_, attempt, self.term, expected, opened_s, tuple(self._nonces.newest), terms)
        if expected.bit_count() < self.view.n_min:
            return self._give_up(self.current, f"fewer than {self.view.n_min} members are present", now_s)
        self.state = State.COLLECTING
        self._deadline_s = now_s + self.view.timing.share_s
        view = self.view
        opening = wire.Open(
            view.epoch,
            view.ring,
            self.term,
            round_,
            attempt,
            view.to_wire(expected),
            *self._nonces.difference(expected),
            settled,
            served,
        )
        out = [each for other in positions_of(expected) for each in self._catch_up.before(other, settled)]
        out += [ToMember(other, opening) for other in positions_of(expected)]
        if self._last_result is not None:  # who is left out shall not think that we are gone
            out += [ToMember(other, self._last_result) for other in positions_of(self.present & ~expected)]
        return out

    def _on_share(self, attempt: Attempt, position: int, message: wire.MaskedInput, now_s: float) -> list[HeadEffect]:
        if not attempt.expected >> position & 1:
            return [Note("head_stale_message")]
        if position in attempt.shares:
            return []
        check_share(self._suite, self.view, attempt.context, position, message)
        attempt.shares[position] = message
        if len(attempt.shares) < attempt.expected.bit_count():
            self._shorten_deadline(attempt, now_s)
            return []
        return self._close_roster(attempt, now_s)

    def _shorten_deadline(self, attempt: Attempt, now_s: float) -> None:
        """Where those only are missing whose links are gone, the wait is for a link to come back."""
        timing, there = self.view.timing, self.present & ~attempt.restarted
        match self.state:
            case State.COLLECTING:
                missing, wait_s = attempt.expected & ~bitmap(list(attempt.shares)) & ~self._waiting, timing.share_s
            case State.CONFIRMING:
                missing, wait_s = attempt.roster & ~bitmap(list(attempt.confirms)), timing.confirm_s
            case State.REVEALING:
                missing, wait_s = attempt.confirmed & ~attempt.revealed, timing.reveal_s
            case _:
                return
        if not missing & there:
            self._deadline_s = min(self._deadline_s, now_s + _RECONNECT_FRACTION * wait_s)

    def _close_roster(self, attempt: Attempt, now_s: float) -> list[HeadEffect]:
        view = self.view
        roster = attempt.roster = bitmap(list(attempt.shares))
        self.present &= ~(attempt.expected & ~roster)
        if roster.bit_count() < view.n_min:
            return self._give_up(attempt, f"fewer than {view.n_min} members sent a share", now_s)
        if any((view.neighbourhoods[i] & roster).bit_count() < view.k_min for i in attempt.shares):
            return self._give_up(attempt, f"a member has fewer than {view.k_min} neighbours left", now_s)
        self.state = State.CONFIRMING
        self._deadline_s = now_s + view.timing.confirm_s
        message = wire.Roster(view.epoch, view.ring, attempt.round, attempt.attempt, view.to_wire(roster))
        return [Note("collect", now_s - attempt.opened_s), *(ToMember(i, message) for i in positions_of(roster))]

    def _on_confirm(self, attempt: Attempt, position: int, message: wire.Confirm, now_s: float) -> list[HeadEffect]:
        if not attempt.roster >> position & 1:
            return [Note("head_stale_message")]
        if position in attempt.confirms:
            return []
        check_confirm(self._suite, self.view, attempt, position, message)
        attempt.confirms[position] = message
        if len(attempt.confirms) < attempt.roster.bit_count():
            self._shorten_deadline(attempt, now_s)
            return []
        return self._close_confirmations(attempt, now_s)

    def _close_confirmations(self, attempt: Attempt, now_s: float) -> list[HeadEffect]:
        view = self.view
        confirmed = attempt.confirmed = bitmap(list(attempt.confirms))
        missing = attempt.roster & ~confirmed
        self.present &= ~missing
        self._silent |= missing
        if any(view.neighbourhoods[i] & attempt.gone for i in positions_of(missing)):
            if attempt.attempt + 1 >= wire.MAX_ATTEMPTS:
                return self._give_up(attempt, "members fell silent in every attempt", now_s, self._silent)
            still_there = confirmed & self._eligible(attempt.round) & ~attempt.restarted
            return [
                Note("retry"),
                *self._start(attempt.round, attempt.attempt + 1, still_there, attempt.opened_s, now_s),
            ]
        self.state = State.REVEALING
        self._served, self._served_round = self._served | confirmed, attempt.round
        self._deadline_s = now_s + view.timing.reveal_s
        return [Note("confirm", now_s - attempt.opened_s), *attempt.confirmations(view)]

    def _on_reveal(self, attempt: Attempt, position: int, message: wire.Reveal, now_s: float) -> list[HeadEffect]:
        if not attempt.confirmed >> position & 1:
            return [Note("head_stale_message")]
        if position in attempt.seeds:
            return []
        out: list[HeadEffect] = []
        if mac_equal(seed_commitment(message.seed), attempt.shares[position].seed_commitment):
            attempt.seeds[position] = message.seed
            attempt.recoveries.pop(position, None)
        elif position not in attempt.wrong_seeds:
            attempt.wrong_seeds[position] = message.seed
            self.caught |= 1 << position
            out = [Note("member_wrong_seed")]
        if self.state is State.RECOVERING:  # late, but it saves its own recovery
            return out + self._finish_if_open(attempt, now_s)
        if attempt.revealed != attempt.confirmed:
            self._shorten_deadline(attempt, now_s)
            return out
        return out + self._recover(attempt, now_s)

    def _recover(self, attempt: Attempt, now_s: float) -> list[HeadEffect]:
        view = self.view
        silent = attempt.silent
        self.present &= ~silent | bitmap(list(attempt.wrong_seeds))
        out: list[HeadEffect] = [Note("reveal", now_s - attempt.opened_s)]
        if not silent:
            return out + self._finish(attempt, now_s)
        if attempt.is_unrecoverable(view):
            return out + self._give_up(
                attempt, f"a silent member has fewer than {view.t} neighbours to recover it", now_s, silent
            )
        self.state = State.RECOVERING
        self._deadline_s = now_s + view.timing.reveal_s
        return out + attempt.begin_recoveries(view, self._commitments)

    def _on_partial(self, attempt: Attempt, position: int, message: wire.Partial, now_s: float) -> list[HeadEffect]:
        recovery = attempt.recoveries.get(message.silent)
        if recovery is None or not self.view.neighbourhoods[message.silent] >> position & 1:
            return [Note("head_stale_message")]
        if not self._suite.group.is_element(message.element):
            raise RemoteProtocolError("bad_partial", "a partial evaluation is no group element")
        before, caught = recovery.refuted, recovery.is_dealers_lie
        wrong = attempt.wrong_seeds.get(message.silent, b"")
        recovery.help(self._suite, position, message.element, message.proof, wrong)
        self.refuted |= recovery.refuted
        out: list[HeadEffect] = [Note("partial_refuted")] if recovery.refuted != before else []
        if recovery.is_dealers_lie and not caught:
            out += [Note("member_wrong_seed"), attempt.wrong_commitment(self.view, message.silent)]
        return out + attempt.doubt(self.view, recovery) + self._finish_if_open(attempt, now_s)

    def _give_recovery_up(self, attempt: Attempt, now_s: float) -> list[HeadEffect]:
        silent = attempt.silent
        for each in attempt.recoveries.values():
            silent |= attempt.owing_help(self.view, each)
        return self._give_up(attempt, "too few neighbours helped to recover a silent member", now_s, silent)

    def _finish_if_open(self, attempt: Attempt, now_s: float) -> list[HeadEffect]:
        if not all(each.seed for each in attempt.recoveries.values()):
            return []
        return self._finish(attempt, now_s)

    # --- the end of an attempt -----------------------------------------------------------------------------------

    def _finish(self, attempt: Attempt, now_s: float) -> list[HeadEffect]:
        report = attempt.report(self._suite, self.view)
        self._report(attempt, now_s)
        if report is None and not attempt.can_be_proved:
            return self._give_up(attempt, "a member masked with another seed than it committed to", now_s)
        if report is None:
            return [Note("corrupt_sum"), ToCoordinator(attempt.evidence(self.view))]
        return [Note("sum", now_s - attempt.opened_s), ToCoordinator(report)]

    def _give_up(self, attempt: Attempt, reason: str, now_s: float, silent: int = 0) -> list[HeadEffect]:
        """Nothing opens; `silent` are those whose silence is the reason."""
        self._report(attempt, now_s)
        view = self.view
        void = wire.RingVoid(view.epoch, view.ring, attempt.round, self.term, reason, view.to_wire(silent))
        return [ToCoordinator(void)]

    def _report(self, attempt: Attempt, now_s: float) -> None:
        self.state = State.REPORTED
        timing = self.view.timing
        self._deadline_s = max(timing.open_at_s(attempt.round) + timing.void_s, now_s + timing.reveal_s)
