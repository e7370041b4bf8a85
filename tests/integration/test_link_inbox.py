"""The inbox: nothing that one task waits for is lost, comes late, or keeps another from its turn."""

import random
from collections import Counter

import pytest
import trio
import trio.testing
import zmq
from trio.testing import MockClock

from protocol.link import Inbox, Keypair, LinkContext
from protocol.link.deadlines import Alarm, DeadlineQueue
from protocol.link.edge import BURST

SERVER, ALICE = Keypair.generate(), Keypair.generate()
ANY_PORT = "tcp://127.0.0.1:*"
WATCHDOG_S = 120


@pytest.fixture
async def alarms(nursery: trio.Nursery) -> DeadlineQueue:
    alarms = DeadlineQueue()
    nursery.start_soon(alarms.run)
    return alarms


async def test_a_deadline_is_met_to_the_moment_however_often_it_was_moved(
    alarms: DeadlineQueue, autojump_clock: MockClock
) -> None:
    inbox: Inbox[str, bytes] = Inbox(alarms, 4)
    began_s = trio.current_time()
    for wait_s in (5.0, 60.0, 0.5, 7200.0, 0.0, 3.0, -1.0):
        due_s = trio.current_time() + min(max(0.0, wait_s), 3600.0)
        assert await inbox.receive(wait_s) is None
        assert trio.current_time() == pytest.approx(due_s)

    async def post_every_second() -> None:
        for number in range(8):
            await trio.sleep(1.0)
            assert inbox.post(f"{number}")

    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(post_every_second)
        for number in range(8):  # each wait is cut short, and moves the deadline on or back
            assert await inbox.receive(random.Random(number).choice([1.5, 4.0, 100.0])) == f"{number}"
        assert trio.current_time() == pytest.approx(began_s + 8.0)
    assert await inbox.receive(2.5) is None
    assert trio.current_time() == pytest.approx(began_s + 10.5)


async def test_alarms_of_many_ring_in_their_order_and_none_is_kept_after_its_time(
    alarms: DeadlineQueue, autojump_clock: MockClock
) -> None:
    dice = random.Random(1)
    waits_s = [dice.uniform(0.0, 50.0) for _ in range(200)]
    woken: list[float] = []

    async def wait(wait_s: float) -> None:
        inbox: Inbox[str, bytes] = Inbox(alarms, 1)
        assert await inbox.receive(wait_s) is None
        woken.append(wait_s)

    async with trio.open_nursery() as nursery:
        for wait_s in waits_s:
            nursery.start_soon(wait, wait_s)
    assert woken == sorted(waits_s)
    assert not alarms._heap


async def test_a_later_alarm_is_not_entered_and_an_earlier_one_is_at_once(
    alarms: DeadlineQueue, autojump_clock: MockClock
) -> None:
    alarm = Alarm(trio.lowlevel.ParkingLot())
    alarms.set(alarm, 50.0)
    for due_s in (60.0, 50.0, 70.0):
        alarms.set(alarm, due_s)
    assert len(alarms._heap) == 1
    await trio.sleep(1.0)
    alarms.set(alarm, 4.0)
    began_s = trio.current_time()
    with trio.move_on_after(10.0):
        await alarm.lot.park()
    assert trio.current_time() - began_s == pytest.approx(3.0)


async def test_an_inbox_is_bounded_and_what_is_there_comes_before_a_deadline(
    alarms: DeadlineQueue, autojump_clock: MockClock
) -> None:
    inbox: Inbox[int, bytes] = Inbox(alarms, 3)
    assert [inbox.post(number) for number in range(5)] == [True, True, True, False, False]
    assert [await inbox.receive(-1.0) for _ in range(4)] == [0, 1, 2, None]
    assert inbox.post(9)


async def test_a_full_inbox_and_a_deadline_that_is_always_due_let_others_run(
    alarms: DeadlineQueue, autojump_clock: MockClock
) -> None:
    inbox: Inbox[int, bytes] = Inbox(alarms, 1)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(10 * BURST):
            inbox.post(1)
            assert await inbox.receive(1.0) == 1
        assert turns >= 5
        before = turns
        for _ in range(10):
            assert await inbox.receive(0.0) is None
        assert turns >= before + 5
        nursery.cancel_scope.cancel()


