"""
One membership among liars, on a real store and real links: its head, its coordinator and its clock are the attacker's.

The gateway sits at position 0 of a ring of six.  It reaches its head through the coordinator's relay, so what leaves it
is what the coordinator gets; what the head says is handed in as a link would.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import zmq
from prometheus_client import CollectorRegistry

import node.gateway
from coordinator.gwa.ca import CertificateAuthority
from loadtest.lying_head import LyingHead
from loadtest.ring import ready
from loadtest.simulator.suite import CheapSuite
from node.aggregation.context import RELAY, FromCoordinator, FromHead, MembershipContext
from node.aggregation.contribution import Contributions
from node.aggregation.head import HeadDriver
from node.aggregation.joined_epoch import JoinedEpoch
from node.aggregation.membership import Membership
from node.gateway import Shared
from node.lmn.counters import DurableCounters
from node.metering.registers import Registers
from node.metrics import NodeMetrics
from node.security.module import KeyDirectory
from node.storage.cipher import StorageCipher
from node.storage.engine import Store
from node.storage.repositories.account_basis import AccountBasisRepository
from node.storage.repositories.accounts import AccountRepository
from node.storage.repositories.attendance import AttendanceRepository
from node.storage.repositories.beacon import BeaconRepository
from node.storage.repositories.bills import BillRepository
from node.storage.repositories.counters import CounterRepository
from node.storage.repositories.gateway_logs import GatewayLogRepository
from node.storage.repositories.metering_log import MeteringLogRepository
from node.storage.repositories.price_sheets import PriceSheetRepository
from node.storage.repositories.profile_sets import ProfileSetRepository
from node.storage.repositories.ring_seats import RingSeatRepository
from node.storage.repositories.use_cases import UseCaseRepository
from node.trust import TrustStore
from node.wan.coordinator_session import CoordinatorSession
from node.wan.deliveries import DeliveryServices
from protocol import wire
from protocol.dcnet.machines.incarnations import Incarnation
from protocol.dcnet.setup.calendar import CalendarPolicy
from protocol.dcnet.setup.epoch import Policy
from protocol.dcnet.setup.rings import bitmap, last_contribution_text
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA, Schema, Slot
from protocol.errors import RemoteProtocolError
from protocol.link import Keypair, LinkContext
from protocol.link.tls import client_context
from protocol.metering.interval import QUARTER_HOURS

SUITE = CheapSuite()
LIST_SEED = b"l" * 32
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
Kind = TypeVar("Kind", wire.MaskedInput, wire.Ready)
TERM = 1  # the head is the member at position 1


class Gateway:
    """The membership, and what its surroundings have heard of it."""

    def __init__(self, membership: Membership, liar: LyingHead, registry: CollectorRegistry) -> None:
        self.membership = membership
        self.liar = liar
        self.sent: list[wire.Message] = []
        self._registry = registry

    def heard(self) -> list[wire.Message]:
        """What it told its head."""
        liar = self.liar
        return [
            wire.decode(liar.secrets[each.position].unseal_relay(0, each.sealed), wire.FROM_MEMBER)
            for each in self.sent
            if isinstance(each, wire.Relay)
        ]

    def count(self, name: str, **labels: str) -> float:
        return self._registry.get_sample_value(f"stromkreis_node_{name}_total", labels) or 0.0

    async def until(self, kind: type[Kind], count: int = 1) -> list[Kind]:
        """Wait for so many messages of a kind to the head."""
        with trio.fail_after(120):
            while len(found := [each for each in self.heard() if isinstance(each, kind)]) < count:
                await trio.sleep(0.002)
        return found

    def head_at(self, endpoint: str = RELAY, term: int = TERM) -> None:
        liar = self.liar
        message = wire.HeadAt(liar.view.epoch, liar.view.ring, term, endpoint, bytes(64))
        self.membership.post(FromCoordinator(message))

    def hears(self, *messages: wire.RingMessage) -> None:
        for message in messages:
            self.membership.post(FromHead(message))

    def reads(self, round_: int, energy: int) -> None:
        self.membership.reading(round_, Registers(900 * round_, (1, energy, 0, 0)))


@asynccontextmanager
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    liar = LyingHead(SUITE)
    liar.term = TERM
    registry = CollectorRegistry()
    keys = KeyDirectory(tmp_path / "keys", SUITE)
    store = Store(tmp_path / "registers.sqlite", StorageCipher(bytes(32)))
    async with LinkContext() as link, trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        contributions = Contributions(AccountRepository(store), "ESTK0000000001", DEFAULT_SCHEMA)
        await contributions.first_reading((1, 100, 0, 0))
        sent: list[wire.Message] = []
        context = MembershipContext(
            SUITE, keys.open("ESTK0000000001"), link, contributions, NodeMetrics(registry), lambda: 0.0, QUARTER_HOURS,
            sent.append, lambda: None, lambda *_: None, "tcp://127.0.0.1:*", None, relay=False,
        )  # fmt: skip
        made = Gateway(Membership(context, liar.view, liar.secrets[0], liar.view.members[0].nonce), liar, registry)
        made.sent = sent
        nursery.start_soon(made.membership.run)
        yield made
        nursery.cancel_scope.cancel()
    store.close()
    keys.close()


async def test_a_held_opening_with_an_expelled_member_is_not_answered(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path) as mine:
        liar = mine.liar
        mine.head_at()
        mine.hears(liar.open())
        expelled = wire.Expelled(liar.view.epoch, liar.view.ring, liar.view.to_wire(bitmap([3])))
        mine.membership.post(FromCoordinator(expelled))
        mine.reads(0, 150)
        mine.hears(liar.open(1))
        mine.hears(liar.open(2, liar.everybody(3)))
        (share,) = await mine.until(wire.MaskedInput)
        assert (share.round, share.attempt) == (0, 2)
        assert mine.count("protocol_errors", reason="expelled_member") == 1


async def test_a_clock_that_is_set_back_costs_its_rounds_and_not_the_node(tmp_path: Path) -> None:
    async with gateway(tmp_path) as mine:
        mine.head_at()
        mine.reads(3, 150)  # offered, and never opened
        mine.reads(2, 140)
        mine.reads(4, 160)
        mine.hears(mine.liar.open(round_=4))
        (share,) = await mine.until(wire.MaskedInput)
        assert share.round == 4


@pytest.mark.parametrize("endpoint", ["inproc://zeromq.zap.01", "ipc:///tmp/x", "tcp://nowhere", "nonsense"])
async def test_a_head_whose_address_is_none_costs_its_ring_a_head_and_not_the_node(
    tmp_path: Path, endpoint: str
) -> None:
    """The first is the door of our own process: what is sent there is taken for a question of libzmq's."""
    async with gateway(tmp_path) as mine:
        mine.head_at(endpoint)
        mine.head_at(term=TERM + 6)
        (asked,) = await mine.until(wire.Ready)
        assert asked.term == TERM + 6
        await trio.sleep(0.05)
        assert mine.count("ring_events", event="head_unreachable") == 1


