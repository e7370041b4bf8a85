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

from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.attempt import Attempt, check_confirm, check_share
from protocol.dcnet.machines.effects import HeadEffect, Note, ToCoordinator, ToMember
from protocol.dcnet.machines.event_log import EventLog, Local
from protocol.dcnet.machines.head_states import TRANSITIONS, State
from protocol.dcnet.machines.incarnations import Incarnation
from protocol.dcnet.machines.machine import Machine
from protocol.dcnet.machines.presence import Presence
from protocol.dcnet.setup.rings import RingView, bitmap, positions_of
from protocol.errors import RemoteProtocolError

_NEVER = float("inf")
_EVENTS_PER_MEMBER = 8  # two or three rounds
_RECONNECT_FRACTION = 1 / 16  # of the wait for shares: what a link that broke gets to come back

# Names, as the member's.
_HANDLERS: dict[type[wire.RingMessage], str] = {
    wire.MaskedInput: "_on_share",
    wire.Confirm: "_on_confirm",
    wire.Reveal: "_on_reveal",
    wire.Partial: "_on_partial",
}

_OF_ATTEMPT = wire.MaskedInput, wire.Confirm, wire.Reveal, wire.Partial
_NO_ATTEMPT = Attempt(round=-1, attempt=-1, term=-1, expected=0, opened_s=0.0)


