"""
Gateways of rings without their meters, their certificates and their web: the node's drivers, store and links.

What a node runs for a gateway in a round is all here: the member machine with its inbox, the head's while it is
appointed, the durable record before a share leaves, the CURVE connection to the head.  Registers are handed in
instead of being read from a meter, and an epoch's layout comes from a seed, so that the process of the round ledger can
grow the same ring by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, cast

import trio

from loadtest.bench.rounds import ring_size
from loadtest.ring import lay_out, ledger_secrets, nonce
from node.aggregation.context import MembershipContext
from node.aggregation.contribution import Contributions, Cursor
from node.aggregation.membership import Membership
from node.aggregation.ring_subscriber import NAME, RingSubscriber
from node.metering.entries import LoggedReading
from node.metering.log import MeteringLog
from node.metering.registers import Registers, RegisterSet
from node.metrics import NodeMetrics
from node.security.module import SecurityModule
from node.storage.engine import Store
from node.storage.errors import StoreError
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.metering_log import MeteringLogRepository
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite, derive
from protocol.dcnet.discipline.carried_energy import EnergyAccount, contribute
from protocol.dcnet.machines.effects import Ended
from protocol.dcnet.machines.ledger import RoundLedger
from protocol.dcnet.machines.masks import Fleet
from protocol.dcnet.setup.rings import Member, RingView, Timing, positions_of
from protocol.dcnet.setup.schema import Kind, Schema, Slot
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.link import Keypair, LinkContext
from protocol.metering.interval import QUARTER_HOURS
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from protocol.metering.units import unit_code

SLOTS = 16
INTERVAL_S = 900


@cache
def bench_schema() -> Schema:
    """The count, 14 energy registers and a power."""
    energy = [Slot(f"energy_{i}", f"1-0:{i}.8.0*255", "Wh", -1, Kind.ENERGY) for i in range(1, SLOTS - 1)]
    power = Slot("power", "1-0:16.7.0*255", "W", 0, Kind.POWER)
    return Schema((Slot("gateways", None, "1", 0, Kind.COUNT), *energy, power))


def registers(position: int, round_: int) -> Registers:
    """
    What a gateway's meters show for a round: every register rises by position + 1 a round.

    Round -1 stands for the gateway's first reading, the zero of its account.
    """
    value = (position + 1) * (round_ + 1)
    return Registers((round_ + 1) * INTERVAL_S, (1, *[value] * (SLOTS - 2), position))


@dataclass(slots=True)
class Ring:
    """One ring's layout, its members' secrets and CURVE keys."""

    view: RingView
    secrets: list[EpochSecrets]
    curves: list[Keypair]

    @classmethod
    def grow(cls, suite: StandardSuite, seed: bytes, number: int, n: int, timing: Timing) -> Ring:
        """Ring `number` of `n` gateways; nobody has agreed on keys or dealt yet."""
        own = derive(seed, "bench-ring", number.to_bytes(4, "little"))
        view, secrets = lay_out(suite, ring_size(n, SLOTS), own, timing)
        curves = [curve_pair(derive(own, "curve", index.to_bytes(4, "little"))) for index in range(n)]
        members = tuple(
            Member(f"ring-{number:04}-{index:04}", each.public_key, pair.public, each.verify_key, nonce(own, index))
            for index, (each, pair) in enumerate(zip(secrets, curves, strict=True))
        )
        return cls(replace(view, ring=number, members=members, schema_digest=bench_schema().digest()), secrets, curves)

    def deal(self) -> None:
        """Agree on keys and hand round the deals: the epoch's set-up."""
        for position, each in enumerate(self.secrets):
            each.bind(self.view, position)
        for position, each in enumerate(self.secrets):
            dealt = each.deal()
            for other, share in dealt.sealed:
                self.secrets[other].accept(position, dealt.commitments, share)


def ring_ledger(suite: StandardSuite, seed: bytes, view: RingView, now_s: float) -> RoundLedger:
    """The round ledger of a ring that was grown from `seed`."""
    own = derive(seed, "bench-ring", view.ring.to_bytes(4, "little"))
    return RoundLedger(suite, view, ledger_secrets(suite, own), now_s)


def curve_pair(secret: bytes) -> Keypair:
    """A CURVE key pair from 32 bytes; CURVE keys are X25519 keys."""
    return Keypair(StandardSuite().public_key(secret), secret)


