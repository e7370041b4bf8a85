"""
Revocation lists (RFC 5280 section 5): issued by root and sub-CA, and honoured.

A list is complete, signed by the CA that issued the certificates on it, and holds until `next_update`.  Whoever checks
with lists fails closed: without a current list of a certificate's issuer nothing below that issuer is believed.  Of two
lists of one CA the one of the higher number counts: an older one, played back, takes nothing away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.errors import LocalProtocolError
from protocol.pki.profiles import MALFORMED, refusal, require_hash, require_key, signature_hash

LISTS_SIZE_MAX: Final = 4 * 2**20  # bytes of PEM: some 60,000 revoked certificates
_LISTS_MAX: Final = 8
_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_END: Final = b"-----END X509 CRL-----"


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A checked list: whose (see `authority_of`), its number, from when to when it holds, revoked serials."""

    issuer: bytes
    number: int
    this_update: datetime
    next_update: datetime
    serials: frozenset[int]


class RevocationLists:
    """The newest list of each CA."""

    def __init__(self) -> None:
        self._lists: dict[bytes, RevocationList] = {}

    def take(self, lists: Iterable[RevocationList]) -> bool:
        """Keep those that are newer than what is here; whether any was."""
        changed = False
        for each in lists:
            known = self._lists.get(each.issuer)
            if known is None or each.number > known.number:
                self._lists[each.issuer] = each
                changed = True
        return changed

    def next_update(self) -> datetime | None:
        """When the first of the lists ends; None without any."""
        return min((each.next_update for each in self._lists.values()), default=None)

    def check(self, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime) -> datetime:
        """
        Return until when it is known that the issuer has not revoked the certificate.

        Raises RemoteProtocolError `certificate_revoked`, `revocation_stale`, `revocation_unknown`.
        """
        found = self._lists.get(authority_of(issuer))
        if found is None:
            raise refusal("revocation_unknown", "no revocation list of the issuer")
        if certificate.serial_number in found.serials:
            raise refusal("certificate_revoked", f"revoked by list {found.number} of its issuer")
        if now > found.next_update:
            until = f"{found.next_update:%Y-%m-%d %H:%M:%S} UTC"
            raise refusal("revocation_stale", f"the issuer's revocation list was good until {until}")
        return found.next_update


def issue_revocation_list(
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    revoked: Iterable[tuple[int, datetime]],
    *,
    number: int,
    this_update: datetime,
    next_update: datetime,
) -> x509.CertificateRevocationList:
    """
    Make the list of a CA; `revoked` are serial numbers with the time of revocation.

    `number` must grow from list to list.  Raises LocalProtocolError for a key that is not the CA's.
    """
    if issuer_key.public_key() != issuer.public_key():
        raise LocalProtocolError("the key does not belong to the certificate of the CA")
    public_key = issuer_key.public_key()
    builder = (
        x509.CertificateRevocationListBuilder(issuer.subject, this_update, next_update)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial, when in sorted(revoked):
        entry = x509.RevokedCertificateBuilder(serial, when).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer_key, signature_hash(public_key), ecdsa_deterministic=True)


def load_revocation_lists(pem: bytes, issuers: Sequence[x509.Certificate]) -> list[RevocationList]:
    """
    Read and check lists in PEM, one after the other, of `issuers` (checked CA certificates); others are left out.

    Raises RemoteProtocolError: `revocation_malformed`, `revocation_signature`, `certificate_algorithm`.
    """
    if len(pem) > LISTS_SIZE_MAX:
        raise refusal("revocation_malformed", f"over {LISTS_SIZE_MAX} bytes")
    parts = pem.split(_END)
    if len(parts) > _LISTS_MAX + 1:
        raise refusal("revocation_malformed", f"over {_LISTS_MAX} lists")
    checked = [_check(part[part.index(_BEGIN) :] + _END, issuers) for part in parts[:-1] if _BEGIN in part]
    return [each for each in checked if each is not None]


def _check(pem: bytes, issuers: Sequence[x509.Certificate]) -> RevocationList | None:
    try:
        found = x509.load_pem_x509_crl(pem)
        extensions = {extension.oid: extension for extension in found.extensions}
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        key = found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        next_update, this_update = found.next_update_utc, found.last_update_utc
        algorithm = found.signature_hash_algorithm
        serials = frozenset(entry.serial_number for entry in found)
    except (*MALFORMED, x509.ExtensionNotFound) as error:
        raise refusal("revocation_malformed", "not a list with a number and a key identifier") from error
    if any(extension.critical for extension in extensions.values()):
        raise refusal("revocation_malformed", "a critical extension: a list for a part or a change is not taken")
    if next_update is None or key is None:
        raise refusal("revocation_malformed", "a list without an end or an issuer")
    named = [each for each in issuers if each.subject == found.issuer and _key_identifier(each) == key]
    for issuer in named:  # a CA chooses its key identifier itself, so two may have the same
        public_key = require_key(issuer.public_key())
        require_hash(algorithm, public_key)
        if found.is_signature_valid(public_key):
            return RevocationList(authority_of(issuer), number, this_update, next_update, serials)
    if named:
        raise refusal("revocation_signature", "not signed by the CA that it names")
    return None


def authority_of(certificate: x509.Certificate) -> bytes:
    """
    What tells one CA from every other: SHA-256 of its name and its public key.

    Not the key identifier, which is a field of the certificate: who got another CA's into his own could replace its
    list by one of a higher number, and so take its revocations back (RFC 5280 5.2.1 and 6.3.3 ask for name and key).
    """
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    name = certificate.subject.public_bytes()
    return hashlib.sha256(len(name).to_bytes(4, "big") + name + key).digest()


def _key_identifier(certificate: x509.Certificate) -> bytes:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
