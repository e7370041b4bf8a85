"""
The cryptographic primitives of a ring, gathered behind one interface.

Everything comes from `cryptography` and PyNaCl.  The interface exists for one reason: a simulator that plays
thousands of rings replaces the costly primitives (group, key agreement, cipher) by cheap stand-ins and so runs the
very same state machines.  Every derivation names what it is for; no key serves two purposes.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import Protocol

import nacl.bindings
import nacl.exceptions
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import constant_time, hashes, hmac
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from protocol.dcnet.crypto.group import Edwards25519, Group
from protocol.dcnet.crypto.pair_opening import PairContext, open_pair, opened_secret
from protocol.errors import RemoteProtocolError

MAC_SIZE = 16
_SHA256 = hashes.SHA256()
_PREFIX = b"stromkreis/v1/"
_ZEROS = memoryview(bytes(1 << 17))  # what becomes keystream; zeroing as many bytes anew costs a tenth of the cipher
_counter_mode = lru_cache(maxsize=16)(modes.CTR)  # all pairs of a ring begin at the same block


_length = struct.Struct("<Q").pack
_LENGTHS = [_length(size) for size in range(1 << 8)]  # of nearly all parts


@lru_cache(maxsize=256)
def _prefix(purpose: str) -> bytes:
    return _PREFIX + purpose.encode() + b"\0"


def digest(purpose: str, *parts: bytes) -> bytes:
    """SHA-256 over the purpose and the length-prefixed parts: no two lists of parts hash alike."""
    pieces = [_prefix(purpose)]
    for part in parts:
        size = len(part)
        pieces += _LENGTHS[size] if size < len(_LENGTHS) else _length(size), part
    return hashlib.sha256(b"".join(pieces)).digest()


@lru_cache(maxsize=64)
def _bare(purpose: str) -> bytes:
    """The digest of a purpose that has no parts: a constant."""
    return digest(purpose)


def derive(key: bytes, purpose: str, *parts: bytes, size: int = 32) -> bytes:
    """HKDF-Expand (RFC 5869) of a uniform key for one purpose."""
    return derive_for(key, info_of(purpose, *parts), size)


def info_of(purpose: str, *parts: bytes) -> bytes:
    """What `derive` gives HKDF-Expand as its info, for who derives many keys for one."""
    return digest(purpose, *parts) if parts else _bare(purpose)


def derive_for(key: bytes, info: bytes, size: int = 32) -> bytes:
    """As `derive`, with `info_of` a purpose."""
    if size == 32:  # one block, HMAC(key, info ‖ 1), which is all but a few of the keys: a third of the time
        state = hmac.HMAC(key, _SHA256)
        state.update(info + b"\x01")
        return state.finalize()
    return HKDFExpand(_SHA256, size, info).derive(key)


class Encryptor(Protocol):
    """A cipher in counter mode under one key, as `cryptography` has it: what it makes of zeros is keystream."""

    def update(self, data: memoryview) -> bytes: ...  # noqa: D102
    def update_into(self, data: memoryview, buf: memoryview) -> int: ...  # noqa: D102


class Suite(Protocol):
    """What the machines need; see `StandardSuite` for the meaning of each."""

    group: Group

    def public_key(self, private: bytes) -> bytes: ...  # noqa: D102
    def agree(self, private: bytes, public: bytes, salt: bytes) -> bytes: ...  # noqa: D102
    def open_pair(self, private: bytes, public: bytes, other: bytes, context: PairContext) -> bytes: ...  # noqa: D102
    def opened(self, public: bytes, other: bytes, context: PairContext, opening: bytes) -> bytes: ...  # noqa: D102
    def keystream(self, key: bytes, stream: int, offset: int, size: int) -> bytes: ...  # noqa: D102
    def encryptor(self, key: bytes, counter: bytes) -> Encryptor: ...  # noqa: D102
    def mac(self, key: bytes, message: bytes) -> bytes: ...  # noqa: D102
    def seal(self, key: bytes, nonce: int, plain: bytes, context: bytes) -> bytes: ...  # noqa: D102
    def unseal(self, key: bytes, nonce: int, sealed: bytes, context: bytes) -> bytes: ...  # noqa: D102
    def verify_key(self, seed: bytes) -> bytes: ...  # noqa: D102
    def signing_key(self, seed: bytes) -> bytes: ...  # noqa: D102
    def sign(self, secret: bytes, message: bytes) -> bytes: ...  # noqa: D102
    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool: ...  # noqa: D102
    def verify_shared(self, public: bytes, message: bytes, signature: bytes) -> bool: ...  # noqa: D102


def zeros(size: int) -> memoryview:
    """As many zeros, to become keystream."""
    return _ZEROS[:size] if size <= len(_ZEROS) else memoryview(bytes(size))


def counter_block(stream: int, offset: int) -> bytes:
    """The cipher's counter at byte `offset`, a multiple of 16, of stream number `stream`: 8 bytes each."""
    return struct.pack(">QQ", stream, offset // 16)


def mac_equal(left: bytes, right: bytes) -> bool:
    """Constant-time comparison."""
    return constant_time.bytes_eq(left, right)


class StandardSuite:
    """X25519, HKDF-SHA-256, AES-256-CTR, HMAC-SHA-256, ChaCha20-Poly1305, Ed25519, edwards25519."""

    def __init__(self) -> None:
        self.group: Group = Edwards25519()

    def public_key(self, private: bytes) -> bytes:
        """The X25519 public key, 32 bytes (RFC 7748)."""
        return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()

    def agree(self, private: bytes, public: bytes, salt: bytes) -> bytes:
        """
        HKDF-Extract of the X25519 shared secret, 32 bytes.

        Raises RemoteProtocolError for a public key of low order (an all-zero shared secret, RFC 7748 section 6.1).
        """
        try:  # through libsodium, which does not compute our own public key again each time
            shared = nacl.bindings.crypto_scalarmult(private, public)
        except nacl.exceptions.RuntimeError as error:
            raise RemoteProtocolError("low_order_key", "an epoch key gives an all-zero shared secret") from error
        return HKDF.extract(_SHA256, salt, shared)

    def open_pair(self, private: bytes, public: bytes, other: bytes, context: PairContext) -> bytes:
        """What `agree` is made of, with a proof for everybody: `OPENING_SIZE` bytes (see `pair_opening`)."""
        return open_pair(private, public, other, context)

    def opened(self, public: bytes, other: bytes, context: PairContext, opening: bytes) -> bytes:
        """
        What `agree` gives the pair, its epoch's digest being the salt, from an opening by the owner of `public`.

        Raises RemoteProtocolError where the proof does not hold.
        """
        return HKDF.extract(_SHA256, context.epoch_digest, opened_secret(public, other, context, opening))

    def keystream(self, key: bytes, stream: int, offset: int, size: int) -> bytes:
        """
        Bytes [offset, offset+size) of keystream number `stream` under `key`; `offset` is a multiple of 16.

        The counter block is stream (8 bytes) and block index (8 bytes).
        """
        return self.encryptor(key, counter_block(stream, offset)).update(zeros(size))

    def encryptor(self, key: bytes, counter: bytes) -> Encryptor:
        """
        AES-256-CTR from a `counter_block` on, for who reads a stream on and on or into memory of its own.

        It holds about 1 KB, the expanded key among it.  `update_into` wants 15 bytes of room behind what it writes.
        """
        return Cipher(algorithms.AES256(key), _counter_mode(counter)).encryptor()

    def mac(self, key: bytes, message: bytes) -> bytes:
        """HMAC-SHA-256 cut to 16 bytes (RFC 2104 section 5)."""
        state = hmac.HMAC(key, _SHA256)
        state.update(message)
        return state.finalize()[:MAC_SIZE]

    def seal(self, key: bytes, nonce: int, plain: bytes, context: bytes) -> bytes:
        """ChaCha20-Poly1305 (RFC 8439); a key never sees a nonce twice, the callers count."""
        return ChaCha20Poly1305(key).encrypt(nonce.to_bytes(12, "big"), plain, context)

    def unseal(self, key: bytes, nonce: int, sealed: bytes, context: bytes) -> bytes:
        """The plain text.  Raises RemoteProtocolError where the tag does not fit."""
        try:
            return ChaCha20Poly1305(key).decrypt(nonce.to_bytes(12, "big"), sealed, context)
        except InvalidTag as error:
            raise RemoteProtocolError("bad_seal", "a sealed message does not authenticate") from error

    def verify_key(self, seed: bytes) -> bytes:
        """The Ed25519 public key of a 32-byte seed."""
        return self.signing_key(seed)[32:]

    def signing_key(self, seed: bytes) -> bytes:
        """What `sign` takes, 64 bytes: the seed and its public key, which costs as much to make as a signature."""
        _, secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        return bytes(secret)

    def sign(self, secret: bytes, message: bytes) -> bytes:
        """Ed25519 over `message` with a `signing_key`, 64 bytes (RFC 8032)."""
        return bytes(nacl.bindings.crypto_sign(message, secret)[:64])

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether an Ed25519 signature holds."""
        return _signature_holds(public, message, signature)

    def verify_shared(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """The same for a text that all members of a ring check, such as a result: each process does it once."""
        return signature_holds(public, message, signature)


def _signature_holds(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        nacl.bindings.crypto_sign_open(signature + message, public)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


# All three are public, or they would not be kept.
signature_holds = lru_cache(maxsize=512)(_signature_holds)
