"""
COSEM security: AES-GCM protection of APDUs, suites 0 to 2, and the GMAC of high level security (IEC 62056-5-3, 9.2).

A protected APDU is  security control byte | invocation counter (4) | text | tag (12).  The nonce is the sender's
system title (8) and the counter; whoever uses a pair twice under one key gives the key stream away, so the sender's
counter is reserved durably before it is used (`node.lmn.counters`), and the receiver takes no counter twice.

Suites 0 and 1 encrypt with AES-128, suite 2 with AES-256; what sets suite 1 apart (ECDSA, ECDH) concerns key
agreement and is not offered here, nor is compression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.base import Cipher
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM

from protocol.errors import LocalProtocolError, RemoteProtocolError

TAG_SIZE: Final = 12
HEADER_SIZE: Final = 5
COUNTER_MAX: Final = 0xFFFF_FFFF


class Control(IntFlag):
    """Bits of the security control byte; the low four are the suite."""

    AUTHENTICATED = 0x10
    ENCRYPTED = 0x20
    BROADCAST_KEY = 0x40
    COMPRESSED = 0x80


class InvocationCounter:
    """
    Our own counter: strictly rising, and never past what was reserved for it.

    `end` is the first value that is not ours; whoever keeps the counter has stored it before giving values below it.
    After a crash the store is at most ahead of what was sent, never behind.
    """

    def __init__(self, start: int = 0, end: int = COUNTER_MAX + 1) -> None:
        self._next = start
        self._end = end

    @property
    def left(self) -> int:
        """How many values are still reserved."""
        return max(0, min(self._end, COUNTER_MAX + 1) - self._next)

    def extend(self, start: int, end: int) -> None:
        """Go on in a newly reserved block, which lies above the old one."""
        self._next, self._end = max(self._next, start), end

    def take(self) -> int:
        """The next value.  Raises LocalProtocolError when none is reserved, or the key's 2**32 are used up."""
        if not self.left:
            raise LocalProtocolError("no invocation counter is left: reserve more, or change the key")
        self._next += 1
        return self._next - 1


class ReplayGuard:
    """The highest counter taken from each sender; `persist` hears of every rise."""

    def __init__(
        self, highest: dict[bytes, int] | None = None, persist: Callable[[bytes, int], None] | None = None
    ) -> None:
        self._highest = dict(highest or {})
        self._persist = persist

    def check(self, system_title: bytes, counter: int) -> None:
        """Raises RemoteProtocolError for a counter that is not above all before it."""
        if counter <= self._highest.get(system_title, -1):
            raise RemoteProtocolError("dlms_replay", "the invocation counter has not risen")

    def accept(self, system_title: bytes, counter: int) -> None:
        """Remember it; only after the tag was right, or a forger could lock the meter out."""
        self._highest[system_title] = counter
        if self._persist is not None:
            self._persist(system_title, counter)


@dataclass(frozen=True, slots=True)
class Keys:
    """
    The global keys of one meter: `encryption` (and `broadcast`) 16 bytes, 32 in suite 2; `authentication` likewise.

    Without an authentication key only encrypted, unauthenticated messages can be read.
    """

    encryption: bytes = field(repr=False)
    authentication: bytes = field(default=b"", repr=False)
    broadcast: bytes = field(default=b"", repr=False)
    suite: int = 0

    def __post_init__(self) -> None:
        size = 32 if self.suite == 2 else 16
        sizes = {len(key) for key in (self.encryption, self.authentication, self.broadcast) if key}
        if self.suite not in (0, 1, 2) or not self.encryption or sizes != {size}:
            raise LocalProtocolError(f"suite {self.suite} wants keys of {size} bytes")


def protect(
    plain: bytes, keys: Keys, system_title: bytes, counter: int, *, encrypt: bool = True, authenticate: bool = True
) -> bytes:
    """The protected form of `plain`: control byte, counter, text, tag."""
    control = keys.suite | (Control.ENCRYPTED if encrypt else 0) | (Control.AUTHENTICATED if authenticate else 0)
    header = bytes((control,)) + counter.to_bytes(4, "big")
    nonce = _nonce(system_title, counter)
    if not authenticate:
        return header + (_keystream(keys.encryption, nonce, plain) if encrypt else plain)
    associated = bytes((control,)) + _authentication_key(keys)
    if encrypt:
        sealed = AESGCM(keys.encryption).encrypt(nonce, plain, associated)
        return header + sealed[: len(plain) + TAG_SIZE]
    return header + plain + AESGCM(keys.encryption).encrypt(nonce, b"", associated + plain)[:TAG_SIZE]


