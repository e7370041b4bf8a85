"""
A demo SM-PKI on disk: root, one sub-CA, and the coordinator's own certificates, for TLS and for tariffs.

In the field the root belongs to the BSI, the sub-CA to a certified trust centre, and their keys to hardware modules;
here they are files so that a neighbourhood can be built on the spot.  Private keys are created with mode 0600 from the
first byte (never written and then protected), and nothing that exists is ever overwritten: a second root under the
first one's gateways would cut all of them off.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import pki
from protocol.errors import LocalProtocolError

ROOT_VALIDITY = timedelta(days=6 * 365)
SUB_CA_VALIDITY = timedelta(days=5 * 365)
END_ENTITY_VALIDITY = timedelta(days=2 * 365)
# A gateway's clock may be behind the coordinator's at the moment of its enrolment.
CLOCK_SKEW = timedelta(minutes=5)

ROOT_FILE = "root.pem"
SUB_CA_FILE = "sub-ca.pem"
TLS_CHAIN_FILE = "coordinator-tls.pem"
TLS_KEY_FILE = "coordinator-tls.key"
TARIFF_CHAIN_FILE = "tariff.pem"
TARIFF_KEY_FILE = "tariff.key"
_ROOT_KEY_FILE = "root.key"
_SUB_CA_KEY_FILE = "sub-ca.key"


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """
    The sub-CA that signs gateway certificates, with the root above it.

    The root's key is not kept here: it signs once, in `create`, and stays on disk (in the field: in a safe).
    """

    root: x509.Certificate
    sub_ca: x509.Certificate
    sub_ca_key: ec.EllipticCurvePrivateKey
    administrator: str

    @classmethod
    def create(
        cls, directory: Path, now: datetime, *, organisation: str = "Stromkreis", hosts: Iterable[str] = ("localhost",)
    ) -> CertificateAuthority:
        """
        Make root, sub-CA and the coordinator's TLS certificate in a directory of their own.

        `hosts` are the DNS names and IP addresses under which gateways reach the coordinator.
        Raises LocalProtocolError where a root, or what is left of a PKI, is there already.
        """
        if (directory / ROOT_FILE).exists():
            raise LocalProtocolError(f"there is a root certificate in {directory} already")
        for left in (SUB_CA_FILE, _SUB_CA_KEY_FILE, _ROOT_KEY_FILE):
            if (directory / left).exists():
                raise LocalProtocolError(
                    f"{directory} has {left} but no {ROOT_FILE}: put it back, gateways trust no other. Where none has"
                    " enrolled, move the directory away: another PKI is made"
                )
        for each in (directory.parent, directory):  # `parents` would make the data directory with the umask's mode
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        start = now.replace(microsecond=0) - CLOCK_SKEW
        root_key, sub_ca_key, tls_key = (ec.generate_private_key(pki.CURVE()) for _ in range(3))
        root = pki.issue(
            pki.Role.ROOT, pki.subject("SM-Demo-Root.CA"), root_key.public_key(), issuer=None, issuer_key=root_key,
            serial=x509.random_serial_number(), not_before=start, not_after=start + ROOT_VALIDITY,
        )  # fmt: skip
        sub_ca = pki.issue(
            pki.Role.SUB_CA, pki.subject(f"{organisation}.CA"), sub_ca_key.public_key(), issuer=root,
            issuer_key=root_key, serial=x509.random_serial_number(), not_before=start,
            not_after=start + SUB_CA_VALIDITY,
        )  # fmt: skip
        tls = pki.issue(
            pki.Role.ADMINISTRATOR_TLS, pki.subject(f"{organisation}.GWA"), tls_key.public_key(), issuer=sub_ca,
            issuer_key=sub_ca_key, serial=x509.random_serial_number(), not_before=start,
            not_after=start + END_ENTITY_VALIDITY, hosts=[_general_name(host) for host in hosts],
        )  # fmt: skip
        _write_key(directory / _ROOT_KEY_FILE, root_key)
        _write_key(directory / _SUB_CA_KEY_FILE, sub_ca_key)
        _write_key(directory / TLS_KEY_FILE, tls_key)
        _write(directory / SUB_CA_FILE, _pem([sub_ca]), mode=0o644)
        _write(directory / TLS_CHAIN_FILE, _pem([tls, sub_ca]), mode=0o644)
        # Last, because its presence says that the rest is complete.
        _write(directory / ROOT_FILE, _pem([root]), mode=0o644)
        return cls(root, sub_ca, sub_ca_key, f"{organisation}.GWA")

    @classmethod
    def load(cls, directory: Path) -> CertificateAuthority:
        """Read back what `create` made.  Raises LocalProtocolError where it is absent or damaged."""
        try:
            (root,) = x509.load_pem_x509_certificates((directory / ROOT_FILE).read_bytes())
            (sub_ca,) = x509.load_pem_x509_certificates((directory / SUB_CA_FILE).read_bytes())
            key = serialization.load_pem_private_key((directory / _SUB_CA_KEY_FILE).read_bytes(), password=None)
            common_name = sub_ca.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
        except FileNotFoundError as error:
            raise LocalProtocolError(f"no demo SM-PKI in {directory}: make one with `stromkreis pki init`") from error
        except (ValueError, IndexError) as error:
            raise LocalProtocolError(f"the demo SM-PKI in {directory} is damaged") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != sub_ca.public_key():
            raise LocalProtocolError(f"the sub-CA's key in {directory} does not belong to its certificate")
        return cls(root, sub_ca, key, f"{str(common_name).removesuffix('.CA')}.GWA")

    def issue_gateway(
        self, gateway_id: str, public_key: ec.EllipticCurvePublicKey, now: datetime, *, sequence: int = 1
    ) -> x509.Certificate:
        """A gateway's signature certificate, valid from a little before `now`, never longer than the sub-CA's own."""
        start = max(now.replace(microsecond=0) - CLOCK_SKEW, self.sub_ca.not_valid_before_utc)
        return pki.issue(
            pki.Role.GATEWAY_SIGNATURE,
            pki.subject(f"{gateway_id}.SMGW", unit=self.administrator, sequence=sequence),
            public_key, issuer=self.sub_ca, issuer_key=self.sub_ca_key, serial=x509.random_serial_number(),
            not_before=start, not_after=min(start + END_ENTITY_VALIDITY, self.sub_ca.not_valid_after_utc),
        )  # fmt: skip

    def issue_participant(
        self, public_key: ec.EllipticCurvePublicKey, now: datetime, *, sequence: int = 1
    ) -> x509.Certificate:
        """The market participant's signature certificate, `<organisation>.EMT`: for its published tariffs alone."""
        start = max(now.replace(microsecond=0) - CLOCK_SKEW, self.sub_ca.not_valid_before_utc)
        return pki.issue(
            pki.Role.PARTICIPANT_SIGNATURE,
            pki.subject(f"{self.administrator.removesuffix('.GWA')}.EMT", sequence=sequence), public_key,
            issuer=self.sub_ca, issuer_key=self.sub_ca_key, serial=x509.random_serial_number(), not_before=start,
            not_after=min(start + END_ENTITY_VALIDITY, self.sub_ca.not_valid_after_utc),
        )  # fmt: skip

    def chain_pem(self, certificate: x509.Certificate) -> str:
        """The certificate and its sub-CA's as PEM, leaf first; the root is carried by whoever checks."""
        return _pem([certificate, self.sub_ca]).decode()


