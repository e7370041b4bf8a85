"""
Simulated wired M-Bus meters, several on one bus, over any trio stream: TCP or a pseudo-terminal.

They do what makes a primary station earn its keep: answer by primary and secondary address with wildcards, repeat the
last telegram when the frame count bit has not moved, spread long data over several telegrams, all talk at once where
several are meant (the line is then the AND of what they say, since a space on the bus wins), and some do not hear the
first request after a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import trio

from loadtest.meters.mbus_records import Registers, clock_record, register_record
from node.lmn.mbus.application import CI_APPLICATION_RESET, CI_LONG, CI_SELECT
from node.lmn.mbus.device import DeviceAddress
from node.lmn.mbus.link import (
    ADDRESS_BROADCAST,
    ADDRESS_SELECTED,
    ADDRESS_TEST,
    FCB,
    REQ_UD2,
    RSP_UD,
    SND_NKE,
    SND_UD,
    Ack,
    Frame,
    FrameReader,
    LongFrame,
    ShortFrame,
    encode_frame,
)
from node.lmn.mbus.procedures import FABRICATION_NUMBER, SecondaryAddress
from protocol.errors import RemoteProtocolError

RECORDS_SIZE_MAX: Final = 220


class MBusMeter:
    """
    One meter.  `clock` is simulated time, aware; `deaf_count` requests are ignored first, as sleepy meters do.

    `records_size_max` is how many octets of records one telegram takes before the next begins, `fabrication` the number
    for the enhanced selection; `sealed` makes the telegrams of a meter that encrypts.
    """

    def __init__(
        self,
        device: DeviceAddress,
        registers: Registers,
        clock: Callable[[], datetime],
        *,
        primary: int = 0,
        deaf_count: int = 0,
        records_size_max: int = RECORDS_SIZE_MAX,
        fabrication: str = "",
        sealed: Callable[[], LongFrame] | None = None,
    ) -> None:
        self.device = device
        self._fabrication = fabrication
        self._sealed = sealed
        self.primary = primary
        self._registers = registers
        self._clock = clock
        self._deaf_count = deaf_count
        self._records_size_max = records_size_max
        self._selected = False
        self._count_bit: int | None = None
        self._telegrams: list[bytes] = []
        self._next = 0
        self._access = 0

    def answer(self, frame: Frame) -> bytes:
        """What the meter says to a frame, nothing where it is not meant or does not understand."""
        if isinstance(frame, Ack):
            return b""
        if isinstance(frame, LongFrame) and frame.ci == CI_SELECT and frame.address == ADDRESS_SELECTED:
            return self._select(frame)
        if not self._is_meant(frame.address):
            return b""
        reply = self._obey(frame)
        return b"" if frame.address == ADDRESS_BROADCAST else reply

    def _is_meant(self, address: int) -> bool:
        return address in (self.primary, ADDRESS_TEST, ADDRESS_BROADCAST) or (
            address == ADDRESS_SELECTED and self._selected
        )

    def _obey(self, frame: ShortFrame | LongFrame) -> bytes:
        ack = encode_frame(Ack())
        if isinstance(frame, LongFrame):
            if frame.ci == CI_APPLICATION_RESET:
                self._telegrams, self._next = [], 0
            return ack if frame.control & ~FCB == SND_UD else b""
        if frame.control == SND_NKE:
            self._count_bit = None
            self._telegrams, self._next = [], 0
            if frame.address == ADDRESS_SELECTED:
                self._selected = False
            return ack
        if frame.control & ~FCB != REQ_UD2:
            return b""
        if self._deaf_count:
            self._deaf_count -= 1
            return b""
        bit = frame.control & FCB
        if bit != self._count_bit or not self._telegrams:
            self._advance()
        self._count_bit = bit
        return self._telegrams[self._next]

    def _select(self, frame: LongFrame) -> bytes:
        if len(frame.data) < 8:
            return b""
        mask = DeviceAddress.from_transport(frame.data[:8])
        wanted = SecondaryAddress(mask.number, mask.manufacturer, mask.version, mask.medium)
        self._selected = wanted.matches(self.device) and self._is_fabricated(frame.data[8:])
        if not self._selected:
            return b""
        self._count_bit = None
        self._telegrams = []
        return encode_frame(Ack())

    def _is_fabricated(self, record: bytes) -> bool:
        mask = record[:1:-1].hex().upper()
        return not record or (
            record.startswith(FABRICATION_NUMBER)
            and len(mask) == len(self._fabrication)
            and all(digit in ("F", mine) for digit, mine in zip(mask, self._fabrication, strict=True))
        )

    def _advance(self) -> None:
        if self._telegrams and self._next + 1 < len(self._telegrams):
            self._next += 1
            return
        self._telegrams, self._next = self._telegrams_now(), 0

    def _telegrams_now(self) -> list[bytes]:
        if self._sealed is not None:
            return [encode_frame(self._sealed())]
        now = self._clock()
        records = [register_record(register) for register in self._registers(now)] + [clock_record(now)]
        parts: list[bytes] = [b""]
        for record in records:
            if parts[-1] and len(parts[-1]) + len(record) > self._records_size_max:
                parts.append(b"")
            parts[-1] += record
        out = []
        for index, part in enumerate(parts):
            self._access = (self._access + 1) & 0xFF
            last = index == len(parts) - 1
            header = self.device.to_transport() + bytes([self._access, 0, 0, 0])
            data = header + part + (b"" if last else b"\x1f")
            out.append(encode_frame(LongFrame(RSP_UD, self.primary, CI_LONG, data)))
        return out


def answers(meters: Sequence[MBusMeter], frame: Frame) -> bytes:
    """What is heard when all meters of a bus have heard a frame: their answers, superimposed."""
    said = [reply for meter in meters if (reply := meter.answer(frame))]
    if not said:
        return b""
    heard = bytearray(b"\xff" * max(map(len, said)))
    for reply in said:
        for index, octet in enumerate(reply):
            heard[index] &= octet
    return bytes(heard)


async def serve_stream(stream: trio.abc.Stream, meters: Sequence[MBusMeter]) -> None:
    """Be the bus behind a stream until the other end hangs up."""
    reader = FrameReader()
    while data := await stream.receive_some():
        for event in reader.feed(bytes(data)):
            if not isinstance(event, RemoteProtocolError) and (reply := answers(meters, event)):
                await stream.send_all(reply)


async def serve(
    meters: Sequence[MBusMeter],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A TCP converter with a bus of meters behind it; reports its port when it listens."""
    listeners = await trio.open_tcp_listeners(port, host=host)

    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await serve_stream(stream, meters)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        task_status.started(listeners[0].socket.getsockname()[1])
