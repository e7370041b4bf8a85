"""
Cheap stand-ins for the primitives, so that a ring round costs milliseconds: no security, every algebraic law kept.

A hash stands in for key agreement and cipher, a checksum for MAC and signature; the group is the transparent one.  What
must fail still fails: a MAC over another text, a signature by another key, a seal under another key.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from zlib import crc32

from loadtest.transparent_group import TransparentGroup
from protocol.dcnet.crypto.group import Group
from protocol.dcnet.crypto.pair_opening import OPENING_SIZE, PairContext
from protocol.dcnet.crypto.suite import MAC_SIZE
from protocol.errors import RemoteProtocolError

_WIDE = 64  # bytes at most of the quicker hash, of which one length is no prefix of another


_LENGTHS = [struct.Struct(f"<{count}I").pack for count in range(8)]  # of as many parts


def _text(*parts: bytes) -> bytes:
    return _LENGTHS[len(parts)](*map(len, parts)) + b"".join(parts)


def _hash(size: int, *parts: bytes) -> bytes:
    return hashlib.blake2b(_text(*parts), digest_size=size).digest()


# What both ends of a pair, or a member and its head, compute from the same parts.
@lru_cache(maxsize=1024)
def _public(private: bytes) -> bytes:
    return _hash(32, b"public", private)


@lru_cache(maxsize=1024)
def _agreed(low: bytes, high: bytes, salt: bytes) -> bytes:
    return _hash(32, b"agree", low, high, salt)


def _signature(public: bytes, message: bytes) -> bytes:
    return crc32(public + message).to_bytes(64, "little")


@lru_cache(maxsize=1024)
def _keystream(key: bytes, stream: int, size: int) -> bytes:
    """The first bytes of a stream."""
    number = stream.to_bytes(8, "little")
    first = _hash(_WIDE, b"first", key, number)  # all that most streams are read for: a self mask has few words
    if size <= _WIDE:
        return first[:size]
    return first + hashlib.shake_128(_text(b"rest", key, number)).digest(size - _WIDE)


class CheapEncryptor:
    """Implements `protocol.dcnet.crypto.suite.Encryptor`, for zeros alone."""

    def __init__(self, suite: CheapSuite, key: bytes, counter: bytes) -> None:
        self._suite = suite
        self._key = key
        self._stream, block = struct.unpack(">QQ", counter)
        self._offset = 16 * block

    def update(self, data: memoryview) -> bytes:
        """The next bytes of `CheapSuite.keystream`."""
        words = self._suite.keystream(self._key, self._stream, self._offset, len(data))
        self._offset += len(data)
        return words

    def update_into(self, data: memoryview, buf: memoryview) -> int:
        """The same into a buffer."""
        buf[: len(data)] = self.update(data)
        return len(data)


class CheapSuite:
    """Implements `protocol.dcnet.crypto.suite.Suite` without any security."""

    def __init__(self) -> None:
        self.group: Group = TransparentGroup()

    def public_key(self, private: bytes) -> bytes:
        """A hash of the private half."""
        return _public(private)

    def agree(self, private: bytes, public: bytes, salt: bytes) -> bytes:
        """A hash of both public halves: the same on either side."""
        return _agreed(*sorted((_public(private), public)), salt)

    def open_pair(self, private: bytes, public: bytes, other: bytes, context: PairContext) -> bytes:
        """The private half itself, and a keyed hash over what is opened."""
        return private + _hash(OPENING_SIZE - 32, b"opening", private, public, other, context.to_bytes())

    def opened(self, public: bytes, other: bytes, context: PairContext, opening: bytes) -> bytes:
        """As `agree`, if `open_pair` made it."""
        private = opening[:32]
        if self.public_key(private) != public or opening != self.open_pair(private, public, other, context):
            raise RemoteProtocolError("bad_pair_opening", "the proof does not hold")
        return self.agree(private, other, context.epoch_digest)

    def keystream(self, key: bytes, stream: int, offset: int, size: int) -> bytes:
        """Extendable output; whole blocks of 16 bytes from the offset, as a counter mode gives them."""
        return _keystream(key, stream, offset + size)[offset:]

    def encryptor(self, key: bytes, counter: bytes) -> CheapEncryptor:
        """The same bytes from a counter block on."""
        return CheapEncryptor(self, key, counter)

    def mac(self, key: bytes, message: bytes) -> bytes:
        """A keyed checksum."""
        return crc32(key + message).to_bytes(MAC_SIZE, "little")

    def seal(self, key: bytes, nonce: int, plain: bytes, context: bytes) -> bytes:
        """The plain text with a keyed hash behind it."""
        return plain + _hash(16, b"seal", key, nonce.to_bytes(12, "big"), plain, context)

    def unseal(self, key: bytes, nonce: int, sealed: bytes, context: bytes) -> bytes:
        """The plain text, if the hash fits."""
        if self.seal(key, nonce, sealed[:-16], context) != sealed:
            raise RemoteProtocolError("bad_seal", "a sealed message does not authenticate")
        return sealed[:-16]

    def verify_key(self, seed: bytes) -> bytes:
        """As `public_key`."""
        return self.public_key(seed)

    def signing_key(self, seed: bytes) -> bytes:
        """The seed itself."""
        return seed

    def sign(self, secret: bytes, message: bytes) -> bytes:
        """A checksum under the public half, which only this file knows how to use."""
        return _signature(_public(secret), message)

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `sign` made it."""
        return signature == _signature(public, message)

    def verify_shared(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """As `verify`."""
        return self.verify(public, message, signature)