async def test_an_expelled_member_does_not_come_back_by_its_other_link(tmp_path: Path) -> None:
    """Its key opens no new link; but an empty message on an old one is a hello, and moves its route there."""
    liar, registry, theirs = LyingHead(SUITE), CollectorRegistry(), Keypair.generate()
    seats = (*liar.view.members[:3], replace(liar.view.members[3], curve_key=theirs.public), *liar.view.members[4:])
    view = replace(liar.view, members=seats)
    keys = KeyDirectory(tmp_path / "keys", SUITE)
    module = keys.open("ESTK0000000001")
    store = Store(tmp_path / "registers.sqlite", StorageCipher(bytes(32)))
    bare: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    async with LinkContext() as link, trio.open_nursery() as nursery:
        context = MembershipContext(
            SUITE, module, link, Contributions(AccountRepository(store), "ESTK0000000001", DEFAULT_SCHEMA),
            NodeMetrics(registry), lambda: 0.0, QUARTER_HOURS, lambda _: None, lambda: None, lambda *_: None, "tcp://127.0.0.1:*",
            None, relay=False,
        )  # fmt: skip
        head = HeadDriver(
            context,
            view,
            0,
            {},
            lambda _: None,
            first=(0, 0),
            known=Incarnation(SUITE, view, 0, view.members[0].nonce),
            secrets=liar.secrets[0],
        )
        endpoint = await nursery.start(head.run)
        links = []
        for _ in range(2):
            socket = bare.socket(zmq.DEALER)
            socket.linger = 0
            socket.setsockopt(zmq.CURVE_SERVERKEY, module.curve.public)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, theirs.public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, theirs.secret)
            socket.connect(endpoint)
            socket.send(b"")
            links.append(socket)
            await _until(lambda: head._listener is not None and head._listener.counters.connects == len(links))
        links[1].send(wire.encode(ready(view, 3)))
        await _until(lambda: head._head.presence.present == 1 << 3)
        head.expel(1 << 3)
        assert head._head.presence.present == 0
        links[0].send(b"")
        links[0].send(wire.encode(ready(view, 3)))
        refused = "stromkreis_node_protocol_errors_total", {"reason": "expelled_member"}
        await _until(lambda: registry.get_sample_value(*refused) == 1)
        assert head._head.presence.present == 0
        nursery.cancel_scope.cancel()
    bare.destroy()
    store.close()
    keys.close()


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(120):
        while not condition():
            await trio.sleep(0.002)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if re.search("refuses|broke the protocol", each.getMessage())]


