"""
LMN certificates: self-signed, not from the SM-PKI (BSI TR-03109-1 Detailspezifikation, chapter 3, "Typ A").

The gateway makes its own and, at pairing, the meter's with its key pair; each side pins the other's.  `deviations`
says what an existing certificate does otherwise, because the profile is a SHOULD and real meters have older ones:
the caller decides, and the log can name it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID, SignatureAlgorithmOID

from protocol.errors import LocalProtocolError

CERTIFICATE_SIZE_MAX: Final = 600
METER_MEDIA: Final = frozenset("156789")
GATEWAY_MEDIUM: Final = "e"
_ALLOWED_EXTENSIONS: Final = frozenset(
    {
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.EXTENDED_KEY_USAGE,
    }
)
_SIGNATURES: Final = frozenset({SignatureAlgorithmOID.ECDSA_WITH_SHA256, SignatureAlgorithmOID.ECDSA_WITH_SHA384})


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and the private key that it is about, both DER."""

    certificate: bytes
    private_key: bytes = field(repr=False)

    @classmethod
    def of(cls, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Identity:
        """Both as DER; the key as RFC 5915 has it, the shortest form."""
        form = serialization.PrivateFormat.TraditionalOpenSSL
        private = key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())
        return cls(certificate.public_bytes(serialization.Encoding.DER), private)

    def to_bytes(self) -> bytes:
        """Certificate, then key, as the footnote of REQ.SML.CLI.UpdateMtrCertAndKey.10 has it."""
        return self.certificate + self.private_key

    @classmethod
    def from_bytes(cls, data: bytes) -> Identity:
        """Inverse of `to_bytes`.  Raises ValueError, without a word of the key, for anything but such a pair."""
        size = _element_size(data)
        found = cls(data[:size], data[size:])
        try:
            key = serialization.load_der_private_key(found.private_key, None)
            fits = x509.load_der_x509_certificate(found.certificate).public_key() == key.public_key()
        except (ValueError, TypeError):
            fits = False
        if not fits:
            raise ValueError("no certificate with its private key behind it")
        return found


def _element_size(data: bytes) -> int:
    """Octets of the DER element that begins here."""
    first = data[1] if len(data) > 1 else 0
    length_size = first & 0x7F if first & 0x80 else 0
    length = int.from_bytes(data[2 : 2 + length_size], "big") if length_size else first
    return 2 + length_size + length


def make_certificate(
    device: str,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    *,
    deterministic: bool = False,
) -> x509.Certificate:
    """
    The self-signed certificate of a gateway or meter with its DIN 43849 identification, within 600 bytes.

    `serial` is a random number of 8..20 bytes.  `deterministic` (RFC 6979) gives the same octets each time, which a
    simulated meter wants that is started again.  Raises LocalProtocolError for a wrong one, an identification of a
    medium that has no LMN certificate, or an end before the beginning.
    """
    medium = device[:1].lower()
    if len(device) != 14 or not device.isalnum() or medium not in METER_MEDIA | {GATEWAY_MEDIUM}:
        raise LocalProtocolError("an LMN certificate is for a gateway or a meter with a DIN 43849 identification")
    if not 8 <= (serial.bit_length() + 8) // 8 <= 20 or serial <= 0 or not_after <= not_before:
        raise LocalProtocolError("a serial of 8..20 bytes, and an end after the beginning")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{device.lower()}.sm")])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder(name, name, key.public_key(), serial, not_before, not_after)
        .add_extension(_digital_signature(), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256() if key.curve.key_size <= 256 else hashes.SHA384(), ecdsa_deterministic=deterministic)
    )


def deviations(certificate: x509.Certificate) -> list[str]:
    """What of chapter 3 the certificate does not keep; an empty list for none."""
    names = [certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    common = str(names[0][0].value).lower() if names[0] else ""
    extensions = {extension.oid: extension for extension in certificate.extensions}
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    rules = {
        "version": certificate.version is x509.Version.v3,
        "serial": certificate.serial_number > 0 and 8 <= (certificate.serial_number.bit_length() + 8) // 8 <= 20,
        "signature algorithm": certificate.signature_algorithm_oid in _SIGNATURES,
        "issuer is not the subject": certificate.issuer == certificate.subject,
        "validity": certificate.not_valid_before_utc < certificate.not_valid_after_utc,
        "common name": len(common) == 17 and common.endswith(".sm") and common[:14].isalnum()
        and common[0] in METER_MEDIA | {GATEWAY_MEDIUM},
        "public key": isinstance(certificate.public_key(), ec.EllipticCurvePublicKey),
        "extension not allowed": not set(extensions) - _ALLOWED_EXTENSIONS,
        "key usage": usage is not None and usage.critical and usage.value == _digital_signature(),
        "basic constraints": constraints is not None and not constraints.value.ca,
        "size": len(certificate.public_bytes(serialization.Encoding.DER)) <= CERTIFICATE_SIZE_MAX,
    }  # fmt: skip
    found = [rule for rule, kept in rules.items() if not kept]
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        found.append("signature")
    return found


def _digital_signature() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
