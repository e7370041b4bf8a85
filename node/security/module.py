"""
The security module: private keys are made, used and deleted behind it.

A gateway's long-lived keys (a triple for signature, encryption and TLS, the quality seal's triple, the CURVE key) are
named or sealed in a file of its own (`record.py`); where they really are is the backend's: files, or a PKCS#11 token.
Epoch seeds live in a small SQLite file (`node.storage.repositories.epoch_seeds`), deleted when the epoch is over.

`SecurityModule` is what the rest of the gateway sees: it asks for signatures, shared points and evaluations, never for
keys.  Two exceptions are forced on us: libzmq wants the CURVE secret, and Python's ssl wants the TLS key as a file;
that file exists in memory alone while a context is loaded.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey

from node.security.backend import FileBackend, KeyBackend, from_pem, to_pem
from node.security.record import Record, Triple, erase_file, load_record
from node.security.storage_key import FILE_NAME, FileStorageKeys
from node.storage.repositories.epoch_seeds import EpochSeedRepository
from protocol import cms, pki
from protocol.dcnet.crypto.commitments import blinding_of
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.errors import LocalProtocolError, RemoteProtocolError, StromkreisError
from protocol.link import Keypair

_SECRET_SIZE = 32


class SecurityModule(Protocol):
    """What a gateway asks of its security module."""

    identity: str
    curve: Keypair

    @property
    def certificate(self) -> bytes | None: ...  # noqa: D102
    @property
    def certificates(self) -> tuple[bytes, ...]: ...  # noqa: D102
    @property
    def intermediates(self) -> tuple[bytes, ...]: ...  # noqa: D102
    @property
    def profiles_version(self) -> int: ...  # noqa: D102
    def note_profiles(self, version: int) -> None: ...  # noqa: D102
    @property
    def signature_key(self) -> cms.SignatureKey: ...  # noqa: D102
    @property
    def encryption_keys(self) -> tuple[cms.AgreementKey, ...]: ...  # noqa: D102
    def load_tls(self, context: ssl.SSLContext) -> None: ...  # noqa: D102
    def sign(self, text: bytes) -> bytes: ...  # noqa: D102
    def blinding(self) -> int: ...  # noqa: D102
    def random_bits(self, count: int) -> int: ...  # noqa: D102
    def random(self, size: int) -> bytes: ...  # noqa: D102
    def ephemeral_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey: ...  # noqa: D102
    def epoch(self, epoch: int, end_s: float | None = None) -> EpochSecrets: ...  # noqa: D102
    def newest_bound(self) -> int: ...  # noqa: D102
    def fix_layout(self, epoch: int, layout_digest: bytes) -> None: ...  # noqa: D102
    def forget_epoch(self, epoch: int) -> None: ...  # noqa: D102
    def forget_epochs_before(self, epoch: int) -> None: ...  # noqa: D102
    def forget_ended_epochs(self, now_s: int) -> None: ...  # noqa: D102


class KeyDirectory:
    """The security modules of one process, one for each gateway, over one backend; new keys lie on `curve`."""

    def __init__(
        self,
        directory: Path,
        suite: Suite,
        *,
        backend: KeyBackend | None = None,
        curve: type[ec.EllipticCurve] = pki.CURVE,
        seeds: Path | None = None,
    ) -> None:
        """`seeds` is the file of the epoch seeds; None: epochs.sqlite in the directory."""
        seeds = seeds or directory / "epochs.sqlite"
        make_private(directory)
        make_private(seeds.parent)
        self.directory = directory
        self.suite = suite
        self.backend = backend or FileBackend()
        self.curve = curve()
        self._storage_keys = FileStorageKeys(directory / FILE_NAME, backend=self.backend)
        self.seeds = EpochSeedRepository(seeds)
        self.erased: set[str] = set()

    def storage_key(self, purpose: str) -> bytes:
        """The key under which the node keeps what belongs to `purpose`; see node.storage.cipher."""
        return self._storage_keys.storage_key(purpose)

    def retired_commitment_key(self, identity: str) -> bytes | None:
        """What an earlier release derived a gateway's blindings from; None once nothing needs it any more."""
        path = self.record_path(identity)
        sealed = load_record(path).commitment_key if path.exists() else None
        return None if sealed is None else self.backend.unseal(f"commitment key of {identity}", sealed)

    def forget_commitment_keys(self) -> None:
        """Delete them, durably: what was committed to under them has its blindings beside the values by now."""
        for path in self.directory.glob("*.json"):
            record = load_record(path)
            if record.commitment_key is not None:
                replace(record, commitment_key=None).save(path)

    def record_path(self, identity: str) -> Path:
        """The file of a gateway's keys."""
        return self.directory / f"{identity}.json"

    def erase(self, identity: str) -> None:
        """
        Delete a gateway's keys and seeds for good; its modules keep nothing from now on.  Twice is no error.

        Raises StoreError, OSError, and StromkreisError where the backend does not let a key go.
        """
        self.erased.add(identity)
        self.seeds.delete_gateway(identity)
        path = self.record_path(identity)
        if path.exists():
            for name in load_record(path).key_names:
                self.backend.delete_key(name)
        erase_file(path)
        erase_file(path.with_suffix(".new"))

    def close(self) -> None:
        """Close the seed file and let the backend go."""
        self.seeds.close()
        self.backend.close()

    def open(self, identity: str) -> GatewaySecurityModule:
        """The module of one gateway; makes its secrets the first time."""
        return GatewaySecurityModule(self, identity)