class Head(Machine[State, HeadEffect]):
    """The head of a ring for one term."""

    KIND = "head"
    ARRIVALS = frozenset({wire.MaskedInput, wire.Confirm, wire.Reveal})
    TRANSITIONS = TRANSITIONS

    def __init__(
        self, suite: Suite, view: RingView, term: int, now_s: float,
        commitments: dict[int, tuple[bytes, ...]] | None = None, first_round: int = 0, first_attempt: int = 0,
        known: Incarnation | None = None,
    ) -> None:  # fmt: skip
        """Begin a term; `known` is what our own member knows of its ring's processes and of how rounds ended."""
        self.view = view
        self.term = term
        self.state = State.GATHERING
        self.presence = Presence(suite, view, known)
        start = {
            "term": term, "now_s": now_s, "round": first_round, "attempt": first_attempt,
            "nonces": self.presence.nonces.replacements, "history": self.presence.history.ends,
        }  # fmt: skip
        self.events = EventLog(view.head_of(term), start, _EVENTS_PER_MEMBER * view.size)
        self._suite = suite
        self._commitments = commitments or {}
        self.refuted = 0  # whose partial evaluations did not fit the dealer's commitments: its lie or the dealer's
        self._silent = 0  # whose silence has lost an attempt of the round
        self.current = _NO_ATTEMPT
        self._last_result: wire.Result | None = None
        self._is_waiting_for_ends = False
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
        if not isinstance(message, _OF_ATTEMPT):
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
        self.presence.leave(1 << position)
        self._shorten_deadline(self.current, now_s)
        return []

    def leave_out(self, members: int, now_s: float) -> None:
        """The coordinator says whom to leave out, a bitmap: no attempt starts with one until it is said anew."""
        self._apply(Local.LEFT_OUT, (self.view.to_wire(members),), now_s, -1, self._on_left_out, members)

    def _on_left_out(self, members: int) -> list[HeadEffect]:
        self.presence.left_out = members
        return []

    def result(self, message: wire.Result, now_s: float) -> list[HeadEffect]:
        """The round ledger's answer: pass it to everybody who can hear it, then wait for the next round's time."""
        return self._apply(wire.Result, message, now_s, -1, self._on_result, message, now_s)

    def _on_result(self, message: wire.Result, now_s: float) -> list[HeadEffect]:
        try:
            is_ours = self.presence.result(message)
        except RemoteProtocolError as error:
            return [Note(error.reason)]
        if not is_ours:
            return [Note("two_results")]
        out: list[HeadEffect] = [ToMember(other, message) for other in positions_of(self.presence.present)]
        self._last_result = message
        attempt = self.current
        if message.round == attempt.round:
            out.append(Note("round", now_s - attempt.opened_s))
            if message.outcome == wire.Outcome.VOID and self._silent and self.state is not State.REPORTED:
                out.append(self._void(attempt, "it was over before the last attempt", self._silent))
            self._to_idle(now_s)
        elif self._is_waiting_for_ends and self.presence.history.settled >= self._next_round:
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
                is_enough = self.presence.eligible(self._next_round).bit_count() >= self.view.n_min
                if not is_enough and self._wait_until(self._next_round, now_s):
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
                silent = attempt.silent | attempt.silent_helpers(self.view)
                return self._give_up(attempt, "too few neighbours helped to recover a silent member", now_s, silent)

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
        is_new = message.nonce != self.presence.nonces.newest[position]
        refused = self.presence.ready(position, message)
        if refused is not None:
            return refused
        if is_new:
            self._on_restarted(position, now_s)
        elif message.is_waiting:
            self._shorten_deadline(self.current, now_s)
        attempt = self.current
        if self.state is State.COLLECTING and attempt.lacks(position) and message.settled < attempt.terms.settled:
            return self.presence.catch_up.again(position, attempt.terms.settled)
        if self.state is not State.GATHERING:
            return []
        self.presence.claim(position, message.round, message.attempt)
        is_enough = self.presence.eligible(self._next_round).bit_count() >= self.view.n_min
        is_all = self.presence.present == self.view.everybody and is_enough
        return self._open(now_s) if self._early and is_all else []

    def _on_restarted(self, position: int, now_s: float) -> None:
        """What the process before it has sent counts; nothing more will come of it in this attempt."""
        attempt = self.current
        attempt.restarted |= attempt.expected & 1 << position
        self._shorten_deadline(attempt, now_s)

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
        self._is_waiting_for_ends = self.presence.history.settled < self._next_round
        if self._is_waiting_for_ends and self._wait_until(self._next_round, now_s):
            request = wire.HistoryRequest(self.view.epoch, self.view.ring, self.presence.history.settled)
            return [ToCoordinator(request)]
        round_, there = self._next_round, self.presence
        attempt = there.first_attempt(round_, self._next_attempt)
        return self._start(round_, attempt, there.eligible(round_), now_s, now_s)

    def _start(self, round_: int, attempt: int, expected: int, opened_s: float, now_s: float) -> list[HeadEffect]:
        view, there = self.view, self.presence
        terms = there.terms(round_, expected)
        there.catch_up.opened()
        self._is_waiting_for_ends = False
        nonces = tuple(there.nonces.newest)
        self.current = Attempt(round_, attempt, self.term, expected, opened_s, nonces, terms)
        if expected.bit_count() < view.n_min:
            return self._give_up(self.current, f"fewer than {view.n_min} members are present", now_s)
        self.state = State.COLLECTING
        self._deadline_s = now_s + view.timing.share_s
        opening = wire.Open(
            view.epoch, view.ring, self.term, round_, attempt, view.to_wire(expected),
            *there.nonces.difference(expected), terms.settled, terms.served,
        )  # fmt: skip
        out = [each for other in positions_of(expected) for each in there.catch_up.before(other, terms.settled)]
        out += [ToMember(other, opening) for other in positions_of(expected)]
        if self._last_result is not None:  # who is left out shall not think that we are gone
            out += [ToMember(other, self._last_result) for other in positions_of(there.present & ~expected)]
        return out

    def _on_share(self, attempt: Attempt, position: int, message: wire.MaskedInput, now_s: float) -> list[HeadEffect]:
        if not attempt.expected >> position & 1:
            return [Note("head_stale_message")]
        if position in attempt.shares:
            return []
        check_share(self._suite, self.view, attempt.context, position, message)
        attempt.take_share(position, message)
        if attempt.without_share:
            self._shorten_deadline(attempt, now_s)
            return []
        return self._close_roster(attempt, now_s)

    def _shorten_deadline(self, attempt: Attempt, now_s: float) -> None:
        """Where those only are missing whose links are gone, the wait is for a link to come back."""
        there = self.presence
        match self.state:
            case State.COLLECTING:
                missing, wait_s = attempt.without_share & ~there.waiting, self.view.timing.share_s
            case State.CONFIRMING:
                missing, wait_s = attempt.unconfirmed, self.view.timing.confirm_s
            case State.REVEALING:
                missing, wait_s = attempt.confirmed & ~attempt.revealed, self.view.timing.reveal_s
            case _:
                return
        if not missing & there.present & ~attempt.restarted:
            self._deadline_s = min(self._deadline_s, now_s + _RECONNECT_FRACTION * wait_s)

    def _close_roster(self, attempt: Attempt, now_s: float) -> list[HeadEffect]:
        view = self.view
        attempt.close_roster()
        self.presence.leave(attempt.gone)
        fault = attempt.roster_fault(view)
        if fault is not None:
            return self._give_up(attempt, fault, now_s)
        self.state = State.CONFIRMING
        self._deadline_s = now_s + view.timing.confirm_s
        message = wire.Roster(view.epoch, view.ring, attempt.round, attempt.attempt, view.to_wire(attempt.roster))
        members = positions_of(attempt.roster)
        return [Note("collect", now_s - attempt.opened_s), *(ToMember(i, message) for i in members)]

    def _on_confirm(self, attempt: Attempt, position: int, message: wire.Confirm, now_s: float) -> list[HeadEffect]:
        if not attempt.roster >> position & 1:
            return [Note("head_stale_message")]
        if position in attempt.confirms:
            return []
        check_confirm(self._suite, self.view, attempt, position, message)
        attempt.take_confirm(position, message)
        if attempt.unconfirmed:
            self._shorten_deadline(attempt, now_s)
            return []
        return self._close_confirmations(attempt, now_s)

    def _close_confirmations(self, attempt: Attempt, now_s: float) -> list[HeadEffect]:
        view = self.view
        missing = attempt.unconfirmed
        confirmed = attempt.confirmed = attempt.roster & ~missing
        self.presence.leave(missing)
        self._silent |= missing
        if any(view.neighbourhoods[i] & attempt.gone for i in positions_of(missing)):
            if attempt.attempt + 1 >= wire.MAX_ATTEMPTS:
                return self._give_up(attempt, "members fell silent in every attempt", now_s, self._silent)
            still_there = confirmed & self.presence.eligible(attempt.round) & ~attempt.restarted
            again = self._start(attempt.round, attempt.attempt + 1, still_there, attempt.opened_s, now_s)
            return [Note("retry"), *again]
        self.state = State.REVEALING
        self.presence.confirmed(attempt.round, confirmed)
        self._deadline_s = now_s + view.timing.reveal_s
        return [Note("confirm", now_s - attempt.opened_s), *attempt.confirmations(view)]

    def _on_reveal(self, attempt: Attempt, position: int, message: wire.Reveal, now_s: float) -> list[HeadEffect]:
        if not attempt.confirmed >> position & 1:
            return [Note("head_stale_message")]
        if position in attempt.seeds:
            return []
        out: list[HeadEffect] = []
        if not attempt.take_seed(position, message.seed):
            self.presence.caught |= 1 << position
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
        self.presence.leave(silent & ~bitmap(list(attempt.wrong_seeds)))
        out: list[HeadEffect] = [Note("reveal", now_s - attempt.opened_s)]
        if not silent:
            return out + self._finish(attempt, now_s)
        if attempt.is_unrecoverable(view):
            reason = f"a silent member has fewer than {view.t} neighbours to recover it"
            return out + self._give_up(attempt, reason, now_s, silent)
        self.state = State.RECOVERING
        self._deadline_s = now_s + view.timing.reveal_s
        return out + attempt.begin_recoveries(view, self._commitments)

    def _on_partial(self, attempt: Attempt, position: int, message: wire.Partial, now_s: float) -> list[HeadEffect]:
        recovery = attempt.recoveries.get(message.silent)
        if recovery is None or not self.view.neighbourhoods[message.silent] >> position & 1:
            return [Note("head_stale_message")]
        if not self._suite.group.is_element(message.element):
            raise RemoteProtocolError("bad_partial", "a partial evaluation is no group element")
        out = attempt.help(self._suite, self.view, recovery, position, message)
        self.refuted |= recovery.refuted
        return out + self._finish_if_open(attempt, now_s)

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
        return [self._void(attempt, reason, silent)]

    def _void(self, attempt: Attempt, reason: str, silent: int) -> HeadEffect:
        of, silent_ = (self.view.epoch, self.view.ring, attempt.round, self.term), self.view.to_wire(silent)
        return ToCoordinator(wire.RingVoid(*of, reason, silent_))

    def _report(self, attempt: Attempt, now_s: float) -> None:
        self.state = State.REPORTED
        timing = self.view.timing
        self._deadline_s = max(timing.open_at_s(attempt.round) + timing.void_s, now_s + timing.reveal_s)
