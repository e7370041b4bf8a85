r"""
The head machine: collects one ring's shares, opens the sum, and reports it.  Nobody trusts it with a secret.

    GATHERING -> IDLE -> COLLECTING -> CONFIRMING -> REVEALING -> RECOVERING -> REPORTED -> IDLE
                           ^               |
                           +-- attempt+1 --+   a member fell silent before CONFIRM and its mask words are missing

Every wait has a deadline.  A member that misses one is left out of the following E until it says READY again.
What a member sends is believed as far as the sum's own check goes: slot 0 must count the roster.  If it does not and
somebody was recovered, the partial evaluations are held against their proofs and the liars' are put aside.

The words that a member with no neighbour in E \ U would have sent in CONFIRM are none, so its silence there costs
no new attempt: it is recovered like one that fell silent later.  The members' rules do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from protocol import wire
from protocol.dcnet import prf, shamir
from protocol.dcnet.commitments import Lane, add_lanes, decode_lane, encode_lane, subtract_lanes
from protocol.dcnet.events import Instruction, Note, ToCoordinator, ToMember
from protocol.dcnet.masks import Words, self_blinding, self_masks, words_from_bytes
from protocol.dcnet.rings import RingView, bitmap, positions_of
from protocol.dcnet.secrets import mask_label
from protocol.dcnet.suite import MAC_SIZE, Suite
from protocol.errors import InvariantError, RemoteProtocolError

_NEVER = float("inf")


class State(Enum):
    """Where the head stands."""

    GATHERING = "gathering"
    IDLE = "idle"
    COLLECTING = "collecting"
    CONFIRMING = "confirming"
    REVEALING = "revealing"
    RECOVERING = "recovering"
    REPORTED = "reported"


# Which member message moves what in which state.  READY is noted in every state, any other is late or early.
TRANSITIONS: dict[tuple[State, type[wire.RingMessage]], tuple[State, ...]] = {
    (State.GATHERING, wire.Ready): (State.GATHERING, State.COLLECTING, State.IDLE),
    (State.COLLECTING, wire.Share): (State.COLLECTING, State.CONFIRMING, State.REPORTED),
    (State.CONFIRMING, wire.Confirm): (State.CONFIRMING, State.REVEALING),
    (State.REVEALING, wire.Reveal): (State.REVEALING, State.RECOVERING, State.REPORTED),
    (State.RECOVERING, wire.Reveal): (State.RECOVERING, State.REPORTED),
    (State.RECOVERING, wire.Partial): (State.RECOVERING, State.REPORTED),
}


@dataclass(slots=True)
class _Attempt:
    """What one attempt has brought in so far; sets of positions are bitmaps."""

    round: int
    attempt: int
    expected: int
    opened_s: float
    roster: int = 0
    confirmed: int = 0
    shares: dict[int, wire.Share] = field(default_factory=dict)
    confirms: dict[int, wire.Confirm] = field(default_factory=dict)
    seeds: dict[int, bytes] = field(default_factory=dict)
    partials: dict[int, dict[int, tuple[bytes, bytes]]] = field(default_factory=dict)


_NO_ATTEMPT = _Attempt(round=-1, attempt=-1, expected=0, opened_s=0.0)


class Head:
    """The head of a ring for one term."""

    def __init__(
        self,
        suite: Suite,
        view: RingView,
        term: int,
        now_s: float,
        commitments: dict[int, tuple[bytes, ...]] | None = None,
        first_round: int = 0,
        first_attempt: int = 0,
    ) -> None:
        self.view = view
        self.term = term
        self.state = State.GATHERING
        self.present = 0
        self._suite = suite
        self._commitments = commitments or {}
        self.refuted = 0  # whose partial evaluations did not fit the dealer's commitments: its lie or the dealer's
        self._current = _NO_ATTEMPT
        self._handlers: dict[type[wire.RingMessage], Callable[..., list[Instruction]]] = {
            wire.Share: self._on_share,
            wire.Confirm: self._on_confirm,
            wire.Reveal: self._on_reveal,
            wire.Partial: self._on_partial,
        }
        self._next_round = max(first_round, view.timing.round_at(now_s), 0)
        self._next_attempt = first_attempt if self._next_round == first_round else 0
        opening_s = view.timing.open_at_s(self._next_round)
        self._deadline_s = max(now_s + view.timing.gather_s, opening_s)
        self._early = opening_s <= now_s  # a round is under way: open it as soon as everybody is here

    # --- events --------------------------------------------------------------------------------------------------

    def receive(self, position: int, message: wire.RingMessage, now_s: float) -> list[Instruction]:
        """A message of the member at `position`.  Raises RemoteProtocolError where it is malformed."""
        if (message.epoch, message.ring) != (self.view.epoch, self.view.ring):
            raise RemoteProtocolError("wrong_ring", "a message for another ring or epoch")
        if isinstance(message, wire.BadDeal):
            return [Note("bad_deal_reported")]
        before, attempt = self.state, self._current
        if isinstance(message, wire.Ready):
            out = self._on_ready(position, message, now_s)
        elif not isinstance(message, wire.Share | wire.Confirm | wire.Reveal | wire.Partial):
            raise RemoteProtocolError("message_not_allowed", f"{type(message).__name__} is not for heads")
        elif (before, type(message)) not in TRANSITIONS or (message.round, message.attempt) != (
            attempt.round,
            attempt.attempt,
        ):
            out = [Note("head_message_out_of_season")]
        else:
            out = self._handlers[type(message)](attempt, position, message, now_s)
        if self.state not in TRANSITIONS.get((before, type(message)), (before,)):
            raise InvariantError(f"a {type(message).__name__} led to {self.state.value}")
        return out

    def lost(self, position: int) -> None:
        """The link to a member is gone: leave it out until it says READY."""
        self.present &= ~(1 << position)

    def result(self, message: wire.Result, now_s: float) -> list[Instruction]:
        """The round book's answer: pass it to everybody who can hear it, then wait for the next round's time."""
        out: list[Instruction] = [ToMember(other, message) for other in positions_of(self.present)]
        attempt = self._current
        if message.round == attempt.round:
            out.append(Note("round", now_s - attempt.opened_s))
            self._to_idle(now_s)
        return out

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called; infinity for never."""
        return self._deadline_s

    def on_timer(self, now_s: float) -> list[Instruction]:
        """A deadline has passed."""
        if now_s < self._deadline_s:
            return []
        attempt = self._current
        match self.state:
            case State.GATHERING | State.IDLE:
                if self.present.bit_count() < self.view.n_min and self._wait_until(self._next_round, now_s):
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
                if self._beyond_help(attempt) and self._wait_until(attempt.round, now_s):
                    return []
                return self._recover(attempt, now_s)
            case _:
                if self._wait_until(attempt.round, now_s):
                    return []
                return self._give_up(attempt, "too few neighbours helped to recover a silent member", now_s)

    def _wait_until(self, round_: int, now_s: float) -> bool:
        """Where going on now would lose the round, late is better than never: wait while the round lasts."""
        timing = self.view.timing
        last_s = timing.open_at_s(round_) + timing.void_s - timing.reveal_s / 2
        if now_s >= last_s:
            return False
        self._deadline_s = min(last_s, now_s + timing.reveal_s / 2)
        return True

    def _beyond_help(self, attempt: _Attempt) -> list[int]:
        """The members who have not revealed and have too few neighbours who did."""
        helpers = bitmap(list(attempt.seeds))
        silent = attempt.roster & ~helpers
        return [i for i in positions_of(silent) if (self.view.neighbourhoods[i] & helpers).bit_count() < self.view.t]

    # --- one attempt ---------------------------------------------------------------------------------------------

    def _on_ready(self, position: int, message: wire.Ready, now_s: float) -> list[Instruction]:
        if message.term != self.term:
            return [Note("head_message_out_of_season")]
        self.present |= 1 << position
        if self.state is State.GATHERING and self._early and self.present == self.view.everybody:
            return self._open(now_s)
        return []

    def _to_idle(self, now_s: float) -> None:
        self._next_round = max(self._current.round + 1, self.view.timing.round_at(now_s))
        self._current = _NO_ATTEMPT
        self._next_attempt = 0
        self.state = State.IDLE
        over = self._next_round >= self.view.rounds
        self._deadline_s = _NEVER if over else self.view.timing.open_at_s(self._next_round)

    def _open(self, now_s: float) -> list[Instruction]:
        timing = self.view.timing
        latest = timing.round_at(now_s)
        if latest > self._next_round:  # we overslept: the round book has closed the earlier ones
            self._next_round, self._next_attempt = latest, 0
        if self._next_round >= self.view.rounds:
            self.state, self._deadline_s = State.IDLE, _NEVER
            return []
        return self._start(self._next_round, self._next_attempt, self.present, now_s, now_s)

    def _start(self, round_: int, attempt: int, expected: int, opened_s: float, now_s: float) -> list[Instruction]:
        self._current = _Attempt(round_, attempt, expected, opened_s)
        if expected.bit_count() < self.view.n_min:
            return self._give_up(self._current, f"fewer than {self.view.n_min} members are present", now_s)
        self.state = State.COLLECTING
        self._deadline_s = now_s + self.view.timing.share_s
        opening = wire.Open(self.view.epoch, self.view.ring, self.term, round_, attempt, self.view.to_wire(expected))
        return [ToMember(other, opening) for other in positions_of(expected)]

    def _on_share(self, attempt: _Attempt, position: int, message: wire.Share, now_s: float) -> list[Instruction]:
        view = self.view
        count = view.committed_count
        if (
            len(message.vector) != 8 * view.word_count
            or len(message.commitments) != 32 * count
            or len(message.blinding) != 32 * count
        ):
            raise RemoteProtocolError("bad_share", f"expected {view.word_count} words and {count} commitments")
        group = self._suite.group
        decode_lane(group, message.blinding, count)
        if not all(group.is_element(message.commitments[32 * i : 32 * (i + 1)]) for i in range(count)):
            raise RemoteProtocolError("bad_share", "a commitment is no group element")
        if not attempt.expected >> position & 1:
            return [Note("head_message_out_of_season")]
        attempt.shares.setdefault(position, message)
        if len(attempt.shares) < attempt.expected.bit_count():
            return []
        return self._close_roster(attempt, now_s)

    def _close_roster(self, attempt: _Attempt, now_s: float) -> list[Instruction]:
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

    def _on_confirm(self, attempt: _Attempt, position: int, message: wire.Confirm, now_s: float) -> list[Instruction]:
        view = self.view
        if not attempt.roster >> position & 1:
            return [Note("head_message_out_of_season")]
        neighbours = view.neighbourhoods[position]
        has_gone = bool(neighbours & attempt.expected & ~attempt.roster)
        if (
            len(message.macs) != MAC_SIZE * (neighbours & attempt.roster).bit_count()
            or len(message.dropped) != 8 * view.word_count * has_gone
            or len(message.dropped_blinding) != 32 * view.committed_count * has_gone
        ):
            raise RemoteProtocolError("bad_confirm", "expected a MAC per neighbour and the words towards the dropped")
        decode_lane(self._suite.group, message.dropped_blinding, view.committed_count * has_gone)
        attempt.confirms.setdefault(position, message)
        if len(attempt.confirms) < attempt.roster.bit_count():
            return []
        return self._close_confirmations(attempt, now_s)

    def _close_confirmations(self, attempt: _Attempt, now_s: float) -> list[Instruction]:
        view = self.view
        confirmed = attempt.confirmed = bitmap(list(attempt.confirms))
        missing = attempt.roster & ~confirmed
        self.present &= ~missing
        gone = attempt.expected & ~attempt.roster
        if any(view.neighbourhoods[i] & gone for i in positions_of(missing)):
            if attempt.attempt + 1 >= wire.MAX_ATTEMPTS:
                return self._give_up(attempt, "members fell silent in every attempt", now_s)
            return [
                Note("retry"),
                *self._start(attempt.round, attempt.attempt + 1, confirmed & self.present, attempt.opened_s, now_s),
            ]
        macs = {i: self._split_macs(attempt, i) for i in attempt.confirms}
        self.state = State.REVEALING
        self._deadline_s = now_s + view.timing.reveal_s
        out: list[Instruction] = [Note("confirm", now_s - attempt.opened_s)]
        for i in attempt.confirms:
            makers = view.neighbourhoods[i] & confirmed
            joined = b"".join(macs[other][i] for other in positions_of(makers))
            out.append(
                ToMember(
                    i,
                    wire.Confirmed(view.epoch, view.ring, attempt.round, attempt.attempt, view.to_wire(makers), joined),
                )
            )
        return out

    def _split_macs(self, attempt: _Attempt, position: int) -> dict[int, bytes]:
        macs = attempt.confirms[position].macs
        others = positions_of(self.view.neighbourhoods[position] & attempt.roster)
        return {other: macs[MAC_SIZE * i : MAC_SIZE * (i + 1)] for i, other in enumerate(others)}

    def _on_reveal(self, attempt: _Attempt, position: int, message: wire.Reveal, now_s: float) -> list[Instruction]:
        if not attempt.confirmed >> position & 1:
            return [Note("head_message_out_of_season")]
        attempt.seeds.setdefault(position, message.seed)
        if self.state is State.RECOVERING:  # late, but it saves its own recovery
            attempt.partials.pop(position, None)
            return self._finish_if_open(attempt, now_s)
        if len(attempt.seeds) < attempt.confirmed.bit_count():
            return []
        return self._recover(attempt, now_s)

    def _recover(self, attempt: _Attempt, now_s: float) -> list[Instruction]:
        view = self.view
        helpers = bitmap(list(attempt.seeds))
        silent = attempt.roster & ~helpers
        self.present &= ~silent
        out: list[Instruction] = [Note("reveal", now_s - attempt.opened_s)]
        if not silent:
            return out + self._finish(attempt, now_s)
        if self._beyond_help(attempt):
            return out + self._give_up(
                attempt, f"a silent member has fewer than {view.t} neighbours to recover it", now_s
            )
        self.state = State.RECOVERING
        self._deadline_s = now_s + view.timing.reveal_s
        attempt.partials = {i: {} for i in positions_of(silent)}
        message = wire.Recover(view.epoch, view.ring, attempt.round, attempt.attempt, view.to_wire(silent))
        asked = [i for i in attempt.seeds if view.neighbourhoods[i] & silent]
        return out + [ToMember(i, message) for i in asked]

    def _on_partial(self, attempt: _Attempt, position: int, message: wire.Partial, now_s: float) -> list[Instruction]:
        parts = attempt.partials.get(message.silent)
        if parts is None or not self.view.neighbourhoods[message.silent] >> position & 1:
            return [Note("head_message_out_of_season")]
        if not self._suite.group.is_element(message.element):
            raise RemoteProtocolError("bad_partial", "a partial evaluation is no group element")
        parts.setdefault(position, (message.element, message.proof))
        return self._finish_if_open(attempt, now_s)

    def _finish_if_open(self, attempt: _Attempt, now_s: float) -> list[Instruction]:
        if any(len(each) < self.view.t for each in attempt.partials.values()):
            return []
        return self._finish(attempt, now_s)

    # --- the sum -------------------------------------------------------------------------------------------------

    def _finish(self, attempt: _Attempt, now_s: float) -> list[Instruction]:
        total, blinding = self._sum(attempt)
        if int(total[0]) != attempt.roster.bit_count():
            if not self._put_liars_aside(attempt):
                return self._give_up(attempt, "the masks did not cancel", now_s)
            return [Note("partial_refuted"), *self._finish_if_open(attempt, now_s)]
        view = self.view
        commitments = b"".join(attempt.shares[i].commitments for i in positions_of(attempt.roster))
        self.state = State.REPORTED
        self._deadline_s = max(view.timing.open_at_s(attempt.round) + view.timing.void_s, now_s + view.timing.reveal_s)
        report = wire.RingTotal(
            view.epoch, view.ring, attempt.round, attempt.attempt, self.term, view.to_wire(attempt.expected),
            view.to_wire(attempt.roster), total.tobytes(), commitments,
            encode_lane(self._suite.group, blinding),
        )  # fmt: skip
        return [Note("sum", now_s - attempt.opened_s), ToCoordinator(report)]

    def _sum(self, attempt: _Attempt) -> tuple[Words, Lane]:
        """Σ shares - Σ words towards the dropped - Σ self masks, in both lanes."""
        view, group = self.view, self._suite.group
        count = view.committed_count
        label = mask_label(view, attempt.round, attempt.attempt)
        total = np.zeros(view.word_count, dtype=np.uint64)
        lane: Lane = (0,) * count
        seeds = []
        for i in positions_of(attempt.roster):
            share = attempt.shares[i]
            total += words_from_bytes(share.vector)
            seed = attempt.seeds.get(i)
            if seed is None:
                parts = {x + 1: element for x, (element, _) in list(attempt.partials[i].items())[: view.t]}
                seed = prf.mask_seed(prf.combine(group, parts), label)
            seeds.append(seed)
            confirm = attempt.confirms.get(i)
            towards_dropped = confirm is not None and bool(confirm.dropped)
            if confirm is not None and towards_dropped:
                total -= words_from_bytes(confirm.dropped)
            if count:
                lane = add_lanes(group, lane, decode_lane(group, share.blinding, count))
                lane = subtract_lanes(group, lane, self_blinding(self._suite, seed, count))
                if confirm is not None and towards_dropped:
                    lane = subtract_lanes(group, lane, decode_lane(group, confirm.dropped_blinding, count))
        total -= self_masks(self._suite, seeds, view.word_count)
        return total, lane

    def _put_liars_aside(self, attempt: _Attempt) -> bool:
        """Forget the partial evaluations whose proof fails, as far as we hold the dealer's commitments; any at all?"""
        group = self._suite.group
        label = mask_label(self.view, attempt.round, attempt.attempt)
        liars = 0
        for silent in sorted(attempt.partials.keys() & self._commitments.keys()):
            parts = attempt.partials[silent]
            for helper, (element, proof) in list(parts.items()):
                key = shamir.share_key(group, self._commitments[silent], helper + 1)
                if not prf.verify_partial(group, key, label, element, proof):
                    del parts[helper]
                    liars |= 1 << helper
        self.refuted |= liars
        return bool(liars)

    def _give_up(self, attempt: _Attempt, reason: str, now_s: float) -> list[Instruction]:
        self.state = State.REPORTED
        timing = self.view.timing
        self._deadline_s = max(timing.open_at_s(attempt.round) + timing.void_s, now_s + timing.reveal_s)
        return [ToCoordinator(wire.RingVoid(self.view.epoch, self.view.ring, attempt.round, self.term, reason))]
