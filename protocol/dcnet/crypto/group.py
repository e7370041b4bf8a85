"""
The prime-order group under the threshold PRF, the shares' commitments and the Pedersen commitments.

`Group` is all that the mathematics above needs; `Edwards25519` is the real one, through libsodium. A simulator injects
a cheap stand-in, so nothing outside this file may know that an element is a point. Elements travel as 32 bytes,
scalars are Python integers mod `order` and travel as 32 bytes little-endian, in exactly one form each: two encodings
of one value would be two transcripts that mean the same, and digests could be played against each other.

What makes this more than a thin wrapper:

- libsodium refuses a multiplication whose result is the identity (scalar 0). Here the identity is an ordinary value of
  the arithmetic, because sums and Lagrange combinations may pass through it. It is never accepted from a peer.
- The curve has cofactor 8. `multiply` lets libsodium check that its operand lies in the prime-order subgroup; the
  cheaper `add` and `subtract` check the curve equation only. So bytes of a peer enter through `multiply` or through
  `require_element`, never through `add` alone.
- Hashing to the group: SHA-512 over domain and message gives two independent 32-byte halves; each goes through
  libsodium's Elligator 2 map (with cofactor clearing) and the results are added. One map alone reaches about half of
  the group, unevenly; the sum of two is indifferentiable from a random oracle. This is the construction of RFC 9380,
  section 3 (hash_to_curve), except that a field element is drawn from 255 bits instead of 384, a bias below 2^-250,
  and that the bytes are hashed by SHA-512 in one call instead of by expand_message. It is therefore not the RFC's
  suite edwards25519_XMD:SHA-512_ELL2_RO_ and gives other points.

Scalar arithmetic on Python integers is not constant-time. A gateway computes locally, a few times per epoch, and an
observer on the wire sees network timing only; what is secret-dependent and frequent (multiplication) runs in libsodium.
"""

from functools import lru_cache
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA512, Hash
from nacl import bindings
from nacl.exceptions import CryptoError

from protocol.errors import LocalProtocolError, RemoteProtocolError

ELEMENT_SIZE = 32
SCALAR_SIZE = 32


class Group(Protocol):
    """
    A cyclic group of prime order, written additively, with its generator fixed.

    Elements are `ELEMENT_SIZE` bytes in canonical form; scalars are integers, reduced mod `order` by whoever takes
    them. Operands that are no elements raise `RemoteProtocolError("not_a_group_element")`, because such bytes can
    only have come from a peer.
    """

    @property
    def order(self) -> int:
        """The prime number of elements."""
        ...

    def hash_to_group(self, domain: bytes, message: bytes) -> bytes:
        """An element that nobody knows the discrete logarithm of; different domains are independent functions."""
        ...

    def multiply(self, scalar: int, element: bytes) -> bytes:
        """Give scalar · element; the element is checked to be the identity or of prime order."""
        ...

    def multiply_base(self, scalar: int) -> bytes:
        """Give scalar · generator."""
        ...

    def add(self, a: bytes, b: bytes) -> bytes:
        """Give a + b; the operands must have been checked before (see `require_element`)."""
        ...

    def subtract(self, a: bytes, b: bytes) -> bytes:
        """Give a - b; the operands must have been checked before (see `require_element`)."""
        ...

    def is_element(self, data: bytes) -> bool:
        """Whether `data` is a canonical element of prime order; the identity is not."""
        ...


