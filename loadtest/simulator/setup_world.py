"""
How an epoch comes about, simulated: one coordinator, its gateways, a network that loses, doubles and delays.

The coordinator is the real machine (coordinator.rings), each gateway the real checks (protocol.dcnet.setup) around what
it must keep; certificates are a set of names.  Whatever a seed makes of it, `run` raises InvariantError where a rule of
drawing rings is broken:

- no gateway shows its value for two lists of one try, whatever was restarted in between;
- a layout that holds has all values of its list, and all who take one of a ring have the same;
- who withheld a value is in no later try of the epoch;
- a coordinator that invents members gets no deal from a ring that has one, nor from a gateway that asked for one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from coordinator.epoch_config import EpochConfig
from coordinator.events import Joined, To
from coordinator.rings.areas import SETTLE_S
from coordinator.rings.epochs import AreaEpoch, Phase
from loadtest.coordination import LIST_SECRET, make_areas
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.setup.beacon import RANDOM_SIZE, ListEntry, Try
from protocol.dcnet.setup.crowd import choose_spot_checks
from protocol.dcnet.setup.epoch import (
    Policy,
    call_digest,
    check_epoch_list,
    check_spot_checks,
    entries_of,
    join_text,
    verify_layout,
)
from protocol.errors import InvariantError, RemoteProtocolError

_SUITE = StandardSuite()
_SIGNING = _SUITE.signing_key(LIST_SECRET)
_KEYS = _SUITE.public_key(b"k" * 32), b"c" * 32, _SUITE.verify_key(b"v" * 32)
_POLICY = Policy(corrupt_ppm=0, ring_size_min=3, honest_floor=2)
_NONCE = bytes(wire.NONCE_SIZE)
_GREETING_S = 10.0
_NOW_S = 1_772_000_000.0


def _hold(rule: bool, broken: str) -> None:
    if not rule:
        raise InvariantError(broken)


@dataclass(frozen=True, slots=True)
class Adversities:
    """What a run meets: rates of messages lost and doubled, how many gateways withhold, restarts, invented members."""

    loss: float = 0.0
    doubled: float = 0.0
    delay_s_max: float = 1.0
    withholding: int = 0
    restarts: int = 0
    invented: int = 0


@dataclass(slots=True)
class Gateway:
    """What one gateway keeps over restarts: its tries; and what it has seen."""

    identity: str
    withholds: bool
    tries: dict[int, Try] = field(default_factory=dict)
    call: wire.EpochCall | None = None
    entries: tuple[ListEntry, ...] = ()
    shown: dict[int, set[bytes]] = field(default_factory=dict)
    layout: wire.EpochLayout | None = None
    wanted: tuple[ListEntry, ...] = ()
    ring_digest: bytes | None = None  # of the layout that it deals for
    refusal: str = ""


class SetupWorld:
    """One run of `size` gateways under a seed."""

    def __init__(self, seed: int, size: int, adversities: Adversities, ring_size: int = 12) -> None:
        self.random = random.Random(seed)
        self.adversities = adversities
        self.now_s = _NOW_S + SETTLE_S
        names = [f"ESTK{index:010}" for index in range(size)]
        invented = {f"ESTK5{index:09}" for index in range(adversities.invented)}
        self.certified = frozenset(names)
        chosen = set(self.random.sample(names, adversities.withholding))
        self.gateways = {each: Gateway(each, each in chosen) for each in (*names, *sorted(invented))}
        areas = make_areas(EpochConfig(ring_size=ring_size, dropout=0.1, corrupt=0.0))
        for name in self.gateways:
            areas.arrive(areas.areas["north"], name, _NOW_S)
        ((_, self.epoch),) = areas.call_due(self.now_s)
        for part in self.epoch._parts:  # an hour for tries, whatever the time of the day
            part.call = replace(part.call, start_ms=part.call.start_ms + 3_600_000)
        self._queue: list[tuple[float, int, str, wire.Message | None]] = []
        self._count = 0
        self._rejected: dict[int, frozenset[str]] = {}
        for _ in range(adversities.restarts):
            self._push(self.now_s + self.random.uniform(0, 60), "restart", None)
        for name in self.gateways:
            self._push(self.now_s + self.random.uniform(0, 0.1), name, None)

    def _push(self, at_s: float, target: str, message: wire.Message | None) -> None:
        self._count += 1
        heappush(self._queue, (at_s, self._count, target, message))

    def _send(self, target: str, message: wire.Message) -> None:
        for _ in range(1 + (self.random.random() < self.adversities.doubled)):
            if self.random.random() >= self.adversities.loss:
                delay_s = self.random.uniform(0.001, self.adversities.delay_s_max)
                self._push(self.now_s + delay_s, target, message)

    def _send_all(self, messages: Sequence[To]) -> None:
        for each in messages:
            self._send(each.identity, each.message)

    def run(self) -> SetupWorld:
        """Until every gateway of the layouts deals, or the epoch is refused.  Raises InvariantError."""
        end_s = self.now_s + 5000
        while self._queue and self.now_s < end_s and self.epoch.phase is not Phase.REFUSED:
            timer_s = self.epoch.next_timer_s() if self.epoch.phase is Phase.CALLED else float("inf")
            if timer_s <= self._queue[0][0]:
                self.now_s = max(self.now_s, timer_s)
                self._send_all(self.epoch.on_timer(self.now_s))
                continue
            self.now_s, _, target, message = heappop(self._queue)
            if target == "restart":
                self._restart()
            elif message is None:
                self._send_all(self.epoch.invite(target))
                if self.gateways[target].ring_digest is None:
                    self._push(self.now_s + _GREETING_S, target, None)
            elif target.startswith("@"):
                self._coordinator_hears(target[1:], message)
            else:
                self._gateway_hears(self.gateways[target], message)
            if self.epoch.phase is Phase.DEALING and all(self._is_done(each) for each in self.epoch.members):
                break
        self._check_end()
        return self

    def _is_done(self, name: str) -> bool:
        each = self.gateways[name]
        return each.ring_digest is not None or bool(each.refusal)

    def _restart(self) -> None:
        """The coordinator, and a gateway: both keep what was durable and nothing else."""
        if self.epoch.phase is Phase.CALLED:
            sign = lambda text: _SUITE.sign(_SIGNING, text)  # noqa: E731
            self.epoch = AreaEpoch.from_state(_SUITE, self.epoch.to_state(), [], self.now_s, sign)
        name = self.random.choice(sorted(self.gateways))
        old = self.gateways[name]
        if old.ring_digest is None:
            self.gateways[name] = Gateway(name, old.withholds, old.tries, shown=old.shown, refusal=old.refusal)

    # --- the coordinator -----------------------------------------------------------------------------------------

    def _coordinator_hears(self, identity: str, message: wire.Message) -> None:
        match message:
            case wire.Join():
                call = self.epoch.part_for(identity).call
                if message.try_ != call.try_:
                    return
                text = join_text(call_digest(call), identity, *_KEYS, _NONCE, message.commitment)
                joined = Joined(message.try_, message.commitment, text, *_KEYS, _NONCE, bytes(70), b"certificate")
                self._send_all(self.epoch.join(identity, joined, self.now_s))
            case wire.BeaconReveal():
                try:
                    self._send_all(self.epoch.reveal(identity, message, self.now_s))
                except RemoteProtocolError as error:
                    _hold(error.reason == "not_listed", str(error))  # of a list before the last restart or try
            case wire.SpotCheck():
                self._send_all(self.epoch.spot_check(identity, message))

    # --- gateways ------------------------------------------------------------------------------------------------

    def _gateway_hears(self, mine: Gateway, message: wire.Message) -> None:
        try:
            match message:
                case wire.EpochCall():
                    self._on_call(mine, message)
                case wire.EpochList():
                    self._on_list(mine, message)
                case wire.EpochLayout():
                    self._on_layout(mine, message)
                case wire.SpotCheckAnswer():
                    self._on_answer(mine, message)
        except RemoteProtocolError as error:
            if error.reason not in {"bad_signature", "not_listed", "second_list", "bad_layout", "wrong_values"}:
                mine.refusal = error.reason  # the others are what delays and restarts bring

    def _on_call(self, mine: Gateway, call: wire.EpochCall) -> None:
        before = self._rejected.setdefault(call.try_, frozenset(call.rejected))
        _hold(before == frozenset(call.rejected), "one call a try")
        if mine.identity in call.rejected or (mine.call is not None and call.try_ < mine.call.try_):
            return
        if mine.call is None or call.try_ > mine.call.try_:
            mine.call, mine.entries = call, ()
        mine.tries.setdefault(call.try_, Try(call.epoch, call.try_, self.random.randbytes(RANDOM_SIZE)))
        commitment = mine.tries[call.try_].commitment(mine.identity)
        self._send(
            f"@{mine.identity}", wire.Join(call.epoch, call.try_, commitment, _KEYS[0], _KEYS[2], _NONCE, b"s" * 8)
        )

    def _on_list(self, mine: Gateway, message: wire.EpochList) -> None:
        if mine.call is None or message.try_ != mine.call.try_:
            return
        digest = check_epoch_list(mine.call, message, lambda text, signed: _SUITE.verify(_SIGNING[32:], text, signed))
        mine.entries = entries_of(message)
        shown = mine.tries[message.try_].show_for(mine.identity, digest, mine.entries)
        if mine.withholds:
            return
        mine.tries[message.try_] = shown
        mine.shown.setdefault(message.try_, set()).add(digest)
        _hold(len(mine.shown[message.try_]) == 1, f"{mine.identity} shows its value for two lists")
        reveal = wire.BeaconReveal(mine.call.epoch, message.try_, digest, shown.value)
        self._send(f"@{mine.identity}", reveal)

    def _verify_member(self, identity: str, *_: object) -> None:
        if identity not in self.certified:
            raise RemoteProtocolError("invented", identity)

    def _on_layout(self, mine: Gateway, layout: wire.EpochLayout) -> None:
        if mine.call is None or not mine.entries or mine.ring_digest is not None or mine.refusal:
            return
        identity = mine.identity
        view, _ = verify_layout(mine.call, mine.entries, layout, identity, _KEYS[0], _POLICY, self._verify_member)
        if mine.layout is None:
            ring = [each.identity for each in view.members]
            mine.layout, mine.wanted = layout, choose_spot_checks(mine.entries, ring, self.random.randrange)
        names = tuple(each.identity for each in mine.wanted)
        self._send(f"@{identity}", wire.SpotCheck(layout.epoch, layout.try_, names))

    def _on_answer(self, mine: Gateway, answer: wire.SpotCheckAnswer) -> None:
        if mine.layout is None or mine.call is None or mine.ring_digest is not None or mine.refusal:
            return
        check_spot_checks(mine.call, mine.wanted, answer.members, (), self._verify_member)
        view, _ = verify_layout(
            mine.call, mine.entries, mine.layout, mine.identity, _KEYS[0], _POLICY, self._verify_member
        )
        mine.ring_digest = view.digest

    # --- what holds in the end -----------------------------------------------------------------------------------

    def _check_end(self) -> None:
        for earlier, later in zip(sorted(self._rejected), sorted(self._rejected)[1:], strict=False):
            _hold(self._rejected[earlier] <= self._rejected[later], "a gateway that withheld is called again")
        for ring in self.epoch.rings:
            members = [self.gateways[each] for each in ring.positions]
            digests = {each.ring_digest for each in members if each.ring_digest is not None}
            _hold(len(digests) <= 1, "members of one ring deal for two layouts")
            _hold(not digests or digests == {ring.view.digest}, "a layout other than the coordinator's")
            _hold(not any(each.withholds for each in members), "a layout without a value")
            if not ring.positions.keys() <= self.certified:
                _hold(not digests, "somebody deals to a ring with an invented member")
        for each in self.gateways.values():
            if each.ring_digest is not None:
                _hold(
                    {entry.identity for entry in each.wanted} <= self.certified, "a check that found and did not tell"
                )