def make_private(directory: Path) -> None:
    """The directory, which only its owner may enter."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)


class GatewaySecurityModule:
    """One gateway's keys; see the head of the file."""

    def __init__(self, directory: KeyDirectory, identity: str) -> None:
        self.identity = identity
        self._directory = directory
        self._backend = directory.backend
        self._path = directory.record_path(identity)
        if not self._path.exists():
            self._make_secrets()
        self._record = load_record(self._path)
        secret = self._backend.unseal(self._label("CURVE key"), self._record.curve_secret)
        try:
            self.curve = Keypair(bytes(PrivateKey(secret).public_key), secret)
        except (ValueError, TypeError, CryptoError):  # whose text could quote the file
            raise StromkreisError(f"{self._path}: no CURVE key; put the file back from the backup") from None
        self._signing = self._load_signing()

    @property
    def certificate(self) -> bytes | None:
        """Our signature certificate (DER), or None before enrolment."""
        return self.certificates[0] if self.certificates else None

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """Our certificates for signature, encryption and TLS (DER); none before enrolment."""
        return () if self._record.current is None else self._record.current.certificates

    @property
    def intermediates(self) -> tuple[bytes, ...]:
        """The certificates between ours and the root, DER."""
        return () if self._record.current is None else self._record.current.intermediates

    @property
    def profiles_version(self) -> int:
        """That of the newest profile set that was taken with these keys, 0 before the first."""
        return self._record.profiles_version

    def note_profiles(self, version: int) -> None:
        """A profile set of this version is about to be taken; durable on return.  Raises OSError."""
        if version > self._record.profiles_version:
            self._save(replace(self._record, profiles_version=version))

    @property
    def signature_key(self) -> cms.SignatureKey:
        """The signature key with its certificate.  Raises LocalProtocolError before enrolment."""
        if self._signing is None:
            raise LocalProtocolError(f"gateway {self.identity} is not enrolled: it has no signature certificate")
        return self._signing

    @property
    def encryption_keys(self) -> tuple[cms.AgreementKey, ...]:
        """The encryption key and the one before it, for what was sent before a renewal, with their certificates."""
        triples = [each for each in (self._record.current, self._record.previous) if each and each.is_complete]
        return tuple(self._pair(each.certificates[1], each.encryption_key) for each in triples)

    def load_tls(self, context: ssl.SSLContext) -> None:
        """
        Load our TLS key and certificate chain into a context; the key is in no file of a disk meanwhile.

        Raises LocalProtocolError before there is a TLS certificate.
        """
        current = self._record.current
        if current is None or not current.is_complete:
            raise LocalProtocolError(f"gateway {self.identity} has no TLS certificate: enrol or renew it first")
        key = self._backend.unseal(self._label("TLS key"), current.tls_key)
        chain = b"".join(_pem(each) for each in (current.certificates[2], *current.intermediates))
        file = os.memfd_create("tls")  # ssl takes keys from files only
        try:
            with os.fdopen(file, "wb", closefd=False) as memory:
                memory.write(key + chain)
            context.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)

    def request_package(self) -> bytes:
        """The package of requests for our next triple (DER): the same one until its certificates are installed."""
        if self._record.pending is None:
            self._save(replace(self._record, pending=self._make_triple()))
        return self._package(self._record.pending)

    def install(self, certificates: tuple[bytes, ...], intermediates: tuple[bytes, ...]) -> None:
        """
        Take the certificates (DER: signature, encryption, TLS) of what `request_package` asked for.

        Raises RemoteProtocolError `wrong_certificate` where they are not for those keys.
        """
        self._require_own(certificates, self._record.pending)
        old, older = self._record.current, self._record.previous
        self._save(self._record.with_certificates(certificates, intermediates))
        self._signing = self._load_signing()
        self._delete([old.signature_key] if old else [])
        self._delete([older.encryption_key] if older else [])

    @property
    def is_sealed(self) -> bool:
        """Whether the gateway has its quality seal."""
        return self._record.seal is not None

    def seal_package(self) -> bytes:
        """The package of requests for the quality seal (DER), at the manufacturer's."""
        if self._record.seal is not None:
            raise StromkreisError(f"gateway {self.identity} has its quality seal already")
        if self._record.pending_seal is None:
            self._save(replace(self._record, pending_seal=self._make_triple()))
        return self._package(self._record.pending_seal)

    def install_seal(self, certificates: tuple[bytes, ...], intermediates: tuple[bytes, ...]) -> None:
        """Take the quality seal's certificates.  Raises RemoteProtocolError `wrong_certificate`."""
        pending = self._record.pending_seal
        self._require_own(certificates, pending)
        if pending is not None:
            seal = replace(pending, certificates=certificates, intermediates=intermediates)
            self._save(replace(self._record, seal=seal, pending_seal=None))

    def endorse(self, package: bytes) -> tuple[bytes, tuple[bytes, ...]] | None:
        """
        A detached CMS signature that says who asks: by our signature key, before enrolment by the quality seal's.

        Returns it with the chain of its certificate (DER), or None for a gateway that has neither.
        """
        if self._record.current is not None:
            return cms.sign_detached(package, self.signature_key), (self.certificates[0], *self.intermediates)
        seal = self._record.seal
        if seal is None:
            return None
        key = self._pair(seal.certificates[0], seal.signature_key)
        return cms.sign_detached(package, key), (seal.certificates[0], *seal.intermediates)

    def sign(self, text: bytes) -> bytes:
        """ECDSA over `text` with the hash that goes with the key, DER.  Raises LocalProtocolError before enrolment."""
        key = self.signature_key
        public_key = key.certificate.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise LocalProtocolError("a signature certificate has a key on an elliptic curve")
        return key.sign(text, cms.Digest.for_curve(public_key.curve))

    def blinding(self) -> int:
        """A fresh blinding for one commitment; whoever asks keeps it with the value."""
        return blinding_of(self._directory.suite.group, uniform=self._backend.random(64))

    def random_bits(self, count: int) -> int:
        """A uniform integer of so many bits."""
        return int.from_bytes(self._backend.random((count + 7) // 8), "big") >> (-count % 8)

    def random(self, size: int) -> bytes:
        """So many random octets of the backend's generator."""
        return self._backend.random(size)

    def ephemeral_key(self, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        """A key for one message, from the backend's generator (FIPS 186-4 appendix B.4.1: 64 bits more than needed)."""
        drawn = int.from_bytes(self._backend.random((curve.key_size + 7) // 8 + 8), "big")
        return ec.derive_private_key(1 + drawn % (curve.group_order - 1), curve)

    def epoch(self, epoch: int, end_s: float | None = None) -> EpochSecrets:
        """
        The epoch's secrets, made the first time and the same ones after a restart; it is over at `end_s` (Unix time).

        Raises RemoteProtocolError for an epoch whose seed is gone and that is not after every epoch that had a layout:
        what was contributed is remembered by epoch and round, and under a used number it would pass for another ring's.
        """
        seeds = self._directory.seeds
        label = self._label(f"seed of epoch {epoch}")
        sealed = seeds.seed(self.identity, epoch)
        if sealed is None:
            newest = seeds.newest_bound(self.identity)
            if newest is not None and epoch <= newest:
                raise RemoteProtocolError("past_epoch", f"epoch {epoch} is called, and epoch {newest} was before")
            sealed = self._backend.seal(label, self._backend.random(_SECRET_SIZE))
            seeds.add(self.identity, epoch, sealed, end_s)
        seed = self._backend.unseal(label, sealed)
        return EpochSecrets(self._directory.suite, seed, self._backend.random(_SECRET_SIZE))

    def newest_bound(self) -> int:
        """The newest epoch that was bound to a layout, -1 for none; `epoch` makes no new secrets up to it."""
        newest = self._directory.seeds.newest_bound(self.identity)
        return -1 if newest is None else newest

    def fix_layout(self, epoch: int, layout_digest: bytes) -> None:
        """Bind the epoch to one layout for good.  Raises RemoteProtocolError for a second, different one."""
        if not self._directory.seeds.bind(self.identity, epoch, layout_digest):
            raise RemoteProtocolError("second_layout", "another layout for an epoch that has one")

    def forget_epoch(self, epoch: int) -> None:
        """Delete an epoch's seed: what was masked with it stays masked (forward secrecy)."""
        self._directory.seeds.delete(self.identity, epoch)

    def forget_epochs_before(self, epoch: int) -> None:
        """Delete the seeds of earlier epochs, those that ended while we were down."""
        self._directory.seeds.delete_before(self.identity, epoch)

    def forget_ended_epochs(self, now_s: int) -> None:
        """Delete the seeds of epochs that are over: those that ended while we were down, whoever calls or not."""
        self._directory.seeds.delete_ended(self.identity, now_s)

    def _label(self, what: str) -> str:
        return f"{what} of {self.identity}"

    def _make_secrets(self) -> None:
        secret = self._backend.random(_SECRET_SIZE)
        Record(self._backend.seal(self._label("CURVE key"), secret)).save(self._path)

    def _make_triple(self) -> Triple:
        """A TLS key is made in this process, whatever the backend: it has to come out of it as a file."""
        curve = self._directory.curve
        tls = self._backend.seal(self._label("TLS key"), to_pem(self.ephemeral_key(curve)))
        names = [self._backend.make_key(curve, self.identity) for _ in range(2)]
        return Triple(names[0], names[1], tls)

    def _keys(self, triple: Triple) -> list[ec.EllipticCurvePrivateKey]:
        tls = self._backend.unseal(self._label("TLS key"), triple.tls_key)
        return [*(self._load_key(name) for name in (triple.signature_key, triple.encryption_key)), from_pem(tls)]

    def _load_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        try:
            return self._backend.load_key(name)
        except (ValueError, TypeError):  # whose text could quote the file
            raise StromkreisError(f"{self._path}: a key cannot be read; put the file back from the backup") from None

    def _package(self, triple: Triple | None) -> bytes:
        if triple is None:
            raise LocalProtocolError("a package without keys")
        first, second, third = (pki.build_request(key, self.identity) for key in self._keys(triple))
        return pki.build_package((first, second, third))

    def _require_own(self, certificates: tuple[bytes, ...], triple: Triple | None) -> None:
        found = [pki.load_certificate(each).public_key() for each in certificates]
        if triple is None or found != [key.public_key() for key in self._keys(triple)]:
            raise RemoteProtocolError("wrong_certificate", "the certificates are for other keys")

    def _pair(self, certificate: bytes, name: str) -> cms.KeyPair:
        try:
            loaded = x509.load_der_x509_certificate(certificate)  # no more than that: a fleet holds thousands
        except ValueError as error:
            raise StromkreisError(f"{self._path}: no certificate; put the file back from the backup") from error
        return cms.KeyPair(loaded, self._load_key(name))

    def _load_signing(self) -> cms.KeyPair | None:
        current = self._record.current
        return None if current is None else self._pair(current.certificates[0], current.signature_key)

    def _save(self, record: Record) -> None:
        if self.identity in self._directory.erased:  # a renewal that was under way
            raise LocalProtocolError(f"gateway {self.identity} has left for good: it keeps no keys")
        record.save(self._path)
        self._record = record

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            if name:
                self._backend.delete_key(name)


def _pem(certificate: bytes) -> bytes:
    return x509.load_der_x509_certificate(certificate).public_bytes(serialization.Encoding.PEM)
