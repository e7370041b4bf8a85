"""
Opening the X25519 secret of one pair of members with a proof, so that a third party can tell which of the two lied.

When a sum does not cancel, two neighbours may state different words for the mask that they share.  One of them opens
the pair: it discloses the shared point and proves, by a proof of equal discrete logarithms (Chaum and Pedersen, Crypto
1992), that it is the product of its own key and the other's.  Everybody can then derive the pair's keys and recompute
the word.  Only that pair's keys of that epoch are disclosed; the private key is not.

X25519 works on u coordinates of a Montgomery curve, which say nothing of a point's sign, and accepts keys of the twist
and of mixed order.  The proof needs one point for each key:

- `lift` maps u to the point E(u) of edwards25519 with y = (u - 1)/(u + 1) and an even x (RFC 7748, section 4.1).  It
  refuses every u that is not the canonical coordinate of a point of prime order: the twist, small and mixed orders,
  u = -1, u >= p and a set top bit.  A member whose public key does not lift is refused when it joins, so that every
  pair of a ring can be opened.
- X25519 multiplies by the clamped scalar a, mod the group's order; the secret scalar of E(u) is a or -a, whichever
  gives the even x.  The shared point's own sign is immaterial: both map to the same u, which is the X25519 secret.

The nonce of the proof is derived from the private key and all that is proved (as in RFC 8032, section 5.1.6): the same
opening is the same 96 bytes, and no opening can be made twice with one nonce and two challenges.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from nacl import bindings

from protocol.dcnet.crypto.group import (
    ELEMENT_SIZE,
    SCALAR_SIZE,
    Edwards25519,
    decode_scalar,
    encode_scalar,
    wide_scalar,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError

OPENING_SIZE = ELEMENT_SIZE + 2 * SCALAR_SIZE

_FIELD = 2**255 - 19
_PURPOSE = b"pair-open-2"
_NONCE_PURPOSE = b"stromkreis/v2/pair-open-nonce"
_GROUP = Edwards25519()


@dataclass(frozen=True, slots=True)
class PairContext:
    """Which pair is opened: the epoch's digest, the ring, the position that opens and the other's."""

    epoch_digest: bytes
    ring: int
    position: int
    other: int

    def to_bytes(self) -> bytes:
        """The digest (32 bytes) and three 64-bit numbers."""
        return self.epoch_digest + struct.pack("<QQQ", self.ring, self.position, self.other)


def lift(public: bytes) -> bytes:
    """
    The element E(u) of an X25519 public key (32 bytes).

    Raises RemoteProtocolError `key_not_liftable` unless u is the canonical coordinate of a point of prime order.
    """
    u = int.from_bytes(public, "little")
    if len(public) == ELEMENT_SIZE and u < _FIELD - 1:
        element = ((u - 1) * pow(u + 1, -1, _FIELD) % _FIELD).to_bytes(ELEMENT_SIZE, "little")
        if _GROUP.is_element(element):
            return element
    raise RemoteProtocolError("key_not_liftable", "expected an X25519 key of prime order in canonical form")


def open_pair(private: bytes, public: bytes, other_public: bytes, context: PairContext) -> bytes:
    """
    The opening of the pair: shared point, challenge and response, `OPENING_SIZE` bytes.

    `private` and `public` are the opener's X25519 keys, `other_public` the other's.  Raises RemoteProtocolError
    `key_not_liftable` for a key that should have been refused, LocalProtocolError where our own keys do not belong
    together.
    """
    own, other = lift(public), lift(other_public)
    scalar = _secret_scalar(private)
    if _GROUP.multiply_base(scalar) != own:
        raise LocalProtocolError("a private key that does not belong to the public one")
    shared = _GROUP.multiply(scalar, other)
    nonce = _nonce(private, context.to_bytes() + own + other)
    challenge = _challenge(context, own, other, shared, _GROUP.multiply_base(nonce), _GROUP.multiply(nonce, other))
    response = (nonce + challenge * scalar) % _GROUP.order
    return shared + encode_scalar(_GROUP, challenge) + encode_scalar(_GROUP, response)


def opened_secret(public: bytes, other_public: bytes, context: PairContext, opening: bytes) -> bytes:
    """
    The X25519 shared secret (32 bytes, RFC 7748) that an opening proves.

    `public` is the opener's key.  Raises RemoteProtocolError `bad_pair_opening` where the proof does not hold.
    """
    own, other = lift(public), lift(other_public)
    if len(opening) != OPENING_SIZE:
        raise RemoteProtocolError("bad_pair_opening", f"expected {OPENING_SIZE} bytes")
    shared, challenge_bytes, response_bytes = opening[:32], opening[32:64], opening[64:]
    if not _GROUP.is_element(shared):
        raise RemoteProtocolError("bad_pair_opening", "the shared point is none of prime order")
    challenge, response = decode_scalar(_GROUP, challenge_bytes), decode_scalar(_GROUP, response_bytes)
    first = _GROUP.subtract(_GROUP.multiply_base(response), _GROUP.multiply(challenge, own))
    second = _GROUP.subtract(_GROUP.multiply(response, other), _GROUP.multiply(challenge, shared))
    expected = encode_scalar(_GROUP, _challenge(context, own, other, shared, first, second))
    if not hmac.compare_digest(expected, challenge_bytes):
        raise RemoteProtocolError("bad_pair_opening", "the proof does not hold")
    return bytes(bindings.crypto_sign_ed25519_pk_to_curve25519(shared))


def _secret_scalar(private: bytes) -> int:
    """The scalar mod the order that takes the generator to E(u) of the public key: the clamped one or its negative."""
    clamped = bytearray(private)
    clamped[0] &= 248
    clamped[31] = clamped[31] & 127 | 64
    scalar = int.from_bytes(clamped, "little") % _GROUP.order
    is_odd = _GROUP.multiply_base(scalar)[31] >> 7
    return _GROUP.order - scalar if is_odd else scalar


def _nonce(private: bytes, statement: bytes) -> int:
    mac = hmac.new(private, _NONCE_PURPOSE + b"\0" + statement, hashlib.sha512)
    return wide_scalar(_GROUP, uniform=mac.digest()) or 1


def _challenge(context: PairContext, own: bytes, other: bytes, shared: bytes, first: bytes, second: bytes) -> int:
    """Every part has a fixed length, so no two statements are one text."""
    text = _PURPOSE + context.to_bytes() + own + other + shared + first + second
    return wide_scalar(_GROUP, uniform=hashlib.sha512(text).digest())
