"""
HDLC frames: format type 3 of ISO/IEC 13239 as IEC 62056-46 uses it.

    7E | format 2 | destination 1,2,4 | source 1,2,4 | control 1 | HCS 2 | information | FCS 2 | 7E

The format field carries the length, so there is no bit stuffing and a flag may stand inside the frame; that is why
the reader below goes by length and check sums and never by searching the next flag.  The header check sum exists
only when there is information; it lets the reader drop a false start at once instead of waiting for two thousand
bytes that never come.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from protocol.errors import LocalProtocolError, RemoteProtocolError

FLAG: Final = 0x7E
FRAME_SIZE_MAX: Final = 2047  # the length field has eleven bits; flags do not count
_FORMAT_TYPE: Final = 0xA
_SEGMENTED: Final = 0x0800
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc_x25(data: bytes) -> bytes:
    """
    The frame check sequence of ISO/IEC 13239, two bytes as they go over the line.

    The C routine of the standard library computes the same polynomial with the bits the other way round.
    """
    mirrored = binascii.crc_hqx(data.translate(_REVERSED), 0xFFFF) ^ 0xFFFF
    return bytes((_REVERSED[mirrored >> 8], _REVERSED[mirrored & 0xFF]))


class Kind(Enum):
    """The frames of the unbalanced normal response mode and connectionless mode classes (UNC, UCC)."""

    INFORMATION = "I"
    RECEIVE_READY = "RR"
    RECEIVE_NOT_READY = "RNR"
    REJECT = "REJ"
    SET_NORMAL_RESPONSE_MODE = "SNRM"
    UNNUMBERED_ACKNOWLEDGE = "UA"
    DISCONNECT = "DISC"
    DISCONNECTED_MODE = "DM"
    FRAME_REJECT = "FRMR"
    UNNUMBERED_INFORMATION = "UI"


_SUPERVISORY: Final = {Kind.RECEIVE_READY: 0x01, Kind.RECEIVE_NOT_READY: 0x05, Kind.REJECT: 0x09}
_UNNUMBERED: Final = {
    Kind.SET_NORMAL_RESPONSE_MODE: 0x83,
    Kind.UNNUMBERED_ACKNOWLEDGE: 0x63,
    Kind.DISCONNECT: 0x43,
    Kind.DISCONNECTED_MODE: 0x0F,
    Kind.FRAME_REJECT: 0x87,
    Kind.UNNUMBERED_INFORMATION: 0x03,
}
_SUPERVISORY_KIND: Final = {code: kind for kind, code in _SUPERVISORY.items()}
_UNNUMBERED_KIND: Final = {code: kind for kind, code in _UNNUMBERED.items()}
POLL_FINAL: Final = 0x10


@dataclass(frozen=True, slots=True)
class Address:
    """
    A station: `upper` is the logical device (or the client), `lower` the physical one (IEC 62056-46, 6.4.2.2).

    In one byte there is only the upper part, in two bytes each has 7 bits, in four 14.
    """

    upper: int
    lower: int = 0
    size: Literal[1, 2, 4] = 1

    def __post_init__(self) -> None:
        limit = 0x4000 if self.size == 4 else 0x80
        if not (0 <= self.upper < limit and 0 <= self.lower < limit) or (self.size == 1 and self.lower):
            raise LocalProtocolError(f"no HDLC address of {self.size} bytes: {self.upper}/{self.lower}")

    def to_bytes(self) -> bytes:
        """1, 2 or 4 bytes; only the last has its least significant bit set."""
        if self.size == 1:
            return bytes((self.upper << 1 | 1,))
        if self.size == 2:
            return bytes((self.upper << 1, self.lower << 1 | 1))
        return bytes(
            (self.upper >> 7 << 1, (self.upper & 0x7F) << 1, self.lower >> 7 << 1, (self.lower & 0x7F) << 1 | 1)
        )

    @classmethod
    def read(cls, data: bytes, offset: int) -> Address:
        """The address that begins at `offset`.  Raises RemoteProtocolError where none ends within four bytes."""
        for size in (1, 2, 4):
            part = data[offset : offset + size]
            if len(part) == size and part[-1] & 1 and not any(byte & 1 for byte in part[:-1]):
                seven = [byte >> 1 for byte in part]
                if size == 1:
                    return cls(seven[0])
                if size == 2:
                    return cls(seven[0], seven[1], 2)
                return cls(seven[0] << 7 | seven[1], seven[2] << 7 | seven[3], 4)
        raise RemoteProtocolError("hdlc_address", "an address has 1, 2 or 4 bytes", offset=offset)


@dataclass(frozen=True, slots=True)
class Frame:
    """
    One frame.  `send_number` counts for I, `receive_number` for I, RR, RNR and REJ; `final` is the poll/final bit.

    `segmented` says that more information of the same unit follows in the next frame.
    """

    destination: Address
    source: Address
    kind: Kind
    final: bool = True
    information: bytes = b""
    send_number: int = 0
    receive_number: int = 0
    segmented: bool = False

    def to_bytes(self) -> bytes:
        """With both flags.  Raises LocalProtocolError for more than 2047 bytes between them."""
        header = self.destination.to_bytes() + self.source.to_bytes() + bytes((_control(self),))
        length = 2 + len(header) + (2 + len(self.information) if self.information else 0) + 2
        if length > FRAME_SIZE_MAX:
            raise LocalProtocolError(f"{length} bytes do not fit into one frame of {FRAME_SIZE_MAX}")
        body = (_FORMAT_TYPE << 12 | (_SEGMENTED if self.segmented else 0) | length).to_bytes(2, "big") + header
        if self.information:
            body += crc_x25(body) + self.information
        return b"\x7e" + body + crc_x25(body) + b"\x7e"

    @classmethod
    def from_bytes(cls, data: bytes) -> Frame:
        """What stands between two flags.  Raises RemoteProtocolError for anything that is not one whole frame."""
        if len(data) < 7 or data[0] >> 4 != _FORMAT_TYPE or _length(data) != len(data):
            raise RemoteProtocolError("hdlc_format", "no frame of format type 3 with its length", offset=0)
        if crc_x25(data[:-2]) != data[-2:]:
            raise RemoteProtocolError("hdlc_fcs", "the frame check sequence is wrong", offset=len(data) - 2)
        destination = Address.read(data, 2)
        source = Address.read(data, 2 + destination.size)
        at = 2 + destination.size + source.size
        if at > len(data) - 3:
            raise RemoteProtocolError("hdlc_format", "no room for a control field", offset=at)
        information = b""
        if at + 1 < len(data) - 2:
            if crc_x25(data[: at + 1]) != data[at + 1 : at + 3]:
                raise RemoteProtocolError("hdlc_hcs", "the header check sequence is wrong", offset=at + 1)
            information = data[at + 3 : -2]
        kind, final, send_number, receive_number = _read_control(data[at], at)
        segmented = bool(int.from_bytes(data[:2], "big") & _SEGMENTED)
        return cls(destination, source, kind, final, information, send_number, receive_number, segmented)


def _length(data: bytes | bytearray) -> int:
    return int.from_bytes(data[:2], "big") & FRAME_SIZE_MAX


def _control(frame: Frame) -> int:
    final = POLL_FINAL if frame.final else 0
    if frame.kind is Kind.INFORMATION:
        return frame.receive_number << 5 | final | frame.send_number << 1
    if frame.kind in _SUPERVISORY:
        return frame.receive_number << 5 | final | _SUPERVISORY[frame.kind]
    return _UNNUMBERED[frame.kind] | final


def _read_control(byte: int, offset: int) -> tuple[Kind, bool, int, int]:
    final = bool(byte & POLL_FINAL)
    if not byte & 1:
        return Kind.INFORMATION, final, byte >> 1 & 7, byte >> 5
    kind = _SUPERVISORY_KIND.get(byte & 0x0F)
    if kind is not None:
        return kind, final, 0, byte >> 5
    kind = _UNNUMBERED_KIND.get(byte & ~POLL_FINAL)
    if kind is None:
        raise RemoteProtocolError("hdlc_control", "a control field outside the agreed classes", offset=offset)
    return kind, final, 0, 0


class FrameReader:
    """
    Frames out of a byte stream: feed it what comes, in any pieces.

    After a broken frame it looks for the next start behind the broken one's flag, so that a frame that restarts
    before its end costs only itself.  It never holds more than one frame (2049 bytes) and the piece just fed.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._offset = 0
        self.skipped_byte_count = 0

    @property
    def pending(self) -> bool:
        """Whether a frame has begun and not ended."""
        return len(self._buffer) > 1

    def feed(self, data: bytes) -> list[Frame | RemoteProtocolError]:
        """What became complete.  A RemoteProtocolError in the list has its offset in the whole stream."""
        self._buffer += data
        found: list[Frame | RemoteProtocolError] = []
        while (item := self._next()) is not None:
            if not isinstance(item, bool):
                found.append(item)
        return found

    def end(self) -> list[Frame | RemoteProtocolError]:
        """At the end of the stream: what was hidden behind a frame that never came to its end."""
        found: list[Frame | RemoteProtocolError] = []
        while len(self._buffer) > 1:
            found.append(self._error("hdlc_truncated", "the stream ends within a frame"))
            self._drop_start()
            found += self.feed(b"")
        self.reset()
        return found

    def reset(self) -> None:
        """Forget an unfinished frame (after a pause that no frame may have)."""
        self._offset += len(self._buffer)
        self._buffer.clear()

    def _next(self) -> Frame | RemoteProtocolError | Literal[True] | None:
        """The next frame or error; True for "look again", None for "more bytes needed"."""
        buffer = self._buffer
        start = buffer.find(FLAG)
        self._skip(len(buffer) if start < 0 else start)
        while len(buffer) > 1 and buffer[1] == FLAG:
            self._discard(1)
        if len(buffer) < 3:
            return None
        if buffer[1] >> 4 != _FORMAT_TYPE:
            self._drop_start()
            return True
        length = _length(buffer[1:3])
        if length < 7:
            return self._fail("hdlc_format", "too short for a frame")
        early = self._header_error(length)
        if early is not None:
            return early
        if len(buffer) < length + 2:
            return None
        if buffer[length + 1] != FLAG:
            return self._fail("hdlc_format", "no flag where the frame should end")
        try:
            frame = Frame.from_bytes(bytes(buffer[1 : length + 1]))
        except RemoteProtocolError as error:
            return self._fail(error.reason, error.detail)
        self._discard(length + 1)  # the closing flag stays: it may open the next frame
        return frame

    def _header_error(self, length: int) -> RemoteProtocolError | None:
        """
        A frame with information proves its header early.

        Only what belongs to the frame is looked at, or the verdict would depend on how the stream is cut.
        """
        size = min(length, 13)
        header = bytes(self._buffer[1 : 1 + size])
        try:
            destination = Address.read(header, 2)
            at = 3 + destination.size + Address.read(header, 2 + destination.size).size
        except RemoteProtocolError as error:
            return self._fail(error.reason, error.detail) if len(header) == size else None
        if length > at + 2 and len(header) >= at + 2 and crc_x25(header[:at]) != header[at : at + 2]:
            return self._fail("hdlc_hcs", "the header check sequence is wrong")
        return None

    def _fail(self, reason: str, detail: str) -> RemoteProtocolError:
        error = self._error(reason, detail)
        self._drop_start()
        return error

    def _error(self, reason: str, detail: str) -> RemoteProtocolError:
        return RemoteProtocolError(reason, detail, offset=self._offset)

    def _drop_start(self) -> None:
        self._discard(1)
        following = self._buffer.find(FLAG)
        self._skip(len(self._buffer) if following < 0 else following)

    def _skip(self, size: int) -> None:
        self.skipped_byte_count += size
        self._discard(size)

    def _discard(self, size: int) -> None:
        del self._buffer[:size]
        self._offset += size
