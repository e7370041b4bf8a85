"""
What comes out of radio modules: datagrams in a serial framing, or text lines.

IMST (iM871A and its kin): A5, endpoint, message, length, datagram without its L field, optionally a time stamp, signal
strength and a check sum.  AMBER (AMB8465): FF 03, length, datagram without L, optionally signal strength, XOR check
sum.  rtl-wmbus: a line of fields with the datagram in hexadecimal at the end.  rtl_433: a line of JSON.  culfw (CUL,
nanoCUL): a line of b and the datagram as it was on the air, bY where it is of format B.  Raw: datagrams one after the
other, L first, with or without the air's check sums.  All readers share one habit: after damage they move on octet by
octet, report a run of damage once, and hold at most one frame; whole or byte by byte gives the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from node.lmn.mbus.crc import crc16
from node.lmn.wmbus.link import Format, guess_format, size_on_air, strip
from node.lmn.wmbus.signal import Signal, of_cc1101, of_imst, of_program
from protocol.errors import RemoteProtocolError

LINE_SIZE_MAX: Final = 4096  # rtl_433 names each record beside the datagram
_IMST_START: Final = 0xA5
_IMST_RADIO: Final = 0x02
_IMST_INDICATION: Final = 0x03
_IMST_REQUEST: Final = 0x01
_AMBER_START: Final = 0xFF
_AMBER_INDICATION: Final = 0x03
_AMBER_REQUEST: Final = 0x00
_DATAGRAM_SIZE_MIN: Final = 11
_CUL_QUALITY_SIZE: Final = 2  # link quality and signal strength, where culfw is set to report them
_CUL_ANSWERS: Final = frozenset({b"TMODE", b"CMODE", b"SMODE"})


@dataclass(frozen=True, slots=True)
class Datagram:
    """A stripped datagram, L first, where in the stream it began, and how strongly it came, where that is said."""

    octets: bytes
    offset: int
    signal: Signal | None = None


Event = Datagram | RemoteProtocolError


class Reader(Protocol):
    """Bytes of one receiver to datagrams."""

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take bytes, give what became complete."""

    def finish(self) -> Iterator[Event]:
        """The stream has ended."""


class _FrameReader:
    """The shared loop: `_next` says how many octets are done and what they were."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._offset = 0
        self._lost = False

    def feed(self, data: bytes) -> Iterator[Event]:
        self._buffer += data
        while self._buffer:
            size, event = self._next()
            if size == 0:
                return
            if isinstance(event, RemoteProtocolError):
                if not self._lost:
                    yield event
                self._lost = True
            else:
                self._lost = False
                if event is not None:
                    yield event
            del self._buffer[:size]
            self._offset += size

    def finish(self) -> Iterator[Event]:
        while self._buffer:
            if not self._lost:
                yield RemoteProtocolError("frame_truncated", "the stream ends inside a frame", offset=self._offset)
            self._lost = True
            del self._buffer[0]
            self._offset += 1
            yield from self.feed(b"")

    def _next(self) -> tuple[int, Event | None]:
        raise NotImplementedError

    def _error(self, reason: str, detail: str = "") -> RemoteProtocolError:
        return RemoteProtocolError(reason, detail, offset=self._offset)

    def _datagram(self, payload: bytes | bytearray, signal: Signal | None = None) -> Datagram:
        return Datagram(bytes([len(payload)]) + bytes(payload), self._offset, signal)


def crc_x25(data: bytes) -> int:
    """CRC-16/X-25 as IMST's host interface uses it."""
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0x8408 if register & 1 else register >> 1
    return register ^ 0xFFFF


class ImstReader(_FrameReader):
    """
    IMST's host interface.  Messages other than received datagrams are passed over.

    With `requests` it is the module's side that reads: the datagrams that the host wants sent.
    """

    def __init__(self, *, requests: bool = False) -> None:
        super().__init__()
        self._wanted = _IMST_REQUEST if requests else _IMST_INDICATION

    def _next(self) -> tuple[int, Event | None]:
        buffer = self._buffer
        if buffer[0] != _IMST_START:
            return 1, self._error("not_a_frame")
        if len(buffer) < 4:
            return 0, None
        control, endpoint = buffer[1] >> 4, buffer[1] & 0x0F
        with_crc = control & 0x8
        size = 4 + buffer[3] + (4 if control & 0x2 else 0) + (1 if control & 0x4 else 0) + (2 if with_crc else 0)
        if len(buffer) < size:
            return 0, None
        if with_crc and crc_x25(bytes(buffer[1 : size - 2])) != int.from_bytes(buffer[size - 2 : size], "little"):
            return 1, self._error("checksum")
        if (endpoint, buffer[2]) != (_IMST_RADIO, self._wanted):
            # Without a check sum any A5 in garbage would look like a message of some endpoint.
            return (size, None) if with_crc or 1 <= endpoint <= 4 else (1, self._error("not_a_frame"))
        if buffer[3] < _DATAGRAM_SIZE_MIN - 1:
            return 1, self._error("datagram_truncated")
        strength = 4 + buffer[3] + (4 if control & 0x2 else 0)
        signal = of_imst(buffer[strength]) if control & 0x4 else None
        return size, self._datagram(buffer[4 : 4 + buffer[3]], signal)


