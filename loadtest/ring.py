"""
One whole ring in one process without a network: the real machines, called in turn.

This is what unit tests and benchmarks drive.  Messages are delivered at once and in order; whoever is in `silent`
neither hears nor speaks.  For loss, delay, crashes and liars there is the simulator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.harness import RingHarness, resume_after
from loadtest.simulator.suite import CheapSuite
from protocol import wire
from protocol.dcnet.crypto.suite import Suite, derive
from protocol.dcnet.machines.effects import (
    Attempted,
    Ended,
    EpochRefused,
    ReportMisbehaviour,
    RoundEnded,
    Settled,
)
from protocol.dcnet.machines.head import Head
from protocol.dcnet.machines.history import History
from protocol.dcnet.machines.incarnations import Incarnation, NonceTable
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.machines.masks import MaskSchedule, Words
from protocol.dcnet.machines.member import Member
from protocol.dcnet.machines.member_attempt import Resume
from protocol.dcnet.setup.ledger_keys import LedgerSecrets
from protocol.dcnet.setup.rings import Member as Seat
from protocol.dcnet.setup.rings import RingView, Timing
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.errors import RemoteProtocolError

QUESTIONS = (wire.Inquiry, wire.DisputedPair, wire.DisputedDeal, wire.PresenceRequest)


@dataclass(frozen=True, slots=True)
class RingSize:
    """The numbers of a ring; see `protocol.dcnet.parameters.choice` for how they are chosen."""

    n: int
    k: int
    t: int
    t_c: int
    k_min: int
    n_min: int
    words: int = 4
    rounds: int = 96
    committed: tuple[int, ...] = ()


def lay_out(
    suite: Suite, size: RingSize, seed: bytes, timing: Timing | None = None, nonces: Sequence[bytes] = ()
) -> tuple[RingView, list[EpochSecrets]]:
    """A ring of fresh members who have agreed on no keys yet; everything grows from `seed`, but for given nonces."""
    first = nonces or [nonce(seed, index) for index in range(size.n)]
    secrets = [EpochSecrets(suite, *_seeds(seed, index)) for index in range(size.n)]
    ledger = ledger_secrets(suite, seed)
    view = RingView(
        epoch=1, ring=0,
        members=tuple(
            Seat(f"gateway-{i:04}", each.public_key, bytes(32), each.verify_key, first[i])
            for i, each in enumerate(secrets)
        ),
        schema_digest=derive(seed, "schema"), word_count=size.words, committed=size.committed, rounds=size.rounds,
        bits=(19,) * len(size.committed), k=size.k, t=size.t, t_c=size.t_c, k_min=size.k_min, n_min=size.n_min,
        result_key=ledger.result_key, timing=timing or Timing.spread(0.0, 10.0),
    )  # fmt: skip
    return view, secrets


def _seeds(seed: bytes, index: int) -> tuple[bytes, bytes]:
    """The seed of a member's epoch, and the secret of its process."""
    number = index.to_bytes(4, "big")
    return derive(seed, "member", number), derive(seed, "process", number)


def nonce(seed: bytes, position: int, process: int = 0) -> bytes:
    """That of the member's n-th process; process 0 has joined."""
    return derive(seed, "nonce", position.to_bytes(4, "big"), process.to_bytes(4, "big"))[: wire.NONCE_SIZE]


def knowing(view: RingView, settled: int, position: int = 0) -> Incarnation:
    """What the process that the member at a position joined with knows after so many void rounds."""
    known = Incarnation(CheapSuite(), view, position, view.members[position].nonce)
    for round_ in range(settled):
        known.history.add(wire.Result(view.epoch, view.ring, round_, wire.Outcome.VOID, view.to_wire(0), bytes(64)))
    return known


def ready(
    view: RingView, position: int, term: int = 0, round_: int = 0, attempt: int = 0, history: History | None = None
) -> wire.Ready:
    """READY of the process that the member joined with, before any round has ended, or with a history."""
    ends = history or History(view)
    own = view.members[position].nonce
    q = ends.settled
    return wire.Ready(view.epoch, view.ring, term, round_, attempt, own, b"", q, ends.hash(q), 0, 0)


def opening(
    view: RingView, term: int = 0, round_: int = 0, attempt: int = 0, expected: int | None = None, *,
    nonces: NonceTable | None = None, settled: int = 0, served: int = 0,
) -> wire.Open:  # fmt: skip
    """OPEN for the processes that the members joined with, or others, everybody by default."""
    bits = view.everybody if expected is None else expected
    difference = (nonces or NonceTable(CheapSuite(), view)).difference(bits)
    more = settled, view.to_wire(served)
    return wire.Open(view.epoch, view.ring, term, round_, attempt, view.to_wire(bits), *difference, *more)


