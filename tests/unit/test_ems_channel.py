"""What energy management systems say to each other and to chargers, over streams in memory."""

from __future__ import annotations

import time
from functools import partial

import pytest
import trio
from pymodbus.framer import FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU
from pymodbus.pdu.register_message import WriteSingleRegisterRequest, WriteSingleRegisterResponse
from trio.testing import memory_stream_pair

from loadtest.ems.actuators import ANSWER_S, AnsweredActuator, ModbusActuator
from loadtest.ems.channel import HomeEnd, RemoteEnd
from loadtest.ems.limits import PowerLimit, State
from loadtest.ems.tunnel import Lines, keep_open, open_tunnel
from protocol.errors import RemoteProtocolError
from protocol.socks_tls import Reply, messages


async def test_values_go_up_and_limits_with_their_heartbeat_come_down() -> None:
    home, remote = memory_stream_pair()
    limit, woken = PowerLimit(4_200, time.time()), list[bool]()
    told = list[tuple[int, int | None]]()
    home_end, remote_end = HomeEnd(limit, lambda: woken.append(True)), RemoteEnd(lambda *value: told.append(value))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(home_end.serve, home)
            nursery.start_soon(remote_end.serve, remote)  # type: ignore[arg-type]  # a stream is all it wants
            assert await remote_end.actuator.limit(7_000)
            assert (limit.state, limit.limit_w(time.time())) == (State.LIMITED, 7_000)
            assert not await remote_end.actuator.limit(-1)
            home_end.learn(10_015, 3_000)
            while not told:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert told == [(10_015, 3_000)]
    assert woken


async def test_a_command_without_a_way_fails_after_its_time(autojump_clock: trio.testing.MockClock) -> None:
    remote_end = RemoteEnd(lambda *_: None)
    began_s = trio.current_time()
    assert not await remote_end.actuator.limit(7_000)
    assert trio.current_time() - began_s == pytest.approx(ANSWER_S)


async def test_an_answer_to_another_command_is_not_taken_for_ones_own() -> None:
    sent = list[int]()

    async def send(**message: int) -> None:
        sent.append(message["id"])
        actuator.take({"event": "answered", "id": message["id"] + 1, "accepted": True})
        actuator.take({"event": "answered", "id": message["id"], "accepted": message["limit_w"] < 5_000})

    actuator = AnsweredActuator("charger", send)
    assert await actuator.limit(4_000)
    assert not await actuator.limit(6_000)
    assert sent == [1, 2]


async def test_a_line_without_an_end_is_refused() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"x" * 10_000)
    with pytest.raises(RemoteProtocolError, match="a line of over"):
        async for _ in Lines(ours):
            pass


async def serve_modbus(stream: trio.abc.Stream, refuses: bool, seen: list[int]) -> None:
    framer = FramerSocket(DecodePDU(True))
    while data := bytes(await stream.receive_some(512)):
        _, request = framer.handleFrame(data, 1, 0)
        assert isinstance(request, WriteSingleRegisterRequest)
        seen.append(request.registers[0])
        answer: ModbusPDU = WriteSingleRegisterResponse(address=request.address, registers=request.registers)
        if refuses:
            answer = ExceptionResponse(request.function_code, 3)
        answer.dev_id, answer.transaction_id = request.dev_id, request.transaction_id
        frame = framer.buildFrame(answer)
        await stream.send_all(frame[:5])
        await stream.send_all(frame[5:])


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_limit_is_accepted_when_the_charger_has_written_it(refuses: bool) -> None:
    seen = list[int]()
    async with trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(serve_modbus, theirs, refuses, seen)
            await trio.lowlevel.checkpoint()
            return ours

        actuator = ModbusActuator(connect)
        assert await actuator.limit(4_200) is not refuses
        await actuator.close()
        assert await actuator.limit(6_000) is not refuses  # over a new connection
        nursery.cancel_scope.cancel()
    assert seen == [420, 600]


async def test_a_charger_that_says_nothing_costs_one_command(autojump_clock: trio.testing.MockClock) -> None:
    opened = list[trio.abc.Stream]()

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        opened.append(theirs)
        return ours

    actuator = ModbusActuator(connect)
    assert not await actuator.limit(4_200)
    assert not await actuator.limit(4_200)
    assert len(opened) == 2


async def adapter(reply: Reply, stream: trio.SocketStream) -> None:
    assert await stream.receive_some(3) == messages.greeting(b"\x00")
    await stream.send_all(messages.selection(0))
    heard = b""
    while (asked := messages.read_request(heard)) is None:
        heard += await stream.receive_some(1)
    assert asked[0].host == "box.emp.example"
    await stream.send_all(messages.reply(reply) + b"hello")  # the program's first octets come with the reply


async def test_a_tunnel_carries_what_comes_right_behind_the_reply() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, partial(adapter, Reply.SUCCEEDED), 0, host="127.0.0.1"))
        async with await open_tunnel(listeners[0].socket.getsockname()[1], "box") as stream:
            assert await stream.receive_some(5) == b"hello"
        nursery.cancel_scope.cancel()


async def test_a_refused_tunnel_says_its_reply() -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(adapter, Reply.NOT_ALLOWED)
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        with pytest.raises(RemoteProtocolError, match="REP 2, not_allowed"):
            await open_tunnel(listeners[0].socket.getsockname()[1], "box")
        nursery.cancel_scope.cancel()


async def test_a_tunnel_that_breaks_in_a_task_of_its_program_is_opened_again() -> None:
    failed, opened, again = list[str](), list[float](), trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        if len(opened) == 2:
            again.set()
        home_end = HomeEnd(None, lambda: None)
        await home_end.serve(BrokenStream())

    def note(began_s: float, opened_s: float) -> None:
        opened.append(opened_s - began_s)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            served = partial(trio.serve_tcp, partial(adapter, Reply.SUCCEEDED), 0, host="127.0.0.1")
            port = (await nursery.start(served))[0].socket.getsockname()[1]
            nursery.start_soon(keep_open, port, "box", serve, failed.append, note)
            await again.wait()
            nursery.cancel_scope.cancel()
    assert failed[0] == "tunnel: reset by the peer"


class BrokenStream(trio.abc.Stream):
    """One whose peer has reset it."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("reset by the peer")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.receive_some()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
