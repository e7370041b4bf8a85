"""Roles and the part of a certificate that each fixes, curves, and the clause that each refusal goes by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from protocol.errors import RemoteProtocolError

ORGANISATION: Final = "SM-Demo-PKI"
COUNTRY: Final = "DE"
CURVE: Final = ec.BrainpoolP256R1  # what a PKI is made on where nothing else is asked for
CURVES: Final = (ec.BrainpoolP256R1, ec.BrainpoolP384R1, ec.SECP256R1, ec.SECP384R1)
CERTIFICATE_SIZE_MAX: Final = 4096  # bytes; those of the profiles below take about 700
INTERMEDIATE_COUNT_MAX: Final = 4
# What cryptography raises for bytes that are not the structure they should be.
MALFORMED: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
                    x509.UnsupportedGeneralNameType)  # fmt: skip
TLS_PURPOSES: Final = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)

# TR-03109-4 and TR-03116-3 are not at hand: they are named without a section.
CLAUSES: Final = {
    "certificate_malformed": "RFC 5280, 4.1",
    "certificate_signature": "RFC 5280, 6.1.3 (a)(1)",
    "certificate_expired": "RFC 5280, 6.1.3 (a)(2)",
    "certificate_not_yet_valid": "RFC 5280, 6.1.3 (a)(2)",
    "certificate_revoked": "RFC 5280, 6.1.3 (a)(3)",
    "revocation_unknown": "RFC 5280, 6.1.3 (a)(3)",
    "revocation_stale": "RFC 5280, 6.3.3 (a)(1)",
    "revocation_malformed": "RFC 5280, 5.1",
    "revocation_signature": "RFC 5280, 6.3.3 (g)",
    "unknown_issuer": "RFC 5280, 6.1.3 (a)(4)",
    "basic_constraints": "RFC 5280, 6.1.4 (k)",
    "path_length": "RFC 5280, 6.1.4 (l)",
    "key_usage": "RFC 5280, 4.2.1.3 and 4.2.1.12; BSI TR-03109-4",
    "certificate_extension": "RFC 5280, 6.1.5 (f); BSI TR-03109-4",
    "certificate_name": "SM-PKI certificate policy, annex A",
    "certificate_algorithm": "BSI TR-03116-3",
    "request_malformed": "RFC 2986, 4",
    "request_signature": "RFC 2986, 4.2",
}


def refusal(reason: str, detail: str) -> RemoteProtocolError:
    """The error for a certificate, request or list that does not fit, with the clause."""
    return RemoteProtocolError(reason, f"{detail} ({CLAUSES[reason]})")


class Role(Enum):
    """What a certificate is for."""

    ROOT = "root"
    SUB_CA = "sub-CA"
    GATEWAY_SIGNATURE = "gateway signature"
    GATEWAY_ENCRYPTION = "gateway encryption"
    GATEWAY_TLS = "gateway TLS"
    SEAL_SIGNATURE = "quality seal signature"
    SEAL_ENCRYPTION = "quality seal encryption"
    SEAL_TLS = "quality seal TLS"
    ADMINISTRATOR_SIGNATURE = "administrator signature"
    ADMINISTRATOR_ENCRYPTION = "administrator encryption"
    ADMINISTRATOR_TLS = "administrator TLS"
    PARTICIPANT_SIGNATURE = "participant signature"  # an external market participant's (EMT): tariffs, messages
    PARTICIPANT_ENCRYPTION = "participant encryption"
    PARTICIPANT_TLS = "participant TLS"


class Use(Enum):
    """Which of a triple's certificates, or a CA's."""

    CERTIFY = "certify"
    SIGN = "sign"
    ENCRYPT = "encrypt"  # by key agreement (ECKA-EG)
    TLS = "TLS"


@dataclass(frozen=True, slots=True)
class Profile:
    """
    The part of a certificate that its role fixes.

    `path_length` None means that it certifies nobody; `sealed` says whether a gateway's certificate is its
    manufacturer's, None that it is no gateway's.
    """

    path_length: int | None
    name_suffix: str
    use: Use
    sealed: bool | None = None

    @property
    def is_ca(self) -> bool:
        """Whether certificates of this profile certify others."""
        return self.path_length is not None

    @property
    def tls(self) -> bool:
        """Whether it is for TLS, and so has the extended key usage."""
        return self.use is Use.TLS

    def key_usage(self) -> x509.KeyUsage:
        """The exact KeyUsage bits (RFC 5280 section 4.2.1.3)."""
        return x509.KeyUsage(
            digital_signature=self.use in {Use.SIGN, Use.TLS}, key_agreement=self.use is Use.ENCRYPT,
            key_cert_sign=self.is_ca, crl_sign=self.is_ca, content_commitment=False, key_encipherment=False,
            data_encipherment=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip


def _end_entity(suffix: str, use: Use, sealed: bool | None = None) -> Profile:
    return Profile(None, suffix, use, sealed)


PROFILES: Final = {
    Role.ROOT: Profile(1, ".CA", Use.CERTIFY),
    Role.SUB_CA: Profile(0, ".CA", Use.CERTIFY),
    Role.GATEWAY_SIGNATURE: _end_entity(".SMGW", Use.SIGN, sealed=False),
    Role.GATEWAY_ENCRYPTION: _end_entity(".SMGW", Use.ENCRYPT, sealed=False),
    Role.GATEWAY_TLS: _end_entity(".SMGW", Use.TLS, sealed=False),
    Role.SEAL_SIGNATURE: _end_entity(".SMGW", Use.SIGN, sealed=True),
    Role.SEAL_ENCRYPTION: _end_entity(".SMGW", Use.ENCRYPT, sealed=True),
    Role.SEAL_TLS: _end_entity(".SMGW", Use.TLS, sealed=True),
    Role.ADMINISTRATOR_SIGNATURE: _end_entity(".GWA", Use.SIGN),
    Role.ADMINISTRATOR_ENCRYPTION: _end_entity(".GWA", Use.ENCRYPT),
    Role.ADMINISTRATOR_TLS: _end_entity(".GWA", Use.TLS),
    Role.PARTICIPANT_SIGNATURE: _end_entity(".EMT", Use.SIGN),
    Role.PARTICIPANT_ENCRYPTION: _end_entity(".EMT", Use.ENCRYPT),
    Role.PARTICIPANT_TLS: _end_entity(".EMT", Use.TLS),
}
GATEWAY_TRIPLE: Final = (Role.GATEWAY_SIGNATURE, Role.GATEWAY_ENCRYPTION, Role.GATEWAY_TLS)
SEAL_TRIPLE: Final = (Role.SEAL_SIGNATURE, Role.SEAL_ENCRYPTION, Role.SEAL_TLS)
ADMINISTRATOR_TRIPLE: Final = (Role.ADMINISTRATOR_SIGNATURE, Role.ADMINISTRATOR_ENCRYPTION, Role.ADMINISTRATOR_TLS)
PARTICIPANT_TRIPLE: Final = (Role.PARTICIPANT_SIGNATURE, Role.PARTICIPANT_ENCRYPTION, Role.PARTICIPANT_TLS)


def signature_hash(key: ec.EllipticCurvePublicKey) -> hashes.SHA256 | hashes.SHA384:
    """The hash that goes with a key: SHA-256 up to 256 bits, SHA-384 above."""
    return hashes.SHA256() if key.curve.key_size <= 256 else hashes.SHA384()


def require_key(key: object) -> ec.EllipticCurvePublicKey:
    """The key if it lies on one of the curves.  Raises RemoteProtocolError `certificate_algorithm`."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise refusal("certificate_algorithm", f"expected a key on {', '.join(curve.name for curve in CURVES)}")
    return key


def require_hash(algorithm: hashes.HashAlgorithm | None, signer: ec.EllipticCurvePublicKey) -> None:
    """Raises RemoteProtocolError `certificate_algorithm` for a hash that is none of ours or shorter than the key."""
    wanted = signature_hash(signer)
    if algorithm is None or algorithm.name not in {"sha256", "sha384"} or algorithm.digest_size < wanted.digest_size:
        raise refusal("certificate_algorithm", f"expected ECDSA with {wanted.name.upper()}")
