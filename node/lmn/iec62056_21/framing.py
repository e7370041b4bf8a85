"""
Cuts a byte stream into readouts: identification line, data block, check.

Intuition: every telegram starts with `/`, three letters of the maker and a baud rate character.  What follows is
either `STX data ! CR LF ETX BCC` (an answer, modes A to C) or an empty line, data and `!` (pushed, mode D and P1),
with a CRC-16 in hexadecimal after the `!` where the meter follows DSMR 4 or later.

Complications that real lines force:
- Eight-bit links hand out the even parity bit of 7E1 as bit 7.  `/` then arrives as AF, which no plain telegram has,
  so the first character says which of the two it is; with parity every character is checked.
- A telegram may lose its end, within a line too.  `/ABC` at the start of a line cannot be data, nor can a whole
  identification with the empty line or STX behind it, so the reader drops only what came before it: a broken
  telegram costs itself and nothing else.
- Heads echo what we send.  Echoes of our own requests are no noise.

All searches end `size_max` bytes after the start, wherever the chunks were cut: whole or byte by byte, same result.
Source: IEC 62056-21:2002 clauses 5.8, 6.2, 6.3 (block check: ISO 1155), DSMR P1 companion standard 5.0.2 clause 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from node.lmn.iec62056_21.checks import block_check, crc16_arc
from protocol.errors import RemoteProtocolError

STX, ETX, ACK, NAK = b"\x02", b"\x03", b"\x06", b"\x15"
READOUT_SIZE_MAX = 32_768
IDENTIFICATION_SIZE_MAX = 80  # the standard says 20; DSMR meters were seen with more
_BETWEEN_SIZE_MAX = 32  # junk of a baud rate change, an echoed acknowledgement
_END_SIZE_MAX = 8  # "!" 4 hexadecimal digits CR LF, and one to spare

_ODD = bytes(c for c in range(256) if c.bit_count() % 2)
_STRIP = bytes(c & 0x7F for c in range(256))
_RESTART = re.compile(
    rb"\n[/\xaf][A-Za-z\xc1-\xda\xe1-\xfa]{3}"
    rb"|[^\n][/\xaf][A-Za-z\xc1-\xda\xe1-\xfa]{3}[^\r\n\x8d]{1,76}[\r\x8d]?\n(?:[\r\x8d]?\n|[\x02\x82])"
)
_START = re.compile(rb"[/\xaf]")
CIPHERED_HEAD_SIZE = 5
_CIPHERED = ("ciphered", "a ciphered telegram that does not name its system title: its maker's description is needed")
_REQUEST_ECHO = re.compile(rb"(?:[\x00\x7f\xff\s]|/\?[^!\r\n]{0,32}!\r\n)*")
_SLASHLESS = re.compile(rb"[A-Z]{2}[A-Za-z][!-~][ -~]{1,76}\r?\n")
_OWN_MESSAGES = re.compile(rb"/\?[^!\r\n]{0,32}!\r\n|\x06[0-9A-Za-z]{3}\r\n|\x15|[\s\x00\x7f\xff]")


@dataclass(frozen=True, slots=True)
class Readout:
    """
    One telegram: `identification` without the slash, `body` the data lines up to the exclamation mark.

    `verified` says that a BCC or CRC covered the body; `offset` is where its first byte stood in the stream.
    """

    identification: str
    body: str
    verified: bool
    offset: int


def ciphered_size(head: bytes) -> int | None:
    """
    The size of a ciphered telegram that begins so: 00, the length of what follows (BER), a security control.

    0 where none begins, None where `head` is too short to say; `CIPHERED_HEAD_SIZE` octets always suffice.
    """
    if not head:
        return None
    if head[0]:
        return 0
    if len(head) < 2:
        return None
    count = {0x81: 1, 0x82: 2}.get(head[1], 0)
    if head[1] >= 0x80 and not count:
        return 0
    if len(head) < 3 + count:
        return None
    length, control = int.from_bytes(head[2 : 2 + count], "big") if count else head[1], head[2 + count]
    # IEC 62056-5-3 table 14: suites 0 to 2, authentication or encryption, no compression.
    return 2 + count + length if control & 0x0F <= 2 and control & 0x30 and control < 0x80 else 0


class TelegramReader(Protocol):
    """What cuts a byte stream into readouts: `ReadoutReader`, or one that deciphers first."""

    @property
    def in_telegram(self) -> bool:
        """Whether a telegram has begun and not ended."""

    def receive(self, data: bytes | bytearray) -> list[Readout | RemoteProtocolError]:
        """Take the next bytes of the line; give what they completed, in the order of the line."""

    def end(self) -> list[Readout | RemoteProtocolError]:
        """The line is closed: what is still open is an error."""


class _State(Enum):
    SEEK = auto()
    IDENTIFICATION = auto()
    BETWEEN = auto()
    BLOCK = auto()
    LINES = auto()
    CIPHERED = auto()


class ReadoutReader:
    """
    Bytes in, readouts or errors out; never more than `size_max` bytes held, never an exception for what came in.

    Lower `size_max` and long readouts (load profiles) are refused; raise it and a line without ends costs memory.
    """

    def __init__(self, size_max: int = READOUT_SIZE_MAX) -> None:
        self._size_max = size_max
        self._buffer = bytearray()
        self._base = 0  # offset in the stream of the buffer's first byte
        self._scan = 0  # searched up to here
        self._data_at = 0  # where the data block starts
        self._identification = b""
        self._parity = False
        self._state = _State.SEEK
        self._skipped = b""
        self._skipped_count = 0
        self._answering = False  # the next line answers our request: its slash may be lost
        self._rest_reported = False  # what we skip belongs to a telegram whose fault was reported
        self._out: list[Readout | RemoteProtocolError] = []

    @property
    def in_telegram(self) -> bool:
        """Whether a telegram has begun and not ended."""
        return self._state is not _State.SEEK

    @property
    def in_data(self) -> bool:
        """Whether the data block of a telegram has begun and not ended."""
        return self._state in (_State.BLOCK, _State.LINES)

    @property
    def baud_character(self) -> str | None:
        """The fifth character of the identification, once its line is complete and the data have not ended."""
        if self._state in (_State.SEEK, _State.IDENTIFICATION) or len(self._identification) < 4:
            return None
        return chr(self._identification[3] & 0x7F)

    def expect_identification(self) -> None:
        """Our request has gone out: the first line that comes is an identification even if its slash was lost."""
        self._answering = True

    def expect_block(self) -> None:
        """After a NAK the meter repeats its data block, without the identification."""
        self._state, self._scan, self._data_at = _State.BETWEEN, 0, 0

    def receive(self, data: bytes | bytearray) -> list[Readout | RemoteProtocolError]:
        """Take the next bytes of the line; give what they completed, in the order of the line."""
        self._buffer += data
        return self._run()

    def end(self) -> list[Readout | RemoteProtocolError]:
        """The line is closed: a last telegram may lack its line end; what is still open is an error."""
        out: list[Readout | RemoteProtocolError] = []
        if self._state is _State.LINES:
            out += self.receive(b"\r\n")
        while self._state is not _State.SEEK:
            ciphered = self._state is _State.CIPHERED and self._buffer[self._data_at + 1 :].startswith(b"\x00")
            self._fail(*_CIPHERED if ciphered else ("truncated", "the stream ended inside a telegram"))
            out += self._run()
        self._skip(len(self._buffer))
        self._end_gap()
        return out + self._take()

    def _take(self) -> list[Readout | RemoteProtocolError]:
        out, self._out = self._out, []
        return out

    def _run(self) -> list[Readout | RemoteProtocolError]:
        steps = {
            _State.SEEK: self._seek,
            _State.IDENTIFICATION: self._identify,
            _State.BETWEEN: self._between,
            _State.BLOCK: self._block,
            _State.LINES: self._lines,
            _State.CIPHERED: self._ciphered,
        }
        while steps[self._state]():
            pass
        return self._take()

    def _consume(self, count: int) -> None:
        del self._buffer[:count]
        self._base += count
        self._scan = 0

    def _skip(self, count: int) -> None:
        self._skipped = (self._skipped + bytes(self._buffer[: min(count, 128)]))[:128]
        self._skipped_count += count
        self._consume(count)

    def _end_gap(self) -> None:
        noise = self._skipped_count > len(self._skipped) or _OWN_MESSAGES.sub(b"", self._skipped)
        if noise and not self._rest_reported:
            offset = self._base - self._skipped_count
            self._out.append(
                RemoteProtocolError("noise", f"{self._skipped_count} bytes outside of a telegram", offset=offset)
            )
        self._skipped, self._skipped_count = b"", 0

    def _fail(self, reason: str, detail: str) -> None:
        """The telegram at the buffer's start is none: say so, and look for the next after its first character."""
        self._out.append(RemoteProtocolError(reason, detail, offset=self._base))
        self._finish(1)
        self._rest_reported = True

    def _seek(self) -> bool:
        if self._answering and not self._restore_slash():
            return False
        match = _START.search(self._buffer)
        if match is None:
            self._skip(len(self._buffer))
            return False
        self._skip(match.start())
        if len(self._buffer) < 4:
            return False
        letters = bytes(self._buffer[1:4])
        self._parity = self._buffer[0] == 0xAF
        if self._parity:
            letters = letters.translate(_STRIP)
        if letters.isalpha() and letters.isascii():
            self._end_gap()
            self._state, self._scan = _State.IDENTIFICATION, 4
        else:
            self._skip(1)
        return True

    def _restore_slash(self) -> bool:
        """
        Put a slash before an answer that came without; whether the search for an identification may go on.

        Optical heads that wake too late lose the first character of an answer.
        """
        junk = _REQUEST_ECHO.match(self._buffer)
        at = 0 if junk is None else junk.end()
        end = self._buffer.find(b"\n", at)
        if end < 0 and len(self._buffer) - at < IDENTIFICATION_SIZE_MAX:
            return False
        self._answering = False
        line = bytes(self._buffer[at : end + 1])
        if _SLASHLESS.fullmatch(line.translate(_STRIP)):
            parity = any(character & 0x80 for character in line)
            self._buffer[at:at] = b"\xaf" if parity else b"/"
        return True

    def _identify(self) -> bool:
        end = self._buffer.find(b"\n", self._scan, IDENTIFICATION_SIZE_MAX)
        if end < 0:
            self._scan = min(len(self._buffer), IDENTIFICATION_SIZE_MAX)
            if len(self._buffer) >= IDENTIFICATION_SIZE_MAX:
                self._fail("malformed_identification", "no line end")
                return True
            return False
        self._identification = bytes(self._buffer[1:end])
        self._state, self._scan, self._data_at = _State.BETWEEN, end + 1, end + 1
        return True

    def _between(self) -> bool:
        while self._scan < len(self._buffer):
            character = self._buffer[self._scan]
            if character & 0x7F == STX[0]:
                self._state, self._data_at = _State.BLOCK, self._scan + 1
                return True
            if character == ACK[0] or self._buffer[self._data_at] == ACK[0]:
                if character == 0x0A:
                    self._data_at = self._scan + 1
            elif character == 0x0A and bytes(self._buffer[self._data_at : self._scan]) in (b"", b"\r", b"\x8d"):
                # LINES keeps this line feed: an empty telegram's "!" follows it.
                self._state, self._data_at = _State.CIPHERED, self._scan
                return True
            elif character in b"(/\xaf" or self._scan - self._data_at >= _BETWEEN_SIZE_MAX:
                self._fail("no_data_block", "neither STX nor an empty line after the identification")
                return True
            self._scan += 1
        return False

    def _ciphered(self) -> bool:
        """Polish P1 ports send 00, a length, a security control and a counter behind the empty line; no text does."""
        size = ciphered_size(bytes(self._buffer[self._data_at + 1 : self._data_at + 1 + CIPHERED_HEAD_SIZE]))
        if size is None:
            return False
        if not size:
            self._state = _State.LINES
            return True
        size = min(self._data_at + 1 + size, self._size_max)
        if len(self._buffer) < size:
            return False
        self._drop(size, *_CIPHERED)
        return True

    def _block(self) -> bool:
        end = self._find(ETX)
        if end is None or end + 2 > min(len(self._buffer), self._size_max):
            return self._wait(end)
        raw = bytes(self._buffer[: end + 2])
        if self._restarted(raw):
            return True
        data = self._without_parity(raw)
        if data is None:
            return True
        # On a line without parity nothing looks at bit 7 of a character, the block check (ISO 1155) does not either.
        if not (self._identification.isascii() and data[self._data_at :].isascii()):
            self._drop(len(raw), "bad_character", "an octet with bit 7 set, which the block check does not cover")
            return True
        if block_check(data[self._data_at : -1]) != data[-1]:
            self._drop(len(raw), "bad_checksum", "the block check character differs")
            return True
        body = data[self._data_at : -2].decode("latin-1")
        self._deliver(len(raw), body.rpartition("!")[0] or body, verified=True)
        return True

    def _lines(self) -> bool:
        at = self._find(b"\n!")
        end = -1 if at is None else self._buffer.find(b"\n", at + 2, min(at + 2 + _END_SIZE_MAX, self._size_max))
        if at is None or end < 0:
            if at is not None and at + 2 + _END_SIZE_MAX <= min(len(self._buffer), self._size_max):
                self._fail("malformed_end", "no line end after the exclamation mark")
                return True
            return self._wait(at)
        raw = bytes(self._buffer[: end + 1])
        if self._restarted(raw):
            return True
        data = self._without_parity(raw)
        if data is None:
            return True
        check = data[at + 2 :].strip().decode("latin-1")
        if check and not re.fullmatch(r"[0-9A-Fa-f]{1,4}", check):
            self._drop(len(raw), "malformed_end", "the check after the exclamation mark is no CRC")
            return True
        if check and int(check, 16) != crc16_arc(data[: at + 2]):
            self._drop(len(raw), "bad_checksum", "the CRC-16 differs")
            return True
        body = data[self._data_at : at].decode("latin-1")
        if not check and not (
            self._identification.isascii()
            and body.isascii()
            and body.replace("\r", "").replace("\n", "").replace("\t", "").isprintable()
        ):
            self._drop(len(raw), "bad_character", "no check sum, and characters that are no text")
            return True
        self._deliver(len(raw), body, verified=bool(check))
        return True

    def _find(self, what: bytes) -> int | None:
        at = self._buffer.find(what, max(self._scan - len(what) + 1, self._data_at), self._size_max)
        if at >= 0:
            return at
        self._scan = min(len(self._buffer), self._size_max)
        return None

    def _wait(self, end: int | None) -> bool:
        """More bytes are needed; True where the bound forbids to wait for them."""
        if end is not None:
            self._scan = end
        if len(self._buffer) < self._size_max:
            return False
        self._fail("too_long", f"no end within {self._size_max} bytes")
        return True

    def _restarted(self, raw: bytes) -> bool:
        if _RESTART.search(raw) is None:
            return False
        self._fail("truncated", "a new telegram begins before this one has ended")
        return True

    def _without_parity(self, raw: bytes) -> bytes | None:
        if not self._parity:
            return raw
        if raw.translate(None, _ODD) != raw:
            self._drop(len(raw), "bad_parity", "a character with odd parity")
            return None
        self._identification = self._identification.translate(_STRIP)
        return raw.translate(_STRIP)

    def _drop(self, size: int, reason: str, detail: str) -> None:
        self._out.append(RemoteProtocolError(reason, detail, offset=self._base))
        self._finish(size)

    def _deliver(self, size: int, body: str, *, verified: bool) -> None:
        identification = self._identification.decode("latin-1").strip()
        self._out.append(Readout(identification, body, verified, self._base))
        self._finish(size)

    def _finish(self, size: int) -> None:
        self._consume(size)
        self._state = _State.SEEK
