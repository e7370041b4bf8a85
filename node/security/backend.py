"""
Where private keys are: the part of the security module that another kind of hardware replaces.

A backend makes keys and names them by a text that goes into the gateway's record, gives them back as keys that can be
used and not read, and seals what has to be a file (TLS keys, because Python's ssl takes keys from files only; the
ring's X25519 keys, because libzmq wants the secret itself; epoch seeds).  `FileBackend` is the one without hardware:
keys are in the record, and nothing is sealed, since the key for it would lie beside.  `node.security.token` is PKCS#11.
"""

from __future__ import annotations

import os
from typing import Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.errors import LocalProtocolError


class KeyBackend(Protocol):
    """What the security module asks of whatever holds the keys."""

    def make_key(self, curve: ec.EllipticCurve, owner: str) -> str:
        """Make a key for signatures and key agreement; the text names it from now on, `owner` is for people."""
        ...

    def load_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        """
        The key of that name, to be used and not read.

        Raises StromkreisError where it is not there.
        """
        ...

    def delete_key(self, name: str) -> None:
        """Delete a key for good; one that is gone is no error."""
        ...

    def seal(self, label: str, data: bytes) -> bytes:
        """`data` as it may lie in a file; `label` is what it is, and opens nothing else."""
        ...

    def unseal(self, label: str, sealed: bytes) -> bytes:
        """
        Inverse of `seal`.

        Raises StromkreisError for what was sealed as something else, by another backend, or changed.
        """
        ...

    def random(self, size: int) -> bytes:
        """So many random octets."""
        ...

    def close(self) -> None:
        """Let the hardware go."""
        ...


class FileBackend:
    """Keys in files that only their owner may read; see the head of the file."""

    def make_key(self, curve: ec.EllipticCurve, owner: str) -> str:  # noqa: ARG002
        """PKCS#8 in PEM: the name of the key is the key."""
        return to_pem(ec.generate_private_key(curve)).decode()

    def load_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Raises ValueError for a text that is no key, LocalProtocolError for a key that lies on no curve."""
        return from_pem(name.encode())

    def delete_key(self, name: str) -> None:
        """Nothing to do: it goes with the record that has it."""

    def seal(self, label: str, data: bytes) -> bytes:  # noqa: ARG002 - see the head of the file
        """The data itself."""
        return data

    def unseal(self, label: str, sealed: bytes) -> bytes:  # noqa: ARG002
        """The data itself."""
        return sealed

    def random(self, size: int) -> bytes:
        """The operating system's."""
        return os.urandom(size)

    def close(self) -> None:
        """Nothing is held."""


def to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8 in PEM, without a password."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def from_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Inverse of `to_pem`.  Raises ValueError, or LocalProtocolError for a key that lies on no curve."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise LocalProtocolError("the private key is no elliptic-curve key")
    return key