class Edwards25519:
    """
    The prime-order subgroup of edwards25519 (RFC 7748 section 4.1, RFC 8032 section 5.1), through libsodium.

    Stateless. Measured: one multiplication, its subgroup check included, and one hash to the group take some tens of
    microseconds each.
    """

    order = 2**252 + 27742317777372353535851937790883648493
    identity = b"\x01" + bytes(31)

    def hash_to_group(self, domain: bytes, message: bytes) -> bytes:
        """See the head of the file; `domain` is at most 255 bytes and is bound with its length."""
        if len(domain) > 255:
            raise LocalProtocolError("domain of a hash to the group over 255 bytes")
        return hash_to_edwards25519(domain, message)

    def multiply(self, scalar: int, element: bytes) -> bytes:
        """Give scalar · element; a point of small or mixed order or off the curve raises `RemoteProtocolError`."""
        if element == self.identity:
            return self.identity
        scalar %= self.order
        if scalar == 0:
            require_element(self, element)
            return self.identity
        try:
            product: bytes = bindings.crypto_scalarmult_ed25519_noclamp(scalar.to_bytes(SCALAR_SIZE, "little"), element)
        except CryptoError:
            raise _not_an_element() from None
        return product

    def multiply_base(self, scalar: int) -> bytes:
        """Give scalar · generator."""
        scalar %= self.order
        if scalar == 0:
            return self.identity
        product: bytes = bindings.crypto_scalarmult_ed25519_base_noclamp(scalar.to_bytes(SCALAR_SIZE, "little"))
        return product

    def add(self, a: bytes, b: bytes) -> bytes:
        """Give a + b; bytes off the curve raise `RemoteProtocolError`, a wrong order goes unseen."""
        try:
            total: bytes = bindings.crypto_core_ed25519_add(a, b)
        except CryptoError:
            raise _not_an_element() from None
        return total

    def subtract(self, a: bytes, b: bytes) -> bytes:
        """Give a - b; bytes off the curve raise `RemoteProtocolError`, a wrong order goes unseen."""
        try:
            difference: bytes = bindings.crypto_core_ed25519_sub(a, b)
        except CryptoError:
            raise _not_an_element() from None
        return difference

    def is_element(self, data: bytes) -> bool:
        """Whether `data` is the canonical encoding of a point of prime order."""
        return len(data) == ELEMENT_SIZE and bool(bindings.crypto_core_ed25519_is_valid_point(data))


# A ring's members, and one member's evaluation, partial and proof, ask for the same public point: each process makes it
# once.  One entry a ring is in use at a time.
@lru_cache(maxsize=512)
def hash_to_edwards25519(domain: bytes, message: bytes) -> bytes:
    """See the head of the file; the message is public, or it would not be kept."""
    digest = Hash(SHA512())
    digest.update(bytes([len(domain)]) + domain + message)
    uniform = digest.finalize()
    halves = (bindings.crypto_core_ed25519_from_uniform(uniform[start : start + 32]) for start in (0, 32))
    point: bytes = bindings.crypto_core_ed25519_add(*halves)
    return point


def require_element(group: Group, data: bytes) -> bytes:
    """`data` itself if it is an element of prime order; raises `RemoteProtocolError` if not."""
    if not group.is_element(data):
        raise _not_an_element()
    return data


def encode_scalar(group: Group, scalar: int) -> bytes:
    """The scalar as 32 bytes little-endian; raises `LocalProtocolError` unless 0 <= scalar < order."""
    if not 0 <= scalar < group.order:
        raise LocalProtocolError("scalar not reduced")
    return scalar.to_bytes(SCALAR_SIZE, "little")


def decode_scalar(group: Group, data: bytes) -> int:
    """The one scalar that these 32 bytes stand for; any other length or an unreduced value is the peer's fault."""
    if len(data) != SCALAR_SIZE:
        raise RemoteProtocolError("scalar_size", f"{len(data)} bytes instead of {SCALAR_SIZE}")
    scalar = int.from_bytes(data, "little")
    if scalar >= group.order:
        raise RemoteProtocolError("scalar_not_reduced")
    return scalar


def wide_scalar(group: Group, *, uniform: bytes) -> int:
    """64 uniform bytes reduced mod the order: the bias is below 2^-250 for an order of 253 bits."""
    if len(uniform) != 64:
        raise LocalProtocolError("a scalar is reduced from 64 uniform bytes")
    return int.from_bytes(uniform, "little") % group.order


def _not_an_element() -> RemoteProtocolError:
    return RemoteProtocolError("not_a_group_element")