class TariffSigner:
    """
    The market participant's signature key for tariffs and its certificate, in files of their own.

    A key apart from the TLS key: no key serves two purposes, and a gateway must be able to tell a tariff's signature
    from every other one by the certificate's profile alone.
    """

    def __init__(self, directory: Path, authority: CertificateAuthority | None, now: datetime) -> None:
        """
        Read the key from `directory`, or make it; the certificate is renewed in the last tenth of its validity.

        Raises LocalProtocolError where a certificate is needed and there is no `authority` to issue it.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_file, chain_file = directory / TARIFF_KEY_FILE, directory / TARIFF_CHAIN_FILE
        if not key_file.exists():
            _write_key(key_file, ec.generate_private_key(pki.CURVE()))
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise LocalProtocolError(f"{key_file}: the tariff key is no elliptic-curve key")
        self._key = key
        certificate = _still_good(chain_file, key, now)
        if certificate is None:
            if authority is None:
                raise LocalProtocolError(
                    f"{chain_file}: no certificate for tariffs that holds for long enough; the process with role gwa"
                    " (or all) issues it at its start"
                )
            certificate = authority.issue_participant(key.public_key(), now)
            chain_file.unlink(missing_ok=True)
            _write(chain_file, _pem([certificate, authority.sub_ca]), mode=0o644)
        self.certificate = pki.to_der(certificate)

    def sign(self, text: bytes) -> bytes:
        """ECDSA with SHA-256 over `text`, DER."""
        return self._key.sign(text, ec.ECDSA(hashes.SHA256()))


def _still_good(chain_file: Path, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate | None:
    try:
        certificate = x509.load_pem_x509_certificates(chain_file.read_bytes())[0]
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LocalProtocolError(f"{chain_file}: expected certificates in PEM") from error
    last_tenth = (certificate.not_valid_after_utc - certificate.not_valid_before_utc) / 10
    if certificate.public_key() != key.public_key() or now > certificate.not_valid_after_utc - last_tenth:
        return None
    return certificate


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, data, mode=0o600)


def _write(path: Path, data: bytes, *, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
