"""
What must hold in a simulated ring whatever happens: rounds end once, sums are exact, no energy is lost, no honest
member is named.  What an adversary may learn is watched elsewhere (`exposure`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from loadtest.simulator.gateway import Gateway
from loadtest.simulator.liar import Liar
from protocol import wire
from protocol.dcnet.discipline.carried_energy import EnergyAccount
from protocol.dcnet.discipline.returns import REFILL_S, TOKENS_MAX
from protocol.dcnet.machines.effects import Ended, ReportMisbehaviour
from protocol.dcnet.machines.incarnations import NONCES_MAX, Incarnation
from protocol.dcnet.setup.rings import RingView, bitmap
from protocol.dcnet.setup.schema import WORD_MODULUS


class Violation(AssertionError):
    """An invariant does not hold: a defect of the protocol or of a machine."""


@dataclass(slots=True)
class Tally:
    """What happened, for the report."""

    opened: int = 0
    void: int = 0
    crashes: int = 0
    rollbacks: int = 0
    copies: int = 0
    retries: int = 0
    recoveries: int = 0
    refusals: int = 0
    heads_replaced: int = 0


class Checks:
    """Looks at every round's end and report as it comes."""

    def __init__(
        self, view: RingView, gateways: Sequence[Gateway], tally: Tally, liar: Liar | None, liars: Collection[int]
    ) -> None:  # fmt: skip
        self.ended: dict[int, Ended] = {}
        self.named: set[int] = set()
        self._masked: set[tuple[int, bytes, int, int]] = set()
        self._processes: set[tuple[int, bytes]] = set()  # position and nonce of all that were ever started
        self._nonces: dict[tuple[int, bytes], list[bytes]] = {}  # that each masked with last, by position
        self._replaced: dict[tuple[int, bytes, int], list[bytes]] = {}  # those that each had of a position before
        self._view = view
        self._gateways = gateways
        self._tally = tally
        self._liar = liar
        self._liars = frozenset(liars)

    def round_ended(self, ended: Ended) -> None:
        """A round ends once, and opens to the sum over its roster."""
        if ended.round in self.ended:
            raise Violation(f"round {ended.round} ended twice")
        self.ended[ended.round] = ended
        if ended.outcome is wire.Outcome.VOID:
            self._tally.void += 1
            return
        self._tally.opened += 1
        if self._liar is not None and self._view.head_of(ended.term) in self._liar.corrupt:
            return  # a lying head may report any sum: what it may not do is in the exposure
        vectors: list[list[int]] = []
        for gateway in self._gateways:
            if ended.roster >> gateway.index & 1:
                if ended.round not in gateway.given:
                    raise Violation(f"round {ended.round} opened with a member that contributed nothing")
                vectors.append(gateway.given[ended.round].vector.tolist())
        if tuple(sum(words) % WORD_MODULUS for words in zip(*vectors, strict=True)) != ended.total:
            raise Violation(f"round {ended.round} opened to something else than the sum over its roster")

    def reported(self, report: ReportMisbehaviour) -> None:
        """Named ⊆ liars, whoever handed in what."""
        if report.position not in self._liars:
            raise Violation(f"member {report.position}, that did not lie, was named in round {report.round}")
        self.named.add(report.position)

    def head_replaced_for_good(self, unfit: int) -> None:
        """No honest head's evidence proves nothing."""
        if unfit & ~bitmap(self._liars):
            raise Violation("an honest head was blamed")

    def returns(self, interval_s: int) -> None:
        """However rosters were drawn: in any time no gateway came back more often than its tokens allow."""
        for gateway in self._gateways:
            for first, since in enumerate(gateway.returns):
                for count, until in enumerate(gateway.returns[first:], 1):
                    if count > TOKENS_MAX + (until - since) * interval_s // REFILL_S + 1:
                        raise Violation(
                            f"gateway {gateway.index} came back {count} times from round {since} to {until}"
                        )

    def started(self, position: int, nonce: bytes) -> None:
        """A process of a gateway is there, with its nonce."""
        self._processes.add((position, nonce))

    def masked(self, position: int, known: Incarnation, round_: int, attempt: int) -> None:
        """No process of a gateway masks one attempt twice, and each masks with nonces that it may take."""
        pad = position, known.nonce, round_, attempt
        if pad in self._masked:
            raise Violation(f"a process of member {position} used its masks of round {round_} attempt {attempt} twice")
        self._masked.add(pad)
        process, before = (position, known.nonce), self._nonces.get((position, known.nonce))
        if before == known.newest:
            return
        self._nonces[process] = known.newest.copy()
        for other, nonce in enumerate(known.newest):
            if before is None or before[other] != nonce:
                self._taken(process, other, nonce, None if before is None else before[other])

    def _taken(self, process: tuple[int, bytes], other: int, nonce: bytes, before: bytes | None) -> None:
        """A nonce is of a process that there was, none comes back, and there are `NONCES_MAX` at most."""
        replaced = self._replaced.setdefault((*process, other), [])
        if before is not None:
            replaced.append(before)
        of = f"member {process[0]} masked with a nonce of member {other}"
        if (other, nonce) not in self._processes:
            raise Violation(f"{of} that no process of it has")
        if nonce in replaced:
            raise Violation(f"{of} that it had replaced before")
        if len(replaced) >= NONCES_MAX:
            raise Violation(f"{of} after {len(replaced)} others")

    def one_history(self) -> None:
        """Members that know as many ends know the same."""
        known: dict[int, bytes] = {}
        for gateway in self._gateways:
            if gateway.member is not None:
                history = gateway.member.history
                for settled in range(history.settled + 1):
                    if known.setdefault(settled, history.hash(settled)) != history.hash(settled):
                        raise Violation(f"two histories of the first {settled} rounds")

    def conservation(self) -> None:
        """Σ opened energy = Σ over gateways of what their accounts moved; what is carried is in their registers."""
        opened_wh = sum(e.total[1] for e in self.ended.values() if e.outcome is wire.Outcome.OPENED)
        moved_wh = 0
        for gateway in self._gateways:
            ends: dict[int, EnergyAccount] = {}
            for round_, ended in sorted(self.ended.items()):
                if ended.outcome is wire.Outcome.OPENED and ended.roster >> gateway.index & 1:
                    given = gateway.given[round_]
                    ends[given.zero] = given.account
            for zero, account in ends.items():
                moved_wh += account.contributed - gateway.zeros_wh[zero]
                if account.carried < 0:
                    raise Violation(f"gateway {gateway.index} contributed more than its register counted")
        if opened_wh != moved_wh:
            raise Violation("energy was lost or counted twice")
