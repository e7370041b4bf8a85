"""What members say in a running ring, as the coordinator takes it: bounded, whoever says it however often."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from coordinator.epoch_config import EpochConfig
from coordinator.events import Event, MessagesReady, MisbehaviourReported, StatusChanged
from coordinator.gwa.misbehaviour import MisbehaviourReports
from coordinator.metrics import CoordinatorMetrics
from coordinator.rings.areas import SETTLE_S, Areas
from coordinator.rings.epochs import EpochRing, Phase
from coordinator.rings.numbers import EpochNumbers
from coordinator.rings.rounds import HEAD_AT_S, Rounds
from coordinator.storage.irrevocable import FILE_NAME, IrrevocableLog
from coordinator.storage.store import Store
from loadtest.coordination import lay_out
from protocol import wire
from protocol.dcnet.crypto.suite import StandardSuite
from protocol.dcnet.machines.effects import Misbehaviour, ReportMisbehaviour
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA
from protocol.errors import RemoteProtocolError

NOW_S = 1_772_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path / 'coordinator.sqlite'}")
    yield made
    made.close()


class Running:
    """A running ring of eight on a real store, and all that was sent and heard."""

    def __init__(self, store: Store) -> None:
        self.now_s = NOW_S
        self.sent: list[tuple[str, wire.Message]] = []
        self.metrics = CoordinatorMetrics(CollectorRegistry())
        self.misbehaviour = MisbehaviourReports(store.misbehaviour, self.metrics, lambda: self.now_s, self._emit)
        self.changed = trio.Event()
        irrevocable = IrrevocableLog(Path(str(store.database.engine.url.database)).with_name(FILE_NAME))
        self.rounds = Rounds(store.rounds, irrevocable, dict, self.metrics, self._emit, lambda _: [], lambda _: None)
        config = EpochConfig(ring_size=16, corrupt=0.0, dropout=0.1)
        areas = self.areas = Areas(
            StandardSuite(), config, lambda _: DEFAULT_SCHEMA, [], ["north"], bytes, EpochNumbers(), lambda _: bytes(64)
        )
        for index in range(32):
            areas.arrive(areas.areas["north"], f"north{index}", NOW_S)
        ((area, self.epoch),) = areas.call_due(NOW_S + SETTLE_S)
        lay_out(self.epoch, sorted(area.present), NOW_S + SETTLE_S)
        self.epoch.on_timer(self.epoch.next_timer_s())
        assert self.epoch.phase is Phase.RUNNING
        self.now_s = self.ring.view.timing.open_at_s(3)

    def _emit(self, event: Event) -> None:
        match event:
            case MessagesReady(messages):
                self.sent += [(each.identity, each.message) for each in messages]
            case MisbehaviourReported():
                self.misbehaviour.add(event)
            case StatusChanged():
                self.changed.set()

    @property
    def ring(self) -> EpochRing:
        return self.epoch.rings[0]

    def say(self, position: int, message: wire.Message) -> None:
        self.rounds.receive(self.ring.view.members[position].identity, self.epoch, message, self.now_s)

    def counted(self, misbehaviour: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "stromkreis_misbehaviour_reports_total", {"misbehaviour": misbehaviour}
        )


@pytest.fixture
def running(store: Store) -> Running:
    return Running(store)


async def test_no_epoch_is_forgotten_while_the_end_of_its_round_waits_for_the_disk(running: Running) -> None:
    now_s = running.epoch.end_s() + 10_000
    for ring in running.epoch.rings:
        assert ring.ledger is not None
        running.rounds.carry_out(running.epoch, ring, ring.ledger.on_timer(now_s))  # nobody opened anything
    assert running.epoch.over
    waiting = running.rounds.writer.waiting_epochs()
    assert waiting == {running.epoch.call.epoch}
    assert running.areas.drop_finished(now_s, waiting) == []
    assert running.areas.drop_finished(now_s, set()) == [running.epoch]


async def test_whom_a_ledger_names_is_in_the_store(running: Running, store: Store, nursery: trio.Nursery) -> None:
    view, ring = running.ring.view, running.ring
    running.rounds.carry_out(running.epoch, ring, [ReportMisbehaviour(3, 0, 5, Misbehaviour.CORRUPT_SUM)])
    running.rounds.carry_out(running.epoch, ring, [ReportMisbehaviour(3, 2, 1, Misbehaviour.BAD_DEAL)])
    nursery.start_soon(running.misbehaviour.run)
    with trio.fail_after(120):
        await running.changed.wait()
    names = [each.identity for each in view.members]
    kept = store.misbehaviour.page(limit=10)
    assert {(each.reporter, each.reported, each.misbehaviour, each.round) for each in kept} == {
        (names[0], names[5], "corrupt_sum", 3), (names[2], names[1], "bad_deal", 3)
    }  # fmt: skip


async def test_a_head_that_goes_on_saying_where_it_is_does_not_flood_its_ring(running: Running) -> None:
    view = running.ring.view
    for port in range(100):
        running.say(0, wire.HeadAt(view.epoch, view.ring, 0, f"tcp://127.0.0.1:{port + 1024}", bytes(70)))
    assert len(running.sent) == view.size
    running.say(3, wire.HeadSilent(view.epoch, view.ring, 0, 3))
    last = wire.HeadAt(view.epoch, view.ring, 0, "tcp://127.0.0.1:1123", bytes(70))
    assert running.sent[view.size :] == [(view.members[3].identity, last)], "who asks is told the last one"
    running.now_s += HEAD_AT_S
    running.say(0, last)
    assert len(running.sent) == 2 * view.size + 1


async def test_what_is_relayed_is_no_larger_than_what_the_ring_says(running: Running) -> None:
    view = running.ring.view
    share = wire.MaskedInput(
        view.epoch, view.ring, 3, 0, bytes(8 * view.word_count), bytes(32), bytes(16), b"", b"", bytes(64)
    )
    confirmed = wire.Confirmed(view.epoch, view.ring, 3, 0, bytes(2), bytes(16 * view.size))
    everybody = view.to_wire(view.everybody)
    all_anew = wire.Open(
        view.epoch, view.ring, 0, 3, 0, everybody, everybody, bytes(16 * view.size), bytes(64 * view.size), 3, everybody
    )
    for message in (share, confirmed, all_anew):
        running.say(2, wire.Relay(view.epoch, view.ring, 0, wire.encode(message) + bytes(64)))
    assert len(running.sent) == 3
    with pytest.raises(RemoteProtocolError, match="oversized_message"):
        running.say(2, wire.Relay(view.epoch, view.ring, 0, bytes(8192)))
    assert len(running.sent) == 3
