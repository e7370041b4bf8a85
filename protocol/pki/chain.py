"""Reading certificates, and checking one up to the root (RFC 5280 section 6, narrowed to the profiles; shell model)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.pki.names import check_name, common_name
from protocol.pki.profiles import (
    CERTIFICATE_SIZE_MAX,
    INTERMEDIATE_COUNT_MAX,
    MALFORMED,
    PROFILES,
    TLS_PURPOSES,
    Role,
    refusal,
    require_hash,
    require_key,
)
from protocol.pki.revocation import RevocationLists


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


def load_certificate(data: bytes) -> x509.Certificate:
    """Read one DER certificate of bounded size.  Raises RemoteProtocolError `certificate_malformed`."""
    if len(data) > CERTIFICATE_SIZE_MAX:
        raise refusal("certificate_malformed", f"over {CERTIFICATE_SIZE_MAX} bytes")
    try:
        certificate = x509.load_der_x509_certificate(data)
        _ = certificate.extensions, certificate.subject, certificate.issuer, certificate.public_key()
    except MALFORMED as error:
        raise refusal("certificate_malformed", "not an X.509 certificate of a named curve") from error
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
    revocations: RevocationLists | None = None,
) -> Verified:
    """
    Check a certificate for a role, up to the root (RFC 5280 section 6, narrowed to the profiles above; shell model).

    `intermediates` may hold what is not needed, `now` is timezone-aware.  With `revocations` each certificate below the
    root must have a current list of its issuer that does not name it; None is for a caller that knows otherwise.
    Takes an ECDSA check, about 0.5 ms, and one more for each certificate above that was not checked lately: cache the
    result by digest.  Raises RemoteProtocolError: `certificate_expired`, `certificate_not_yet_valid`, `unknown_issuer`,
    `certificate_signature`, `path_length`, `key_usage`, `basic_constraints`, `certificate_extension`,
    `certificate_name`, `certificate_algorithm`, `certificate_malformed`, `certificate_revoked`, `revocation_unknown`,
    `revocation_stale`.
    """
    if len(intermediates) > INTERMEDIATE_COUNT_MAX:
        raise refusal("path_length", f"over {INTERMEDIATE_COUNT_MAX} intermediate certificates")
    try:
        return _verify_chain(certificate, intermediates, root, now, role, revocations)
    except MALFORMED as error:
        raise refusal("certificate_malformed", "a field cannot be read") from error


def _verify_chain(
    certificate: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    root: x509.Certificate,
    now: datetime,
    role: Role,
    revocations: RevocationLists | None,
) -> Verified:
    path = [certificate]
    while not _names_issuer(path[-1], root):
        issuer = next((c for c in intermediates if _names_issuer(path[-1], c)), None)
        if issuer is None or issuer in path:
            raise refusal("unknown_issuer", "no certificate of the issuer up to the root")
        path.append(issuer)
    if path[-1] != root:
        path.append(root)
    public_key = _check_profile(certificate, role)
    for below, ca in enumerate(path[1:]):
        _check_profile(ca, Role.ROOT if ca == root else Role.SUB_CA)
        length = ca.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if length is None or below > length:
            raise refusal("path_length", f"{below} CA certificates below one that admits {length}")
    issuers = [*path[1:], root]
    for child, parent in zip(path, issuers, strict=True):
        require_hash(child.signature_hash_algorithm, require_key(parent.public_key()))
    try:
        certificate.verify_directly_issued_by(issuers[0])
        for child, parent in zip(path[1:], issuers[1:], strict=True):
            _require_issued(child, parent)
    except InvalidSignature as error:
        raise refusal("certificate_signature", "not signed by the issuer it names") from error
    not_before = max(c.not_valid_before_utc for c in path)
    not_after = min(c.not_valid_after_utc for c in path)
    if now > not_after:
        raise refusal("certificate_expired", f"the chain was valid until {not_after:%Y-%m-%d %H:%M:%S} UTC")
    if now < not_before:
        raise refusal("certificate_not_yet_valid", f"valid from {not_before:%Y-%m-%d %H:%M:%S} UTC")
    if revocations is not None:
        for child, parent in pairwise(path):
            not_after = min(not_after, revocations.check(child, parent, now))
    return Verified(common_name(certificate.subject), public_key, not_before, not_after)


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
        raise refusal("certificate_extension", "a key identifier is missing") from error
    return wanted == found


def _check_profile(certificate: x509.Certificate, role: Role) -> ec.EllipticCurvePublicKey:
    profile = PROFILES[role]
    extensions = certificate.extensions
    public_key = require_key(certificate.public_key())
    for extension in extensions:
        known = isinstance(extension.value, x509.BasicConstraints | x509.KeyUsage | x509.ExtendedKeyUsage)
        if extension.critical and not known:
            raise refusal("certificate_extension", f"unknown critical {extension.oid.dotted_string}")
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound as error:
        raise refusal("certificate_extension", "BasicConstraints or KeyUsage is missing") from error
    if not constraints.critical or constraints.value.ca != profile.is_ca:
        raise refusal("basic_constraints", f"cA must be {profile.is_ca} for a {role.value} certificate")
    if not usage.critical or usage.value != profile.key_usage():
        raise refusal("key_usage", f"not the key usage of a {role.value} certificate")
    purposes = [set(e.value) for e in extensions if isinstance(e.value, x509.ExtendedKeyUsage)]
    if purposes != ([set(TLS_PURPOSES)] if profile.tls else []):
        raise refusal("key_usage", f"not the extended key usage of a {role.value} certificate")
    check_name(certificate.subject, profile)
    return public_key
