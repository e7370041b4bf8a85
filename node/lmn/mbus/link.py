"""
The M-Bus link layer (EN 13757-2, from IEC 60870-5-1 format class FT 1.2): frames to bytes and back.

Four shapes of frame: one character E5 as acknowledgement, the short frame 10 C A CS 16, and the long frame
68 L L 68 C A CI data CS 16, which without data is called a control frame.  The check sum is eight bits wide, so a
reader that hunts for frames inside garbage would find some: after a damaged frame only complete, checked frames
count again, and an E5 only where a frame could begin.  Whether bytes come at once or one by one changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from protocol.errors import LocalProtocolError, RemoteProtocolError

ACK_BYTE: Final = 0xE5
SHORT_START: Final = 0x10
LONG_START: Final = 0x68
STOP: Final = 0x16
DATA_SIZE_MAX: Final = 252  # L counts C, A and CI too and is one byte
SEGMENT_CI_MAX: Final = 0x1F  # CI fields of DLMS segments (EN 13757-3, 00 to 1F)
_INCOMPLETE: Final = "incomplete"

# Control fields of the primary (EN 13757-2 table 1, IEC 60870-5-2); FCB is bit 5, FCV bit 4.
SND_NKE: Final = 0x40
SND_UD: Final = 0x53
REQ_UD2: Final = 0x5B
FCB: Final = 0x20
RSP_UD: Final = 0x08  # access demand and flow control bits (5, 4) may be set beside it

ADDRESS_MAX: Final = 250
ADDRESS_SELECTED: Final = 253  # the station selected by its secondary address
ADDRESS_TEST: Final = 254  # everyone answers: only for a bus with one station
ADDRESS_BROADCAST: Final = 255  # everyone listens, nobody answers


@dataclass(frozen=True, slots=True)
class Ack:
    """The single character E5."""


@dataclass(frozen=True, slots=True)
class ShortFrame:
    """Control field and address."""

    control: int
    address: int


@dataclass(frozen=True, slots=True)
class LongFrame:
    """Control field, address, CI field and user data (a control frame where there are none), see `DATA_SIZE_MAX`."""

    control: int
    address: int
    ci: int
    data: bytes = b""


Frame = Ack | ShortFrame | LongFrame


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame.  Raises LocalProtocolError where the user data is too long."""
    match frame:
        case Ack():
            return bytes([ACK_BYTE])
        case ShortFrame(control, address):
            return bytes([SHORT_START, control, address, (control + address) & 0xFF, STOP])
        case LongFrame(control, address, ci, data):
            if len(data) > DATA_SIZE_MAX:
                raise LocalProtocolError(f"{len(data)} bytes of user data, an M-Bus frame takes {DATA_SIZE_MAX}")
            body = bytes([control, address, ci]) + data
            start = bytes([LONG_START, len(body), len(body), LONG_START])
            return start + body + bytes([sum(body) & 0xFF, STOP])


