"""
SignedData with ECDSA (section 5.3.3).

One signer, named by the subject key identifier; the certificates that count are those that the caller was configured
with (REQ.CMS.Zertifikate.10): one that a message brings along must be one of them, and vouches for nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Protocol

from asn1crypto.core import ObjectIdentifier, OctetString
from asn1crypto.core import load as load_any
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.cms.ber import children, encode
from protocol.cms.enveloped import key_identifier
from protocol.cms.structures import (
    CONTENT_TYPE,
    DATA,
    MESSAGE_DIGEST,
    SIGNED_DATA,
    Attribute,
    Attributes,
    ContentInfo,
    Limits,
    SignedData,
    SignerIdentifier,
    attributes,
    few,
    has_parameters,
    load,
    present,
    reading,
    require,
)
from protocol.cms.suites import CURVE_OIDS, Digest
from protocol.errors import LocalProtocolError, RemoteProtocolError

_TABLE = "table 5.6"
_WHAT = "SignedData (RFC 5652, table 5.6)"
_SEQUENCE, _SET_OF = 0x30, 0x31
_NULL = b"\x05\x00"
_HASHES = {Digest.SHA256: hashlib.sha256, Digest.SHA384: hashlib.sha384, Digest.SHA512: hashlib.sha512}


class SignatureKey(Protocol):
    """A private signature key, behind the security module or in memory, and the certificate that it belongs to."""

    @property
    def certificate(self) -> x509.Certificate:
        """The signer's certificate."""
        ...

    def sign(self, text: bytes, digest: Digest) -> bytes:
        """ECDSA with the hash over `text`, as a DER sequence of r and s (X9.62)."""
        ...


def sign(content: bytes, content_type: str, key: SignatureKey, *, with_certificate: bool = True) -> bytes:
    """Sign `content` and put it inside: ContentInfo of SignedData, DER."""
    return _sign(content, content_type, key, with_certificate=with_certificate, detached=False)


def sign_detached(content: bytes, key: SignatureKey, *, with_certificate: bool = True) -> bytes:
    """Sign data that travels beside the signature (CMS_ECDSA_SHA256_Detached): ContentInfo of SignedData, DER."""
    return _sign(content, DATA, key, with_certificate=with_certificate, detached=True)


def verify(
    message: bytes, content_type: str, signers: Sequence[x509.Certificate], limits: Limits
) -> tuple[bytes, x509.Certificate]:
    """
    The signed content, which must be of the type, and which of `signers` signed it.

    `signers` are certificates that the caller has checked for the purpose; their validity in time is the caller's.
    Raises RemoteProtocolError: `cms_malformed`, `cms_too_large`, `cms_profile`, `cms_algorithm`, `cms_signer`,
    `cms_signature`.
    """
    signed = _read(message, content_type, limits)
    with reading(_WHAT):
        held = signed["encap_content_info"]["content"]
        require(present(held), f"eContent is missing ({_TABLE})")
        content = bytes(held)
    return content, _check(signed, content, content_type, signers)


def verify_detached(
    message: bytes, content: bytes, signers: Sequence[x509.Certificate], limits: Limits
) -> x509.Certificate:
    """Which of `signers` signed `content`, data beside the message.  Raises as `verify`."""
    signed = _read(message, DATA, limits)
    with reading(_WHAT):
        require(not present(signed["encap_content_info"]["content"]), "eContent in a detached signature (table 5.2)")
    return _check(signed, content, DATA, signers)


def _sign(content: bytes, content_type: str, key: SignatureKey, *, with_certificate: bool, detached: bool) -> bytes:
    public_key = key.certificate.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or type(public_key.curve) not in CURVE_OIDS:
        raise LocalProtocolError("the signer's certificate has no key on a curve of section 5.2.3")
    digest = Digest.for_curve(public_key.curve)
    found = Attributes(
        [
            Attribute({"type": CONTENT_TYPE, "values": [ObjectIdentifier(content_type)]}),
            Attribute({"type": MESSAGE_DIGEST, "values": [OctetString(_HASHES[digest](content).digest())]}),
        ]
    )
    encapsulated: dict[str, Any] = {"content_type": content_type}
    if not detached:
        encapsulated["content"] = content
    fields: dict[str, Any] = {
        "version": 3,
        "digest_algorithms": [{"algorithm": digest.oid}],
        "encap_content_info": encapsulated,
        "signer_infos": [
            {
                "version": 3,
                "sid": SignerIdentifier("subject_key_identifier", key_identifier(key.certificate)),
                "digest_algorithm": {"algorithm": digest.oid},
                "signed_attrs": found,
                "signature_algorithm": {"algorithm": digest.ecdsa_oid},
                "signature": key.sign(bytes(found.dump()), digest),
            }
        ],
    }
    if with_certificate:
        fields["certificates"] = [load_any(_der(key.certificate))]
    return bytes(ContentInfo({"content_type": SIGNED_DATA, "content": SignedData(fields)}).dump())


