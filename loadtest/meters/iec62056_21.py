"""
A simulated meter that speaks IEC 62056-21, modes A to D, over any trio stream: TCP or a pseudo-terminal.

It does what a real one does and what drivers get wrong: it answers only to its own address or to nobody's, waits
before it speaks, changes its speed only after the acknowledgement in mode C and unasked in mode B, repeats its data
block on NAK, and puts a block check behind it.  Registers come from a callback, so that one load profile
feeds every protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import trio

from node.lmn.iec62056_21.checks import block_check, with_even_parity
from node.lmn.iec62056_21.client import INITIAL_BAUDRATE, Mode, mode_of
from node.lmn.iec62056_21.driver import SpeedLink
from node.lmn.iec62056_21.framing import ETX, NAK, STX
from node.lmn.iec62056_21.quantities import decimal_text
from protocol.metering.obis import Obis
from protocol.metering.units import unit_symbol

Register = tuple[Obis, int, int, int]
"""OBIS code, mantissa, scaler, DLMS unit: value · 10^scaler in that unit."""

Registers = Callable[[datetime], Sequence[Register]]
_BAUD_CHARACTERS = {Mode.A: "@", Mode.B: "E", Mode.C: "5", Mode.D: "3"}
_WAKE_UP_COUNT = 60  # two seconds of NULs at 300 baud
_REPEAT_WAIT_S = 1.5  # the longest a tester may take to say NAK (clause 6.4.3)
_ASCII_UNITS = {"m³": "m3", "m³/h": "m3/h", "°C": "degC"}


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """
    How the meter behaves.  `parity` makes an eight-bit link carry 7E1; `damaged` is how many blocks go out with a
    wrong check first; `pause_s` is the reaction time; `period_s` that of the pushes in mode D.  One that is `asleep`
    hears nothing that has not 60 NULs before it; `loses_slash` is an optical head that wakes too late.
    """

    serial_number: str
    mode: Mode = Mode.C
    address: str = ""
    manufacturer: str = "SKR"
    parity: bool = False
    damaged: int = 0
    pause_s: float = 0.2
    period_s: float = 1.0
    asleep: bool = False
    loses_slash: bool = False


def register_line(register: Register) -> str:
    """`1-0:1.8.0*255(000001.234*kWh)`: energy and power in the thousand that meters use, the rest as it is."""
    obis, value, scaler, unit = register
    symbol = unit_symbol(unit)
    if symbol in {"Wh", "varh", "VAh", "W", "var", "VA"}:
        symbol, scaler = f"k{symbol}", scaler - 3
    return f"{obis}({decimal_text(value, scaler)}*{_ASCII_UNITS.get(symbol, symbol)})"


class SimulatedMeter:
    """One meter; `serve` it on a stream.  `clock` is simulated time, aware."""

    def __init__(self, settings: MeterSettings, registers: Registers, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._registers = registers
        self._clock = clock
        self._damaged = settings.damaged
        self.readout_count = 0

    @property
    def identification(self) -> bytes:
        """The identification message (clause 6.3.2)."""
        settings = self._settings
        character = _BAUD_CHARACTERS[settings.mode]
        return f"/{settings.manufacturer}{character}{settings.serial_number}\r\n".encode("ascii")

    def body(self) -> bytes:
        """The data lines as they stand now, with the end line."""
        lines = [f"1-0:96.1.0*255({self._settings.serial_number})", "F.F(00000000)"]
        lines += [register_line(register) for register in self._registers(self._clock())]
        return "".join(f"{line}\r\n" for line in lines).encode("ascii") + b"!\r\n"

    def block(self) -> bytes:
        """STX, data, ETX and the block check."""
        data = self.body() + ETX
        check = block_check(data)
        if self._damaged:
            self._damaged -= 1
            check ^= 0x55
        self.readout_count += 1
        return STX + data + bytes([check])

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answer until the stream ends."""
        try:
            if self._settings.mode is Mode.D:
                await self._push(stream)
            else:
                await self._answer(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def serve_tcp(self, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer on a loopback port, which is reported when it listens."""
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        task_status.started(int(listeners[0].socket.getsockname()[1]))
        await trio.serve_listeners(self._serve_and_close, listeners)

    async def _serve_and_close(self, stream: trio.SocketStream) -> None:
        async with stream:
            await self.serve(stream)

    async def _send(self, stream: trio.abc.Stream, data: bytes) -> None:
        await stream.send_all(with_even_parity(data) if self._settings.parity else data)

    async def _speed(self, stream: trio.abc.Stream, baudrate: int) -> None:
        if isinstance(stream, SpeedLink):
            await stream.set_baudrate(baudrate)

    async def _push(self, stream: trio.abc.Stream) -> None:
        while True:
            self.readout_count += 1
            await self._send(stream, self.identification + b"\r\n" + self.body())
            await trio.sleep(self._settings.period_s)

    async def _answer(self, stream: trio.abc.Stream) -> None:
        line = _Line(stream)
        expected = {b"/?!", f"/?{self._settings.address}!".encode("ascii")}
        mode, offered = mode_of(_BAUD_CHARACTERS[self._settings.mode])
        while (message := await line.next()) is not None:
            if message not in expected or (self._settings.asleep and line.null_count < _WAKE_UP_COUNT):
                continue
            await trio.sleep(self._settings.pause_s)
            await self._send(stream, self.identification[1 if self._settings.loses_slash else 0 :])
            if mode is Mode.C:
                message = await line.next()
                if message is None or message[:1] != b"\x06" or len(message) != 4:
                    continue
                offered = mode_of(chr(message[2]))[1]
            if mode is not Mode.A:
                await self._speed(stream, offered)
            await trio.sleep(self._settings.pause_s)
            await self._send(stream, self.block())
            while await line.repeat_asked(_REPEAT_WAIT_S):
                await self._send(stream, self.block())
            await self._speed(stream, INITIAL_BAUDRATE)


class _Line:
    """What the tester says, message by message, its parity bits ignored."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = b""
        self.null_count = 0  # before the last message

    async def next(self) -> bytes | None:
        """The next message without its line end; None when the stream has ended."""
        while b"\r\n" not in self._buffer:
            if not await self._more():
                return None
        message, _, self._buffer = self._buffer.partition(b"\r\n")
        self.null_count = len(message) - len(message.lstrip(b"\x00"))
        return message.lstrip(b"\x00" + NAK)

    async def repeat_asked(self, wait_s: float) -> bool:
        """Whether a NAK comes within the time; anything else stays for `next`."""
        with trio.move_on_after(wait_s):
            if self._buffer or await self._more():
                asked = self._buffer.startswith(NAK)
                self._buffer = self._buffer[asked:]
                return asked
        return False

    async def _more(self) -> bool:
        data = await self._stream.receive_some(256)
        self._buffer = (self._buffer + bytes(c & 0x7F for c in data))[-256:]
        return bool(data)
