"""
Links over real sockets: who gets in, who is who, and what a bad or vanishing peer costs.

Malicious peers are played by bare ZeroMQ sockets, since our own `Connection` refuses to misbehave.
"""

import os
import resource
import socket as kernel
import stat
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing
import zmq
from zmq.utils.monitor import recv_monitor_message

from protocol.errors import LocalProtocolError
from protocol.link import Keypair, LinkContext, LinkError, LinkLimits, Listener
from protocol.link.zap import ENDPOINT

ANY_PORT = "tcp://127.0.0.1:*"
SERVER, ALICE, BOB, MALLORY = (Keypair.generate() for _ in range(4))
ENROLLED = {ALICE.public: "alice", BOB.public: "bob"}
WATCHDOG_S = 120
Bare = Callable[..., zmq.Socket[bytes]]


@pytest.fixture
def bare() -> Iterator[Bare]:
    """Bare DEALER sockets with CURVE, in a context of their own."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = []

    def make(
        listener: Listener | None,
        keys: Keypair | None,
        routing_id: bytes = b"",
        server_public: bytes = SERVER.public,
    ) -> zmq.Socket[bytes]:
        socket = context.socket(zmq.DEALER)
        made.append(socket)
        socket.linger = 0
        socket.rcvtimeo = socket.sndtimeo = 10_000
        if keys is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, server_public)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        if routing_id:
            socket.setsockopt(zmq.ROUTING_ID, routing_id)
        socket.setsockopt(zmq.PROBE_ROUTER, 1)
        if listener is not None:
            socket.connect(listener.endpoint)
        return socket

    yield make
    for socket in made:
        socket.close()
    context.term()


async def eventually(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WATCHDOG_S):
        while not condition():
            await trio.sleep(0.005)


async def keep_receiving(listener: Listener) -> None:
    while True:
        await listener.receive()


def handshake_outcome(socket: zmq.Socket[bytes], endpoint: str) -> int:
    """Connect, block until the handshake fails or succeeds, return the event."""
    outcomes = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    outcomes |= zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    monitor = socket.get_monitor_socket(outcomes)
    try:
        socket.connect(endpoint)
        assert monitor.poll(10_000), "the handshake neither failed nor succeeded"
        event: int = recv_monitor_message(monitor)["event"]
        return event
    finally:
        socket.disable_monitor()
        monitor.close()


async def test_both_ways_and_by_name() -> None:
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get)
            async with links.connect(listener.endpoint, SERVER.public, ALICE) as alice:
                await alice.send(b"question")
                assert await listener.receive() == ("alice", b"question")
                assert listener.send("alice", b"answer")
                assert await alice.receive() == b"answer"
                assert list(listener.peers()) == ["alice"]
                assert (alice.counters.connects, alice.counters.bytes_received) == (1, 6)
            assert listener.counters.handshakes_admitted == listener.counters.connects == 1


async def test_an_unknown_key_is_refused_and_admitted_once_it_is_enrolled() -> None:
    enrolled: dict[bytes, str] = {}
    limits = LinkLimits(refusal_delay_s=0.05, reconnect_s=0.02)
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links, trio.open_nursery() as nursery:
            listener = links.listen(ANY_PORT, SERVER, enrolled.get, limits=limits)
            mallory = links.connect(listener.endpoint, SERVER.public, MALLORY, limits=limits)
            nursery.start_soon(mallory.send, b"let me in")
            await eventually(lambda: listener.counters.handshakes_refused >= 2)
            assert mallory.counters.messages_sent == listener.counters.messages_received == 0
            enrolled[MALLORY.public] = "formerly mallory"
            assert await listener.receive() == ("formerly mallory", b"let me in")


async def test_refusals_are_held_back_but_do_not_hold_up_the_enrolled() -> None:
    limits = LinkLimits(refusal_delay_s=9, reconnect_s=0.001, reconnect_s_max=0.001)
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get, limits=limits)
            links.connect(listener.endpoint, SERVER.public, MALLORY, limits=limits)
            await eventually(lambda: listener.counters.handshakes_refused == 1)
            alice = links.connect(listener.endpoint, SERVER.public, ALICE)
            for _ in range(200):
                await alice.send(b"x")
                await listener.receive()
            assert listener.counters.handshakes_refused == 1


@pytest.mark.parametrize("how", ["wrong server key", "no encryption", "secret of another key"])
async def test_a_failed_proof_ends_in_the_handshake(how: str, bare: Bare) -> None:
    async with LinkContext() as links:
        listener = links.listen(ANY_PORT, SERVER, ENROLLED.get)
        if how == "wrong server key":
            socket = bare(None, ALICE, server_public=BOB.public)
        elif how == "no encryption":
            socket = bare(None, None)
        else:
            socket = bare(None, Keypair(ALICE.public, MALLORY.secret))
        event = await trio.to_thread.run_sync(handshake_outcome, socket, listener.endpoint)
        assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED
        assert listener.counters.handshakes_admitted == 0


async def test_every_listener_asks_about_its_own_visitors() -> None:
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            first = links.listen(ANY_PORT, SERVER, {ALICE.public: "alice at the first"}.get)
            second = links.listen(ANY_PORT, SERVER, {ALICE.public: "alice at the second", BOB.public: "bob"}.get)
            for listener, name in ((first, "alice at the first"), (second, "alice at the second")):
                connection = links.connect(listener.endpoint, SERVER.public, ALICE)
                await connection.send(b"who am I")
                assert await listener.receive() == (name, b"who am I")
            links.connect(first.endpoint, SERVER.public, BOB)
            await eventually(lambda: first.counters.handshakes_refused == 1)


async def test_a_routing_id_of_ones_own_choice_changes_no_name(bare: Bare) -> None:
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get)
            alice = bare(listener, ALICE, routing_id=b"route")
            alice.send(b"from alice")
            assert await listener.receive() == ("alice", b"from alice")
            alice.close()
            # The route is free for its namesake as soon as the listener has noticed.
            await eventually(lambda: not listener.send("alice", b"still there?"))
            bob = bare(listener, BOB, routing_id=b"route")
            bob.send(b"from alice, honestly")
            assert await listener.receive() == ("bob", b"from alice, honestly")
            assert not listener.send("alice", b"for alice only")
            assert listener.send("bob", b"for bob")
            assert [bob.recv(), bob.recv()] == [b"", b"for bob"]


async def test_a_message_over_the_limit_costs_only_its_senders_connection() -> None:
    limits = LinkLimits(message_bytes_max=2048)
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links, trio.open_nursery() as nursery:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get, limits=limits)
            bob = links.connect(listener.endpoint, SERVER.public, BOB)
            await bob.send(b"first")
            assert await listener.receive() == ("bob", b"first")
            alice = links.connect(listener.endpoint, SERVER.public, ALICE)
            await alice.send(bytes(2048))
            assert await listener.receive() == ("alice", bytes(2048))
            await alice.send(bytes(2049))
            nursery.start_soon(keep_receiving, listener)
            await eventually(lambda: listener.counters.connects == 3)
            await bob.send(b"second")
            await alice.send(b"back")
            await eventually(lambda: listener.counters.messages_received == 4)
            # Alice shook hands twice, Bob's connection was left alone.
            assert listener.counters.handshakes_admitted == 3
            nursery.cancel_scope.cancel()


async def test_a_message_of_several_frames_is_dropped_whole(bare: Bare) -> None:
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get)
            alice = bare(listener, ALICE)
            alice.send_multipart([b"one", b"two", b"three"])
            alice.send_multipart([b"", b"behind an empty frame"])
            alice.send(b"well-formed")
            assert await listener.receive() == ("alice", b"well-formed")
            assert listener.counters.dropped_malformed == 2


async def test_a_peer_that_comes_back_takes_its_route_along() -> None:
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get)
            before = links.connect(listener.endpoint, SERVER.public, ALICE)
            await before.send(b"before")
            await listener.receive()
            async with LinkContext() as restarted:
                after = restarted.connect(listener.endpoint, SERVER.public, ALICE)
                await after.send(b"after")
                assert await listener.receive() == ("alice", b"after")
                assert listener.send("alice", b"to whoever is alice now")
                assert await after.receive() == b"to whoever is alice now"
                # What the old connection still says is dropped, and it does not take the route back.
                await before.send(b"late")
                await after.send(b"later")
                assert await listener.receive() == ("alice", b"later")
                while not listener.counters.dropped_superseded:
                    with trio.move_on_after(0.01):
                        await listener.receive()
                assert listener.send("alice", b"again")
                assert await after.receive() == b"again"


async def test_a_name_that_got_a_new_key_is_heard_by_that_key_alone() -> None:
    enrolled = {ALICE.public: "alice"}
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links, trio.open_nursery() as nursery:
            listener = links.listen(ANY_PORT, SERVER, enrolled.get)
            old = links.connect(listener.endpoint, SERVER.public, ALICE)
            await old.send(b"by the old key")
            assert await listener.receive() == ("alice", b"by the old key")
            enrolled.clear()
            enrolled[BOB.public] = "alice"
            new = links.connect(listener.endpoint, SERVER.public, BOB)
            await new.send(b"by the new key")
            assert await listener.receive() == ("alice", b"by the new key")
            nursery.start_soon(keep_receiving, listener)
            await old.send(b"by a key that is nobody's")
            await eventually(lambda: listener.counters.dropped_disconnected == 1)
            assert listener.counters.messages_received == 2
            assert listener.send("alice", b"answer")
            assert await new.receive() == b"answer"
            nursery.cancel_scope.cancel()


async def test_a_key_that_got_a_new_name_leaves_nobody_behind_under_the_old_one() -> None:
    enrolled = {ALICE.public: "alice"}
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, enrolled.get)
            for name in ("alice", "alice's successor"):
                enrolled[ALICE.public] = name
                async with links.connect(listener.endpoint, SERVER.public, ALICE) as connection:
                    await connection.send(b"who am I?")
                    assert await listener.receive() == (name, b"who am I?")
                    assert list(listener.peers()) == [name]
            assert not listener.send("alice", b"anybody there?")


async def test_as_many_are_asked_about_at_once_as_may_be_however_many_have_knocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("protocol.link.zap.ASKED_MAX", 2)
    limits = LinkLimits(reconnect_s=0.02)
    opened = trio.Event()
    asked: list[bytes] = []

    async def authorise(key: bytes) -> bytes:
        asked.append(key)
        await opened.wait()
        return key

    keys = [Keypair.generate() for _ in range(5)]
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links, trio.open_nursery() as nursery:
            listener = links.listen(ANY_PORT, SERVER, authorise)
            for key in keys:
                nursery.start_soon(links.connect(listener.endpoint, SERVER.public, key, limits=limits).send, b"me")
            await eventually(lambda: len(asked) == 2)
            assert listener.counters.handshakes_admitted == 0
            opened.set()  # three were refused or will be: they knock again, and each finds a place
            heard = {(await listener.receive())[0] for _ in keys}
            assert heard == {key.public for key in keys}
            assert len(asked) == len(keys)


async def test_refusals_beyond_what_may_be_held_go_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.link.zap.REFUSALS_HELD_MAX", 1)
    limits = LinkLimits(refusal_delay_s=29)
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get, limits=limits)
            knocking = LinkLimits(reconnect_s=0.02)
            for _ in range(3):  # the first is waited for, the second is held, the third has its answer: it knocks again
                links.connect(listener.endpoint, SERVER.public, Keypair.generate(), limits=knocking)
            await eventually(lambda: listener.counters.handshakes_refused >= 6)


async def test_a_listener_that_restarts_gets_its_peers_back_and_can_speak_first() -> None:
    limits = LinkLimits(reconnect_s=0.02, reconnect_s_max=0.1)
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            async with LinkContext() as first_life:
                listener = first_life.listen(ANY_PORT, SERVER, ENROLLED.get)
                peers = [links.connect(listener.endpoint, SERVER.public, keys, limits=limits) for keys in (ALICE, BOB)]
                for peer in peers:
                    await peer.send(b"hello")
                    name, _ = await listener.receive()
                    assert listener.send(name, b"hello yourself")
                    assert await peer.receive() == b"hello yourself"
            async with LinkContext() as second_life, trio.open_nursery() as nursery:
                reborn = second_life.listen(listener.endpoint, SERVER, ENROLLED.get)
                nursery.start_soon(keep_receiving, reborn)
                await eventually(lambda: reborn.counters.connects == 2)
                assert reborn.send("alice", b"to alice")
                assert reborn.send("bob", b"to bob")
                assert [await peer.receive() for peer in peers] == [b"to alice", b"to bob"]
                assert [peer.counters.connects for peer in peers] == [2, 2]
                nursery.cancel_scope.cancel()


async def test_a_disconnected_peer_is_ignored_until_it_connects_again() -> None:
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get)
            alice = links.connect(listener.endpoint, SERVER.public, ALICE)
            bob = links.connect(listener.endpoint, SERVER.public, BOB)
            await alice.send(b"garbage")
            await listener.receive()
            listener.disconnect("alice")
            await alice.send(b"more garbage")
            await bob.send(b"undisturbed")
            assert await listener.receive() == ("bob", b"undisturbed")
            assert not listener.send("alice", b"x")
            await alice.aclose()
            async with links.connect(listener.endpoint, SERVER.public, ALICE) as again:
                await again.send(b"sorry")
                assert await listener.receive() == ("alice", b"sorry")
                assert listener.send("alice", b"all right")
                assert await again.receive() == b"all right"


async def test_a_peer_that_does_not_read_fills_its_own_queue_only() -> None:
    limits = LinkLimits(queue_messages=8)
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get, limits=limits)
            slow = links.connect(listener.endpoint, SERVER.public, ALICE, limits=limits)
            quick = links.connect(listener.endpoint, SERVER.public, BOB, limits=limits)
            for peer in (slow, quick):
                await peer.send(b"here")
                await listener.receive()
            sent = 0
            while listener.send("alice", sent.to_bytes(4, "big") + bytes(60_000)):
                sent += 1
                await trio.lowlevel.checkpoint()
            assert listener.counters.dropped_queue_full == 1
            assert listener.send("bob", b"for bob")
            assert await quick.receive() == b"for bob"
            received = [(await slow.receive())[:4] for _ in range(sent)]
            assert received == [number.to_bytes(4, "big") for number in range(sent)]
            await eventually(lambda: listener.send("alice", b"room again"))


async def test_send_waits_at_the_high_water_mark_and_loses_nothing() -> None:
    limits = LinkLimits(queue_messages=8)
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get, limits=limits)
            alice = links.connect(listener.endpoint, SERVER.public, ALICE, limits=limits)
            sent = 0
            stuck = False
            while not stuck:
                with trio.move_on_after(0.3) as patience:
                    await alice.send(sent.to_bytes(4, "big") + bytes(60_000))
                stuck = patience.cancelled_caught
                sent += not stuck
            assert alice.counters.messages_sent == sent
            for number in range(sent):
                assert (await listener.receive())[1][:4] == number.to_bytes(4, "big")
            await alice.send(b"after the jam")
            assert await listener.receive() == ("alice", b"after the jam")


async def test_send_waits_while_nobody_listens_and_is_cancelled_without_a_trace() -> None:
    limits = LinkLimits(reconnect_s=0.02, reconnect_s_max=0.1)
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            async with LinkContext() as first_life:
                endpoint = first_life.listen(ANY_PORT, SERVER, ENROLLED.get).endpoint
            alice = links.connect(endpoint, SERVER.public, ALICE, limits=limits)
            with trio.move_on_after(0.05) as patience:
                await alice.send(b"stale")
            assert patience.cancelled_caught
            listener = links.listen(endpoint, SERVER, ENROLLED.get)
            await alice.send(b"fresh")
            assert await listener.receive() == ("alice", b"fresh")


async def test_five_hundred_clients_in_one_process() -> None:
    keys = [Keypair.generate() for _ in range(500)]
    numbers = {pair.public: number for number, pair in enumerate(keys)}
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, numbers.get)
            clients = [links.connect(listener.endpoint, SERVER.public, pair) for pair in keys]

            async def talk(number: int) -> None:
                await clients[number].send(b"%d" % number)
                assert await clients[number].receive() == b"answer %d" % number

            async with trio.open_nursery() as nursery:
                for number in range(500):
                    nursery.start_soon(talk, number)
                for _ in range(500):
                    peer, data = await listener.receive()
                    assert isinstance(peer, int)
                    assert data == b"%d" % peer
                    assert listener.send(peer, b"answer %d" % peer)
            assert Counter(listener.peers()) == Counter(range(500))


async def test_closing_wakes_whoever_waits() -> None:
    with trio.fail_after(WATCHDOG_S):
        async with LinkContext() as links:
            listener = links.listen(ANY_PORT, SERVER, ENROLLED.get)
            alice = links.connect(listener.endpoint, SERVER.public, ALICE)

            async def until_closed(receive: Callable[[], object]) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await receive()  # type: ignore[misc]

            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_closed, listener.receive)
                nursery.start_soon(until_closed, alice.receive)
                await trio.testing.wait_all_tasks_blocked()
                await alice.aclose()
                await listener.aclose()
            await listener.aclose()
            with pytest.raises(trio.ClosedResourceError):
                listener.send("alice", b"x")
            with pytest.raises(trio.ClosedResourceError):
                await alice.send(b"x")


async def test_the_context_lets_the_bodys_exception_through_unwrapped() -> None:
    async def fail() -> None:
        async with LinkContext() as links:
            links.listen(ANY_PORT, SERVER, ENROLLED.get)
            raise KeyError("of the body")

    with pytest.raises(KeyError, match="of the body"):
        await fail()
    with trio.CancelScope() as scope:
        async with LinkContext():
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_low_limit_of_open_files_is_raised_to_what_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1000), hard))
        async with LinkContext():
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_we_do_wrong_ourselves_is_said_at_once() -> None:
    async with LinkContext() as links:
        listener = links.listen(ANY_PORT, SERVER, ENROLLED.get)
        with pytest.raises(LinkError, match="in use"):
            links.listen(listener.endpoint, SERVER, ENROLLED.get)
        for nowhere in ("tcp://nowhere", "nowhere", "ipc:///tmp/x", ENDPOINT):
            with pytest.raises(LinkError, match="cannot connect"):
                links.connect(nowhere, SERVER.public, ALICE)
        connection = links.connect(listener.endpoint, SERVER.public, ALICE, limits=LinkLimits(message_bytes_max=1024))
        for payload in (b"", bytes(1025), bytearray(b"x"), "x"):
            with pytest.raises(LocalProtocolError):
                await connection.send(payload)  # type: ignore[arg-type]
        with pytest.raises(LocalProtocolError):
            async with links:
                pass
    for wrong in ({"message_bytes_max": 100}, {"queue_messages": 1}, {"refusal_delay_s": 40.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LinkLimits(**wrong)


def test_a_key_pair_does_not_print_its_secret() -> None:
    pair = Keypair.generate()
    assert len(pair.public) == len(pair.secret) == 32
    assert pair.secret.hex() not in f"{pair} {pair!r} {[pair]}"
    assert repr(pair.secret) not in f"{pair}"


def tcp_connections() -> Iterator[kernel.socket]:
    """Every TCP connection of this process, libzmq's included, on a descriptor of its own."""
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            end = kernel.socket(fileno=os.dup(number))
        except OSError:
            continue
        try:
            end.getpeername()[1]
        except (OSError, IndexError):  # it listens, or is no TCP
            end.close()
        else:
            yield end


