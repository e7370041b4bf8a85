"""
SM-PKI certificate profiles: who may certify whom, and what a gateway's certificate must look like to be believed.

The smart metering PKI is a tree of three levels: one root, sub-CAs below it, end entities (gateways, gateway
administrators, market participants) below those.  Every gateway checks the epoch keys of its ring neighbours
against the root it carries, so that not even the coordinator can slip a key of its own into a ring.

The check is written out here instead of taken from `cryptography.x509.verification`: that module permits the
algorithms of the web PKI only, without a way to add brainpool curves (pyca/cryptography issue 13391), and it
wants a DNS name where the SM-PKI names a device.  In return the rules can be narrower than RFC 5280: a profile
states the exact key usage, and anything else is refused.

Names follow annex A of the SM-PKI certificate policy (`<id>.SMGW`, `<org>.GWA`, `<org>.EMT`, `<org>.CA`), profiles
BSI TR-03109-4, curves and hashes BSI TR-03116-3, gateway ids DIN 43863-5.  The organisation says that this is no
certificate of the German production PKI.  Revocation is the coordinator's directory, not a CRL: a ring is formed by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.errors import LocalProtocolError, RemoteProtocolError

ORGANISATION = "SM-Demo-PKI"
COUNTRY = "DE"
CURVE = ec.BrainpoolP256R1
CERTIFICATE_SIZE_MAX = 4096  # bytes; those of the profiles below take about 700
INTERMEDIATE_COUNT_MAX = 4

_HASHES = ("sha256", "sha384")
_GATEWAY_ID = re.compile(r"E[A-Z]{3}[0-9A-F]{2}[0-9]{8}")
# What cryptography raises for bytes that are not the structure they should be.
_MALFORMED = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
              x509.UnsupportedGeneralNameType)  # fmt: skip


class Role(Enum):
    """What a certificate is for."""

    ROOT = "root"
    SUB_CA = "sub-CA"
    GATEWAY_SIGNATURE = "gateway signature"
    GATEWAY_TLS = "gateway TLS"
    PARTICIPANT_TLS = "participant TLS"  # gateway administrators and external market participants
    PARTICIPANT_SIGNATURE = "participant signature"  # an external market participant's published tariffs


@dataclass(frozen=True, slots=True)
class Profile:
    """The part of a certificate that its role fixes; `path_length` None means that it certifies nobody."""

    path_length: int | None
    name_suffixes: tuple[str, ...]
    tls: bool

    @property
    def is_ca(self) -> bool:
        """Whether certificates of this profile certify others."""
        return self.path_length is not None

    def key_usage(self) -> x509.KeyUsage:
        """The exact KeyUsage bits (RFC 5280 section 4.2.1.3)."""
        return x509.KeyUsage(
            digital_signature=not self.is_ca, key_cert_sign=self.is_ca, crl_sign=self.is_ca,
            content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip


PROFILES = {
    Role.ROOT: Profile(1, (".CA",), tls=False),
    Role.SUB_CA: Profile(0, (".CA",), tls=False),
    Role.GATEWAY_SIGNATURE: Profile(None, (".SMGW",), tls=False),
    Role.GATEWAY_TLS: Profile(None, (".SMGW",), tls=True),
    Role.PARTICIPANT_TLS: Profile(None, (".GWA", ".EMT"), tls=True),
    Role.PARTICIPANT_SIGNATURE: Profile(None, (".EMT",), tls=False),
}
_TLS_PURPOSES = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


@dataclass(frozen=True, slots=True)
class Verified:
    """
    A certificate whose chain holds; what a caller keeps in its cache.

    The result stays true while `not_before <= now <= not_after`, the intersection of the whole chain's validity.
    """

    common_name: str
    public_key: ec.EllipticCurvePublicKey
    not_before: datetime
    not_after: datetime

    def holds_at(self, now: datetime) -> bool:
        """Whether the chain is still within its validity."""
        return self.not_before <= now <= self.not_after


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """What a checked PKCS#10 request asks for."""

    gateway_id: str
    public_key: ec.EllipticCurvePublicKey


