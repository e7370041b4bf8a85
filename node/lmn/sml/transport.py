"""
SML transport protocol version 1: where a file begins and ends in a stream of bytes, and whether it arrived whole.

    1b1b1b1b 01010101  <file, 00..03 fill bytes>  1b1b1b1b 1a <number of fill bytes> <CRC>

Four 1b are an escape; what follows says which.  A file that itself contains four 1b has them doubled.

Why it is not four lines: the stream is an optical head, a serial-to-TCP bridge or a tired cable.  A reading may begin
in the middle of a frame, a frame may stop and the next begin, bytes (often whole runs of 1b) get lost on the way.  So
the reader hunts for a start, and whatever goes wrong costs that one frame: the search goes on at the last start seen
inside it.  That start can hide: a frame cut off after 1b1b1b1b followed by a new one looks like a doubled escape, and
only the check sum shows it.  Looking at the last start only (not at each) keeps the work linear in the bytes received.

A run of more than four 1b before the end mark belongs to the file as far as the escape does not need it: no escape
code begins with 1b and goes on with something else.
"""

from __future__ import annotations

from typing import NamedTuple

from node.lmn.sml import crc
from protocol.errors import RemoteProtocolError

ESCAPE = b"\x1b\x1b\x1b\x1b"
START = ESCAPE + b"\x01\x01\x01\x01"
_END = 0x1A
_FILL_MAX = 4  # one more than needed: DZG meters fill a file that needs no filling with 4
FRAME_SIZE_MAX = 65_536


class Frame(NamedTuple):
    """One SML file whose check sum is right: its bytes, and where in the stream its frame began."""

    payload: bytes
    offset: int


class FrameError(RemoteProtocolError):
    """A stretch of the stream that was no good frame; `offset` counts from the first byte ever fed."""


class TransportReader:
    """
    Cuts a stream into files.  Holds at most `frame_size_max` bytes plus what one `feed` brings.

    `frame_size_max`: a GetList answer has 200..1000 bytes, a profile pack some thousand.  Raising it lets a peer that
    never ends a frame occupy that much more memory; lowering it loses long answers.
    """

    def __init__(self, frame_size_max: int = FRAME_SIZE_MAX) -> None:
        self._frame_size_max = frame_size_max
        self._buffer = bytearray()
        self._offset = 0  # of buffer[0] in the stream
        self._inside = False  # buffer[0] is the first byte of a start
        self._scanned = 0
        self._skipped = 0  # bytes of noise just before buffer[0]

    @property
    def buffered(self) -> int:
        """How many bytes are held."""
        return len(self._buffer)

    @property
    def in_frame(self) -> bool:
        """Whether a frame has begun and not ended; bytes that only may become a start do not count, if not alone."""
        return self._inside or (bool(self._buffer) and START.startswith(self._buffer))

    def feed(self, data: bytes | bytearray) -> list[Frame | FrameError]:
        """Take the next bytes; return the frames and errors that they complete, in order.  Never raises."""
        self._buffer += data
        out: list[Frame | FrameError] = []
        while (self._cut if self._inside else self._hunt)(out):
            pass
        return out

    def end(self) -> list[Frame | FrameError]:
        """The stream is over: what is left in the buffer becomes errors, and the reader is as new."""
        out: list[Frame | FrameError] = []
        while self._inside:
            self._fail(out, "truncated", "the stream ended inside a frame", len(self._buffer))
        self._drop(len(self._buffer), noise=True)
        self._report_noise(out)
        return out

    def _drop(self, count: int, *, noise: bool = False) -> None:
        del self._buffer[:count]
        self._offset += count
        self._scanned = 0
        if noise:
            self._skipped += count

    def _report_noise(self, out: list[Frame | FrameError]) -> None:
        if self._skipped > 0:
            detail = f"{self._skipped} bytes outside any frame"
            out.append(FrameError("noise", detail, offset=self._offset - self._skipped))
        self._skipped = 0

    def _hunt(self, out: list[Frame | FrameError]) -> bool:
        if not self._buffer:
            return False
        found = self._buffer.find(START, self._scanned)
        if found < 0:
            self._drop(max(0, len(self._buffer) - len(START) + 1), noise=True)
            return False
        if found or self._skipped:
            self._drop(found, noise=True)
            self._report_noise(out)
        self._inside = True
        self._scanned = len(START)
        return True

    def _cut(self, out: list[Frame | FrameError]) -> bool:
        """Look for the next escape of the frame; True when there may be more to do."""
        buffer = self._buffer
        at = buffer.find(ESCAPE, self._scanned)
        if at < 0 or at + 8 > len(buffer):
            self._scanned = at if at >= 0 else max(self._scanned, len(buffer) - 3)
            if len(buffer) > self._frame_size_max:
                return self._fail(out, "frame_too_long", f"no end within {self._frame_size_max} bytes", len(buffer))
            return False
        if at + 8 > self._frame_size_max:
            return self._fail(out, "frame_too_long", f"no end within {self._frame_size_max} bytes", at)
        code = buffer[at + 4 : at + 8]
        if code[0] == _END:
            return self._finish(out, at)
        if code == ESCAPE:
            self._scanned = at + 8
        elif code[0] == 0x1B:
            self._scanned = at + 1
        elif code == START[4:]:
            out.append(FrameError("frame_restarted", "a start before the end", offset=self._offset))
            self._drop(at)
            self._scanned = len(START)
        else:
            return self._fail(out, "escape_unknown", "four 1b before what is no escape code", at + 4)
        return True

    def _finish(self, out: list[Frame | FrameError], at: int) -> bool:
        raw = bytes(self._buffer[: at + 8])
        fill = raw[at + 5]
        if not crc.matches(raw[:-2], raw[-2] << 8 | raw[-1]):
            return self._fail(out, "transport_crc", "the frame's check sum is wrong", at + 8)
        if fill > _FILL_MAX or fill > at - len(START):
            return self._fail(out, "fill_count", f"{fill} fill bytes, more than there can be", at + 8)
        payload = raw[len(START) : at - fill]
        if ESCAPE in payload:
            payload = payload.replace(ESCAPE + ESCAPE, ESCAPE)
        out.append(Frame(payload, self._offset))
        self._drop(at + 8)
        self._inside = False
        return True

    def _fail(self, out: list[Frame | FrameError], reason: str, detail: str, end: int) -> bool:
        """Give up the frame that reaches to `end` and go on at the last start inside it, or after it."""
        out.append(FrameError(reason, detail, offset=self._offset))
        end_offset = self._offset + end
        last = self._buffer.rfind(START, 1, end)
        self._inside = last > 0
        if self._inside:
            self._drop(last)
            self._scanned = len(START)
        else:
            # A start may straddle `end`, so its possible first bytes stay; they are reported already.
            self._drop(max(1, end - len(START) + 1))
            self._skipped = min(0, self._offset - end_offset)
        return True


def wrap(payload: bytes) -> bytes:
    """The frame of one SML file: escaped, filled to a multiple of four, with an X-25 sum."""
    body = payload.replace(ESCAPE, ESCAPE + ESCAPE)
    fill = -len(body) % 4
    frame = START + body + bytes(fill) + ESCAPE + bytes((_END, fill))
    return frame + crc.x25(frame).to_bytes(2, "big")
