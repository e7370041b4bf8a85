"""
Reads meters over a trio stream: asked (modes A to C) or listened to (mode D and P1).

The reception time is the arrival of the answer's first character, taken before anything is decoded: at 300 baud a
readout lasts a minute, and the 500 ms that TR-03109-1 allows (REQ.TLSHDLC.SMGW.50) count from there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

import trio

from node.lmn.iec62056_21.client import Done, Instruction, ReadoutClient, Send, SetBaudrate
from node.lmn.iec62056_21.framing import Readout, ReadoutReader, TelegramReader
from node.lmn.iec62056_21.readings import Interpretation, readings_of
from node.lmn.reception_time import ReceptionTime
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading

READOUT_TIMEOUT_S = 240.0  # 7 kB at 300 baud; raise it for meters with more, it only bounds a meter that never ends
_RECEIVE_SIZE = 4096


@runtime_checkable
class SpeedLink(Protocol):
    """What a link offers whose speed can be changed, once everything written has left."""

    async def set_baudrate(self, baudrate: int) -> None:
        """Change the speed after the output is drained."""


async def read_meter(
    stream: trio.abc.Stream,
    *,
    address: str = "",
    clock: Callable[[], float],
    interpretation: Interpretation | None = None,
    baudrate_max: int = 19200,
    wake_up: bool = False,
    latency_s: float = 0.0,
    timeout_s: float = READOUT_TIMEOUT_S,
) -> list[Reading | RemoteProtocolError]:
    """
    Ask one meter for its readout (modes A to C); its readings, and an error for each line that was none.

    `clock` gives seconds of the Unix epoch and stamps `received_at`; `wake_up` is for meters that sleep, `latency_s`
    for slow ways to them. A stream
    without `set_baudrate` (a TCP converter) stays at the initial speed. Raises RemoteProtocolError where the meter is
    silent or wrong (`silent`, `truncated`, `bad_checksum`, ...), and what the stream raises.
    """
    can_switch = isinstance(stream, SpeedLink)
    client = ReadoutClient(
        address, can_switch=can_switch, baudrate_max=baudrate_max, wake_up=wake_up, latency_s=latency_s
    )
    received_at: datetime | None = None
    with trio.move_on_after(timeout_s):
        readout = await _follow(stream, client.start())
        while readout is None:
            data: bytes | bytearray = b""
            with trio.move_on_after(client.timer_s()):
                data = await stream.receive_some(_RECEIVE_SIZE)
                if not data:
                    raise RemoteProtocolError("link_closed", "the link ended before the readout did")
            if not data:
                readout = await _follow(stream, client.timeout())
                continue
            if not client.data_begun:
                received_at = datetime.fromtimestamp(clock(), UTC)
            readout = await _follow(stream, client.receive(data))
        return readings_of(readout, interpretation, received_at=received_at)
    raise RemoteProtocolError("endless", f"no end of the readout within {timeout_s:.0f} s")


async def _follow(stream: trio.abc.Stream, instructions: Sequence[Instruction]) -> Readout | None:
    for instruction in instructions:
        match instruction:
            case Send(data, after_s):
                await trio.sleep(after_s)
                await stream.send_all(data)
            case SetBaudrate(baudrate):
                if isinstance(stream, SpeedLink):
                    await stream.set_baudrate(baudrate)
            case Done(readout):
                return readout
    return None


async def listen(
    stream: trio.abc.Stream,
    *,
    clock: Callable[[], float],
    interpretation: Interpretation | None = None,
    reader: TelegramReader | None = None,
) -> AsyncGenerator[list[Reading | RemoteProtocolError], None]:
    """
    Take what a meter pushes (mode D, P1): one list per telegram, or per fault of the line.  Ends with the stream.

    `received_at` of each reading is the arrival of its telegram's first character; `reader` cuts the telegrams where
    they are not plain text.
    """
    reader = reader or ReadoutReader()
    arrival = ReceptionTime(lambda: datetime.fromtimestamp(clock(), UTC))
    data: bytes | bytearray = b""
    while True:
        if data := await stream.receive_some(_RECEIVE_SIZE):
            arrival.heard(inside=reader.in_telegram)
        for item in reader.receive(data) if data else reader.end():
            if isinstance(item, RemoteProtocolError):
                arrival.failed()
                yield [item]
            else:
                yield readings_of(item, interpretation, received_at=arrival.ended())
        if not data:
            return