async def test_a_head_that_breaks_a_rule_again_and_again_writes_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(tmp_path) as mine:
        view = mine.liar.view
        mine.hears(*[replace(mine.liar.open(), ring=view.ring + 1)] * 50, *[mine.liar.open(round_=view.rounds)] * 50)
        await _until(lambda: mine.count("protocol_errors", reason="head_out_of_turn") == 50)
        assert mine.count("protocol_errors", reason="wrong_ring") == 50
    assert len(refusals(caplog)) == 2  # one for each reason


async def test_a_member_that_breaks_a_rule_again_and_again_writes_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(tmp_path) as mine, trio.open_nursery() as nursery:
        liar, context = mine.liar, replace(mine.membership._context, relay=True)
        known = Incarnation(SUITE, liar.view, 0, liar.view.members[0].nonce)
        head = HeadDriver(context, liar.view, 0, {}, lambda _: None, first=(0, 0), known=known, secrets=liar.secrets[0])
        await nursery.start(head.run)
        for number in range(1, 41):
            for position in (2, 3):
                head.from_member(position, replace(ready(liar.view, position), epoch=liar.view.epoch + 1))
            await _until(lambda: mine.count("protocol_errors", reason="wrong_ring") == 2 * number)  # noqa: B023
        nursery.cancel_scope.cancel()
    lines = refusals(caplog)
    assert [liar.view.members[position].identity in lines[at] for at, position in enumerate((2, 3))] == [True, True]
    assert len(lines) == 2  # one for each peer


async def test_a_coordinator_that_breaks_a_rule_again_and_again_writes_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Keypair.generate()
    async with gateway(tmp_path) as mine, trio.open_nursery() as nursery:
        context = mine.membership._context
        curve = context.module.curve
        async with context.link.listen("tcp://127.0.0.1:*", server, {curve.public: "it"}.get) as listener:
            ours = whole(mine, tmp_path)
            session = CoordinatorSession(
                context.link, listener.endpoint, server.public, curve, ours.identity, context.metrics
            )
            nursery.start_soon(session.run, ours)
            await listener.receive()
            for number in range(1, 41):
                listener.send("it", b"no message")
                await _until(lambda: sum(_errors(mine)) == number)  # noqa: B023
            nursery.cancel_scope.cancel()
    assert len(refusals(caplog)) == 1


def _errors(mine: Gateway) -> list[float]:
    return [
        sample.value
        for family in mine._registry.collect()
        for sample in family.samples
        if sample.name == "stromkreis_node_protocol_errors_total"
    ]


