"""A whole message: compressed, encrypted to one recipient, signed (table 5.2, CMS_ECDSA_SHA256), and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509

from protocol.cms.compressed import compress, decompress
from protocol.cms.enveloped import AgreementKey, Entropy, open_enveloped, seal
from protocol.cms.signed import SignatureKey, sign, verify
from protocol.cms.structures import AUTH_ENVELOPED_DATA, COMPRESSED_DATA, DATA, Limits, require
from protocol.cms.suites import GCM_SUITE, EncryptionSuite
from protocol.errors import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class Opened:
    """What a message held, who signed it, and how it was encrypted; `repr` hides the content."""

    content: bytes = field(repr=False)
    signer: x509.Certificate
    suite: EncryptionSuite
    compressed: bool


def protect(
    content: bytes,
    recipient: x509.Certificate,
    key: SignatureKey,
    *,
    entropy: Entropy,
    suite: EncryptionSuite = GCM_SUITE,
    compressed: bool = False,
    with_certificate: bool = True,
) -> bytes:
    """
    Encrypt `content` to the recipient's encryption certificate and sign it: ContentInfo, DER.

    Raises LocalProtocolError for a certificate that cannot be used.
    """
    inner, content_type = (compress(content), COMPRESSED_DATA) if compressed else (content, DATA)
    sealed = seal(inner, content_type, recipient, suite=suite, entropy=entropy)
    return sign(sealed, AUTH_ENVELOPED_DATA, key, with_certificate=with_certificate)


def unprotect(
    message: bytes, key: AgreementKey, signers: Sequence[x509.Certificate], *, limits: Limits | None = None
) -> Opened:
    """
    Check the signature against the configured certificates, then decrypt and decompress.

    Raises RemoteProtocolError: what `verify`, `open_enveloped` and `decompress` raise.
    """
    limits = limits or Limits()
    sealed, signer = verify(message, AUTH_ENVELOPED_DATA, signers, limits)
    content, content_type, suite = open_enveloped(sealed, key, limits)
    require(content_type in {DATA, COMPRESSED_DATA}, f"encrypted content of type {content_type} (table 5.1)")
    if content_type == COMPRESSED_DATA:
        return Opened(decompress(content, limits), signer, suite, compressed=True)
    if len(content) > limits.content_size:
        raise RemoteProtocolError("cms_too_large", f"content over {limits.content_size} octets")
    return Opened(content, signer, suite, compressed=False)