def make_ring(
    suite: Suite, size: RingSize, seed: bytes, timing: Timing | None = None, nonces: Sequence[bytes] = ()
) -> tuple[RingView, list[EpochSecrets]]:
    """A ring of fresh members with their keys agreed and their deals exchanged."""
    view, secrets = lay_out(suite, size, seed, timing, nonces)
    exchange_deals(view, secrets)
    return view, secrets


def exchange_deals(view: RingView, secrets: Sequence[EpochSecrets]) -> dict[int, wire.Deal]:
    """Agree on keys and hand every deal to its receivers; the deals, by dealer."""
    for position, each in enumerate(secrets):
        each.bind(view, position)
    deals = {}
    for position, each in enumerate(secrets):
        dealt = deals[position] = each.deal()
        for other, share in dealt.sealed:
            secrets[other].accept(position, dealt.commitments, share)
    return deals


def another_process(
    suite: Suite, view: RingView, seed: bytes, position: int, deals: Mapping[int, wire.Deal], process_secret: bytes
) -> EpochSecrets:
    """What a further process of a member of `lay_out`'s ring has, once it was sent the deals again."""
    secrets = EpochSecrets(suite, _seeds(seed, position)[0], process_secret)
    secrets.bind(view, position)
    for dealer, deal in deals.items():
        share = dict(deal.sealed).get(position)
        if share is not None:
            secrets.accept(dealer, deal.commitments, share)
    return secrets


def ledger_secrets(suite: Suite, seed: bytes) -> LedgerSecrets:
    """The round ledger's keys."""
    return LedgerSecrets(suite, derive(seed, "ledger"))