def whole(mine: Gateway, tmp_path: Path) -> node.gateway.Gateway:
    """The gateway context a membership, as far as the coordinator's messages reach."""
    context = mine.membership._context
    accounts = context.contributions._accounts
    assert isinstance(accounts, AccountRepository)
    store = accounts._store
    trust = TrustStore(CertificateAuthority.create(tmp_path / "pki", NOW).root, lambda: 0.0)
    shared = Shared(
        suite=SUITE, link=context.link, accounts=accounts, attendance=AttendanceRepository(store),
        bills=BillRepository(store), counters=DurableCounters(CounterRepository(store)), metrics=context.metrics,
        policy=Policy(honest_floor=2), listen="",
        calendar=CalendarPolicy(rounds_min=1, time_lapse=True), clock=lambda: 15.0,
        trust=trust, public_host=None,
        relay=False, metering=MeteringLogRepository(store), logs=GatewayLogRepository(store), version="0",
        profile_sets=ProfileSetRepository(store),
        deliveries=DeliveryServices(
            repository=UseCaseRepository(store), trust=trust, metrics=context.metrics,
            tls_context=partial(client_context, tmp_path / "pki" / "root.pem"),
        ),
        seats=RingSeatRepository(store), bases=AccountBasisRepository(store), contribute_without_profile=True,
        sheets=PriceSheetRepository(store), beacon=BeaconRepository(store),
        list_key=SUITE.verify_key(LIST_SEED),
    )  # fmt: skip
    return node.gateway.Gateway(shared, context.module, "north", "tcp://127.0.0.1:1", bytes(32), [])


def call(schema: Schema, epoch: int = 1) -> wire.EpochCall:
    return wire.EpochCall(epoch, 0, "north", 0, 0, (), schema.to_bytes(), 8, 0, 10_000, 0, 900, 6, 50_000, 0, 63, ())


@pytest.mark.parametrize("is_over", [False, True], ids=["living", "over"])
async def test_while_a_ring_lives_the_coordinators_bare_word_settles_nothing(tmp_path: Path, *, is_over: bool) -> None:
    async with gateway(tmp_path) as mine:
        liar, contributions = mine.liar, mine.membership._context.contributions
        mine.head_at()
        mine.hears(liar.open())
        mine.reads(0, 150)
        await mine.until(wire.MaskedInput)
        ours = whole(mine, tmp_path)
        ours._epochs.account.contributions = contributions
        if not is_over:
            living = JoinedEpoch(call(DEFAULT_SCHEMA), liar.secrets[0], bytes(16), membership=mine.membership)
            ours._epochs._epochs[1] = living
        ours._epochs.account.review.start.is_done = True
        assert (ours.question() is not None) is is_over
        answer = wire.LastContribution(liar.view.epoch, 0, 1, -1, 0, -1, 0, b"", b"", bytes(64))
        if is_over:  # an answer that nobody has signed settles nothing
            with pytest.raises(RemoteProtocolError, match="forged_statement"):
                await ours.receive(answer)
            assert contributions.unsettled == (1, 0)
        statement = SUITE.sign(SUITE.signing_key(LIST_SEED), last_contribution_text(ours.identity, answer))
        await ours.receive(replace(answer, statement=statement))
        assert contributions.unsettled == (None if is_over else (1, 0))


COUNT, ENERGY, *_ = DEFAULT_SCHEMA.slots


@pytest.mark.parametrize(
    "slots",
    [(COUNT,), (COUNT, replace(ENERGY, obis="nonsense")), (COUNT, replace(ENERGY, unit="furlong"))],
    ids=["no energy", "no OBIS code", "no unit"],
)
async def test_a_call_for_registers_that_no_meter_has_is_refused(tmp_path: Path, slots: tuple[Slot, ...]) -> None:
    async with gateway(tmp_path) as mine, trio.open_nursery() as nursery:
        ours = whole(mine, tmp_path)
        ours._epochs.serve_in(nursery)
        with pytest.raises(RemoteProtocolError, match=r"unknown_(schema|register)"):
            await ours.receive(call(Schema(slots)))
        assert (ours._epochs._epochs, ours._epochs.account.contributions) == ({}, None)
