"""
Questions to Modbus meters over a trio stream, RTU or TCP; frames and messages are pymodbus', which does no I/O here.

One question at a time, as the standard has it.  A late answer to the question before is recognised by its transaction
number on TCP and by nothing on RTU, so that the line is emptied before each question.  Sources: Modbus application
protocol 1.1b3 (clause 6, functions 3 and 4; clause 7, exceptions), Modbus over serial line 1.02.
"""

from __future__ import annotations

from typing import Final, Literal

import trio
from pymodbus.exceptions import ModbusIOException
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from protocol.errors import RemoteProtocolError

Framing = Literal["rtu", "tcp"]
REGISTER_COUNT_MAX: Final = 125  # of one question (clause 6.3)
ATTEMPT_COUNT: Final = 3
_FRAME_SIZE_MAX: Final = 512
_EXCEPTIONS: Final = {
    1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "device failure", 5: "acknowledge",
    6: "device busy", 8: "memory parity error", 10: "gateway path unavailable", 11: "gateway target does not answer",
}  # fmt: skip


class ModbusClient:
    """The questions to one unit.  `response_timeout_s` bounds one of `ATTEMPT_COUNT` attempts."""

    def __init__(self, stream: trio.abc.Stream, unit: int, framing: Framing, response_timeout_s: float) -> None:
        self._stream = stream
        self._unit = unit
        self._timeout_s = response_timeout_s
        decoder = DecodePDU(False)
        self._framer = FramerRTU(decoder) if framing == "rtu" else FramerSocket(decoder)
        self._is_numbered = framing == "tcp"
        self._transaction = 0

    async def read(self, table: str, address: int, count: int) -> list[int]:
        """
        `count` registers of 16 bits from `address` on.

        Raises RemoteProtocolError: `no_answer`, `modbus_exception` with the meter's own reason, `modbus_frame`,
        `link_closed`.
        """
        kind = ReadHoldingRegistersRequest if table == "holding" else ReadInputRegistersRequest
        fault = RemoteProtocolError("no_answer", f"unit {self._unit} does not answer {ATTEMPT_COUNT} questions")
        for _ in range(ATTEMPT_COUNT):
            self._transaction = self._transaction % 0xFFFF + 1 if self._is_numbered else 0
            request = kind(address=address, count=count, dev_id=self._unit, transaction_id=self._transaction)
            await self._empty()
            await self._stream.send_all(self._framer.buildFrame(request))
            try:
                registers = await self._answer(request.function_code)
            except RemoteProtocolError as error:
                if error.reason != "modbus_frame":
                    raise
                fault = error
                continue
            if registers is None:
                continue
            if len(registers) != count:
                fault = RemoteProtocolError("modbus_frame", "another number of registers than was asked for")
                continue
            return registers
        raise fault

    async def _answer(self, function: int) -> list[int] | None:
        data = b""
        with trio.move_on_after(self._timeout_s):
            while True:
                more = bytes(await self._stream.receive_some(_FRAME_SIZE_MAX))
                if not more:
                    raise RemoteProtocolError("link_closed", "the meter's side closed the link")
                data += more
                try:
                    used, message = self._framer.handleFrame(data, self._unit, self._transaction)
                except (ModbusIOException, ValueError, IndexError, KeyError):
                    raise RemoteProtocolError("modbus_frame", "no Modbus message") from None
                if isinstance(message, ExceptionResponse):
                    said = _EXCEPTIONS.get(message.exception_code, f"exception {message.exception_code}")
                    raise RemoteProtocolError("modbus_exception", said)
                if message is not None:
                    if message.function_code != function:
                        raise RemoteProtocolError("modbus_frame", "the answer to another function")
                    return list(message.registers)
                data = data[used:]
                if len(data) > _FRAME_SIZE_MAX:
                    raise RemoteProtocolError("modbus_frame", "no end of a message")
        return None

    async def _empty(self) -> None:
        """What came after its time is nobody's answer."""
        with trio.move_on_after(0):
            while await self._stream.receive_some(_FRAME_SIZE_MAX):
                pass
