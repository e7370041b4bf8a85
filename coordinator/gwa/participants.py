"""
The keys and certificates of the administrator (GWA) and of the market participant (EMT), in files beside the PKI.

Each certificate is renewed in the last tenth of its validity, for the same key, when the process starts.  A key has one
use: tariffs are signed with a key of their own, so that a gateway tells a tariff's signature from every other one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.gwa.ca import TLS_CHAIN_FILE, CertificateAuthority, load_key, to_pem, write, write_key
from protocol import cms, pki
from protocol.errors import LocalProtocolError

log = logging.getLogger(__name__)
TARIFF_STEM: Final = "tariff"
_STEMS: Final = ("signature", "encryption", "tls")


@dataclass(frozen=True, slots=True)
class ParticipantKeys:
    """A participant's triple; `tls_chain` and `tls_key` are files, as ssl wants them."""

    signature: cms.KeyPair
    encryption: cms.KeyPair
    tls_chain: Path
    tls_key: Path


def administrator_keys(directory: Path, authority: CertificateAuthority, now: datetime) -> ParticipantKeys:
    """The administrator's triple, made the first time: files gwa-signature.key, gwa-signature.pem and so on."""
    return _triple(directory, "gwa", authority, pki.ADMINISTRATOR_TRIPLE, now)


def participant_keys(directory: Path, authority: CertificateAuthority, now: datetime) -> ParticipantKeys:
    """The market participant's triple, made the first time: files emt-signature.key and so on."""
    return _triple(directory, "emt", authority, pki.PARTICIPANT_TRIPLE, now)


def renew_web_certificate(directory: Path, authority: CertificateAuthority, now: datetime) -> None:
    """Renew the coordinator's TLS certificate in its last tenth, for the same key and the same names."""
    chain = directory / TLS_CHAIN_FILE
    try:
        (old, *_) = x509.load_pem_x509_certificates(chain.read_bytes())
        hosts = list(old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (FileNotFoundError, x509.ExtensionNotFound):
        return  # a PKI without a web server of its own
    except ValueError as error:
        raise LocalProtocolError(f"{chain}: expected certificates in PEM") from error
    certified_key(directory, chain.stem, authority, pki.Role.ADMINISTRATOR_TLS, now, hosts=hosts)


class TariffSigner:
    """The market participant's signature key for tariffs and its certificate, in files of their own."""

    def __init__(self, directory: Path, authority: CertificateAuthority | None, now: datetime) -> None:
        """
        Read the key from `directory`, or make it; the certificate is renewed in the last tenth of its validity.

        Raises LocalProtocolError where a certificate is needed and there is no `authority` to issue it.
        """
        self._key = certified_key(directory, TARIFF_STEM, authority, pki.Role.PARTICIPANT_SIGNATURE, now)
        self.certificate = pki.to_der(self._key.certificate)

    def sign(self, text: bytes) -> bytes:
        """ECDSA over `text` with the hash that goes with the key, DER."""
        return self._key.private_key.sign(text, ec.ECDSA(pki.signature_hash(self._key.private_key.public_key())))


def certified_key(
    directory: Path,
    stem: str,
    authority: CertificateAuthority | None,
    role: pki.Role,
    now: datetime,
    *,
    hosts: Iterable[x509.GeneralName] = (),
    organisation: str | None = None,
) -> cms.KeyPair:
    """
    The key in `<stem>.key` with its certificate in `<stem>.pem`; made, or renewed, where that is due.

    It is of `organisation`, None for the administrator's own.

    Raises LocalProtocolError for files that hold something else, and where there is no `authority` that could issue.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key_file, chain_file = directory / f"{stem}.key", directory / f"{stem}.pem"
    if not key_file.exists() and authority is not None:
        write_key(key_file, ec.generate_private_key(authority.sub_ca_key.curve))
    try:
        key = load_key(key_file)
    except (FileNotFoundError, ValueError) as error:
        raise LocalProtocolError(f"{key_file}: expected a private key in PEM") from error
    still, is_due = _certificate_of(chain_file, key, now)
    certificate = None if is_due else still
    if certificate is None:
        if authority is None:
            raise LocalProtocolError(
                f"{chain_file}: no certificate that holds for long enough; the process with role gwa (or all) issues it"
                " at its start"
            )
        if still is not None and not os.access(directory, os.W_OK):
            log.warning(
                "%s ends at %s, and %s cannot be written: put a PKI there that `stromkreis pki init` has renewed",
                chain_file, still.not_valid_after_utc, directory,
            )  # fmt: skip
            return cms.KeyPair(still, key)
        name = f"{organisation or authority.administrator.removesuffix('.GWA')}{pki.PROFILES[role].name_suffix}"
        certificate = authority.issue(role, pki.subject(name), key.public_key(), now, hosts=hosts)
        fresh = chain_file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        write(fresh, to_pem([certificate, authority.sub_ca]), mode=0o644)
        fresh.replace(chain_file)
    return cms.KeyPair(certificate, key)


def _triple(
    directory: Path, who: str, authority: CertificateAuthority, roles: Iterable[pki.Role], now: datetime
) -> ParticipantKeys:
    signature, encryption, _ = (
        certified_key(directory, f"{who}-{stem}", authority, role, now)
        for stem, role in zip(_STEMS, roles, strict=True)
    )
    return ParticipantKeys(signature, encryption, directory / f"{who}-tls.pem", directory / f"{who}-tls.key")


def _certificate_of(
    chain_file: Path, key: ec.EllipticCurvePrivateKey, now: datetime
) -> tuple[x509.Certificate | None, bool]:
    """The key's certificate, while it holds, and whether it is to be renewed."""
    try:
        certificate = x509.load_pem_x509_certificates(chain_file.read_bytes())[0]
    except FileNotFoundError:
        return None, True
    except ValueError as error:
        raise LocalProtocolError(f"{chain_file}: expected certificates in PEM") from error
    if certificate.public_key() != key.public_key() or now > certificate.not_valid_after_utc:
        return None, True
    last_tenth = (certificate.not_valid_after_utc - certificate.not_valid_before_utc) / 10
    return certificate, now > certificate.not_valid_after_utc - last_tenth
