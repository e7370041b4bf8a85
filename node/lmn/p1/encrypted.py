"""
Encrypted P1: a telegram inside a general-glo-ciphering APDU, one after the other on the line.

Luxembourg's Smarty meters and Sagemcom's T210-D of Styria send DB 08, the system title, a length, security control 30,
the invocation counter, the ciphered telegram and a tag of 12 bytes.  In Luxembourg the encryption key is the
customer's and the authentication key is printed in the specification, the same for all meters; elsewhere it is the
meter's own.  Source: Luxembourg Smarty P1 specification 1.1.3 clause 3.2.5, IEC 62056-5-3 clause 9.2.

There is no frame around it: DB 08 may stand in ciphered text as well, so what looks like a beginning counts once its
tag is right, and after a false one the search goes on at the next byte.  A telegram with a right tag is checked, with
or without a CRC of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from node.lmn.dlms import apdu
from node.lmn.dlms.axdr import Reader
from node.lmn.dlms.security import Control, Keys, ReplayGuard, unprotect
from node.lmn.iec62056_21.framing import READOUT_SIZE_MAX, Readout, ReadoutReader
from protocol.errors import LocalProtocolError, RemoteProtocolError

AUTHENTICATION_KEY_LUXEMBOURG: Final = bytes.fromhex("00112233445566778899aabbccddeeff")
BEGINNING: Final = b"\xdb\x08"
_HEAD_SIZE: Final = 15  # tag, system title with its length, up to four bytes of length, security control
_KEY_SIZE: Final = 16


def p1_keys(key: bytes, authentication: bytes = b"") -> Keys:
    """
    A meter's keys: `key` is the encryption key, or it and the authentication key together (32 bytes).

    Without an authentication key Luxembourg's is taken.  Raises LocalProtocolError for another length.
    """
    if len(key) not in (_KEY_SIZE, 2 * _KEY_SIZE):
        raise LocalProtocolError("a key has 16 bytes, or 32 with the authentication key")
    return Keys(key[:_KEY_SIZE], authentication or key[_KEY_SIZE:] or AUTHENTICATION_KEY_LUXEMBOURG)


class EncryptedReader:
    """
    Bytes in, readouts or errors out, as `ReadoutReader`; holds at most one telegram of 32 KiB and the piece just fed.

    `guard` refuses a telegram played back.  Every telegram is told by the tag: no plain one is taken.
    """

    def __init__(self, keys: Keys, guard: ReplayGuard | None = None) -> None:
        self._keys = keys
        self._guard = guard or ReplayGuard()
        self._buffer = bytearray()
        self._offset = 0
        self._lost = False

    @property
    def in_telegram(self) -> bool:
        """Whether a telegram has begun and not ended."""
        return bool(self._buffer)

    def receive(self, data: bytes | bytearray) -> list[Readout | RemoteProtocolError]:
        """Take the next bytes of the line; give what they completed, in the order of the line."""
        self._buffer += data
        found: list[Readout | RemoteProtocolError] = []
        while self._seek(found):
            whole = self._whole(found)
            if whole is None:
                break
            if whole:
                found += self._open(whole)
        return found

    def end(self) -> list[Readout | RemoteProtocolError]:
        """The line is closed: what is still open is an error, unless telegrams stand inside it."""
        found: list[Readout | RemoteProtocolError] = []
        while self._buffer:
            self._skip(1, found, "truncated", "the stream ends inside a telegram")
            found += self.receive(b"")
        return found

    def _seek(self, found: list[Readout | RemoteProtocolError]) -> bool:
        at = self._buffer.find(BEGINNING)
        if at < 0:
            at = len(self._buffer) - (self._buffer[-1:] == BEGINNING[:1])
        if at:
            self._skip(at, found, "noise", "no encrypted telegram here")
        return len(self._buffer) > 1

    def _whole(self, found: list[Readout | RemoteProtocolError]) -> bytes | None:
        """The APDU that begins here; None while it is not complete, nothing where none begins."""
        head = Reader(bytes(self._buffer[2 + 8 : _HEAD_SIZE + 1]))
        try:
            length = head.length()
            control = head.byte()
        except RemoteProtocolError as error:
            if error.reason == "dlms_truncated":
                return None
            length = control = 0
        size = 2 + 8 + head.offset - 1 + length
        if not control & Control.AUTHENTICATED or not _KEY_SIZE < length <= READOUT_SIZE_MAX:
            self._skip(1, found, "noise", "no encrypted telegram here")
            return b""
        return bytes(self._buffer[:size]) if len(self._buffer) >= size else None

    def _open(self, whole: bytes) -> list[Readout | RemoteProtocolError]:
        found: list[Readout | RemoteProtocolError] = []
        message = apdu.decode_apdu(whole)
        assert isinstance(message, apdu.GeneralGlobalCiphering)  # noqa: S101
        try:
            plain, counter, _ = unprotect(message.protected, self._keys, message.system_title)
        except RemoteProtocolError as error:
            self._lost = False  # each telegram that does not open is told, even under a key that opens none
            self._skip(1, found, error.reason, f"{error.detail}: another key, or no telegram")
            return found
        offset, self._lost = self._offset, False
        self._consume(len(whole))
        try:
            self._guard.check(message.system_title, counter)
        except RemoteProtocolError as error:
            return [RemoteProtocolError(error.reason, error.detail, offset=offset)]
        self._guard.accept(message.system_title, counter)
        inner = ReadoutReader()
        for item in [*inner.receive(plain), *inner.end()]:
            if isinstance(item, Readout):
                found.append(replace(item, verified=True, offset=offset))
            else:
                found.append(RemoteProtocolError(item.reason, item.detail, offset=offset))
        return found

    def _skip(self, count: int, found: list[Readout | RemoteProtocolError], reason: str, detail: str) -> None:
        """Leave bytes out; one error for a stretch of them."""
        if not self._lost:
            found.append(RemoteProtocolError(reason, detail, offset=self._offset))
        self._lost = True
        self._consume(count)

    def _consume(self, count: int) -> None:
        del self._buffer[:count]
        self._offset += count
