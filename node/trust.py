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
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import pki
from protocol.errors import RemoteProtocolError

_T = TypeVar("_T")
_REMEMBERED = 65_536  # entries of each kind; one is some 200 bytes


class TrustStore:
    """
    Checks members' certificates and signatures against one root.

    With `revocations` a certificate counts only while its issuers' lists are current and do not name it.
    """

    def __init__(
        self, root: x509.Certificate, clock: Callable[[], float], revocations: pki.RevocationLists | None = None
    ) -> None:
        self._root = root
        self._revocations = revocations
        self._clock = clock
        self._chains: OrderedDict[bytes, pki.Verified] = OrderedDict()
        self._signatures: OrderedDict[bytes, None] = OrderedDict()

    def forget_chains(self) -> None:
        """Check every certificate anew: the revocation lists have changed."""
        self._chains.clear()

    def check(
        self, identity: str, text: bytes, signature: bytes, certificate: bytes, intermediates: Sequence[bytes],
        until_s: float | None = None,
    ) -> None:  # fmt: skip
        """
        Return if `certificate` belongs to `identity`, leads to the root, and its key signed `text`.

        With `until_s` (Unix time) the chain must hold until then.  Raises RemoteProtocolError otherwise: what
        `pki.verify_chain` raises, `certificate_ends`, `wrong_identity`, `bad_signature`.
        """
        verified = self._chain(certificate, intermediates, pki.Role.GATEWAY_SIGNATURE)
        if until_s is not None and not verified.holds_at(datetime.fromtimestamp(until_s, UTC)):
            raise RemoteProtocolError("certificate_ends", "a member's certificate ends before the epoch does")
        if verified.common_name.upper() != f"{identity}.SMGW".upper():
            raise RemoteProtocolError("wrong_identity", "a member's certificate names another gateway")
        self._check_signature(verified, certificate, text, signature)

    def check_participant(
        self, name: str | None, text: bytes, signature: bytes, certificate: bytes, intermediates: Sequence[bytes]
    ) -> None:
        """
        Return if `certificate` is a market participant's for signatures, leads to the root, and its key signed `text`.

        `name` is the participant's common name, None for any.  Raises RemoteProtocolError as `check` does.
        """
        verified = self._chain(certificate, intermediates, pki.Role.PARTICIPANT_SIGNATURE)
        if name is not None and verified.common_name.upper() != name.upper():
            raise RemoteProtocolError("wrong_identity", "the tariff is another market participant's")
        self._check_signature(verified, certificate, text, signature)

    def administrator(self, name: str, certificate: bytes, intermediates: Sequence[bytes]) -> x509.Certificate:
        """
        The certificate (DER), where it is the signature certificate of the administrator `name` and leads to the root.

        Raises RemoteProtocolError: what `pki.verify_chain` raises, `wrong_identity`.
        """
        verified = self._chain(certificate, intermediates, pki.Role.ADMINISTRATOR_SIGNATURE)
        if verified.common_name.upper() != name.upper():
            raise RemoteProtocolError("wrong_identity", "signed by another administrator than this gateway's")
        return pki.load_certificate(certificate)

    def participant(self, certificate: bytes, intermediates: Sequence[bytes], role: pki.Role) -> x509.Certificate:
        """
        The certificate (DER), where it is a market participant's of this role and leads to the root.

        Raises RemoteProtocolError: what `pki.verify_chain` raises.
        """
        self._chain(certificate, intermediates, role)
        return pki.load_certificate(certificate)

    def _check_signature(self, verified: pki.Verified, certificate: bytes, text: bytes, signature: bytes) -> None:
        seen = hashlib.sha256(certificate + text + signature).digest()
        if seen in self._signatures:
            return
        try:
            verified.public_key.verify(signature, text, ec.ECDSA(pki.signature_hash(verified.public_key)))
        except InvalidSignature as error:
            raise RemoteProtocolError("bad_signature", "the signature does not hold") from error
        _remember(self._signatures, seen, None)

    def _chain(self, certificate: bytes, intermediates: Sequence[bytes], role: pki.Role) -> pki.Verified:
        now = datetime.fromtimestamp(self._clock(), UTC)
        key = hashlib.sha256(b"".join((role.value.encode(), certificate, *intermediates))).digest()
        verified = self._chains.get(key)
        if verified is None or not verified.holds_at(now):
            loaded = [pki.load_certificate(each) for each in (certificate, *intermediates)]
            verified = pki.verify_chain(
                loaded[0], loaded[1:], self._root, now, role=role, revocations=self._revocations
            )
            _remember(self._chains, key, verified)
        return verified


def _remember(memory: OrderedDict[bytes, _T], key: bytes, value: _T) -> None:
    memory[key] = value
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)