def unprotect(
    protected: bytes, keys: Keys, system_title: bytes, *, unverified: bool = False
) -> tuple[bytes, int, Control]:
    """
    (plain text, invocation counter, control bits) of a protected text.

    With `unverified` an authenticated text is decrypted even where the authentication key is not known; its control
    bits then come back without AUTHENTICATED, since nothing vouches for it.

    Raises RemoteProtocolError for a false tag (wrong key, altered text), another suite, compression, or a length
    that cannot be.
    """
    if len(protected) < HEADER_SIZE:
        raise RemoteProtocolError("dlms_truncated", "no security header")
    control = Control(protected[0] & 0xF0)
    counter = int.from_bytes(protected[1:5], "big")
    body = protected[HEADER_SIZE:]
    if protected[0] & 0x0F != keys.suite and {protected[0] & 0x0F, keys.suite} != {0, 1}:
        raise RemoteProtocolError("dlms_suite", f"security suite {protected[0] & 0x0F}, not {keys.suite}", offset=0)
    if control & Control.COMPRESSED:
        raise RemoteProtocolError("dlms_compressed", "compressed APDUs are not supported", offset=0)
    key = keys.broadcast if control & Control.BROADCAST_KEY else keys.encryption
    if not key:
        raise RemoteProtocolError("dlms_key_missing", "protected with a broadcast key that is not known", offset=0)
    nonce = _nonce(system_title, counter)
    if not control & Control.AUTHENTICATED:
        return (_keystream(key, nonce, body) if control & Control.ENCRYPTED else body), counter, control
    if len(body) < TAG_SIZE:
        raise RemoteProtocolError("dlms_truncated", "no room for an authentication tag")
    text, tag = body[:-TAG_SIZE], body[-TAG_SIZE:]
    if not keys.authentication:
        if not unverified:
            raise RemoteProtocolError("dlms_key_missing", "authenticated, and the authentication key is not known")
        plain = _keystream(key, nonce, text) if control & Control.ENCRYPTED else text
        return plain, counter, control & ~Control.AUTHENTICATED
    associated = protected[:1] + keys.authentication
    try:
        if control & Control.ENCRYPTED:
            return _open(key, nonce, text, tag, associated), counter, control
        _open(key, nonce, b"", tag, associated + text)
    except InvalidTag:
        raise RemoteProtocolError("dlms_authentication", "the authentication tag is wrong") from None
    return text, counter, control


def gmac(challenge: bytes, keys: Keys, system_title: bytes, counter: int) -> bytes:
    """The answer to a challenge in HLS mechanism 5: control byte, counter, tag (IEC 62056-5-3, 9.2.7.4)."""
    whole = protect(challenge, keys, system_title, counter, encrypt=False)
    return whole[:HEADER_SIZE] + whole[-TAG_SIZE:]


def check_gmac(answer: bytes, challenge: bytes, keys: Keys, system_title: bytes) -> None:
    """Raises RemoteProtocolError for a wrong answer to a challenge."""
    if len(answer) != HEADER_SIZE + TAG_SIZE:
        raise RemoteProtocolError("dlms_authentication", "an HLS answer has 17 bytes")
    unprotect(answer[:HEADER_SIZE] + challenge + answer[HEADER_SIZE:], keys, system_title)
    if answer[0] & 0xF0 != Control.AUTHENTICATED:
        raise RemoteProtocolError("dlms_authentication", "an HLS answer is authenticated, not encrypted")


def _nonce(system_title: bytes, counter: int) -> bytes:
    if len(system_title) != 8:
        raise RemoteProtocolError("dlms_system_title", "a system title has 8 bytes")
    return system_title + counter.to_bytes(4, "big")


def _authentication_key(keys: Keys) -> bytes:
    if not keys.authentication:
        raise LocalProtocolError("authentication needs the authentication key")
    return keys.authentication


def _open(key: bytes, nonce: bytes, text: bytes, tag: bytes, associated: bytes) -> bytes:
    """GCM with the tag cut to 12 bytes, which the AEAD interface of the library does not take."""
    decryptor = Cipher(AES(key), GCM(nonce, tag, min_tag_length=TAG_SIZE)).decryptor()
    decryptor.authenticate_additional_data(associated)
    return decryptor.update(text) + decryptor.finalize()


def _keystream(key: bytes, nonce: bytes, text: bytes) -> bytes:
    """GCM without its tag is counter mode from block 2 on."""
    cipher = Cipher(AES(key), CTR(nonce + (2).to_bytes(4, "big"))).encryptor()
    return cipher.update(text) + cipher.finalize()
