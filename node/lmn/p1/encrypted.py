"""
Encrypted P1: a telegram inside a general-glo-ciphering APDU, one after the other on the line.

Luxembourg's Smarty meters and Sagemcom's T210-D of Styria send DB 08, the system title, a length, security control 30,
the invocation counter, the ciphered telegram and a tag of 12 bytes.  In Luxembourg the encryption key is the
customer's and the authentication key is printed in the specification, the same for all meters; elsewhere it is the
meter's own.  Source: Luxembourg Smarty P1 specification 1.1.3 clause 3.2.5, IEC 62056-5-3 clause 9.2.

There is no frame around it: DB 08 may stand in ciphered text as well, so what looks like a beginning counts once its
tag is right, and after a false one the search goes on at the next byte.  A telegram with a right tag is checked, with
or without a CRC of its own.  Where the authentication key is not known, a telegram whose own CRC is right is given as
UNVERIFIED: a CRC inside a stream cipher stops noise, nobody with intent.
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


class EncryptedReader:
    """
    Bytes in, readouts or errors out, as `ReadoutReader`; holds at most one telegram of 32 KiB and the piece just fed.

    `key` is the encryption key, or it and the authentication key together (32 bytes); without the latter Luxembourg's
    is tried.  `guard` refuses a telegram played back.  Plain telegrams are not taken.  Raises LocalProtocolError for a
    key of another length.
    """

    def __init__(self, key: bytes, guard: ReplayGuard | None = None) -> None:
        if len(key) not in (_KEY_SIZE, 2 * _KEY_SIZE):
            raise LocalProtocolError("a key has 16 bytes, or 32 with the authentication key")
        encryption, authentication = key[:_KEY_SIZE], key[_KEY_SIZE:]
        self._keys = Keys(encryption, authentication or AUTHENTICATION_KEY_LUXEMBOURG)
        self._unverified = None if authentication else Keys(encryption)
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
        message = apdu.decode_apdu(whole)
        assert isinstance(message, apdu.GeneralGlobalCiphering)  # noqa: S101
        found: list[Readout | RemoteProtocolError] = []
        title, offset = message.system_title, self._offset
        try:
            plain, counter, _ = unprotect(message.protected, self._keys, title)
            inside, verified = self._readouts(plain, offset), True
        except RemoteProtocolError as error:
            inside, counter, verified = *self._without_tag(message), False
            if not inside:
                self._lost = False  # each telegram that does not open is reported, even under a key that opens none
                self._skip(1, found, error.reason, f"{error.detail}: another key, or no telegram")
                return found
        self._lost = False
        self._consume(len(whole))
        try:
            self._guard.check(title, counter)
        except RemoteProtocolError as error:
            return [RemoteProtocolError(error.reason, error.detail, offset=offset)]
        if verified:
            self._guard.accept(title, counter)
        return [item if isinstance(item, RemoteProtocolError) else replace(item, verified=verified) for item in inside]

    def _without_tag(self, message: apdu.GeneralGlobalCiphering) -> tuple[list[Readout | RemoteProtocolError], int]:
        """The one telegram inside, if its own CRC is right, and the counter."""
        if self._unverified is None:
            return [], 0
        try:
            plain, counter, _ = unprotect(message.protected, self._unverified, message.system_title, unverified=True)
        except RemoteProtocolError:
            return [], 0
        inside = self._readouts(plain, self._offset) if plain.startswith(b"/") else []
        return (inside if all(isinstance(item, Readout) and item.verified for item in inside) else []), counter

    def _readouts(self, plain: bytes, offset: int) -> list[Readout | RemoteProtocolError]:
        inner = ReadoutReader()
        found: list[Readout | RemoteProtocolError] = []
        for item in [*inner.receive(plain), *inner.end()]:
            if isinstance(item, Readout):
                found.append(replace(item, offset=offset))
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
