"""
The hunt for lost wake-ups: interleavings that clear ZMQ_FD under a parked task, on purpose and at random.

A lost wake-up is a task that sleeps for ever, so every test runs under a watchdog and fails by it.
"""

import random
import select
from collections import Counter

import pytest
import trio
import trio.testing
import zmq

from protocol.link import Connection, Keypair, LinkContext, LinkLimits, Listener

SERVER = Keypair.generate()
WATCHDOG_S = 120


def block_until_readable(end: Connection | Listener) -> None:
    """Hold the whole trio thread, poller included, until libzmq's I/O thread has set the descriptor."""
    readable, _, _ = select.select([end.edge.fd], [], [], 5)
    assert readable


@pytest.mark.parametrize("clears_it", ["a send", "a look at the events", "another receive"])
async def test_whoever_clears_the_descriptor_wakes_the_parked_receiver(clears_it: str) -> None:
    alice = Keypair.generate()
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen("tcp://127.0.0.1:*", SERVER, {alice.public: "alice"}.get)
            connection = links.connect(listener.endpoint, SERVER.public, alice)
            await connection.send(b"0")
            await listener.receive()
            received = []

            async def receive_one() -> None:
                received.append((await listener.receive())[1])

            for number in range(1, 30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive_one)
                    await trio.testing.wait_all_tasks_blocked()
                    connection.edge.socket.send(b"%d" % number, zmq.NOBLOCK)
                    block_until_readable(listener)
                    if clears_it == "a send":
                        assert listener.send("alice", b"x")
                    elif clears_it == "a look at the events":
                        listener.edge.refresh()
                    else:
                        connection.edge.socket.send(b"extra", zmq.NOBLOCK)
                        nursery.start_soon(receive_one)
            assert Counter(received) == Counter(
                [b"%d" % number for number in range(1, 30)] + [b"extra"] * 29 * (clears_it == "another receive")
            )


async def test_a_message_between_failed_attempt_and_look_wakes_the_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alice = Keypair.generate()
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen("tcp://127.0.0.1:*", SERVER, {alice.public: "alice"}.get)
            connection = links.connect(listener.endpoint, SERVER.public, alice)
            await connection.send(b"0")
            await listener.receive()
            take = listener.take

            def take_nothing_then_let_one_arrive() -> tuple[object, bytes] | None:
                try:
                    return take()
                except zmq.Again:
                    connection.edge.socket.send(b"just now", zmq.NOBLOCK)
                    block_until_readable(listener)
                    raise

            monkeypatch.setattr(listener, "take", take_nothing_then_let_one_arrive)
            for _ in range(30):
                assert await listener.receive() == ("alice", b"just now")


@pytest.mark.parametrize("seed", range(6))
async def test_random_senders_receivers_and_cancellations_deliver_everything_once(seed: int) -> None:
    dice = random.Random(seed)
    peers, senders, each = 4, 3, 60
    keys = [Keypair.generate() for _ in range(peers)]
    numbers = {pair.public: number for number, pair in enumerate(keys)}
    limits = LinkLimits(queue_messages=dice.choice([2, 3, 16]))
    at_listener: Counter[tuple[object, bytes]] = Counter()
    at_peer: Counter[tuple[int, bytes]] = Counter()
    expected = {
        (peer, b"%d/%d" % (sender, n)) for peer in range(peers) for sender in range(senders) for n in range(each)
    }

    async def yield_at_random() -> None:
        for _ in range(dice.choice([0, 0, 1, 3])):
            await trio.lowlevel.checkpoint()

    async def impatient(scope: trio.CancelScope) -> None:
        for _ in range(dice.randrange(4)):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links, trio.open_nursery() as everything:
            listener = links.listen("tcp://127.0.0.1:*", SERVER, numbers.get, limits=limits)

            async def echo() -> None:
                while True:
                    got = None
                    async with trio.open_nursery() as nursery:
                        if dice.random() < 0.3:
                            nursery.start_soon(impatient, nursery.cancel_scope)
                        got = await listener.receive()
                        nursery.cancel_scope.cancel()
                    if got is not None:
                        at_listener[got] += 1
                        while not listener.send(*got):
                            await trio.sleep(0)
                    await yield_at_random()

            async def send_some(connection: Connection, sender: int) -> None:
                for n in range(each):
                    sent = False
                    while not sent:
                        async with trio.open_nursery() as nursery:
                            if dice.random() < 0.3:
                                nursery.start_soon(impatient, nursery.cancel_scope)
                            await connection.send(b"%d/%d" % (sender, n))
                            sent = True
                            nursery.cancel_scope.cancel()
                    await yield_at_random()

            async def collect(connection: Connection, peer: int) -> None:
                while sum(at_peer.values()) < len(expected):
                    got = None
                    async with trio.open_nursery() as nursery:
                        if dice.random() < 0.3:
                            nursery.start_soon(impatient, nursery.cancel_scope)
                        got = await connection.receive()
                        nursery.cancel_scope.cancel()
                    if got is not None:
                        at_peer[peer, got] += 1
                    await yield_at_random()
                everything.cancel_scope.cancel()

            for _ in range(3):
                everything.start_soon(echo)
            for peer, pair in enumerate(keys):
                connection = links.connect(listener.endpoint, SERVER.public, pair, limits=limits)
                for sender in range(senders):
                    everything.start_soon(send_some, connection, sender)
                for _ in range(2):
                    everything.start_soon(collect, connection, peer)

    assert set(at_listener) == set(at_peer) == expected
    assert set(at_listener.values()) == set(at_peer.values()) == {1}


async def test_order_survives_cancelled_receives_and_bursts_leave_room() -> None:
    alice = Keypair.generate()
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links, trio.open_nursery() as nursery:
            listener = links.listen("tcp://127.0.0.1:*", SERVER, {alice.public: "alice"}.get)
            connection = links.connect(listener.endpoint, SERVER.public, alice)
            others_ran = 0

            async def count_ticks() -> None:
                nonlocal others_ran
                while True:
                    await trio.lowlevel.checkpoint()
                    others_ran += 1

            for number in range(200):
                await connection.send(number.to_bytes(2, "big"))
            await listener.receive()
            nursery.start_soon(count_ticks)
            await trio.lowlevel.checkpoint()
            received = [0]
            while len(received) < 200:
                with trio.CancelScope() as scope:
                    if len(received) % 5 == 0:
                        scope.cancel()
                    received.append(int.from_bytes((await listener.receive())[1], "big"))
                if scope.cancelled_caught:
                    received.append(int.from_bytes((await listener.receive())[1], "big"))
            assert received == list(range(200))
            assert others_ran >= 5
            nursery.cancel_scope.cancel()
