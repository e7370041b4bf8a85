"""
Certificates of the home network (HAN), by chapter 4 of the detailed specifications (REQ.ZertifikateHAN.Allgemein.10).

Type A (CT_Selfsigned) is everybody's own: the gateway's, a consumer's, a CLS's, a service technician's.  Type B
(CT_CA_Signed) is a service technician's from a CA of the administrator or the manufacturer.  Type C (CT_SMPKI_Signed)
is the gateway's TLS certificate of the SM-PKI, checked by `chain.verify_chain` with Role.GATEWAY_TLS.

The profile is a SHOULD: `deviations` says what a certificate does otherwise, with the section, and the caller decides;
`require_profile` refuses.  Whether a type A certificate is still valid is not checked (section 4.2): it counts because
the administrator configured it, and devices at home may not know the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.pki.profiles import COUNTRY, CURVES, signature_hash

_SEQUENCE_MAX: Final = 2**31 - 1
_PURPOSES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_ATTRIBUTE_LENGTH_MAX: Final = 64
_FORBIDDEN_SELF_SIGNED: Final = {
    ExtensionOID.CERTIFICATE_POLICIES: "CertificatePolicies",
    ExtensionOID.CRL_DISTRIBUTION_POINTS: "CRLDistributionPoints",
    x509.ObjectIdentifier("2.5.29.16"): "PrivateKeyUsagePeriod",
}
_ALLOWED_CA_SIGNED: Final = {
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.SUBJECT_KEY_IDENTIFIER, ExtensionOID.KEY_USAGE,
    ExtensionOID.CERTIFICATE_POLICIES, ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.CRL_DISTRIBUTION_POINTS,
}  # fmt: skip


class HanRole(Enum):
    """Whose certificate: the last part of the common name `<id>.<role>`."""

    GATEWAY = "smgw"
    CLS = "cls"
    CONSUMER = "con"
    SERVICE = "srv"


def make_self_signed(
    role: HanRole,
    identification: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    serial: int,
    sequence: int = 1,
    not_before: datetime,
    not_after: datetime,
    administrator: str | None = None,
) -> x509.Certificate:
    """
    A type A certificate.

    `identification` is the device's id of DIN 43849 for gateway and CLS, otherwise what the issuer calls its owner;
    `serial` a random number of 8 to 20 octets, `sequence` the certificate's running number from 1, `administrator` the
    gateway's GWA.  Raises LocalProtocolError for what would not stand its own check.
    """
    name = _name(role, identification, sequence, administrator)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), serial, not_before, not_after)
        .add_extension(_key_usage(), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
        .add_extension(x509.ExtendedKeyUsage(_PURPOSES), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if role in {HanRole.GATEWAY, HanRole.CLS}:  # section 4.3.5.3
        host = x509.DNSName(f"{identification.lower()}.sm")
        builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    return _checked(builder.sign(key, signature_hash(key.public_key())), None)


def make_service_ca(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, *, serial: int, not_before: datetime, not_after: datetime
) -> x509.Certificate:
    """The CA of an administrator or manufacturer for service technicians (section 4.6): self-signed, no CA below it."""
    public_key = key.public_key()
    return (
        x509.CertificateBuilder(name, name, public_key, serial, not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
        .sign(key, signature_hash(public_key))
    )


def issue_service(
    identification: str,
    public_key: ec.EllipticCurvePublicKey,
    *,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    serial: int,
    sequence: int = 1,
    not_before: datetime,
    not_after: datetime,
) -> x509.Certificate:
    """A type B certificate of a service technician.  Raises LocalProtocolError for what would not stand its check."""
    name = _name(HanRole.SERVICE, identification, sequence, None)
    builder = (
        x509.CertificateBuilder(ca.subject, name, public_key, serial, not_before, not_after)
        .add_extension(_key_usage(), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_PURPOSES), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return _checked(builder.sign(ca_key, signature_hash(ca_key.public_key())), ca)


def deviations(certificate: x509.Certificate, ca: x509.Certificate | None = None) -> list[str]:
    """
    What of chapter 4 a certificate does not keep, each with its section; an empty list for none.

    `ca` is the certificate of the CA for type B, None for type A.
    """
    try:
        return [*_structure(certificate, ca), *_extensions(certificate, ca), *_signature(certificate, ca)]
    except ValueError:
        return ["a field cannot be read (table 4.4)"]


def require_profile(
    certificate: x509.Certificate, ca: x509.Certificate | None = None, *, now: datetime | None = None
) -> None:
    """
    Raises RemoteProtocolError `han_certificate` with what does not fit.

    `now` is for type B, whose time counts as that of any certificate of a CA; type A is trusted by configuration.
    """
    found = deviations(certificate, ca)
    for each in (certificate, ca) if ca is not None and now is not None else ():
        if each is not None and now is not None and not each.not_valid_before_utc <= now <= each.not_valid_after_utc:
            found.append("out of date (4.3.4)")
    if found:
        raise RemoteProtocolError("han_certificate", "; ".join(found))


def _checked(certificate: x509.Certificate, ca: x509.Certificate | None) -> x509.Certificate:
    found = deviations(certificate, ca)
    if found:
        raise LocalProtocolError("; ".join(found))
    return certificate


def _name(role: HanRole, identification: str, sequence: int, administrator: str | None) -> x509.Name:
    attributes = [
        x509.NameAttribute(NameOID.COUNTRY_NAME, COUNTRY),
        x509.NameAttribute(NameOID.COMMON_NAME, f"{identification.lower()}.{role.value}"),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, str(sequence)),
    ]
    if administrator is not None:
        attributes.insert(1, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, administrator))
    return x509.Name(attributes)


def _key_usage(*, ca: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _structure(certificate: x509.Certificate, ca: x509.Certificate | None) -> Iterator[str]:
    if certificate.version is not x509.Version.v3:
        yield "version is not v3 (table 4.4)"
    if certificate.serial_number <= 0 or not 8 <= (certificate.serial_number.bit_length() + 8) // 8 <= 20:
        yield "serial number is not a positive number of 8 to 20 octets (table 4.4)"
    if certificate.issuer != (certificate.subject if ca is None else ca.subject):
        yield "issuer is not the subject (4.3.3)" if ca is None else "issuer is not the CA (table 4.4)"
    if certificate.not_valid_after_utc <= certificate.not_valid_before_utc:
        yield "validity ends before it begins (4.3.4)"
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        yield "public key is not on a named curve of TR-03116-3 (4.3.2)"
    yield from _subject(certificate.subject)


def _subject(subject: x509.Name) -> Iterator[str]:
    if any(len(attribute.value) > _ATTRIBUTE_LENGTH_MAX for attribute in subject):
        yield "an attribute of the subject is over 64 characters (4.3.3)"
    values = {attribute.oid: str(attribute.value) for attribute in subject}
    identification, dot, function = values.get(NameOID.COMMON_NAME, "").lower().rpartition(".")
    gateway = function == HanRole.GATEWAY.value
    if not identification or not dot:
        yield "common name is not <id>.<function> (tables 4.6, 4.7)"
    elif gateway and not (len(identification) == 14 and identification.isalnum() and identification[0] == "e"):
        yield "common name has no identification of DIN 43849 with medium E (table 4.6)"
    organisation = values.get(NameOID.ORGANIZATION_NAME, "").upper()
    if gateway and organisation.startswith("SM-") and organisation.endswith("PKI"):
        yield "organisation names an SM-PKI (table 4.6)"
    sequence = values.get(NameOID.SERIAL_NUMBER)
    if gateway and (NameOID.COUNTRY_NAME not in values or sequence is None):
        yield "country or serial number is missing (table 4.6)"
    if sequence is not None and not (sequence.isdecimal() and 1 <= int(sequence) <= _SEQUENCE_MAX):
        yield "serial number of the subject is not 1 to 2^31-1 (tables 4.6, 4.7)"


def _extensions(certificate: x509.Certificate, ca: x509.Certificate | None) -> Iterator[str]:
    extensions = {extension.oid: extension for extension in certificate.extensions}
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    if usage is None or usage.critical is not (ca is not None) or not usage.value.digital_signature:
        yield f"KeyUsage is not digitalSignature, {'critical' if ca else 'not critical'} (4.3.5.1)"
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if constraints is None or constraints.critical is not (ca is not None) or constraints.value.ca:
        yield f"BasicConstraints is not cA FALSE, {'critical' if ca else 'not critical'} (4.3.5.2)"
    purposes = extensions.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if purposes is None or purposes.critical or not set(_PURPOSES) <= set(purposes.value):
        yield "ExtendedKeyUsage is not for TLS servers and clients, not critical (4.3.5.4)"
    alternative = extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    if alternative is not None and alternative.critical:
        yield "SubjectAltName is critical (4.3.5.3)"
    if ca is None:
        for oid in extensions.keys() & _FORBIDDEN_SELF_SIGNED.keys():
            yield f"{_FORBIDDEN_SELF_SIGNED[oid]} in a self-signed certificate (table 4.5)"
        return
    for oid in (ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.SUBJECT_KEY_IDENTIFIER):
        if oid not in extensions:
            yield f"{oid._name} is missing (table 4.5)"
    for oid in extensions.keys() - _ALLOWED_CA_SIGNED:
        yield f"extension {oid.dotted_string} is not allowed (table 4.5)"


def _signature(certificate: x509.Certificate, ca: x509.Certificate | None) -> Iterator[str]:
    issuer = certificate if ca is None else ca
    if ca is not None:
        constraints = [e.value for e in ca.extensions if isinstance(e.value, x509.BasicConstraints)]
        usage = [e.value for e in ca.extensions if isinstance(e.value, x509.KeyUsage)]
        if not (constraints and constraints[0].ca and usage and usage[0].key_cert_sign):
            yield "the issuer is no CA (4.6)"
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        yield "signature does not hold (table 4.3)"