def telegram(meter: str, position: int, round_: int, now_s: float) -> list[LoggedReading]:
    """What `registers` are made of: one telegram of a gateway's meter."""
    shown, now_ms = registers(position, round_), round(now_s * 1000)
    return [
        LoggedReading(
            meter, obis, value, scaler, unit, None, now_ms, now_ms, shown.interval_s, 0, on_time=True,
            quality=Quality.VALID,
        )
        for (obis, scaler, unit), value in zip(_telegram_registers(), shown.values[1:], strict=True)
    ]  # fmt: skip


@cache
def _telegram_registers() -> list[tuple[Obis, int, int]]:
    slots = bench_schema().slots[1:]
    return [(Obis.parse(str(slot.obis)), slot.scaler, unit_code(slot.unit)) for slot in slots]


@dataclass(slots=True)
class MeteredGateway:
    """A gateway's membership with its metering log before it."""

    member: Membership
    log: MeteringLog
    position: int
    clock: Callable[[], float]

    async def read(self, round_: int) -> None:
        """Its meter was read for a round: log it, and so contribute."""
        await self.log.append(telegram(self.log.gateway, self.position, round_, self.clock()))


@dataclass(frozen=True, slots=True)
class _Module:
    """Of a security module what a membership asks for; heads' addresses are not checked here."""

    identity: str
    curve: Keypair

    def sign(self, _text: bytes) -> bytes:
        return bytes(64)


def _nothing(*_about: Any) -> None:
    """No bills, no certificates."""


@dataclass(slots=True)
class Process:
    """What the gateways of one process share."""

    suite: StandardSuite
    link: LinkContext
    store: Store
    metrics: NodeMetrics
    clock: Callable[[], float]
    schema: Schema
    fleet: Fleet = field(default_factory=Fleet)

    async def metered(
        self, ring: Ring, view: RingView, position: int, to_coordinator: Callable[[wire.Message], None]
    ) -> MeteredGateway:
        """As `gateway`, with a metering log that the ring subscribes to."""
        identity = view.members[position].identity
        log = MeteringLog(MeteringLogRepository(self.store), identity, self.clock)
        cursor = await log.subscribe(NAME)
        member = await self.gateway(ring, view, position, to_coordinator, cursor)

        def publish(shown: Registers) -> bool:
            round_ = shown.interval_s // INTERVAL_S - 1
            if round_ >= view.timing.round_at(self.clock()):  # one that was logged before a crash may be over
                member.reading(round_, shown)
            return True

        def failed(error: StoreError) -> None:
            raise error

        account = member.account
        subscriber = RingSubscriber(account, RegisterSet(self.schema, [identity]), cursor, publish, failed)
        await subscriber.start()
        return MeteredGateway(member, log, position, self.clock)

    async def gateway(
        self, ring: Ring, view: RingView, position: int, to_coordinator: Callable[[wire.Message], None],
        cursor: Cursor | None = None,
    ) -> Membership:  # fmt: skip
        """
        A gateway's membership, made from what is durable; its account starts with its first registers.

        `view` is the ring's, but for the timing, which may have been settled later.
        """
        identity = view.members[position].identity
        contributions = Contributions(AccountRepository(self.store), identity, self.schema, cursor=cursor)
        await contributions.first_reading(registers(position, -1).values)
        module = _Module(identity, ring.curves[position])
        context = MembershipContext(
            self.suite, cast(SecurityModule, module), self.link, contributions, self.metrics, self.clock,
            QUARTER_HOURS, to_coordinator, _nothing, _nothing,
            "tcp://127.0.0.1:*", None, relay=False, fleet=self.fleet,
        )  # fmt: skip
        return Membership(context, view, ring.secrets[position], view.members[position].nonce)


class EnergyCheck:
    """What a ring's totals must be: every opened one is held against the registers of its roster."""

    def __init__(self, n: int) -> None:
        self._accounts = [EnergyAccount(0, 0)] * n

    def check(self, ended: Ended) -> None:
        """Raises ValueError where a total is not the exact sum, energy of missed rounds coming back in parts."""
        if ended.outcome is not wire.Outcome.OPENED:
            return
        who = positions_of(ended.roster)
        energy = 0
        for i in who:
            register = (i + 1) * (ended.round + 1)
            moved, self._accounts[i] = contribute(self._accounts[i], register, ended.round, length_s=1)
            energy += moved
        if ended.total != (len(who), *[energy] * (SLOTS - 2), sum(who)):
            raise ValueError("a ring opened something else than the sum of its roster")


async def wait_until(clock: Callable[[], float], due_s: float) -> None:
    """Sleep until the clock, which may not be trio's, shows `due_s`."""
    while (rest_s := due_s - clock()) > 0:
        await trio.sleep(rest_s)
