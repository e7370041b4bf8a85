"""
Revocation lists as the coordinator publishes them: one bundle in PEM, of every CA whose list it has.

The administrator's own sub-CA has its list in the database (`certificates`); it is made anew every hour, and at once
when a gateway was revoked.  Root and manufacturer are offline in the field: their lists are files beside the PKI
(`root-crl.pem`, `manufacturer-crl.pem`), put there by whoever fetches them.  Where the demo PKI's keys lie beside, a
list in the second half of its time is made anew from the serial numbers on the old one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.gwa.ca import (
    MANUFACTURER_FILE,
    MANUFACTURER_KEY_FILE,
    ROOT_FILE,
    ROOT_KEY_FILE,
    CertificateAuthority,
    load_key,
    to_pem,
    write,
)
from coordinator.storage.certificates import CertificateRepository
from protocol import pki
from protocol.errors import LocalProtocolError

SUB_CA_LIST_VALIDITY: Final = timedelta(days=7)
OFFLINE_LIST_VALIDITY: Final = timedelta(days=365)
_RENEW_AFTER: Final = timedelta(hours=1)
# By the name that people give the CA: certificate, key, list.
OFFLINE_AUTHORITIES: Final = {
    "root": (ROOT_FILE, ROOT_KEY_FILE, "root-crl.pem"),
    "manufacturer": (MANUFACTURER_FILE, MANUFACTURER_KEY_FILE, "manufacturer-crl.pem"),
}


class RevocationPublisher:
    """Makes the bundle; for the threads of the web server."""

    def __init__(self, directory: Path, authority: CertificateAuthority, certificates: CertificateRepository) -> None:
        self._directory = directory
        self._authority = authority
        self._certificates = certificates
        self._lock = threading.Lock()
        self._made: tuple[datetime, frozenset[int], bytes] | None = None

    def bundle(self, now: datetime) -> bytes:
        """CA certificates and lists in PEM, good from `now` for days.  Raises LocalProtocolError for damaged files."""
        revoked = [(serial, _time(ms)) for serial, ms in self._certificates.revoked(round(now.timestamp() * 1000))]
        serials = frozenset(serial for serial, _ in revoked)
        with self._lock:
            if self._made is not None:
                made, known, bundle = self._made
                if known == serials and made <= now < made + _RENEW_AFTER:
                    return bundle
            authorities = [self._authority.sub_ca]
            lists = [_list_pem(self._authority.sub_ca, self._authority.sub_ca_key, revoked, now, SUB_CA_LIST_VALIDITY)]
            for name, (certificate_file, _, _) in OFFLINE_AUTHORITIES.items():
                found = offline_list(self._directory, name, now)
                lists += [found] if found is not None else []
                if found is not None and name != "root":
                    authorities += _certificates(self._directory / certificate_file)
            bundle = b"".join([to_pem(authorities), *lists])
            self._made = now, serials, bundle
            return bundle

    def lists(self, now: datetime) -> pki.RevocationLists:
        """The same, checked, for the coordinator's own use.  Raises RemoteProtocolError for lists that do not hold."""
        found = pki.RevocationLists()
        found.take(pki.load_revocation_bundle(self.bundle(now), self._authority.root, now))
        return found


def offline_list(directory: Path, name: str, now: datetime) -> bytes | None:
    """
    The list of root or manufacturer in PEM; None where there is none, and no key to make one.

    Raises LocalProtocolError for a file that is no list.
    """
    certificate_file, key_file, list_file = OFFLINE_AUTHORITIES[name]
    path = directory / list_file
    found = _read_list(path)
    if found is not None and found.next_update_utc is not None:
        half = found.last_update_utc + (found.next_update_utc - found.last_update_utc) / 2
        if now < half or not (directory / key_file).exists():
            return path.read_bytes()
    if not (directory / key_file).exists() or not (directory / certificate_file).exists():
        return None
    return _write_offline(directory, name, [] if found is None else _entries(found), now)


def revoke_offline(directory: Path, name: str, serial: int, now: datetime) -> None:
    """
    Put a serial number on the list of root (a sub-CA's) or manufacturer (a quality seal's).

    Raises LocalProtocolError where the CA's key is not here.
    """
    _, key_file, list_file = OFFLINE_AUTHORITIES[name]
    if not (directory / key_file).exists():
        raise LocalProtocolError(f"{directory / key_file}: without the CA's key no list can be made")
    found = _read_list(directory / list_file)
    entries = [] if found is None else _entries(found)
    if serial in {known for known, _ in entries}:
        raise LocalProtocolError(f"{serial:x} is on the list already")
    _write_offline(directory, name, [*entries, (serial, now.replace(microsecond=0))], now)


def _write_offline(directory: Path, name: str, entries: Iterable[tuple[int, datetime]], now: datetime) -> bytes:
    certificate_file, key_file, list_file = OFFLINE_AUTHORITIES[name]
    (certificate,) = _certificates(directory / certificate_file)
    try:
        key = load_key(directory / key_file)
    except ValueError as error:
        raise LocalProtocolError(f"{directory / key_file}: expected a private key in PEM") from error
    pem = _list_pem(certificate, key, entries, now, OFFLINE_LIST_VALIDITY)
    fresh = (directory / list_file).with_suffix(".new")
    fresh.unlink(missing_ok=True)
    write(fresh, pem, mode=0o644)
    fresh.replace(directory / list_file)
    return pem


def _list_pem(
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    revoked: Iterable[tuple[int, datetime]],
    now: datetime,
    validity: timedelta,
) -> bytes:
    """The number is the time in ms: it grows without being kept anywhere."""
    start = now.replace(microsecond=0)
    made = pki.issue_revocation_list(
        issuer, key, revoked, number=round(now.timestamp() * 1000), this_update=start, next_update=start + validity
    )
    return made.public_bytes(serialization.Encoding.PEM)


def _read_list(path: Path) -> x509.CertificateRevocationList | None:
    try:
        return x509.load_pem_x509_crl(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LocalProtocolError(f"{path}: expected a revocation list in PEM") from error


def _entries(found: x509.CertificateRevocationList) -> list[tuple[int, datetime]]:
    return [(entry.serial_number, entry.revocation_date_utc) for entry in found]


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise LocalProtocolError(f"{path}: expected a certificate in PEM") from error


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC)
