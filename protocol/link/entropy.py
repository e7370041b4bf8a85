"""The operating system's randomness for what draws none itself, such as `protocol.cms`."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.asymmetric import ec


class SystemEntropy:
    """Random octets and ephemeral keys of the operating system and OpenSSL."""

    def random(self, size: int) -> bytes:
        """So many random octets."""
        return os.urandom(size)

    def ephemeral_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        """A fresh key on the curve."""
        return ec.generate_private_key(curve)
