"""
What a question to a meter met on its way, for `stromkreis sniff --diagnose`: how late, how noisy, what was lost.

A `WatchedStream` stands between a driver and its link and writes down who spoke when.  After the driver has given up
it goes on listening, since an answer that comes too late looks like none.  The findings say what to set; no octet of
an answer stands in them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import trio

from node.lmn.iec62056_21.driver import SpeedLink
from node.lmn.profiles import MeterProfile

LATE_ANSWER_S: Final = 10.0  # how long an answer is still waited for
_RECEIVE_SIZE: Final = 4096
_TURN_COUNT_MAX: Final = 10_000
_STRIP: Final = bytes(character & 0x7F for character in range(256))
_REQUEST: Final = b"/?"
_LINE: Final = re.compile(rb"[A-Z]{2}[A-Za-z][!-~][ -~]*\r?\n")
_STARTS: Final = {"mbus": b"\x68\x10\xe5", "sml": b"\x1b", "dlms": b"\x7e\x00", "lks1": b"\x7e"}


@dataclass(slots=True)
class Turn:
    """One question and what came until the next: seconds after its end."""

    sent: bytes
    sent_s: float
    first_s: float | None = None
    gap_s: float = 0.0
    heard: bytearray = field(default_factory=bytearray)


class WatchedStream(trio.abc.Stream):
    """A stream that remembers its turns; bounded, as a bus may talk for ever."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._last_s = 0.0
        self.turns: list[Turn] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Pass on, and begin a turn."""
        await self._stream.send_all(data)
        if len(self.turns) < _TURN_COUNT_MAX:
            self.turns.append(Turn(bytes(data), trio.current_time()))

    async def wait_send_all_might_not_block(self) -> None:
        """Pass on."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Pass on, and note when it came."""
        data = await self._stream.receive_some(max_bytes)
        if data and self.turns:
            turn, now_s = self.turns[-1], trio.current_time()
            if turn.first_s is None:
                turn.first_s = now_s - self._asked_s()
            else:
                turn.gap_s = max(turn.gap_s, now_s - self._last_s)
            self._last_s = now_s
            turn.heard += data[:_RECEIVE_SIZE]
        return data

    def _asked_s(self) -> float:
        """When the first question since the last answer was sent: what comes may be the answer to it."""
        unanswered = self.turns[-1]
        for turn in reversed(self.turns):
            if turn.first_s is not None:
                break
            unanswered = turn
        return unanswered.sent_s

    async def aclose(self) -> None:
        """Pass on."""
        await self._stream.aclose()

    async def wait_for_late_answers(self) -> None:
        """Listen on where the last question has no answer yet."""
        if not self.turns or self.turns[-1].first_s is not None:
            return
        with trio.move_on_after(LATE_ANSWER_S):
            while self.turns[-1].first_s is None and await self.receive_some(_RECEIVE_SIZE):
                pass


class WatchedLine(WatchedStream):
    """The same for a link whose speed can be changed."""

    def __init__(self, stream: trio.abc.Stream, line: SpeedLink) -> None:
        super().__init__(stream)
        self._line = line

    async def set_baudrate(self, baudrate: int) -> None:
        """Pass on."""
        await self._line.set_baudrate(baudrate)


def watched(stream: trio.abc.Stream) -> WatchedStream:
    """A stream that remembers its turns, with whatever the link can do."""
    return WatchedLine(stream, stream) if isinstance(stream, SpeedLink) else WatchedStream(stream)


def findings(turns: list[Turn], profile: MeterProfile) -> Iterator[str]:
    """One sentence for each thing met, and what to do about it."""
    if not turns:
        yield "nothing was asked"
        return
    answered = [turn for turn in turns if turn.first_s is not None]
    yield f"{len(turns)} messages sent, {len(answered)} answered"
    if not answered:
        yield f"no octet came within {LATE_ANSWER_S:.0f} s of the last: are the line and the address the meter's?"
        return
    slowest_s = max(turn.first_s or 0.0 for turn in answered)
    gap_s = max(turn.gap_s for turn in turns)
    yield f"the slowest answer began {slowest_s:.2f} s after its question; the longest pause inside one: {gap_s:.2f} s"
    if len(answered) < len(turns) or slowest_s > 1.0:
        yield f"slow answers: latency={math.ceil(slowest_s + 0.5)} in the link makes the gateway wait for them"
    if any(turn.heard.startswith(turn.sent) for turn in answered if len(turn.sent) > 2):
        yield "the head or converter sends back what it is given (an echo): it is passed over"
    if noisy := sum(_has_garbage(turn, profile.protocol) for turn in answered):
        yield f"octets that belong to no message stand before {noisy} of {len(answered)} answers: they are passed over"
    if profile.protocol == "iec62056-21" or profile.mode_e:
        yield from _of_text(answered)


def _of_text(answered: list[Turn]) -> Iterator[str]:
    for turn in answered:
        plain = turn.sent.translate(_STRIP)
        if not plain.startswith(_REQUEST):
            continue
        heard = bytes(turn.heard).translate(_STRIP).removeprefix(plain).lstrip(b"\0\x7f\r\n ")
        if _LINE.match(heard):
            yield "the identification came without its slash, lost by a head that wakes too late: it is taken as it is"
        if any(octet & 0x80 for octet in turn.heard):
            yield "the line has parity bits (7E1) on eight bits: they are checked and taken off"
        return


def _has_garbage(turn: Turn, protocol: str) -> bool:
    starts = _STARTS.get(protocol)
    heard = bytes(turn.heard).removeprefix(turn.sent)
    return starts is not None and bool(heard) and heard[0] not in starts