class FrameReader:
    """
    Frames out of a byte stream; what is no frame comes as one RemoteProtocolError per run of garbage.

    A DLMS segment of 256 octets or more, whose length field holds only the lower eight bits, is taken where no frame of
    the length as written fits.  Never holds more than one frame (517 bytes) beyond the chunk just fed.  `offset` counts
    from the first byte.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._offset = 0
        self._lost = False

    def feed(self, data: bytes) -> Iterator[Frame | RemoteProtocolError]:
        """Take bytes, give what became complete, in order."""
        self._buffer += data
        while self._buffer:
            size, outcome = self._next()
            if size == 0:
                return
            if isinstance(outcome, RemoteProtocolError):
                if not self._lost:
                    self._lost = True
                    yield outcome
            elif outcome is not None:
                self._lost = False
                yield outcome
            del self._buffer[:size]
            self._offset += size

    def finish(self) -> Iterator[Frame | RemoteProtocolError]:
        """The stream has ended: frames inside an unfinished one, then the unfinished one as an error."""
        while self._buffer:
            if not self._lost:
                yield self._unfinished()
            self._lost = True
            del self._buffer[0]
            self._offset += 1
            yield from self.feed(b"")

    def _unfinished(self) -> RemoteProtocolError:
        length = self._buffer[1] if self._buffer[0] == LONG_START and len(self._buffer) > 3 else None
        if length is not None and length < 3:  # what was waited for is a segment that the length field cannot say
            return self._error("length_field")
        return RemoteProtocolError("frame_truncated", "the stream ends inside a frame", offset=self._offset)

    def reset(self) -> None:
        """Forget what is half received: the primary is about to ask anew, so what came late is nobody's answer."""
        self._offset += len(self._buffer)
        self._buffer.clear()
        self._lost = False

    @property
    def pending_size(self) -> int:
        """Bytes held of a frame not yet complete."""
        return len(self._buffer)

    def _next(self) -> tuple[int, Frame | RemoteProtocolError | None]:
        buffer = self._buffer
        match buffer[0]:
            case 0xE5:  # inside garbage it is just another byte
                return (1, self._error("not_a_frame")) if self._lost else (1, Ack())
            case 0x10:
                if len(buffer) < 5:
                    return 0, None
                control, address, check, stop = buffer[1:5]
                if stop != STOP:
                    return 1, self._error("stop_byte_missing")
                if (control + address) & 0xFF != check:
                    return 1, self._error("checksum")
                return 5, ShortFrame(control, address)
            case 0x68:
                return self._long()
            case _:
                return 1, self._error("not_a_frame")

    def _long(self) -> tuple[int, Frame | RemoteProtocolError | None]:
        buffer = self._buffer
        if len(buffer) > 2 and buffer[1] != buffer[2]:
            return 1, self._error("length_field")
        if len(buffer) > 3 and buffer[3] != LONG_START:
            return 1, self._error("second_start_byte")
        if len(buffer) < 4:
            return 0, None
        length = buffer[1]
        fault = "length_field" if length < 3 else self._fault(length)
        if fault is _INCOMPLETE:  # the length as written goes first, whatever its octets look like meanwhile
            return 0, None
        if fault and (len(buffer) < 7 or buffer[6] <= SEGMENT_CI_MAX):
            # EN 13757-2 gives L eight bits; meters with longer segments write what is left of it.
            length += 256
            fault = self._fault(length) if len(buffer) >= 7 else _INCOMPLETE
            if (fault is _INCOMPLETE or not fault) and self._holds_frame(length + 6):
                fault = "stop_byte_missing"
        if fault is _INCOMPLETE:
            return 0, None
        if fault:
            return 1, self._error(fault)
        size = length + 6
        return size, LongFrame(buffer[4], buffer[5], buffer[6], bytes(buffer[7 : size - 2]))

    def _fault(self, length: int) -> str:
        """Why no long frame of this length begins here; empty where one does."""
        buffer, size = self._buffer, length + 6
        if len(buffer) < size:
            return _INCOMPLETE
        if buffer[size - 1] != STOP:
            return "stop_byte_missing"
        return "" if sum(memoryview(buffer)[4 : size - 2]) & 0xFF == buffer[size - 2] else "checksum"

    def _holds_frame(self, size: int) -> bool:
        """
        Whether a whole frame of an honest length lies inside the first `size` bytes, behind the first.

        Then these are no long segment but one that broke off, and what came next: without this rule its beginning
        would swallow every telegram for 500 bytes.
        """
        buffer = self._buffer
        end = min(size, len(buffer))
        start = buffer.find(LONG_START, 1, end)
        while start >= 0:
            length = buffer[start + 1] if start + 1 < end else 0
            last = start + length + 5
            if (
                3 <= length == buffer[min(start + 2, end - 1)]
                and last < end
                and buffer[start + 3] == LONG_START
                and buffer[last] == STOP
                and sum(memoryview(buffer)[start + 4 : last - 1]) & 0xFF == buffer[last - 1]
            ):
                return True
            start = buffer.find(LONG_START, start + 1, end)
        return False

    def _error(self, reason: str) -> RemoteProtocolError:
        return RemoteProtocolError(reason, "no M-Bus frame here", offset=self._offset)
