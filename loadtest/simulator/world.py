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
from functools import partial
from typing import TypeVar

from loadtest.harness import RingHarness
from loadtest.ring import RingSize, another_process, exchange_deals, lay_out, ledger_secrets
from loadtest.simulator.adversary import Adversary
from loadtest.simulator.checks import Checks, Tally, Violation
from loadtest.simulator.exposure import ExposureLog
from loadtest.simulator.faults import Faults
from loadtest.simulator.gateway import DiskCopy, Gateway, NoEvents
from loadtest.simulator.liar import Liar
from loadtest.simulator.lying_member import LyingMember
from loadtest.simulator.timeline import Timeline, Transcript
from protocol import wire
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.discipline.carried_energy import EnergyAccount
from protocol.dcnet.discipline.returns import Attendance
from protocol.dcnet.machines.effects import (
    Attempted,
    EpochRefused,
    HeadEffect,
    Progress,
    ReportMisbehaviour,
    RoundEnded,
    Settled,
)
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.machines.masks import MaskSchedule
from protocol.dcnet.machines.member import Member
from protocol.dcnet.setup.rings import Timing
from protocol.errors import RemoteProtocolError

M = TypeVar("M", Member, Head, RoundLedger)
PERIOD_S = 10.0
_COPIED = 0.2  # gateways whose disk is copied in a round, where copies come back
_CONNECT_S = 0.05  # between attempts to reach a head that does not listen yet


