"""
The primary station on a trio stream: a serial line to a level converter, or TCP to one.

Half duplex, one question at a time: the bus lock lets many tasks share a bus with several meters.  An answer starts
at most 330 bit times and 50 ms after the question (EN 13757-2 clause 5.5.3); converters behind TCP add a latency that
only the operator knows, so it is a setting.  Garbage before a whole frame with a right check sum costs nothing: level
converters put octets on the line when they turn it round.  Garbage alone, and the answer to a repeated question, end
when the line is quiet: the rest of a collision, or a second answer, must not be taken for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import trio

from node.lmn.mbus.link import Ack, Frame, FrameReader, encode_frame
from node.lmn.mbus.procedures import (
    AS_IT_IS,
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

TCP_LATENCY_S: Final = 1.5  # converters and meters behind them answer after 1.1 s; a dead meter costs 7 s then
_QUIET_S_MAX: Final = 10.0  # a line that never falls silent must not hold up the next question for ever


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
        self, address: Address, *, pages: Sequence[bytes] = AS_IT_IS, must_be_secured: bool = False
    ) -> list[Reading]:
        """
        The readings of one meter, all its telegrams, stamped with the time at which each was received.

        `pages` are what to select before each request (see `procedures.read_telegrams`).  `must_be_secured` refuses
        what comes in the clear, or anybody on the bus could leave the encryption away.  Raises RemoteProtocolError:
        silence, garbage, or a telegram that cannot be read (then none of its readings).
        """
        async with self._lock:
            stamps: list[datetime] = []
            frames = await self._run(read_telegrams(address, pages), stamps)
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
            unanswered: Ask | None = None
            while True:
                outcome = await self._exchange(ask)
                if ask.expect is Expect.DATA and isinstance(outcome, Answered):
                    stamps.append(self._now() if self._received_at is None else self._received_at)
                if not isinstance(outcome, Answered):
                    unanswered = ask
                elif ask == unanswered:
                    await self._fall_silent()
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
            outcome = _outcome(self._reader.feed(data), ask)
            if isinstance(outcome, Answered):
                return outcome
            error = error or outcome
        # What looked like the beginning of a frame may have been garbage before one.
        outcome = _outcome(self._reader.finish(), ask)
        if isinstance(outcome, Answered):
            return outcome
        error = error or outcome
        return Silent() if error is None else Garbled(error)

    async def _fall_silent(self) -> None:
        with trio.move_on_after(_QUIET_S_MAX):
            while await self._receive(self._timing.answer_start_s) is not None:
                pass

    async def _receive(self, wait_s: float) -> bytes | None:
        data: bytes | bytearray | None = None
        with trio.move_on_after(wait_s):
            data = await self._stream.receive_some()
        if data is None:
            return None
        if not data:
            raise RemoteProtocolError("link_closed", "the converter hung up")
        return bytes(data)


def _outcome(events: Iterable[Frame | RemoteProtocolError], ask: Ask) -> Answered | RemoteProtocolError | None:
    """The answer to a question if it is among what came, else the first fault."""
    error: RemoteProtocolError | None = None
    for event in events:
        if isinstance(event, RemoteProtocolError):
            error = error or event
        elif is_answer(event, ask):
            return Answered(event)
        elif isinstance(event, Ack):
            error = error or RemoteProtocolError("unexpected_ack", "an acknowledgement where data were asked for")
    return error


async def read_meter(stream: trio.abc.Stream, address: Address, timing: Timing | None = None) -> list[Reading]:
    """`Bus.read_meter` for a stream that nobody else uses."""
    return await Bus(stream, timing).read_meter(address)


async def search(stream: trio.abc.Stream, timing: Timing | None = None) -> Found:
    """`Bus.search` for a stream that nobody else uses."""
    return await Bus(stream, timing).search()