# --- names ---------------------------------------------------------------------------------------------------------


def make_gateway_id(number: int, *, manufacturer: str = "STK", block: int = 1) -> str:
    """
    The cross-manufacturer device id of DIN 43863-5 with medium `E`: 14 characters such as `ESTK0100000001`.

    Raises LocalProtocolError where a part does not fit its field.
    """
    if not 0 <= number < 10**8 or not 0 <= block < 256:
        raise LocalProtocolError("a gateway id has a production number below 10^8 and a block below 256")
    text = f"E{manufacturer}{block:02X}{number:08d}"
    if not is_gateway_id(text):
        raise LocalProtocolError("the manufacturer of a gateway id is three capital letters")
    return text


def is_gateway_id(text: str) -> bool:
    """Whether this is a gateway's device id (DIN 43863-5, medium `E`), in capitals."""
    return _GATEWAY_ID.fullmatch(text) is not None


def gateway_id(certificate: x509.Certificate) -> str:
    """
    The id of the gateway that a certificate names, in capitals.

    Raises RemoteProtocolError `certificate_name` where the common name is not `<id>.SMGW`.
    """
    return _gateway_of(_common_name(certificate.subject))


def subject(common_name: str, *, unit: str | None = None, sequence: int = 1) -> x509.Name:
    """
    The distinguished name of annex A of the SM-PKI certificate policy.

    `unit` is the responsible gateway administrator for gateways, `sequence` the certificate's running number.
    """
    attributes = [
        x509.NameAttribute(NameOID.COUNTRY_NAME, COUNTRY),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, str(sequence)),
    ]
    if unit is not None:
        attributes.insert(2, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name(attributes)


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(found) != 1 or not isinstance(found[0].value, str):
        raise RemoteProtocolError("certificate_name", "expected exactly one common name")
    return found[0].value


def _gateway_of(common_name: str) -> str:
    device, dot, scheme = common_name.upper().partition(".")
    if (dot, scheme) != (".", "SMGW") or not is_gateway_id(device):
        raise RemoteProtocolError("certificate_name", "expected the common name <gateway id>.SMGW")
    return device


# --- making --------------------------------------------------------------------------------------------------------


def issue(
    role: Role,
    name: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    *,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    hosts: Iterable[x509.GeneralName] = (),
) -> x509.Certificate:
    """
    Make a certificate after the role's profile; `issuer` None makes a self-signed root.

    `serial` is at least 64 random bits (BSI TR-03109-4 asks for 8 to 20 octets); `hosts` are names and addresses of a
    TLS server.  Signs deterministically (RFC 6979), so the function draws no entropy.
    Raises LocalProtocolError where the certificate would not stand its own check.
    """
    profile = PROFILES[role]
    issuer_name = name if issuer is None else issuer.subject
    if (issuer is None) != (role is Role.ROOT):
        raise LocalProtocolError(f"a {role.value} certificate {'needs' if issuer is None else 'has no'} issuer")
    if issuer is not None and not issuer.not_valid_before_utc <= not_before <= not_after <= issuer.not_valid_after_utc:
        raise LocalProtocolError("a certificate cannot be valid outside its issuer's validity")
    signer = issuer_key.public_key()
    builder = (
        x509.CertificateBuilder(issuer_name, name, public_key, serial, not_before, not_after)
        .add_extension(x509.BasicConstraints(ca=profile.is_ca, path_length=profile.path_length), critical=True)
        .add_extension(profile.key_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )
    if profile.tls:
        builder = builder.add_extension(x509.ExtendedKeyUsage(_TLS_PURPOSES), critical=False)
    names = list(hosts)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256(), ecdsa_deterministic=True)


def build_request(key: ec.EllipticCurvePrivateKey, device: str) -> bytes:
    """A gateway's signing request (PKCS#10, DER); its signature proves possession of the key."""
    if not is_gateway_id(device):
        raise LocalProtocolError("a signing request needs a gateway id such as ESTK0100000001")
    builder = x509.CertificateSigningRequestBuilder(subject(f"{device}.SMGW"))
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(serialization.Encoding.DER)


def check_request(data: bytes) -> SigningRequest:
    """
    Read and check a signing request (PKCS#10, DER).

    Raises RemoteProtocolError: `request_malformed`, `request_signature`, `certificate_algorithm`, `certificate_name`.
    """
    if len(data) > CERTIFICATE_SIZE_MAX:
        raise RemoteProtocolError("request_malformed", f"over {CERTIFICATE_SIZE_MAX} bytes")
    try:
        request = x509.load_der_x509_csr(data)
        algorithm = request.signature_hash_algorithm
        public_key = request.public_key()
        valid = request.is_signature_valid
        name = request.subject
    except _MALFORMED as error:
        raise RemoteProtocolError("request_malformed", "not a PKCS#10 request of a named curve") from error
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, CURVE):
        raise RemoteProtocolError("certificate_algorithm", "expected a brainpoolP256r1 key")
    if algorithm is None or algorithm.name not in _HASHES:
        raise RemoteProtocolError("certificate_algorithm", "expected ECDSA with SHA-256 or SHA-384")
    if not valid:
        raise RemoteProtocolError("request_signature", "the request is not signed by its own key")
    return SigningRequest(_gateway_of(_common_name(name)), public_key)


