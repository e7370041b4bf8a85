"""
Whom this node trusts: certificates that lead to its SM-PKI root, and what their keys signed.

Verifying is public work with the same answer for every gateway, so a process does it once for each certificate and
each signature, however many of its gateways sit in the same ring.  Only what verified is remembered.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import pki
from protocol.errors import RemoteProtocolError

_T = TypeVar("_T")
_REMEMBERED = 65_536  # entries of each kind; one is some 200 bytes


class TrustStore:
    """Checks members' certificates and signatures against one root."""

    def __init__(self, root: x509.Certificate, clock: Callable[[], float]) -> None:
        self._root = root
        self._clock = clock
        self._chains: OrderedDict[bytes, pki.Verified] = OrderedDict()
        self._signatures: OrderedDict[bytes, None] = OrderedDict()

    def check(
        self, identity: str, text: bytes, signature: bytes, certificate: bytes, intermediates: Sequence[bytes]
    ) -> None:
        """
        Return if `certificate` belongs to `identity`, leads to the root, and its key signed `text`.

        Raises RemoteProtocolError otherwise: what `pki.verify_chain` raises, `wrong_identity`, `bad_signature`.
        """
        now = datetime.fromtimestamp(self._clock(), UTC)
        verified = self._chain(certificate, intermediates, now)
        if verified.common_name.upper() != f"{identity}.SMGW".upper():
            raise RemoteProtocolError("wrong_identity", "a member's certificate names another gateway")
        seen = hashlib.sha256(certificate + text + signature).digest()
        if seen in self._signatures:
            return
        try:
            verified.public_key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise RemoteProtocolError("bad_signature", "a member's signature does not hold") from error
        _remember(self._signatures, seen, None)

    def _chain(self, certificate: bytes, intermediates: Sequence[bytes], now: datetime) -> pki.Verified:
        key = hashlib.sha256(b"".join((certificate, *intermediates))).digest()
        verified = self._chains.get(key)
        if verified is None or not verified.holds_at(now):
            loaded = [pki.load_certificate(each) for each in (certificate, *intermediates)]
            verified = pki.verify_chain(loaded[0], loaded[1:], self._root, now)
            _remember(self._chains, key, verified)
        return verified


def _remember(memory: OrderedDict[bytes, _T], key: bytes, value: _T) -> None:
    memory[key] = value
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)
