"""Making certificates after their profiles."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.errors import LocalProtocolError
from protocol.pki.profiles import PROFILES, TLS_PURPOSES, Role, signature_hash

SERIAL_BITS_MIN: Final = 64


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
        builder = builder.add_extension(x509.ExtendedKeyUsage(TLS_PURPOSES), critical=False)
    names = list(hosts)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, signature_hash(signer), ecdsa_deterministic=True)