class AmberReader(_FrameReader):
    """
    AMBER's command mode.

    `rssi` is how the module is set up: no signal strength, one octet after the datagram that its length does not
    count, or one that it does.  With `requests` it is the module's side that reads.
    """

    def __init__(self, rssi: Literal["absent", "after", "counted"] = "absent", *, requests: bool = False) -> None:
        super().__init__()
        self._wanted = _AMBER_REQUEST if requests else _AMBER_INDICATION
        self._after = 1 if rssi == "after" else 0
        self._counted = 1 if rssi == "counted" else 0

    def _next(self) -> tuple[int, Event | None]:
        buffer = self._buffer
        if buffer[0] != _AMBER_START:
            return 1, self._error("not_a_frame")
        if len(buffer) < 3:
            return 0, None
        is_datagram = buffer[1] == self._wanted
        size = 4 + buffer[2] + (self._after if is_datagram else 0)
        if len(buffer) < size:
            return 0, None
        check = 0
        for byte in buffer[: size - 1]:
            check ^= byte
        if check != buffer[size - 1]:
            return 1, self._error("checksum")
        if not is_datagram:
            return size, None
        payload = buffer[3 : 3 + buffer[2] - self._counted]
        if len(payload) < _DATAGRAM_SIZE_MIN - 1:
            return 1, self._error("datagram_truncated")
        has_strength = is_datagram and (self._after or self._counted)
        return size, self._datagram(payload, of_cc1101(buffer[size - 2]) if has_strength else None)


class RawReader(_FrameReader):
    """Datagrams one after the other; format A is known by its first block's check sum, B by its last."""

    def _next(self) -> tuple[int, Event | None]:
        buffer = self._buffer
        if buffer[0] < _DATAGRAM_SIZE_MIN - 1:
            return 1, self._error("not_a_frame")
        if len(buffer) < 12:
            return 0, None
        if crc16(bytes(buffer[:10])) == int.from_bytes(buffer[10:12], "big"):
            frame_format = Format.A
        else:
            frame_format = Format.STRIPPED
        size = size_on_air(buffer[0], frame_format)
        if len(buffer) < size:
            return 0, None
        octets = bytes(buffer[:size])
        if frame_format is Format.STRIPPED:
            frame_format = guess_format(octets)
        try:
            return size, Datagram(strip(octets, frame_format), self._offset)
        except RemoteProtocolError as error:
            return 1, self._error(error.reason, error.detail)


