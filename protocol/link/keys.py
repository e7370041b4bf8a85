"""CURVE key pairs: X25519 keys of a link, 32 raw bytes each (libzmq also knows a text form, Z85; we never use it)."""

from __future__ import annotations

from typing import NamedTuple

import zmq
from zmq.utils import z85


class Keypair(NamedTuple):
    """
    A CURVE key pair, 32 raw bytes each (ZeroMQ RFC 26).

    `repr` hides the secret half, so that a log line or an assertion message cannot carry it.
    """

    public: bytes
    secret: bytes

    @classmethod
    def generate(cls) -> Keypair:
        """Draw a fresh pair from the operating system's entropy (libsodium's, inside libzmq)."""
        public, secret = zmq.curve_keypair()
        return cls(z85.decode(public), z85.decode(secret))

    def __repr__(self) -> str:
        return f"Keypair(public={self.public.hex()}, secret=...)"
