"""
Requests for certificates: PKCS#10, and the package of three in which a gateway asks for its triple.

A package is a SEQUENCE of the three requests, signature, encryption, TLS, in this order.  Each is signed by its own key
(also the one that later only agrees on keys: that signature proves possession and nothing else).  Who asks is shown by
a detached CMS signature over the package: by the quality seal's key at enrolment, by the present one at renewal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.cms.ber import children, encode, to_definite, value_of
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.pki.names import common_name, gateway_of, is_gateway_id, subject
from protocol.pki.profiles import CERTIFICATE_SIZE_MAX, MALFORMED, refusal, require_hash, require_key, signature_hash

PACKAGE_COUNT: Final = 3
_SEQUENCE: Final = 0x30


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """What a checked PKCS#10 request asks for."""

    gateway_id: str
    public_key: ec.EllipticCurvePublicKey


def build_request(key: ec.EllipticCurvePrivateKey, device: str) -> bytes:
    """A gateway's signing request (PKCS#10, DER); its signature proves possession of the key."""
    builder = x509.CertificateSigningRequestBuilder(request_subject(device))
    signed = builder.sign(key, signature_hash(key.public_key()), ecdsa_deterministic=True)
    return signed.public_bytes(serialization.Encoding.DER)


def request_subject(device: str) -> x509.Name:
    """The subject of a gateway's request.  Raises LocalProtocolError for what is no gateway id."""
    if not is_gateway_id(device):
        raise LocalProtocolError("a signing request needs a gateway id such as ESTK0100000001")
    return subject(f"{device}.SMGW")


def check_request(data: bytes) -> SigningRequest:
    """
    Read and check a signing request (PKCS#10, DER).

    Raises RemoteProtocolError: `request_malformed`, `request_signature`, `certificate_algorithm`, `certificate_name`.
    """
    if len(data) > CERTIFICATE_SIZE_MAX:
        raise refusal("request_malformed", f"over {CERTIFICATE_SIZE_MAX} bytes")
    try:
        request = x509.load_der_x509_csr(data)
        algorithm = request.signature_hash_algorithm
        public_key = request.public_key()
        valid = request.is_signature_valid
        name = request.subject
    except MALFORMED as error:
        raise refusal("request_malformed", "not a PKCS#10 request of a named curve") from error
    key = require_key(public_key)
    require_hash(algorithm, key)
    if not valid:
        raise refusal("request_signature", "the request is not signed by its own key")
    return SigningRequest(gateway_of(common_name(name)), key)


def build_package(requests: tuple[bytes, bytes, bytes]) -> bytes:
    """The package of three requests (signature, encryption, TLS), DER."""
    return encode(_SEQUENCE, b"".join(requests))


def check_package(data: bytes) -> tuple[SigningRequest, SigningRequest, SigningRequest]:
    """
    Read and check a package: three requests of one gateway for three different keys.

    Raises RemoteProtocolError: what `check_request` raises.
    """
    if len(data) > PACKAGE_COUNT * CERTIFICATE_SIZE_MAX:
        raise refusal("request_malformed", f"over {PACKAGE_COUNT * CERTIFICATE_SIZE_MAX} bytes")
    parts = _parts(data)
    if len(parts) != PACKAGE_COUNT:
        raise refusal("request_malformed", f"a package of {len(parts)} requests, expected {PACKAGE_COUNT}")
    first, second, third = (check_request(part) for part in parts)
    if not first.gateway_id == second.gateway_id == third.gateway_id:
        raise refusal("certificate_name", "the requests of a package name different gateways")
    if first.public_key in (second.public_key, third.public_key) or second.public_key == third.public_key:
        raise refusal("request_malformed", "a key is asked for twice: each use has a key of its own")
    return first, second, third


def _parts(data: bytes) -> list[bytes]:
    try:
        package = to_definite(data, depth_max=16, elements_max=300)
    except RemoteProtocolError as error:
        raise refusal("request_malformed", "not a package of requests") from error
    if package[0] != _SEQUENCE:
        raise refusal("request_malformed", "a package is a SEQUENCE")
    return children(value_of(package))