async def test_a_peer_that_vanishes_is_noticed_by_the_kernel_at_both_ends() -> None:
    limits = LinkLimits(keepalive_s=7, peer_gone_s=12)
    async with LinkContext() as links:
        listener = links.listen(ANY_PORT, SERVER, ENROLLED.get, limits=limits)
        connection = links.connect(listener.endpoint, SERVER.public, ALICE, limits=limits)
        with trio.fail_after(WATCHDOG_S):
            await connection.send(b"here")
            await listener.receive()
        port = int(listener.endpoint.rpartition(":")[2])
        seen = []
        for end in tcp_connections():
            with end:
                if port in {end.getsockname()[1], end.getpeername()[1]}:
                    assert end.getsockopt(kernel.SOL_SOCKET, kernel.SO_KEEPALIVE) == 1
                    options = kernel.TCP_KEEPIDLE, kernel.TCP_KEEPINTVL, kernel.TCP_KEEPCNT, kernel.TCP_USER_TIMEOUT
                    seen.append([end.getsockopt(kernel.IPPROTO_TCP, option) for option in options])
        # From the last sign of life: 7 s of silence, then 12 s of questions.  With 12 s in all the kernel would give up
        # after one lost answer.
        assert seen == [[7, 3, 4, 19_000]] * 2
