"""A certificate and its private key in memory, as whoever has no security module uses CMS with (an EMP's, a test's)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.cms.suites import Digest


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A `SignatureKey` and an `AgreementKey`, whichever the certificate is for."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)

    def sign(self, text: bytes, digest: Digest) -> bytes:
        """ECDSA over `text`, DER (X9.62)."""
        return self.private_key.sign(text, ec.ECDSA(digest.algorithm()))

    def agree(self, peer: ec.EllipticCurvePublicKey) -> bytes:
        """The x coordinate of the shared point (TR-03111 section 4.3), as long as the field."""
        return self.private_key.exchange(ec.ECDH(), peer)