class World(Timeline, RingHarness):
    """A ring, its coordinator, and the network between them."""

    def __init__(
        self, suite: Suite, size: RingSize, seed: int, faults: Faults, liar: Liar | None = None,
        lying_members: Sequence[LyingMember] = (), *, counts_returns: bool = False, keeps_events: bool = True,
    ) -> None:  # fmt: skip
        """With `counts_returns` members keep to their tokens, of which many faults leave few; see `_made`."""
        super().__init__(seed, faults)
        self.liar = liar
        self.lying_members = {each.position: each for each in lying_members}
        self.tally = Tally()
        self.transcript = Transcript()
        self._suite = suite
        self._keeps_events = keeps_events
        self.size = size.n
        self._seed = hashlib.sha256(f"ring {seed}".encode()).digest()
        self.view, secrets = lay_out(suite, size, self._seed, Timing.spread(1.0, PERIOD_S))
        self.deals = exchange_deals(self.view, secrets)
        corrupt = set() if liar is None else liar.corrupt
        liars = corrupt | self.lying_members.keys()
        self.exposure = ExposureLog(self.view, liars)
        self.gateways = [Gateway(index, index, each) for index, each in enumerate(secrets)]
        self.processes = list(self.gateways)  # by address: the gateways, and copies of their disks that run beside them
        self._positions = list(range(size.n))  # of each of them
        self._of_gateway = [[each] for each in self.gateways]  # of each gateway all processes
        self._is_colluding = liar is not None and liar.is_colluding
        self._book_secrets = ledger_secrets(suite, self._seed)
        self.ledger = self._made(RoundLedger(suite, self.view, self._book_secrets, 0.0, deals=self.deals))
        self.register_wh = [self.random.randrange(10**9) for _ in secrets]
        for gateway in self.gateways:
            first_wh = self.register_wh[gateway.index]
            gateway.account = EnergyAccount(first_wh, first_wh)
            gateway.zeros_wh.append(first_wh)
            if counts_returns:
                gateway.attendance = Attendance.first(0, is_key_new=True)
        self.checks = Checks(self.view, self.gateways, self.tally, liar, liars)
        self._appointed, self._has_old_disks = -1, faults.rollback > 0

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
        self.from_ledger(self.ledger.start())
        self._book_timer()
        for round_ in range(self.view.rounds):
            self.at(self.view.timing.open_at_s(round_) - 0.5, partial(self._read_meters, round_))

    def _book_timer(self) -> None:
        self.from_ledger(self.ledger.on_timer(self.now_s))
        when_s = self.ledger.next_timer_s()
        if when_s < float("inf"):
            self.at(max(when_s, self.now_s + 0.01), self._book_timer)

    def restart_ledger(self) -> None:
        """The coordinator comes back: what ended has ended, and terms go on a turn of the ring later."""
        term = max((each.term for each in self.checks.ended.values()), default=0) + self.view.size
        known = self.checks.ended, term, self.deals
        self.ledger = self._made(RoundLedger(self._suite, self.view, self._book_secrets, self.now_s, *known))
        self.from_ledger(self.ledger.start())

    def _made(self, machine: M) -> M:
        if not self._keeps_events:  # the seed is the bug report
            machine.events = NoEvents(machine.events.position, machine.events.start)
        return machine

    # --- gateways --------------------------------------------------------------------------------------------------

    def _boot(self, gateway: Gateway) -> None:
        view, gateway.life = self.view, gateway.life + 1
        gateway.head, gateway.head_term = None, -1
        is_first = gateway.processes == 0
        own = b"" if is_first else self.random.randbytes(wire.NONCE_SIZE)
        gateway.processes += 1
        masks = MaskSchedule(self._suite, view, gateway.secrets, nonce=own)
        self.checks.started(gateway.index, masks.incarnation.nonce)
        first_round = 0 if is_first else max(0, view.timing.round_at(self.now_s) + 1)
        gateway.is_reviewed, gateway.started_round = is_first or not self._has_old_disks, first_round - 1
        past = gateway.last, first_round, gateway.in_rounds()
        gateway.member = self._made(Member(self._suite, view, gateway.secrets, masks, *past))
        if self._appointed >= 0:
            self.from_member(gateway.address, gateway.member.appointed(self._appointed, self.now_s))
            if self.view.head_of(self._appointed) == gateway.address:
                self._become_head(gateway, self._appointed)
            round_ = self.view.timing.round_at(self.now_s)
            if round_ >= 0:
                self._offer(gateway, round_)
        self._member_timer(gateway, gateway.life)

    def start_beside(self, original: Gateway, disk: DiskCopy) -> None:
        """Start a copy of a gateway's disk beside it: another process with its keys."""
        own = self.random.randbytes(32)
        secrets = another_process(self._suite, self.view, self._seed, original.index, self.deals, own)
        copy = Gateway(original.index, len(self.processes), secrets, processes=1)
        copy.put_back(disk)
        copy.zeros_wh = list(original.zeros_wh)
        self.processes.append(copy)
        self._positions.append(original.index)
        self._of_gateway[original.index].append(copy)
        self.tally.copies += 1
        self._boot(copy)

    def crash(self, gateway: Gateway) -> None:
        """Lose everything volatile; come back after a while."""
        if gateway.member is None:
            return
        self.tally.crashes += 1
        gateway.member, gateway.head = None, None
        gateway.life += 1
        copy = gateway.copy
        if copy is not None and self.random.random() < self.faults.rollback:
            self.tally.rollbacks += 1
            gateway.put_back(copy)
        self.at(self.now_s + self.faults.downtime_s(self.random), lambda: self._boot(gateway))

    def _member_timer(self, gateway: Gateway, life: int) -> None:
        if gateway.life != life or gateway.member is None:
            return
        self.from_member(gateway.address, gateway.member.on_timer(self.now_s))
        if gateway.member is not None and gateway.life == life:
            when_s = min(gateway.member.next_timer_s(), self.now_s + PERIOD_S)
            self.at(max(when_s, self.now_s + 0.05), lambda: self._member_timer(gateway, life))

    def _head_timer(self, gateway: Gateway, life: int, term: int) -> None:
        head = gateway.head
        if gateway.life != life or head is None or gateway.head_term != term:
            return
        self.from_head(gateway.index, head.on_timer(self.now_s))
        if gateway.head is head and head.next_timer_s() < float("inf"):
            self.at(max(head.next_timer_s(), self.now_s + 0.01), lambda: self._head_timer(gateway, life, term))

    def _become_head(self, gateway: Gateway, term: int) -> None:
        member = gateway.member
        if member is None or gateway.head_term >= term:
            return
        secrets = gateway.secrets
        commitments = {d: c for d in secrets.dealers if (c := secrets.commitments_of(d)) is not None}
        adaptive = self.liar is not None and self.liar.is_adaptive and gateway.index in self.liar.corrupt
        if adaptive:
            gateway.head = Adversary(self.view, term, self.now_s, self.random, self._positions)
        else:
            known = commitments, *member.next_attempt, member.incarnation
            gateway.head = self._made(Head(self._suite, self.view, term, self.now_s, *known))
        gateway.head_term = term
        if isinstance(gateway.head, Head):
            gateway.head.leave_out(gateway.excluded, self.now_s)
        self._head_timer(gateway, gateway.life, term)

    def _read_meters(self, round_: int) -> None:
        for gateway in self.processes:
            if gateway.address < self.size:  # a copy has the meter of its gateway
                self.register_wh[gateway.index] += self.random.randrange(2000)
            if self.faults.rollback and self.random.random() < _COPIED:
                gateway.copy = gateway.copy_of_disk()
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
                self.from_member(gateway.address, member.offer(round_, gateway.contributed[round_][0], self.now_s))
            return
        if member.unsettled is not None:
            self.at_life(gateway, self.now_s + 0.1, partial(self._offer, gateway, round_))
            return
        if gateway.contributed and round_ <= max(gateway.contributed):
            return
        register = self.register_wh[gateway.index]
        if not gateway.review(self.checks.ended, register, int(self.now_s / PERIOD_S)):
            return
        more = self.random.randrange(2**64), self.random.randrange(2**64)
        vector = gateway.contribute(round_, register, more[: self.view.word_count - 2])
        try:
            self.from_member(gateway.address, member.offer(round_, vector, self.now_s, (), gateway.in_rounds()))
        except RemoteProtocolError:
            self.tally.refusals += 1

    # --- the network -----------------------------------------------------------------------------------------------

    def is_up(self, position: int) -> bool:
        """A crash may come before any effect."""
        gateway = self.processes[position]
        if self.faults.crash and self.random.random() < self.faults.crash / 20:
            self.crash(gateway)
        return gateway.member is not None

    def persist(self, position: int, record: Attempted | Settled | EpochRefused) -> None:
        """The gateway's disk."""
        gateway = self.processes[position]
        if isinstance(record, EpochRefused):
            raise Violation(f"member {gateway.index} refused the epoch of a ledger that does not lie")
        gateway.persist(record)
        if isinstance(record, Attempted) and record.progress is Progress.SERVED:
            self.exposure.served(gateway.address, record.round, record.attempt)

    def noted(self, name: str) -> None:
        """Retries and recoveries are counted."""
        self.tally.retries += name == "retry"
        self.tally.recoveries += name == "recover"

    def to_head(self, position: int, message: wire.RingMessage) -> None:
        """Over the network, after a lying member's twist."""
        gateway = self.processes[position]
        member = gateway.member
        if member is None:
            return
        liar = self.lying_members.get(position)
        if liar is not None:
            if liar.lie == "usurp" and isinstance(message, wire.MaskedInput):
                self._usurp(liar, message)
            twisted = liar.twist(message, member, gateway.secrets)
            if twisted is None:
                return
            message = twisted
        if isinstance(message, wire.MaskedInput):
            self.checks.masked(gateway.index, member.incarnation, message.round, message.attempt)
        self.transcript.note(gateway.address, message)
        self.exposure.sent(gateway.address, message, member)
        term = member.term
        target, sent_s = self.gateways[self.view.head_of(term)], self.now_s

        def deliver() -> None:
            if target.head_term < term and target.member is not None and self.now_s < sent_s + PERIOD_S:
                self.at(self.now_s + _CONNECT_S, deliver)  # a link is there once its head listens
                return
            if target.head is None or target.head_term != term:
                return
            try:
                self.from_head(target.index, target.head.receive(gateway.address, message, self.now_s))
            except RemoteProtocolError:
                self.tally.refusals += 1
                target.head.lost(gateway.address, self.now_s)

        self.send(f"m{gateway.address}", f"m{target.index}", deliver)

    def from_head(self, position: int, effects: Sequence[HeadEffect]) -> None:
        """After a lying head's twist."""
        if self.liar is not None and position in self.liar.corrupt and not self.liar.is_adaptive:
            effects = self.liar.twist(self.view, effects, self.random)
            head = self.gateways[position].head
            if isinstance(head, Head):
                effects = self.liar.blame(head, effects, self.random)
        super().from_head(position, effects)

    def to_member(self, head: int, target: int, message: wire.RingMessage) -> None:
        """Over the network."""
        self.transcript.note(target + 1000, message)
        self.send(f"m{head}", f"m{target}", partial(self._at_member, self.processes[target], message))

    def _at_member(self, gateway: Gateway, message: wire.RingMessage) -> None:
        if gateway.member is None:
            return
        try:
            self.from_member(gateway.address, gateway.member.receive(message, self.now_s))
        except RemoteProtocolError:
            self.tally.refusals += 1

    def to_coordinator(self, position: int, message: wire.Message) -> None:
        """Over the network, after a lying member's answer."""
        gateway, liar = self.processes[position], self.lying_members.get(position)
        if liar is not None and gateway.member is not None:
            answer = liar.answer(message, gateway.member, gateway.secrets)
            if answer is None:
                return
            message = answer
        self.send(f"m{position}", "ledger", lambda: self._at_ledger(gateway.index, message))

    def _at_ledger(self, position: int, message: wire.Message) -> None:
        try:
            self.from_ledger(self.ledger.receive(position, message, self.now_s))
        except RemoteProtocolError:
            self.tally.refusals += 1

    def _ask(self, gateway: Gateway, member: Member, message: wire.Message) -> None:
        try:
            self.from_member(gateway.address, member.asked(message))
        except RemoteProtocolError:
            self.tally.refusals += 1

    def _usurp(self, liar: LyingMember, share: wire.MaskedInput) -> None:
        def deliver() -> None:
            # By the term of that moment: a liar that has become head may report any total, and usurps nothing.
            usurped = liar.usurp(share, self.view, self.ledger.term)
            if usurped is not None:
                self._at_ledger(liar.position, usurped)

        self.send(f"m{liar.position}", "ledger", deliver)

    def round_ended(self, record: RoundEnded) -> None:
        """The coordinator's disk, and the first look at what opened."""
        self.checks.round_ended(record.ended)

    def reported(self, report: ReportMisbehaviour) -> None:
        """Nobody but a liar is named."""
        self.checks.reported(report)

    def from_coordinator(self, target: int, message: wire.Message) -> None:
        """Over the network, to every process of a gateway; one that colludes appoints its own head for good."""
        if isinstance(message, wire.Appoint) and self._is_colluding and message.term > self._appointed >= 0:
            return
        for process in self._of_gateway[target]:
            self._from_coordinator(process, message)

    def _from_coordinator(self, gateway: Gateway, message: wire.Message) -> None:
        def deliver() -> None:
            member = gateway.member
            if member is None:
                return
            match message:
                case wire.Appoint():
                    self.tally.heads_replaced += message.term > self._appointed >= 0
                    self._appointed = max(self._appointed, message.term)
                    if self.view.head_of(message.term) == gateway.address:
                        self._become_head(gateway, message.term)
                    elif gateway.head_term < message.term:
                        gateway.head = None
                    self.from_member(gateway.address, member.appointed(message.term, self.now_s))
                case wire.LeftOut():
                    gateway.excluded = self.view.from_wire(message.members)
                    if isinstance(gateway.head, Head):
                        gateway.head.leave_out(gateway.excluded, self.now_s)
                case wire.Inquiry() | wire.DisputedPair() | wire.DisputedDeal() | wire.PresenceRequest():
                    self._ask(gateway, member, message)
                case wire.Result():
                    if gateway.head is not None:
                        self.from_head(gateway.index, gateway.head.result(message, self.now_s))
                    self._at_member(gateway, message)

        self.send("ledger", f"m{gateway.address}", deliver)