async def test_cancelling_takes_no_event(alarms: DeadlineQueue, autojump_clock: MockClock) -> None:
    inbox: Inbox[int, bytes] = Inbox(alarms, 4)
    with trio.move_on_after(1.0) as scope:
        await inbox.receive(100.0)
    assert scope.cancelled_caught
    inbox.post(1)
    assert await inbox.receive(0.0) == 1


async def test_posted_events_come_before_the_links_messages_and_both_wake() -> None:
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, {ALICE.public: "alice"}.get)
            connection = links.connect(listener.endpoint, SERVER.public, ALICE)
            at_listener: Inbox[str, tuple[object, bytes]] = links.inbox(8)
            at_listener.follow(listener)
            await connection.send(b"one")
            assert await at_listener.receive(WATCHDOG_S) == ("alice", b"one")
            mine: Inbox[str, bytes] = links.inbox(8)
            mine.follow(connection)
            assert listener.send("alice", b"two")
            while not connection.edge.poll_readable():
                await trio.sleep(0.001)
            assert mine.post("posted")
            assert [await mine.receive(1.0), await mine.receive(1.0)] == ["posted", b"two"]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mine.receive, WATCHDOG_S)
                await trio.testing.wait_all_tasks_blocked()
                mine.post("woken")
            mine.follow(None)
            assert listener.send("alice", b"three")
            assert await mine.receive(0.05) is None
            mine.follow(connection)
            assert await mine.receive(WATCHDOG_S) == b"three"
            await connection.aclose()
            assert await mine.receive(0.01) is None
            mine.post("still")
            assert await mine.receive(1.0) == "still"


async def test_a_flood_of_what_is_nobodys_lets_others_run() -> None:
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, {ALICE.public: "alice"}.get)
            connection = links.connect(listener.endpoint, SERVER.public, ALICE)
            await connection.send(b"first")
            assert await listener.receive() == ("alice", b"first")
            listener.disconnect("alice")
            for _ in range(200):
                await connection.send(b"unheard")
            while not listener.edge.poll_readable():
                await trio.sleep(0.001)
            inbox: Inbox[str, tuple[object, bytes]] = links.inbox(1)
            inbox.follow(listener)
            turns = 0

            async def other() -> None:
                nonlocal turns
                while listener.counters.dropped_disconnected < 200:
                    turns += 1
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(other)
                while listener.counters.dropped_disconnected < 200:
                    assert await inbox.receive(0.01) is None
            assert turns >= 200 // BURST - 2  # the first and the last burst may be short of a turn


@pytest.mark.parametrize("seed", range(4))
async def test_random_senders_on_a_followed_link_lose_nothing(seed: int) -> None:
    """The task that receives also sends, and so do others on its socket: each send may clear the descriptor."""
    dice = random.Random(seed)
    count = 300
    got: Counter[object] = Counter()
    echoed: Counter[bytes] = Counter()
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, {ALICE.public: "alice"}.get)
            connection = links.connect(listener.endpoint, SERVER.public, ALICE)
            await connection.send(b"here")
            await listener.receive()
            inbox: Inbox[int, bytes] = links.inbox(count)
            inbox.follow(connection)

            async def pause() -> None:
                for _ in range(dice.choice([0, 0, 1, 4])):
                    await trio.lowlevel.checkpoint()

            async def send() -> None:
                for number in range(count):
                    while not listener.send("alice", b"%d" % number):
                        await trio.lowlevel.checkpoint()
                    await pause()

            async def post() -> None:
                for number in range(count):
                    assert inbox.post(number)
                    connection.edge.socket.getsockopt(zmq.EVENTS)  # clears the descriptor, and tells nobody
                    connection.edge.after_call()
                    await pause()

            async def collect() -> None:
                while sum(echoed.values()) < count:
                    echoed[(await listener.receive())[1]] += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                nursery.start_soon(post)
                nursery.start_soon(collect)
                while sum(got.values()) < 2 * count:
                    event = await inbox.receive(WATCHDOG_S)
                    assert event is not None
                    got[event] += 1
                    if isinstance(event, bytes):
                        await connection.send(event)
                    await pause()
    numbers = [b"%d" % number for number in range(count)]
    assert got == Counter([*range(count), *numbers])
    assert echoed == Counter(numbers)