# --- reading and checking ------------------------------------------------------------------------------------------


def load_certificate(data: bytes) -> x509.Certificate:
    """Read one DER certificate of bounded size.  Raises RemoteProtocolError `certificate_malformed`."""
    if len(data) > CERTIFICATE_SIZE_MAX:
        raise RemoteProtocolError("certificate_malformed", f"over {CERTIFICATE_SIZE_MAX} bytes")
    try:
        certificate = x509.load_der_x509_certificate(data)
        _ = certificate.extensions, certificate.subject, certificate.issuer, certificate.public_key()
    except _MALFORMED as error:
        raise RemoteProtocolError("certificate_malformed", "not an X.509 certificate of a named curve") from error
    return certificate


def to_der(certificate: x509.Certificate) -> bytes:
    """The DER bytes of a certificate."""
    return certificate.public_bytes(serialization.Encoding.DER)


def verify_chain(
    certificate: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    root: x509.Certificate,
    now: datetime,
    *,
    role: Role = Role.GATEWAY_SIGNATURE,
) -> Verified:
    """
    Check a certificate for a role, up to the root (RFC 5280 section 6, narrowed to the profiles above; shell model).

    `intermediates` may hold what is not needed, `now` is timezone-aware.  Takes an ECDSA check, about 0.5 ms, and one
    more for each certificate above that was not checked lately: cache the result by digest.  Raises
    RemoteProtocolError: `certificate_expired`, `certificate_not_yet_valid`, `unknown_issuer`,
    `certificate_signature`, `path_length`, `key_usage`, `basic_constraints`, `certificate_extension`,
    `certificate_name`, `certificate_algorithm`, `certificate_malformed`.
    """
    if len(intermediates) > INTERMEDIATE_COUNT_MAX:
        raise RemoteProtocolError("path_length", f"over {INTERMEDIATE_COUNT_MAX} intermediate certificates")
    try:
        return _verify_chain(certificate, intermediates, root, now, role)
    except _MALFORMED as error:
        raise RemoteProtocolError("certificate_malformed", "a field cannot be read") from error