class LocalRing(RingHarness):
    """Drives one ring round after round; `trace` sees every message as (from, to, message)."""

    def __init__(self, suite: Suite, size: RingSize, seed: bytes = bytes(32), timing: Timing | None = None) -> None:
        self.view, self.secrets = lay_out(suite, size, seed, timing)
        self.deals = exchange_deals(self.view, self.secrets)
        self.size = size.n
        self.seed = seed
        self.members = [Member(suite, self.view, each, MaskSchedule(suite, self.view, each)) for each in self.secrets]
        self.suite = suite
        self.processes = [1] * size.n
        self.ledger = RoundLedger(suite, self.view, ledger_secrets(suite, seed), 0.0, deals=self.deals)
        self.misbehaviour: list[ReportMisbehaviour] = []
        self.ended: list[Ended] = []
        self.persisted: list[tuple[int, Attempted | Settled | EpochRefused]] = []
        self.notes: list[str] = []
        self.refused: list[str] = []  # reasons why a machine refused a message
        self.silent: set[int] = set()
        self.trace: Callable[[str, str, wire.Message], None] = lambda _from, _to, _message: None
        self.now_s = 0.0
        self._queue: deque[tuple[str, int, wire.Message]] = deque()
        self._appoint(0)

    @property
    def head_position(self) -> int:
        """Where the head sits."""
        return self.view.head_of(self.head.term)

    def _appoint(self, term: int) -> None:
        position = self.view.head_of(term)
        commitments = {
            dealer: known
            for dealer in self.secrets[position].dealers
            if (known := self.secrets[position].commitments_of(dealer)) is not None
        }
        self.head = Head(
            self.suite,
            self.view,
            term,
            self.now_s,
            commitments,
            *self.members[position].next_attempt,
            self.members[position].incarnation,
        )
        for index, each in enumerate(self.members):
            if index not in self.silent:
                self.from_member(index, each.appointed(term, self.now_s))
        self._run()

    def restart(self, position: int, resume: Resume | None = None) -> None:
        """
        Start a gateway's process anew: from its durable records, or from what its store says instead.

        It contributes from the next round on.
        """
        past = Resume()
        for at, record in self.persisted:
            past = resume_after(past, record) if at == position else past
        own = nonce(self.seed, position, self.processes[position])
        self.processes[position] += 1
        secrets = self.secrets[position]
        masks = MaskSchedule(self.suite, self.view, secrets, nonce=own)
        first_round = max(0, self.view.timing.round_at(self.now_s) + 1)
        member = Member(self.suite, self.view, secrets, masks, past if resume is None else resume, first_round)
        self.members[position] = member
        self.silent.discard(position)
        self.from_member(position, member.appointed(self.head.term, self.now_s))
        self._run()

    def round(
        self, round_: int, vectors: Sequence[Words], vanish: Callable[[int, wire.Message], bool] | None = None,
        blindings: Sequence[Sequence[int]] | None = None,
    ) -> Ended:  # fmt: skip
        """
        Play round `round_` to its end.

        `vanish(position, message)` is asked before each message of a member leaves; True silences it from then on.
        """
        self._vanish = vanish or (lambda _position, _message: False)
        self.now_s = max(self.now_s, self.view.timing.open_at_s(round_))
        for index, member in enumerate(self.members):
            if index not in self.silent and member.unsettled in {None, round_}:
                self.from_member(
                    index, member.offer(round_, vectors[index], self.now_s, blindings[index] if blindings else ())
                )
        self._run()
        while round_ not in self.ledger.ended:
            self.now_s = min(
                [self.head.next_timer_s() if self.head_position not in self.silent else float("inf"),
                 self.ledger.next_timer_s(),
                 *(m.next_timer_s() for i, m in enumerate(self.members) if i not in self.silent)]
            )  # fmt: skip
            if self.head_position not in self.silent:
                self.from_head(self.head_position, self.head.on_timer(self.now_s))
            for index, member in enumerate(self.members):
                if index not in self.silent:
                    self.from_member(index, member.on_timer(self.now_s))
            self.from_ledger(self.ledger.on_timer(self.now_s))
            self._run()
        return self.ledger.ended[round_]

    _vanish: Callable[[int, wire.Message], bool] = staticmethod(lambda _position, _message: False)

    def is_up(self, position: int) -> bool:
        """Silent gateways do nothing."""
        return position not in self.silent

    def noted(self, name: str) -> None:
        """Keep the names."""
        self.notes.append(name)

    def persist(self, position: int, record: Attempted | Settled | EpochRefused) -> None:
        """Keep the records in order."""
        self.persisted.append((position, record))

    def round_ended(self, record: RoundEnded) -> None:
        """Keep the ends in order."""
        self.ended.append(record.ended)

    def reported(self, report: ReportMisbehaviour) -> None:
        """Keep whom the ledger names, in order."""
        self.misbehaviour.append(report)

    @property
    def named(self) -> set[int]:
        """Whom the ledger named."""
        return {each.position for each in self.misbehaviour}

    def to_head(self, position: int, message: wire.RingMessage) -> None:
        """Queue it, or have the gateway vanish before it."""
        if self._vanish(position, message):
            self.silent.add(position)
        else:
            self._queue.append(("head", position, message))

    def to_member(self, head: int, target: int, message: wire.RingMessage) -> None:  # noqa: ARG002
        """Queue it."""
        self._queue.append(("member", target, message))

    def to_coordinator(self, position: int, message: wire.Message) -> None:
        """Queue it."""
        self._queue.append(("ledger", position, message))

    def from_coordinator(self, target: int, message: wire.Message) -> None:
        """Queue it."""
        self._queue.append(("gateway", target, message))

    def _run(self) -> None:
        while self._queue:
            target, index, message = self._queue.popleft()
            self.trace(target, f"{index}", message)
            try:
                self._deliver(target, index, message)
            except RemoteProtocolError as error:
                self.refused.append(error.reason)

    def _deliver(self, target: str, index: int, message: wire.Message) -> None:
        if target == "ledger":
            self.from_ledger(self.ledger.receive(index, message, self.now_s))
        elif target == "head":
            if self.head_position not in self.silent:
                self.from_head(self.head_position, self.head.receive(index, message, self.now_s))  # type: ignore[arg-type]
        elif isinstance(message, wire.Appoint):
            if message.term > self.head.term:
                self._appoint(message.term)
        elif index in self.silent:
            pass
        elif isinstance(message, wire.LeftOut):
            if index == self.head_position:
                self.head.leave_out(self.view.from_wire(message.members), self.now_s)
        elif isinstance(message, QUESTIONS):
            self.from_member(index, self.members[index].asked(message))
        elif target == "gateway" and index == self.head_position:
            self.from_head(self.head_position, self.head.result(message, self.now_s))  # type: ignore[arg-type]
        else:
            self.from_member(index, self.members[index].receive(message, self.now_s))  # type: ignore[arg-type]


def random_vectors(rng: np.random.Generator, n: int, words: int) -> list[Words]:
    """Contributions of full-range words; slot 0 is 1."""
    vectors = [rng.integers(0, 2**64, size=words, dtype=np.uint64) for _ in range(n)]
    for vector in vectors:
        vector[0] = 1
    return vectors


__all__ = [
    "QUESTIONS", "LocalRing", "RingSize", "another_process", "exchange_deals", "knowing", "lay_out", "ledger_secrets",
    "make_ring", "nonce", "opening", "random_vectors", "ready",
]  # fmt: skip