class LineReader:
    """
    Text lines: rtl-wmbus' fields separated by semicolons, rtl_433's JSON, culfw's b and bY, hexadecimal alone.

    Empty lines, those that begin with #, what culfw answers to commands and other senders that rtl_433 names are passed
    over; a line of more than 4,096 characters is an error.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._offset = 0
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take bytes, give what became complete."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._buffer += line
            yield from self._line()
        self._buffer += rest
        if len(self._buffer) > LINE_SIZE_MAX:
            if not self._skipping:
                yield RemoteProtocolError("line_too_long", f"over {LINE_SIZE_MAX} characters", offset=self._offset)
            self._skipping = True
            self._offset += len(self._buffer)
            self._buffer.clear()

    def finish(self) -> Iterator[Event]:
        """The stream has ended: a last line needs no newline."""
        if self._buffer:
            yield from self._line()

    def _line(self) -> Iterator[Event]:
        line, offset, skipping = bytes(self._buffer).strip(), self._offset, self._skipping
        self._offset += len(self._buffer) + 1
        self._buffer.clear()
        self._skipping = False
        if skipping or not line or line.startswith(b"#") or line in _CUL_ANSWERS:
            return
        if len(line) > LINE_SIZE_MAX:
            yield RemoteProtocolError("line_too_long", f"over {LINE_SIZE_MAX} characters", offset=offset)
            return
        try:
            if (datagram := _line_datagram(line, offset)) is not None:
                yield datagram
        except RemoteProtocolError as error:
            yield RemoteProtocolError(error.reason, error.detail, offset=offset)


def _line_datagram(line: bytes, offset: int) -> Datagram | None:
    if line.startswith(b"{"):
        return _rtl_433(line, offset)
    if line.startswith(b"? ("):
        raise RemoteProtocolError("receiver_refused", "the stick's firmware does not know the command for this mode")
    signal = None
    fields = line.split(b";")
    if len(fields) >= 8:
        if fields[1].strip() != b"1" or fields[2].strip() not in (b"1", b""):
            raise RemoteProtocolError("block_crc", "the receiver marks the datagram as damaged")
        text = fields[-1].strip().removeprefix(b"0x")
        signal = of_program(float(fields[4]), "") if fields[4].strip().isdigit() else None
    else:
        text = line.removeprefix(b"telegram=").replace(b"|", b"").replace(b"_", b"").removeprefix(b"0x")
        text = text.split(b"+")[0]
        if text[:2] == b"bY":
            return _checked(_octets(text[2:]), Format.B, offset)
        if text[:1] == b"b" and len(text) % 2:
            return _checked(_octets(text[1:]), Format.A, offset)
    octets = _octets(text)
    return Datagram(strip(octets, guess_format(octets)), offset, signal)


def _octets(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise RemoteProtocolError("not_hexadecimal", "a line that is no datagram") from None


def _rtl_433(line: bytes, offset: int) -> Datagram | None:
    """
    A line of `rtl_433 -F json`; None for what is no wireless M-Bus.

    Release 22.11 counts format A two octets short and leaves the last block's check sum behind: with it that is seen.
    """
    try:
        row = json.loads(line)
        if not isinstance(row, dict) or row.get("model") != "Wireless-MBus":
            return None
        octets = bytes.fromhex(row["data"])
        level = row.get("rssi")
        snr_db = float(row["snr"]) if "snr" in row else None
        signal = None if level is None else of_program(float(level), "dB", snr_db)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise RemoteProtocolError("not_json", "a line of rtl_433 without a datagram") from None
    if octets and octets[0] != len(octets) - 1:
        content, check = octets[:-2], octets[-2:]
        last = 10 + (len(content) - 11) // 16 * 16
        if len(content) < _DATAGRAM_SIZE_MIN or crc16(content[last:]) != int.from_bytes(check, "big"):
            raise RemoteProtocolError("length_field", "the length field is not the datagram's length", offset=offset)
        octets = bytes([len(content) - 1]) + content[1:]
    if len(octets) < _DATAGRAM_SIZE_MIN:
        raise RemoteProtocolError("datagram_truncated")
    return Datagram(octets, offset, signal)


def _checked(octets: bytes, frame_format: Format, offset: int) -> Datagram:
    """The datagram of a line of culfw: never stripped, so false check sums are damage, whatever the size."""
    size = size_on_air(octets[0], frame_format) if octets else 0
    if len(octets) not in (size, size + _CUL_QUALITY_SIZE):
        raise RemoteProtocolError("length_field", f"not the octets of format {frame_format.value} for that length")
    signal = of_cc1101(octets[-1], octets[-2]) if len(octets) == size + _CUL_QUALITY_SIZE else None
    return Datagram(strip(octets, frame_format), offset, signal)


def imst_frame(datagram: bytes, *, request: bool = False) -> bytes:
    """A stripped datagram as IMST would deliver it, or as it takes one to be sent, with check sum."""
    message = _IMST_REQUEST if request else _IMST_INDICATION
    body = bytes([0x80 | _IMST_RADIO, message, len(datagram) - 1]) + datagram[1:]
    return bytes([_IMST_START]) + body + crc_x25(body).to_bytes(2, "little")


def amber_frame(datagram: bytes, *, request: bool = False) -> bytes:
    """The same in AMBER's command mode."""
    out = bytes([_AMBER_START, _AMBER_REQUEST if request else _AMBER_INDICATION, len(datagram) - 1]) + datagram[1:]
    check = 0
    for byte in out:
        check ^= byte
    return out + bytes([check])


def rtl_wmbus_line(datagram: bytes, *, mode: str = "T1", when: str = "2026-01-01 00:00:00.000") -> bytes:
    """A stripped datagram as a line of rtl-wmbus: mode, checks, time, signal strengths, number, datagram."""
    number = datagram[7:3:-1].hex().upper()
    return f"{mode};1;1;{when};97;148;{number};0x{datagram.hex()}\n".encode()
