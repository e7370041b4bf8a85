"""One ring service for each area: who stands by, who takes over, and that whoever was deposed writes nothing more."""

from __future__ import annotations

import fcntl
import logging
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

from coordinator.rings.numbers import EpochNumbers
from coordinator.storage.engine import Database
from coordinator.storage.epochs import EpochRecord
from coordinator.storage.lease import FREE_S, STALLED_S, Deposed, Lease
from coordinator.storage.store import Store
from protocol.dcnet.setup.schema import DEFAULT_SCHEMA


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Process:
    """One process's view: connections, lease, and the ring service's repositories behind the fence."""

    def __init__(self, url: str, clock: Clock, name: str, areas: tuple[str, ...] = ("north",)) -> None:
        self.store = Store(url)
        self.lease = Lease(self.store.database, areas, name, clock)
        self.fenced = self.store.fenced(self.lease.fence)

    def write(self, epoch: int, area: str = "north") -> None:
        """Add an epoch as the ring service does."""
        self.fenced.epochs.add(EpochRecord(epoch, area, DEFAULT_SCHEMA, 4, 0, 900), [])

    def die(self) -> None:
        """What the kernel does when a process is killed: its locks go, and it says nothing to the database."""
        self.lease._lock.release()


class World:
    """Processes on one database."""

    def __init__(self, url: str) -> None:
        self.url, self.clock, self.processes = url, Clock(), list[Process]()

    def start(self, name: str, *areas: str) -> Process:
        """A process that has not tried yet."""
        made = Process(self.url, self.clock, name, areas or ("north",))
        self.processes.append(made)
        return made

    @property
    def is_server(self) -> bool:
        """Whether the database is PostgreSQL."""
        return self.url.startswith("postgresql")


@pytest.fixture
def world(any_database: str) -> Iterator[World]:
    made = World(any_database)
    yield made
    for each in made.processes:
        each.die()
        each.store.close()


def test_a_second_process_waits_until_the_first_gives_its_lease_back(world: World) -> None:
    first, second = world.start("one"), world.start("two")
    assert first.lease.take() is None
    assert second.lease.take() == "one is the ring service of area north (term 1)"
    first.lease.renew()
    first.lease.release()
    assert second.lease.take() is None
    assert second.lease.term == 2


def test_a_killed_process_is_followed_and_a_hanging_one_later(world: World) -> None:
    first, second, third = world.start("one"), world.start("two"), world.start("three")
    assert first.lease.take() is None
    first.die()
    if world.is_server:  # a server that restarts drops the locks of the living, too
        assert second.lease.take() is not None
        world.clock.now_s += FREE_S
    assert second.lease.take() is None
    assert third.lease.take() is not None  # the second lives, and hangs
    world.clock.now_s += STALLED_S - 1.0
    assert third.lease.take() is not None
    world.clock.now_s += 1.0
    assert third.lease.take() is None
    assert third.lease.term == 3


def test_whoever_counts_its_beat_up_is_not_followed(world: World) -> None:
    first, second = world.start("one"), world.start("two")
    assert first.lease.take() is None
    for _ in range(20):
        first.lease.renew()
        assert second.lease.take() is not None
        world.clock.now_s += 2.0


def test_a_deposed_process_writes_nothing_more(world: World) -> None:
    first, second = world.start("one"), world.start("two")
    assert first.lease.take() is None
    first.write(0)
    assert second.lease.take() is not None
    world.clock.now_s += STALLED_S
    assert second.lease.take() is None
    for attempt in (lambda: first.write(1), first.lease.renew, first.lease.reserve):
        with pytest.raises(Deposed, match="two is the ring service of north now"):
            attempt()
    second.write(2)
    assert [each.epoch for each in second.store.epochs.all()] == [0, 2]
    first.lease.release()  # takes nothing from the second
    second.write(3)


def test_a_write_under_way_ends_before_the_lease_changes_hands(world: World) -> None:
    first, second = world.start("one"), world.start("two")
    assert first.lease.take() is None
    assert second.lease.take() is not None
    world.clock.now_s += STALLED_S
    done = threading.Event()

    def take() -> None:
        assert second.lease.take() is None
        done.set()

    thread = threading.Thread(target=take)
    with first.fenced.database.write() as connection:
        thread.start()
        assert not done.wait(0.3)
        connection.execute(text("UPDATE leases SET name = 'still one'"))
        assert not done.is_set()
    thread.join(60)
    assert done.is_set()
    with pytest.raises(Deposed):
        first.write(0)


