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
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import pki
from protocol.errors import LocalProtocolError

ROOT_VALIDITY = timedelta(days=6 * 365)
SUB_CA_VALIDITY = timedelta(days=5 * 365)
END_ENTITY_VALIDITY = timedelta(days=2 * 365)
SEAL_VALIDITY = timedelta(days=5 * 365)  # our reading: as long as the manufacturer's sub-CA at most
# A gateway's clock may be behind the coordinator's at the moment of its enrolment.
CLOCK_SKEW = timedelta(minutes=5)

ROOT_FILE = "root.pem"
SUB_CA_FILE = "sub-ca.pem"
TLS_CHAIN_FILE = "coordinator-tls.pem"
TLS_KEY_FILE = "coordinator-tls.key"
ROOT_KEY_FILE = "root.key"
SUB_CA_KEY_FILE = "sub-ca.key"
MANUFACTURER_FILE = "manufacturer.pem"
MANUFACTURER_KEY_FILE = "manufacturer.key"


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
        cls, directory: Path, now: datetime, *, organisation: str = "Stromkreis",
        hosts: Iterable[str] = ("localhost",), curve: type[ec.EllipticCurve] = pki.CURVE,
    ) -> CertificateAuthority:  # fmt: skip
        """
        Make root, sub-CA and the coordinator's TLS certificate in a directory of their own.

        `hosts` are the DNS names and IP addresses under which gateways reach the coordinator; `curve` is one of
        `pki.CURVES`, for every key of this PKI.
        Raises LocalProtocolError where a root, or what is left of a PKI, is there already.
        """
        if (directory / ROOT_FILE).exists():
            raise LocalProtocolError(f"there is a root certificate in {directory} already")
        for left in (SUB_CA_FILE, SUB_CA_KEY_FILE, ROOT_KEY_FILE):
            if (directory / left).exists():
                raise LocalProtocolError(
                    f"{directory} has {left} but no {ROOT_FILE}: put it back, gateways trust no other. Where none has"
                    " enrolled, move the directory away: another PKI is made"
                )
        for each in (directory.parent, directory):  # `parents` would make the data directory with the umask's mode
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        start = now.replace(microsecond=0) - CLOCK_SKEW
        root_key, sub_ca_key, tls_key = (ec.generate_private_key(curve()) for _ in range(3))
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
            not_after=start + END_ENTITY_VALIDITY, hosts=[general_name(host) for host in hosts],
        )  # fmt: skip
        write_key(directory / ROOT_KEY_FILE, root_key)
        write_key(directory / SUB_CA_KEY_FILE, sub_ca_key)
        write_key(directory / TLS_KEY_FILE, tls_key)
        write(directory / SUB_CA_FILE, to_pem([sub_ca]), mode=0o644)
        write(directory / TLS_CHAIN_FILE, to_pem([tls, sub_ca]), mode=0o644)
        # Last, because its presence says that the rest is complete.
        write(directory / ROOT_FILE, to_pem([root]), mode=0o644)
        return cls(root, sub_ca, sub_ca_key, f"{organisation}.GWA")

    @classmethod
    def create_manufacturer(cls, directory: Path, now: datetime, name: str) -> CertificateAuthority:
        """
        Make a manufacturer's sub-CA, for quality seals, below the root in `directory`.

        Raises LocalProtocolError where one is there already, or the root's key is not.
        """
        if (directory / MANUFACTURER_FILE).exists():
            raise LocalProtocolError(f"there is a manufacturer's sub-CA in {directory} already")
        try:
            (root,) = x509.load_pem_x509_certificates((directory / ROOT_FILE).read_bytes())
            root_key = load_key(directory / ROOT_KEY_FILE)
        except (FileNotFoundError, ValueError) as error:
            raise LocalProtocolError(f"no root and its key in {directory}: make them with `stromkreis pki init`") from (
                error
            )
        start = now.replace(microsecond=0) - CLOCK_SKEW
        key = ec.generate_private_key(root_key.curve)
        sub_ca = pki.issue(
            pki.Role.SUB_CA, pki.subject(f"{name}.CA"), key.public_key(), issuer=root, issuer_key=root_key,
            serial=x509.random_serial_number(), not_before=max(start, root.not_valid_before_utc),
            not_after=min(start + SUB_CA_VALIDITY, root.not_valid_after_utc),
        )  # fmt: skip
        write_key(directory / MANUFACTURER_KEY_FILE, key)
        write(directory / MANUFACTURER_FILE, to_pem([sub_ca]), mode=0o644)
        return cls(root, sub_ca, key, f"{name}.GWH")

    @classmethod
    def load(cls, directory: Path) -> CertificateAuthority:
        """Read back what `create` made.  Raises LocalProtocolError where it is absent or damaged."""
        return cls._load(directory, SUB_CA_FILE, SUB_CA_KEY_FILE, ".GWA")

    @classmethod
    def load_manufacturer(cls, directory: Path) -> CertificateAuthority:
        """Read back what `create_manufacturer` made.  Raises LocalProtocolError where it is absent or damaged."""
        return cls._load(directory, MANUFACTURER_FILE, MANUFACTURER_KEY_FILE, ".GWH")

    @classmethod
    def _load(cls, directory: Path, sub_ca_file: str, key_file: str, suffix: str) -> CertificateAuthority:
        try:
            (root,) = x509.load_pem_x509_certificates((directory / ROOT_FILE).read_bytes())
            (sub_ca,) = x509.load_pem_x509_certificates((directory / sub_ca_file).read_bytes())
            key = serialization.load_pem_private_key((directory / key_file).read_bytes(), password=None)
            common_name = sub_ca.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
        except FileNotFoundError as error:
            raise LocalProtocolError(f"no demo SM-PKI in {directory}: make one with `stromkreis pki init`") from error
        except (ValueError, IndexError) as error:
            raise LocalProtocolError(f"the demo SM-PKI in {directory} is damaged") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != sub_ca.public_key():
            raise LocalProtocolError(f"the sub-CA's key in {directory} does not belong to its certificate")
        return cls(root, sub_ca, key, f"{str(common_name).removesuffix('.CA')}{suffix}")

    def issue(
        self, role: pki.Role, name: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime,
        *, validity: timedelta = END_ENTITY_VALIDITY, hosts: Iterable[x509.GeneralName] = (),
    ) -> x509.Certificate:  # fmt: skip
        """A certificate after the role's profile, valid from a little before `now`, never longer than the sub-CA's."""
        start = max(now.replace(microsecond=0) - CLOCK_SKEW, self.sub_ca.not_valid_before_utc)
        return pki.issue(
            role, name, public_key, issuer=self.sub_ca, issuer_key=self.sub_ca_key, serial=x509.random_serial_number(),
            not_before=start, not_after=min(start + validity, self.sub_ca.not_valid_after_utc), hosts=hosts,
        )  # fmt: skip

    def issue_gateway(
        self, gateway_id: str, public_key: ec.EllipticCurvePublicKey, now: datetime, *,
        role: pki.Role = pki.Role.GATEWAY_SIGNATURE, sequence: int = 1,
    ) -> x509.Certificate:  # fmt: skip
        """One certificate of a gateway's triple; for a quality seal `administrator` is the manufacturer (`.GWH`)."""
        name = pki.subject(f"{gateway_id}.SMGW", unit=self.administrator, sequence=sequence)
        validity = SEAL_VALIDITY if pki.PROFILES[role].sealed else END_ENTITY_VALIDITY
        return self.issue(role, name, public_key, now, validity=validity)

    def issue_triple(
        self, requests: Sequence[pki.SigningRequest], now: datetime, *,
        roles: Sequence[pki.Role] = pki.GATEWAY_TRIPLE, sequence: int = 1,
    ) -> tuple[x509.Certificate, ...]:  # fmt: skip
        """A gateway's certificates for signature, encryption and TLS, as a checked package asks for them."""
        return tuple(
            self.issue_gateway(request.gateway_id, request.public_key, now, role=role, sequence=sequence)
            for role, request in zip(roles, requests, strict=True)
        )

    def chain_pem(self, certificate: x509.Certificate) -> str:
        """The certificate and its sub-CA's as PEM, leaf first; the root is carried by whoever checks."""
        return to_pem([certificate, self.sub_ca]).decode()


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """An unencrypted key in PEM.  Raises OSError, ValueError, LocalProtocolError for a key that lies on no curve."""
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise LocalProtocolError(f"{path}: expected a key on an elliptic curve")
    return key


def general_name(host: str) -> x509.GeneralName:
    """A DNS name or an IP address for a SubjectAltName."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def to_pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Certificates in PEM, one after the other."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """A private key (PKCS#8, PEM) into a new file that only its owner may read."""
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write(path, data, mode=0o600)


def write(path: Path, data: bytes, *, mode: int) -> None:
    """A new file, durable when this returns.  Raises FileExistsError for one that is there."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