def _verify_chain(
    certificate: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    root: x509.Certificate,
    now: datetime,
    role: Role,
) -> Verified:
    path = [certificate]
    while not _names_issuer(path[-1], root):
        issuer = next((c for c in intermediates if _names_issuer(path[-1], c)), None)
        if issuer is None or issuer in path:
            raise RemoteProtocolError("unknown_issuer", "no certificate of the issuer up to the root")
        path.append(issuer)
    if path[-1] != root:
        path.append(root)
    public_key = _check_profile(certificate, role)
    for below, ca in enumerate(path[1:]):
        _check_profile(ca, Role.ROOT if ca == root else Role.SUB_CA)
        length = ca.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if length is None or below > length:
            raise RemoteProtocolError("path_length", f"{below} CA certificates below one that admits {length}")
    issuers = [*path[1:], root]
    try:
        certificate.verify_directly_issued_by(issuers[0])
        for child, parent in zip(path[1:], issuers[1:], strict=True):
            _require_issued(child, parent)
    except InvalidSignature as error:
        raise RemoteProtocolError("certificate_signature", "not signed by the issuer it names") from error
    not_before = max(c.not_valid_before_utc for c in path)
    not_after = min(c.not_valid_after_utc for c in path)
    if now > not_after:
        raise RemoteProtocolError("certificate_expired", f"the chain was valid until {not_after:%Y-%m-%d %H:%M:%S} UTC")
    if now < not_before:
        raise RemoteProtocolError("certificate_not_yet_valid", f"valid from {not_before:%Y-%m-%d %H:%M:%S} UTC")
    return Verified(_common_name(certificate.subject), public_key, not_before, not_after)


@lru_cache(maxsize=32)
def _require_issued(child: x509.Certificate, parent: x509.Certificate) -> None:
    """The signatures above a leaf are the same for all leaves; what raises InvalidSignature is not remembered."""
    child.verify_directly_issued_by(parent)


def _names_issuer(child: x509.Certificate, parent: x509.Certificate) -> bool:
    """Whether `child` names `parent` as its issuer, by name and key identifier: a renewed sub-CA keeps its name."""
    if child.issuer != parent.subject:
        return False
    try:
        wanted = child.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        found = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound as error:
        raise RemoteProtocolError("certificate_extension", "a key identifier is missing") from error
    return wanted == found


def _check_profile(certificate: x509.Certificate, role: Role) -> ec.EllipticCurvePublicKey:
    profile = PROFILES[role]
    extensions = certificate.extensions
    public_key = certificate.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, CURVE):
        raise RemoteProtocolError("certificate_algorithm", "expected a brainpoolP256r1 key")
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or algorithm.name not in _HASHES:
        raise RemoteProtocolError("certificate_algorithm", "expected ECDSA with SHA-256 or SHA-384")
    for extension in extensions:
        known = isinstance(extension.value, x509.BasicConstraints | x509.KeyUsage | x509.ExtendedKeyUsage)
        if extension.critical and not known:
            raise RemoteProtocolError("certificate_extension", f"unknown critical {extension.oid.dotted_string}")
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound as error:
        raise RemoteProtocolError("certificate_extension", "BasicConstraints or KeyUsage is missing") from error
    if not constraints.critical or constraints.value.ca != profile.is_ca:
        raise RemoteProtocolError("basic_constraints", f"cA must be {profile.is_ca} for a {role.value} certificate")
    if not usage.critical or usage.value != profile.key_usage():
        raise RemoteProtocolError("key_usage", f"not the key usage of a {role.value} certificate")
    purposes = [set(e.value) for e in extensions if isinstance(e.value, x509.ExtendedKeyUsage)]
    if purposes != ([set(_TLS_PURPOSES)] if profile.tls else []):
        raise RemoteProtocolError("key_usage", f"not the extended key usage of a {role.value} certificate")
    name = _common_name(certificate.subject).upper()
    if not name.endswith(profile.name_suffixes):
        raise RemoteProtocolError("certificate_name", f"not the name of a {role.value} certificate")
    if profile.name_suffixes == (".SMGW",):
        _gateway_of(name)
    return public_key
