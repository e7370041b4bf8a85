"""
One simulated ring: real member, head and ledger machines, and everything between them that can go wrong.

The same seed gives the same bytes, in any process (`timeline`).  A gateway has a durable part (records, vectors, its
register account) that survives a crash and a volatile part (its machines) that does not; a crash may come between any
two instructions, so also between "durable" and "sent".  What the adversary could learn is watched by `exposure`, not by
what the head says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from loadtest.ring import RingSize, ledger_secrets, make_ring
from loadtest.simulator.adversary import Adversary
from loadtest.simulator.exposure import ExposureLog
from loadtest.simulator.faults import Faults
from loadtest.simulator.liar import Liar
from loadtest.simulator.lying_member import LyingMember
from loadtest.simulator.timeline import Timeline, Transcript
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.machines.effects import (
    Attempted,
    Ended,
    HeadEffect,
    LedgerEffect,
    MemberEffect,
    Note,
    Persist,
    Progress,
    ReportMisbehaviour,
    RoundEnded,
    Settled,
    ToCoordinator,
    ToHead,
    ToMember,
    ToRing,
)
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.machines.masks import MaskSchedule, Words
from protocol.dcnet.machines.member import Member, Resume
from protocol.dcnet.setup.rings import Timing
from protocol.dcnet.setup.schema import WORD_MODULUS
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.errors import RemoteProtocolError

PERIOD_S = 10.0


class Violation(AssertionError):
    """An invariant does not hold: a defect of the protocol or of a machine."""


@dataclass(slots=True)
class Gateway:
    """One gateway: durable fields first, then what a crash takes."""

    index: int
    secrets: EpochSecrets
    last: Resume | None = None
    opened_wh: int = 0  # the register at the last opened contribution
    contributed: dict[int, tuple[Words, int]] = field(default_factory=dict)  # round -> vector, register
    member: Member | None = None
    head: Head | Adversary | None = None
    head_term: int = -1
    life: int = 0  # counts restarts: messages and timers of an earlier life are void


@dataclass(slots=True)
class Tally:
    """What happened, for the report."""

    opened: int = 0
    void: int = 0
    crashes: int = 0
    retries: int = 0
    recoveries: int = 0
    refusals: int = 0
    heads_replaced: int = 0


class World(Timeline):
    """A ring, its coordinator, and the network between them."""

    def __init__(
        self, suite: Suite, size: RingSize, seed: int, faults: Faults, liar: Liar | None = None,
        lying_member: LyingMember | None = None,
    ) -> None:  # fmt: skip
        super().__init__(seed, faults)
        self.liar = liar
        self.lying_member = lying_member
        self.accused: set[int] = set()
        self.tally = Tally()
        self.transcript = Transcript()
        self._suite = suite
        ring_seed = hashlib.sha256(f"ring {seed}".encode()).digest()
        self.view, secrets = make_ring(suite, size, ring_seed, Timing.spread(1.0, PERIOD_S))
        corrupt = set() if liar is None else liar.corrupt
        self.exposure = ExposureLog(self.view, corrupt if lying_member is None else corrupt | {lying_member.position})
        self.gateways = [Gateway(index, each) for index, each in enumerate(secrets)]
        self._masks = [MaskSchedule(suite, self.view, each) for each in secrets]
        self._book_secrets = ledger_secrets(suite, ring_seed)
        self.ledger = RoundLedger(suite, self.view, self._book_secrets, 0.0)
        self.ended: dict[int, Ended] = {}
        self.register_wh = [self.random.randrange(10**9) for _ in secrets]
        self.first_wh = list(self.register_wh)
        for gateway in self.gateways:
            gateway.opened_wh = self.register_wh[gateway.index]
        self._appointed = -1

    def at_life(self, gateway: Gateway, when_s: float, action: Callable[[], None]) -> None:
        """Run `action` at a time, unless the gateway has crashed by then."""
        life = gateway.life

        def guarded() -> None:
            if gateway.life == life and gateway.member is not None:
                action()

        self.at(when_s, guarded)

    def start(self) -> None:
        """Everybody comes up, the first head is appointed, readings and the ledger's clock begin."""
        for gateway in self.gateways:
            self._boot(gateway)
        self._from_ledger(self.ledger.start())
        self._book_timer()
        for round_ in range(self.view.rounds):
            self.at(self.view.timing.open_at_s(round_) - 0.5, partial(self._read_meters, round_))

    def _book_timer(self) -> None:
        self._from_ledger(self.ledger.on_timer(self.now_s))
        when_s = self.ledger.next_timer_s()
        if when_s < float("inf"):
            self.at(max(when_s, self.now_s + 0.01), self._book_timer)

    def restart_ledger(self) -> None:
        """The coordinator comes back: what ended has ended, and terms go on a turn of the ring later."""
        term = max((each.term for each in self.ended.values()), default=0) + self.view.size
        self.ledger = RoundLedger(self._suite, self.view, self._book_secrets, self.now_s, self.ended, term)
        self._from_ledger(self.ledger.start())

    # --- gateways --------------------------------------------------------------------------------------------------

    def _boot(self, gateway: Gateway) -> None:
        gateway.life += 1
        gateway.head, gateway.head_term = None, -1
        gateway.member = Member(self._suite, self.view, gateway.secrets, self._masks[gateway.index], gateway.last)
        if self._appointed >= 0:
            self._carry_out(gateway, gateway.member.appointed(self._appointed, self.now_s))
            if self.view.head_of(self._appointed) == gateway.index:
                self._become_head(gateway, self._appointed)
            round_ = self.view.timing.round_at(self.now_s)
            if round_ >= 0:
                self._offer(gateway, round_)
        self._member_timer(gateway, gateway.life)

    def crash(self, gateway: Gateway) -> None:
        """Lose everything volatile; come back after a while."""
        if gateway.member is None:
            return
        self.tally.crashes += 1
        gateway.member, gateway.head = None, None
        gateway.life += 1
        self.at(self.now_s + self.faults.downtime_s(self.random), lambda: self._boot(gateway))

    def _member_timer(self, gateway: Gateway, life: int) -> None:
        if gateway.life != life or gateway.member is None:
            return
        self._carry_out(gateway, gateway.member.on_timer(self.now_s))
        if gateway.member is not None and gateway.life == life:
            when_s = min(gateway.member.next_timer_s(), self.now_s + PERIOD_S)
            self.at(max(when_s, self.now_s + 0.05), lambda: self._member_timer(gateway, life))

    def _head_timer(self, gateway: Gateway, life: int, term: int) -> None:
        head = gateway.head
        if gateway.life != life or head is None or gateway.head_term != term:
            return
        self._from_head(gateway, head.on_timer(self.now_s))
        if gateway.head is head and head.next_timer_s() < float("inf"):
            self.at(max(head.next_timer_s(), self.now_s + 0.01), lambda: self._head_timer(gateway, life, term))

    def _become_head(self, gateway: Gateway, term: int) -> None:
        member = gateway.member
        if member is None or gateway.head_term >= term:
            return
        secrets = gateway.secrets
        commitments = {d: c for d in secrets.dealers if (c := secrets.commitments_of(d)) is not None}
        adaptive = self.liar is not None and self.liar.is_cunning and gateway.index in self.liar.corrupt
        gateway.head = (
            Adversary(self.view, term, self.now_s, self.random)
            if adaptive
            else Head(self._suite, self.view, term, self.now_s, commitments, *member.next_attempt)
        )
        gateway.head_term = term
        self._head_timer(gateway, gateway.life, term)

    def _read_meters(self, round_: int) -> None:
        for gateway in self.gateways:
            self.register_wh[gateway.index] += self.random.randrange(2000)
            if gateway.member is not None:
                self.at_life(gateway, self.now_s + self.random.random(), partial(self._offer, gateway, round_))
        if self.faults.crash and self.random.random() < self.faults.crash * len(self.gateways):
            victim = self.random.choice(self.gateways)
            self.at(self.now_s + self.random.random() * PERIOD_S, lambda: self.crash(victim))
        if self.faults.ledger_crash and self.random.random() < self.faults.ledger_crash:
            self.at(self.now_s + self.random.random() * PERIOD_S, self.restart_ledger)

    def _offer(self, gateway: Gateway, round_: int) -> None:
        """As the node does: the stored vector again, or a new one once the last contribution is settled."""
        member = gateway.member
        if member is None or self.view.timing.round_at(self.now_s + 0.6) != round_:
            return
        if round_ in gateway.contributed:
            if member.unsettled == round_:
                self._carry_out(gateway, member.offer(round_, gateway.contributed[round_][0], self.now_s))
            return
        if member.unsettled is not None:
            self.at_life(gateway, self.now_s + 0.1, partial(self._offer, gateway, round_))
            return
        if gateway.contributed and round_ <= max(gateway.contributed):
            return
        register = self.register_wh[gateway.index]
        words = [1, register - gateway.opened_wh, self.random.randrange(2**64), self.random.randrange(2**64)]
        vector = np.array(words[: self.view.word_count], dtype=np.uint64)
        gateway.contributed[round_] = vector, register
        try:
            self._carry_out(gateway, member.offer(round_, vector, self.now_s))
        except RemoteProtocolError:
            self.tally.refusals += 1

    # --- the network -----------------------------------------------------------------------------------------------

    def _carry_out(self, gateway: Gateway, instructions: Sequence[MemberEffect]) -> None:
        life = gateway.life
        for each in instructions:
            if self.faults.crash and self.random.random() < self.faults.crash / 20:
                self.crash(gateway)
            if gateway.life != life:
                return
            match each:
                case Persist(Attempted() as record):
                    gateway.last = Resume(record.round, record.attempt, record.progress, settled=False)
                    if record.progress is Progress.SERVED:
                        self.exposure.served(gateway.index, record.round, record.attempt)
                case Persist(Settled() as record):
                    past = gateway.last
                    if past is not None:
                        gateway.last = Resume(past.round, past.attempt, past.progress, settled=True)
                    if record.included:
                        gateway.opened_wh = gateway.contributed[record.round][1]
                case ToHead(message):
                    self._to_head(gateway, message)
                case ToCoordinator(message):
                    self._to_ledger(gateway, message)
                case Note():
                    pass

    def _to_head(self, gateway: Gateway, message: wire.RingMessage) -> None:
        member = gateway.member
        if member is None:
            return
        if self.lying_member is not None and self.lying_member.position == gateway.index:
            if self.lying_member.lie == "usurp" and isinstance(message, wire.MaskedInput):
                self._usurp(self.lying_member, message)
            message = self.lying_member.twist(message, member)
        self.transcript.note(gateway.index, message)
        self.exposure.sent(gateway.index, message, member)
        term = member.term
        target = self.gateways[self.view.head_of(term)]

        def deliver() -> None:
            if target.head is None or target.head_term != term:
                return
            try:
                self._from_head(target, target.head.receive(gateway.index, message, self.now_s))
            except RemoteProtocolError:
                self.tally.refusals += 1
                target.head.lost(gateway.index, self.now_s)

        self.send(f"m{gateway.index}", f"m{target.index}", deliver)

    def _from_head(self, gateway: Gateway, instructions: Sequence[HeadEffect]) -> None:
        term = gateway.head_term
        if self.liar is not None and gateway.index in self.liar.corrupt and not self.liar.is_cunning:
            instructions = self.liar.twist(self.view, instructions, self.random)
        for each in instructions:
            match each:
                case ToMember(position, message):
                    self.transcript.note(position + 1000, message)
                    target = self.gateways[position]
                    self.send(f"m{gateway.index}", f"m{position}", partial(self._at_member, target, message))
                case ToCoordinator(message):
                    if gateway.head_term == term:
                        self._to_ledger(gateway, message)
                case Note(name):
                    self.tally.retries += name == "retry"
                    self.tally.recoveries += name == "recover"

    def _at_member(self, gateway: Gateway, message: wire.RingMessage) -> None:
        if gateway.member is None:
            return
        try:
            self._carry_out(gateway, gateway.member.receive(message, self.now_s))
        except RemoteProtocolError:
            self.tally.refusals += 1

    def _to_ledger(self, gateway: Gateway, message: wire.Message) -> None:
        self.send(f"m{gateway.index}", "ledger", lambda: self._at_ledger(gateway.index, message))

    def _at_ledger(self, position: int, message: wire.Message) -> None:
        try:
            self._from_ledger(self.ledger.receive(position, message, self.now_s))
        except RemoteProtocolError:
            self.tally.refusals += 1

    def _usurp(self, liar: LyingMember, share: wire.MaskedInput) -> None:
        def deliver() -> None:
            # By the term of that moment: a liar that has become head may report any total, and usurps nothing.
            usurped = liar.usurp(share, self.view, self.ledger.term)
            if usurped is not None:
                self._at_ledger(liar.position, usurped)

        self.send(f"m{liar.position}", "ledger", deliver)

    def _from_ledger(self, instructions: Sequence[LedgerEffect]) -> None:
        for each in instructions:
            match each:
                case Persist(RoundEnded(ended)):
                    self._check_end(ended)
                case ReportMisbehaviour(round_, head, position, _):
                    self._check_accusation(round_, head, position)
                case ToMember(position, message):
                    self._announce(self.gateways[position], message)
                case ToRing(message):
                    for gateway in self.gateways:
                        self._announce(gateway, message)
                case Note():
                    pass

    def _announce(self, gateway: Gateway, message: wire.Message) -> None:
        def deliver() -> None:
            member = gateway.member
            if member is None:
                return
            match message:
                case wire.Appoint():
                    self.tally.heads_replaced += message.term > self._appointed >= 0
                    self._appointed = max(self._appointed, message.term)
                    if self.view.head_of(message.term) == gateway.index:
                        self._become_head(gateway, message.term)
                    elif gateway.head_term < message.term:
                        gateway.head = None
                    self._carry_out(gateway, member.appointed(message.term, self.now_s))
                case wire.Result():
                    if gateway.head is not None:
                        self._from_head(gateway, gateway.head.result(message, self.now_s))
                    self._at_member(gateway, message)

        self.send("ledger", f"m{gateway.index}", deliver)

    # --- what must hold ----------------------------------------------------------------------------------------------

    def _check_end(self, ended: Ended) -> None:
        if ended.round in self.ended:
            raise Violation(f"round {ended.round} ended twice")
        self.ended[ended.round] = ended
        if ended.outcome is wire.Outcome.VOID:
            self.tally.void += 1
            return
        self.tally.opened += 1
        if self.liar is not None and self.view.head_of(ended.term) in self.liar.corrupt:
            return  # a lying head may report any sum: what it may not do is in the exposure
        expected = [0] * self.view.word_count
        for gateway in self.gateways:
            if ended.roster >> gateway.index & 1:
                if ended.round not in gateway.contributed:
                    raise Violation(f"round {ended.round} opened with a member that contributed nothing")
                vector, _ = gateway.contributed[ended.round]
                expected = [(a + int(b)) % WORD_MODULUS for a, b in zip(expected, vector, strict=True)]
        if tuple(expected) != ended.total:
            raise Violation(f"round {ended.round} opened to something else than the sum over its roster")

    def _check_accusation(self, round_: int, head: int, position: int) -> None:
        if self.liar is not None and head in self.liar.corrupt:
            return  # it may say what it likes
        if self.lying_member is None or position != self.lying_member.position:
            raise Violation(f"an honest head named member {position} a liar in round {round_}")
        self.accused.add(position)

    def check_conservation(self) -> None:
        """Σ opened energy = Σ over gateways of (register at the last opened contribution - first register)."""
        opened_wh = sum(e.total[1] for e in self.ended.values() if e.outcome is wire.Outcome.OPENED)
        moved_wh = 0
        for gateway in self.gateways:
            included = [
                round_ for round_, ended in self.ended.items()
                if ended.outcome is wire.Outcome.OPENED and ended.roster >> gateway.index & 1
            ]  # fmt: skip
            if included:
                moved_wh += gateway.contributed[max(included)][1] - self.first_wh[gateway.index]
        if opened_wh != moved_wh:
            raise Violation("energy was lost or counted twice")