def test_renewing_does_not_wait_for_writes_in_postgresql(postgresql: str) -> None:
    first = Process(postgresql, Clock(), "one")
    assert first.lease.take() is None
    with first.fenced.database.write():
        first.lease.renew()  # would run into the statement's timeout
    first.lease.release()
    first.store.close()


def test_a_lock_that_the_server_dropped_is_taken_again(postgresql: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World(postgresql)
    first, second = world.start("one"), world.start("two")
    assert first.lease.take() is None
    assert second.lease.take() is not None
    world.clock.now_s += FREE_S - 1.0
    with second.store.database.write() as connection:
        held = "SELECT DISTINCT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        assert connection.execute(text(held)).all()
    second.lease._lock.release()
    with caplog.at_level(logging.WARNING):
        first.lease.renew()
    assert "the connection that shows others that we are the ring service was lost" in caplog.text
    world.clock.now_s += STALLED_S - 1.0
    assert second.lease.take() is not None  # it has counted its beat up
    first.lease.renew()
    for each in world.processes:
        each.lease.release()
        each.store.close()


def test_areas_of_one_database_have_ring_services_of_their_own(world: World) -> None:
    north, south = world.start("one", "north"), world.start("two", "south", "west")
    both = world.start("three", "west", "north")
    assert north.lease.take() is None
    assert south.lease.take() is None
    assert both.lease.take() == "one is the ring service of area north (term 1)"
    north.lease.release()
    assert both.lease.take() == "two is the ring service of area west (term 1)"
    assert world.start("four", "north").lease.take() is None  # all or none: what is free was not kept


def test_ring_services_never_draw_the_same_epoch_number(world: World) -> None:
    ours, theirs = world.start("one", "north"), world.start("two", "south")
    numbers, drawn = {}, list[int]()
    for process, area in ((ours, "north"), (theirs, "south")):
        assert process.lease.take() is None
        numbers[area] = EpochNumbers(*process.lease.numbers)
    for _ in range(24):
        for process, area in ((ours, "north"), (theirs, "south")):
            if numbers[area].is_low:
                numbers[area].extend(*process.lease.reserve(numbers[area].at_least))
            number = numbers[area].draw()
            assert number is not None
            process.write(number, area)
            drawn.append(number)
    assert len(set(drawn)) == 48
    assert max(drawn) < 140  # what is left over is little: gateways take no number that is far ahead


def test_a_restart_goes_on_with_the_number_after_the_last(world: World) -> None:
    first = world.start("one")
    assert first.lease.take() is None
    assert first.lease.numbers[0] == 0
    for number in range(3):
        first.write(number)
    first.lease.release()
    again = world.start("again")
    assert again.lease.take(reached=[1]) is None
    assert again.lease.numbers[0] == 3
    again.lease.release()
    restored = world.start("restored")  # its own file knows of an epoch that the database has lost
    assert restored.lease.take(reached=[8]) is None
    assert restored.lease.numbers[0] == 9


def test_a_release_without_leases_is_waited_for(world: World) -> None:
    process = world.start("one")
    with ExitStack() as held:
        if world.is_server:
            database = Database(world.url)
            connection = held.enter_context(database.engine.connect())
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": zlib.crc32(b"ring service")})
            held.callback(database.close)
            held.callback(connection.invalidate)
        else:
            file = held.enter_context(Path(f"{process.store.database.engine.url.database}.ring-service").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        assert "a ring service of an earlier release" in str(process.lease.take())
    assert process.lease.take() is None


def test_numbers_that_are_used_up_are_waited_for() -> None:
    numbers = EpochNumbers(5, 7)
    assert [numbers.draw(), numbers.draw(), numbers.draw()] == [5, 6, None]
    assert numbers.is_used_up
    assert numbers.is_low
    numbers.extend(7, 9)
    assert numbers.draw(at_least=8) == 8
    assert numbers.draw(at_least=12) is None  # said by gateways after a restore
    assert numbers.at_least == 12
    numbers.extend(20, 22)
    assert numbers.draw() == 20
    assert EpochNumbers().draw(3) == 3