def _read(message: bytes, content_type: str, limits: Limits) -> Any:
    outer = load(ContentInfo, message, limits, "ContentInfo (RFC 5652, 3)")
    with reading(_WHAT):
        kind, signed = outer["content_type"].dotted, outer["content"]
        require(kind == SIGNED_DATA, f"content type {kind}, expected id-signedData (5.3.1)")
        require(signed["version"].native == 3, f"version {signed['version'].native}, expected 3 ({_TABLE})")
        found = signed["encap_content_info"]["content_type"].dotted
        require(found == content_type, f"eContentType {found}, expected {content_type} ({_TABLE})")
        require(len(signed["signer_infos"]) == 1, f"{len(signed['signer_infos'])} signers, expected one ({_TABLE})")
        few(signed["digest_algorithms"], "digest algorithms")
    return signed


def _check(signed: Any, content: bytes, content_type: str, signers: Sequence[x509.Certificate]) -> x509.Certificate:
    with reading(_WHAT):
        info = signed["signer_infos"][0]
        require(info["version"].native == 3, f"version {info['version'].native} of the signer, expected 3 ({_TABLE})")
        digest = _digest_of(info)
        stated = [each["algorithm"].dotted for each in signed["digest_algorithms"]]
        require(digest.oid in stated, f"the signer's hash is not among digestAlgorithms ({_TABLE})")
        found = attributes(info["signed_attrs"], _TABLE)
        require(CONTENT_TYPE in found and MESSAGE_DIGEST in found, f"a signed attribute is missing ({_TABLE})")
        named = found[CONTENT_TYPE].parse(ObjectIdentifier).dotted
        hashed = bytes(found[MESSAGE_DIGEST].parse(OctetString))
        identifier = bytes(info["sid"].chosen)
        attached = few(_certificates(signed), "certificates")
        require(all(each[0] == _SEQUENCE for each in attached), f"certificates has what is no Certificate ({_TABLE})")
        text, signature = encode(_SET_OF, info["signed_attrs"].contents), bytes(info["signature"])
    require(named == content_type, f"the signed content type is {named}, the message's {content_type} ({_TABLE})")
    # A certificate that was renewed for the same key has the same key identifier.
    named_by_key = [each for each in signers if key_identifier(each) == identifier]
    if not named_by_key:
        raise RemoteProtocolError("cms_signer", "signed by a key of no configured certificate (5.2.1)")
    certificate = next((each for each in named_by_key if not attached or _der(each) in attached), None)
    if certificate is None:
        raise RemoteProtocolError("cms_signer", "the certificate of the message is not the configured one (5.2.1)")
    if not hmac.compare_digest(hashed, _HASHES[digest](content).digest()):
        raise RemoteProtocolError("cms_signature", "the content is not the one that was signed (RFC 5652, 5.6)")
    _require_signature(certificate, signature, text, digest)
    return certificate


def _certificates(signed: Any) -> list[bytes]:
    """The certificates as they came: asn1crypto would write anew what it does not know."""
    return children(signed["certificates"].contents) if present(signed["certificates"]) else []


def _require_signature(certificate: x509.Certificate, signature: bytes, text: bytes, digest: Digest) -> None:
    public_key = certificate.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise LocalProtocolError("a signature certificate has a key on an elliptic curve")
    require(
        digest.algorithm().digest_size >= Digest.for_curve(public_key.curve).algorithm().digest_size,
        "a hash shorter than the key, which only TR-03109-3 could admit (5.2.3)",
    )
    try:
        public_key.verify(signature, text, ec.ECDSA(digest.algorithm()))
    except InvalidSignature:
        raise RemoteProtocolError("cms_signature", "the signature does not hold (RFC 5652, 5.6)") from None


def _digest_of(info: Any) -> Digest:
    oid, ecdsa_oid = info["digest_algorithm"]["algorithm"].dotted, info["signature_algorithm"]["algorithm"].dotted
    digest = next((each for each in Digest if each.oid == oid), None)
    if digest is None:
        raise RemoteProtocolError("cms_algorithm", f"hash {oid} (5.3.3.2.1)")
    if ecdsa_oid != digest.ecdsa_oid:
        raise RemoteProtocolError("cms_algorithm", f"signature {ecdsa_oid} does not go with hash {oid} (5.3.3.2.2)")
    require(not has_parameters(info["signature_algorithm"]), "the signature algorithm has parameters (5.3.3.2.2)")
    # RFC 5754 section 2 has receivers take NULL, which older senders write.
    absent = not has_parameters(info["digest_algorithm"]) or info["digest_algorithm"]["parameters"].dump() == _NULL
    require(absent, "the hash has parameters (5.3.3.2.1)")
    return digest


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
