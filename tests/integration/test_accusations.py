"""What gateways say of each other: it outlives the coordinator, counts once an epoch, and no liar makes it grow."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from coordinator.config import EpochConfig
from coordinator.gwa.accusations import ACCUSED_MAX, KEEP_DAYS, AccusationBook, Accusations, Accused
from coordinator.gwa.areas import SETTLE_S, Areas
from coordinator.gwa.epochs import AreaEpoch, Joined, Phase, Ring
from coordinator.metrics import CoordinatorMetrics
from coordinator.rounds import Rounds
from coordinator.store import Store
from protocol import wire
from protocol.dcnet.rings import positions_of
from protocol.dcnet.schema import DEFAULT_SCHEMA
from protocol.dcnet.suite import StandardSuite
from protocol.errors import RemoteProtocolError

NOW_S = 1_772_000_000.0
NOW_MS = 1_772_000_000_000
DAY_MS = 86_400_000


def said(accuser: str, accused: str, epoch: int = 1, lie: str = "spoilt_sum", ms: int = NOW_MS) -> Accused:
    return Accused(accuser, accused, lie, "north", 1, epoch, 0, 7, ms, ms)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "coordinator.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{path}")
    yield made
    made.close()


@pytest.fixture
def book(store: Store) -> AccusationBook:
    return AccusationBook(store)


def test_it_is_counted_once_an_epoch_and_read_from_a_reopened_store(book: AccusationBook, path: Path) -> None:
    for epoch, ms in ((1, 0), (1, 10), (2, 20), (2, 30), (5, 40)):  # said again in an epoch: after a restart
        book.write([said("ALICE", "MALLORY", epoch, ms=NOW_MS + ms)], NOW_MS + ms)
    book.write([said("BOB", "MALLORY", 5, ms=NOW_MS + 50), said("ALICE", "MALLORY", 5, "bad_deal")], NOW_MS + 50)
    again = Store(f"sqlite:///{path}")
    found = AccusationBook(again).page(limit=10)
    assert [(each.accuser, each.lie, each.epochs, each.epoch) for each in found] == [
        ("BOB", "spoilt_sum", 1, 5), ("ALICE", "spoilt_sum", 3, 5), ("ALICE", "bad_deal", 1, 5)
    ]  # fmt: skip
    assert (found[1].first_ms, found[1].last_ms) == (NOW_MS, NOW_MS + 40)
    again.close()


def test_a_head_that_accuses_everybody_in_every_epoch_fills_no_table(book: AccusationBook) -> None:
    book.write([said("HONEST", "LIAR")], NOW_MS)
    for epoch in range(1, 9):
        batch = [said("LIAR", f"VICTIM{epoch * 40 + n}", epoch, ms=NOW_MS + epoch) for n in range(80)]
        book.write(batch, NOW_MS + epoch)
    assert book.count() == ACCUSED_MAX + 1
    kept = book.page(limit=1000, accuser="LIAR")
    assert {each.epoch for each in kept} == {8}, "what it said last"
    assert book.page(limit=10, accuser="HONEST") == [said("HONEST", "LIAR")]


def test_what_was_not_repeated_is_forgotten(book: AccusationBook) -> None:
    book.write([said("ALICE", "MALLORY"), said("BOB", "MALLORY")], NOW_MS)
    book.write([said("BOB", "MALLORY", 2, ms=NOW_MS + DAY_MS)], NOW_MS + DAY_MS)
    book.write([], NOW_MS + KEEP_DAYS * DAY_MS + 1)
    assert [each.accuser for each in book.page(limit=10)] == ["BOB"]


async def test_it_waits_for_a_database_that_fails(
    book: AccusationBook, path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.gwa.accusations._RETRY_S", 0.01)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TRIGGER refuse BEFORE INSERT ON accusations BEGIN SELECT RAISE(FAIL, 'full'); END")
    metrics = CoordinatorMetrics(CollectorRegistry())
    accusations, turned = Accusations(book, metrics, lambda: NOW_S), trio.Event()
    accusations.hear("ALICE", "MALLORY", "wrong_seed", "north", (1, 0, 7))
    nursery.start_soon(accusations.run, turned.set)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    with trio.fail_after(30):
        while not value("stromkreis_peer_errors_total", reason="store_error"):
            await trio.sleep(0.01)
        accusations.hear("BOB", "MALLORY", "wrong_seed", "north", (1, 0, 8))
        assert (book.count(), turned.is_set()) == (0, False)
        with sqlite3.connect(path) as database:
            database.execute("DROP TRIGGER refuse")
        await turned.wait()
    assert {each.accuser for each in book.page(limit=10)} == {"ALICE", "BOB"}
    assert value("stromkreis_accusations_total", lie="wrong_seed") == 2


class Running:
    """A running ring of eight on a real store, and all that was sent and heard."""

    def __init__(self, store: Store) -> None:
        self.now_s = NOW_S
        self.metrics = CoordinatorMetrics(CollectorRegistry())
        self.accusations = Accusations(AccusationBook(store), self.metrics, lambda: self.now_s)
        self.rounds = Rounds(store, self.metrics, self.accusations, lambda *_: None, lambda: None)
        config = EpochConfig(ring_size=16, corrupt=0.0, dropout=0.1)
        areas = Areas(StandardSuite(), config, DEFAULT_SCHEMA, [], ["north"], bytes, 0)
        for index in range(32):
            areas.arrive(areas.areas["north"], f"north{index}", NOW_S)
        ((area, self.epoch),) = areas.call_due(NOW_S + SETTLE_S)
        for name in sorted(area.present):
            self.epoch.join(name, Joined(bytes(32), bytes(32), bytes(70), bytes(700)), NOW_S + SETTLE_S)
        self.epoch.on_timer(self.epoch.next_timer_s())
        assert self.epoch.phase is Phase.RUNNING
        self.now_s = self.ring.view.timing.open_at_s(3)

    @property
    def ring(self) -> Ring:
        return self.epoch.rings[0]

    def say(self, position: int, message: wire.Message, epoch: AreaEpoch | None = None) -> None:
        identity = self.ring.view.members[position].identity
        self.rounds.receive(identity, epoch or self.epoch, message, self.now_s)

    def counted(self, lie: str) -> float | None:
        return self.metrics.registry.get_sample_value("stromkreis_accusations_total", {"lie": lie})


@pytest.fixture
def running(store: Store) -> Running:
    return Running(store)


async def test_a_bad_deal_is_heard_once_for_each_neighbour_and_of_nobody_else(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    view = running.ring.view
    neighbours = positions_of(view.neighbourhoods[2])
    for _ in range(50):
        running.say(2, wire.BadDeal(view.epoch, view.ring, neighbours[0]))
    assert (caplog.text.count("lies: bad_deal"), running.counted("bad_deal")) == (1, 1)
    stranger = next(position for position in range(view.size) if not view.neighbourhoods[2] >> position & 1)
    for position in (stranger, 2, 500):
        with pytest.raises(RemoteProtocolError, match="not_a_neighbour"):
            running.say(2, wire.BadDeal(view.epoch, view.ring, position))
    assert running.counted("bad_deal") == 1


async def test_what_a_ring_says_is_in_the_store(running: Running, book: AccusationBook, nursery: trio.Nursery) -> None:
    view, turned = running.ring.view, trio.Event()
    dealer = positions_of(view.neighbourhoods[2])[0]
    running.say(0, wire.Accused(view.epoch, view.ring, 0, 3, 5, int(wire.Lie.SPOILT_SUM)))
    running.say(2, wire.BadDeal(view.epoch, view.ring, dealer))
    nursery.start_soon(running.accusations.run, turned.set)
    with trio.fail_after(30):
        await turned.wait()
    names = [each.identity for each in view.members]
    assert {(each.accuser, each.accused, each.lie, each.round) for each in book.page(limit=10)} == {
        (names[0], names[5], "spoilt_sum", 3), (names[2], names[dealer], "bad_deal", 3)
    }  # fmt: skip
