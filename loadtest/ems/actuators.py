"""How an energy management system commands: Modbus TCP, OCPP by its central system, or another EMS by lines of JSON."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio
from pymodbus.exceptions import ModbusIOException
from pymodbus.framer import FramerSocket
from pymodbus.pdu import DecodePDU
from pymodbus.pdu.register_message import WriteSingleRegisterRequest, WriteSingleRegisterResponse

from loadtest.ems.devices.modbus_charger import LIMIT_REGISTER, LIMIT_STEP_W, UNIT
from loadtest.ems.devices.program import Event
from loadtest.ems.tunnel import BROKEN, CHUNK_SIZE

ANSWER_S: Final = 10.0
_FRAME_SIZE_MAX: Final = 512


class Actuator(Protocol):
    """Something that power can be limited by."""

    name: str

    async def limit(self, limit_w: int) -> bool:
        """Whether it has accepted a limit (W), in bounded time."""


class ModbusActuator:
    """
    A charger with a limit register; `connect` gives a connection to it, which is kept until it breaks.

    `answer_s` bounds a command with the connection that it may need.
    """

    name = "Modbus charger"

    def __init__(self, connect: Callable[[], Awaitable[trio.abc.Stream]], answer_s: float = ANSWER_S) -> None:
        self._connect = connect
        self._answer_s = answer_s
        self._stream: trio.abc.Stream | None = None
        self._framer = FramerSocket(DecodePDU(False))
        self._transactions = itertools.cycle(range(1, 0x10000))

    async def limit(self, limit_w: int) -> bool:
        """Write the register and hear that it is written."""
        with trio.move_on_after(self._answer_s):
            try:
                if self._stream is None:
                    self._stream = await self._connect()
                return await self._write(self._stream, limit_w // LIMIT_STEP_W)
            except BROKEN:
                pass
        await self.close()
        return False

    async def close(self) -> None:
        """Break the connection; the next command makes a new one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)

    async def _write(self, stream: trio.abc.Stream, value: int) -> bool:
        transaction = next(self._transactions)
        request = WriteSingleRegisterRequest(
            address=LIMIT_REGISTER, registers=[value], dev_id=UNIT, transaction_id=transaction
        )  # fmt: skip
        await stream.send_all(self._framer.buildFrame(request))
        data = b""
        while len(data) < _FRAME_SIZE_MAX:
            if not (more := bytes(await stream.receive_some(CHUNK_SIZE))):
                break
            data += more
            try:
                used, message = self._framer.handleFrame(data, UNIT, transaction)
            except ModbusIOException:
                break
            if message is not None:
                return isinstance(message, WriteSingleRegisterResponse)
            data = data[used:]
        raise trio.BrokenResourceError("no Modbus answer")


class AnsweredActuator:
    """Commands with numbers, `send`, whose answers come as events; give those to `take`."""

    def __init__(self, name: str, send: Callable[..., Awaitable[None]]) -> None:
        self.name = name
        self._send = send
        self._numbers = itertools.count(1)
        self._waiting: dict[int, trio.Event] = {}
        self._accepted: dict[int, bool] = {}

    def take(self, event: Event) -> None:
        """An event of the other side; others than answers are none of its business."""
        number = event.get("id")
        if event.get("event") == "answered" and number in self._waiting:
            self._accepted[number] = bool(event["accepted"])
            self._waiting[number].set()

    async def limit(self, limit_w: int) -> bool:
        """Send a command and wait for its answer."""
        number = next(self._numbers)
        event = self._waiting[number] = trio.Event()
        try:
            with trio.move_on_after(ANSWER_S):
                await self._send(id=number, limit_w=limit_w)
                await event.wait()
                return self._accepted.pop(number)
        except BROKEN:
            await trio.sleep(0)
        finally:
            del self._waiting[number]
        return False
