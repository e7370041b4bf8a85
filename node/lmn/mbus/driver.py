"""
The primary station on a trio stream: a serial line to a level converter, or TCP to one.

Half duplex, one question at a time: the bus lock lets many tasks share a bus with several meters.  An answer starts
at most 330 bit times and 50 ms after the question (EN 13757-2 clause 5.5.3); converters behind TCP add a latency that
only the operator knows, so it is a setting.  After garbage the driver waits until the line is quiet: the rest of a
collision must not be taken for the next answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from node.lmn.mbus.link import Ack, FrameReader, encode_frame
from node.lmn.mbus.procedures import (
    Address,
    Answered,
    Ask,
    Expect,
    Found,
    Garbled,
    Outcome,
    Procedure,
    Result,
    SecondaryAddress,
    Silent,
    is_answer,
    read_telegrams,
)
from node.lmn.mbus.procedures import (
    search as search_procedure,
)
from node.lmn.mbus.telegram import Opener, decode_telegram
from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading


@dataclass(frozen=True, slots=True)
class Timing:
    """
    How long to wait.  `baudrate` in bits/s (300 to 38400; 2400 is the default of M-Bus), `latency_s` what the way to
    the bus adds in one direction and back.  Larger values cost time at every silent address, smaller ones lose answers.
    """

    baudrate: int = 2400
    latency_s: float = 0.2

    @property
    def answer_start_s(self) -> float:
        """From the last bit of the question to the first octet of the answer."""
        return 330 / self.baudrate + 0.05 + self.latency_s

    @property
    def gap_s(self) -> float:
        """The longest pause inside an answer: 33 bit times, and what the way adds by packing octets."""
        return 33 / self.baudrate + self.latency_s

    def sending_s(self, size: int) -> float:
        """Time on the wire for so many octets of 11 bits; a TCP converter has them long before they are out."""
        return 11 * size / self.baudrate


def _now() -> datetime:
    return datetime.now(UTC)


class Bus:
    """One M-Bus; its methods may be called from several tasks.  `opener` has the keys of meters that encrypt."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        timing: Timing | None = None,
        now: Callable[[], datetime] = _now,
        opener: Opener | None = None,
    ) -> None:
        self._stream = stream
        self._timing = timing or Timing()
        self._now = now
        self._opener = opener
        self._lock = trio.Lock()
        self._reader = FrameReader()
        self._received_at: datetime | None = None

    async def read_meter(
        self, address: Address, *, application_reset: bool = False, must_be_secured: bool = False
    ) -> list[Reading]:
        """
        The readings of one meter, all its telegrams, stamped with the time at which each was received.

        `must_be_secured` refuses what comes in the clear, or anybody on the bus could leave the encryption away.
        Raises RemoteProtocolError: silence, garbage, or a telegram that cannot be read (then none of its readings).
        """
        async with self._lock:
            stamps: list[datetime] = []
            frames = await self._run(read_telegrams(address, application_reset=application_reset), stamps)
        return [
            reading
            for frame, stamp in zip(frames, stamps, strict=True)
            for reading in decode_telegram(frame, stamp, self._opener, must_be_secured=must_be_secured)
        ]  # fmt: skip

    async def search(self, mask: SecondaryAddress | None = None, *, thorough: bool = False) -> Found:
        """All meters that answer to `mask`, found by their secondary addresses (see `procedures.search`)."""
        async with self._lock:
            return await self._run(search_procedure(mask, thorough=thorough), [])

    async def _run(self, procedure: Procedure[Result], stamps: list[datetime]) -> Result:
        try:
            ask = next(procedure)
            while True:
                outcome = await self._exchange(ask)
                if ask.expect is Expect.DATA and isinstance(outcome, Answered):
                    stamps.append(self._now() if self._received_at is None else self._received_at)
                ask = procedure.send(outcome)
        except StopIteration as stop:
            result: Result = stop.value
            return result

    async def _exchange(self, ask: Ask) -> Outcome:
        octets = encode_frame(ask.frame)
        self._reader.reset()
        self._received_at = None
        await self._stream.send_all(octets)
        wait_s = self._timing.sending_s(len(octets)) + self._timing.answer_start_s
        error: RemoteProtocolError | None = None
        while True:
            data = await self._receive(wait_s)
            if data is None:
                break
            if self._received_at is None:
                self._received_at = self._now()
            wait_s = self._timing.gap_s
            for event in self._reader.feed(data):
                if isinstance(event, RemoteProtocolError):
                    error = error or event
                elif error is None and is_answer(event, ask):
                    return Answered(event)
                elif isinstance(event, Ack):
                    error = RemoteProtocolError("unexpected_ack", "an acknowledgement where data were asked for")
        if error is not None:
            return Garbled(error)
        if self._reader.pending_size:
            return Garbled(RemoteProtocolError("frame_truncated", "the answer breaks off"))
        return Silent()

    async def _receive(self, wait_s: float) -> bytes | None:
        data: bytes | bytearray | None = None
        with trio.move_on_after(wait_s):
            data = await self._stream.receive_some()
        if data is None:
            return None
        if not data:
            raise RemoteProtocolError("link_closed", "the converter hung up")
        return bytes(data)


async def read_meter(stream: trio.abc.Stream, address: Address, timing: Timing | None = None) -> list[Reading]:
    """`Bus.read_meter` for a stream that nobody else uses."""
    return await Bus(stream, timing).read_meter(address)


async def search(stream: trio.abc.Stream, timing: Timing | None = None) -> Found:
    """`Bus.search` for a stream that nobody else uses."""
    return await Bus(stream, timing).search()
