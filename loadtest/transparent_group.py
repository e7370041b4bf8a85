"""
A group without any security, for simulations: an element is its own discrete logarithm.

It keeps every algebraic law that `protocol.dcnet` relies on, encodings and refusals included, at a hundredth of the
cost of the curve. Whoever sees an element sees the scalar, so it must never be near a real gateway.
"""

import hashlib

from protocol.dcnet.crypto.group import ELEMENT_SIZE, Edwards25519
from protocol.errors import RemoteProtocolError


class TransparentGroup:
    """The integers mod the order of edwards25519's subgroup; the generator is 1. Implements `Group`."""

    order = Edwards25519.order

    def hash_to_group(self, domain: bytes, message: bytes) -> bytes:
        """SHA-512 of domain and message, reduced."""
        digest = hashlib.sha512(bytes([len(domain)]) + domain + message).digest()
        return self.multiply_base(int.from_bytes(digest, "little"))

    def multiply(self, scalar: int, element: bytes) -> bytes:
        """The product mod the order."""
        return self.multiply_base(scalar * self._value(element))

    def multiply_base(self, scalar: int) -> bytes:
        """The scalar mod the order."""
        return (scalar % self.order).to_bytes(ELEMENT_SIZE, "little")

    def add(self, a: bytes, b: bytes) -> bytes:
        """The sum mod the order."""
        return self.multiply_base(self._value(a) + self._value(b))

    def subtract(self, a: bytes, b: bytes) -> bytes:
        """The difference mod the order."""
        return self.multiply_base(self._value(a) - self._value(b))

    def is_element(self, data: bytes) -> bool:
        """Whether these are 32 bytes of a reduced scalar that is not 0."""
        return len(data) == ELEMENT_SIZE and 0 < int.from_bytes(data, "little") < self.order

    def _value(self, element: bytes) -> int:
        value = int.from_bytes(element, "little")
        if len(element) != ELEMENT_SIZE or value >= self.order:
            raise RemoteProtocolError("not_a_group_element")
        return value
