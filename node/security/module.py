"""
The security module: the only place that holds private keys.

A gateway's long-lived keys (signature key on brainpoolP256r1, CURVE key) are files, written once at enrolment and
never changed; the key that the node's store is sealed under is one more, for all gateways of the process.  Epoch seeds
live in a small SQLite file of their own and are deleted when the epoch is over.

`SecurityModule` is the interface; a PKCS#11 or TR-03109-2 module can stand behind it, since callers ask for
signatures and evaluations, never for keys.  The CURVE secret is the exception that ZeroMQ forces: libzmq wants it.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey

from node.security.storage_key import FILE_NAME, FileStorageKeys
from node.storage.repositories.epoch_seeds import EpochSeedRepository
from protocol import pki
from protocol.dcnet.crypto.commitments import derive_blinding
from protocol.dcnet.crypto.suite import Suite
from protocol.dcnet.setup.secrets import EpochSecrets
from protocol.errors import LocalProtocolError, RemoteProtocolError, StromkreisError
from protocol.link import Keypair


class SecurityModule(Protocol):
    """What a gateway asks of its security module."""

    identity: str
    curve: Keypair

    @property
    def certificate(self) -> bytes | None: ...  # noqa: D102
    @property
    def intermediates(self) -> tuple[bytes, ...]: ...  # noqa: D102
    def signing_request(self) -> bytes: ...  # noqa: D102
    def install(self, certificate: bytes, intermediates: tuple[bytes, ...]) -> None: ...  # noqa: D102
    def sign(self, text: bytes) -> bytes: ...  # noqa: D102
    def blinding(self, label: bytes) -> int: ...  # noqa: D102
    def random_bits(self, count: int) -> int: ...  # noqa: D102
    def epoch(self, epoch: int) -> EpochSecrets: ...  # noqa: D102
    def fix_layout(self, epoch: int, layout_digest: bytes) -> None: ...  # noqa: D102
    def forget_epoch(self, epoch: int) -> None: ...  # noqa: D102
    def forget_epochs_before(self, epoch: int) -> None: ...  # noqa: D102


class KeyDirectory:
    """The file-backed security modules of one process, one for each gateway."""

    def __init__(self, directory: Path, suite: Suite) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        self.directory = directory
        self.suite = suite
        self._storage_keys = FileStorageKeys(directory / FILE_NAME)
        self.seeds = EpochSeedRepository(directory / "epochs.sqlite")

    def storage_key(self, purpose: str) -> bytes:
        """The key under which the node keeps what belongs to `purpose`; see node.storage.cipher."""
        return self._storage_keys.storage_key(purpose)

    def close(self) -> None:
        """Close the seed file."""
        self.seeds.close()

    def open(self, identity: str) -> FileSecurityModule:
        """The module of one gateway; makes its keys the first time."""
        return FileSecurityModule(self, identity)


def _write_once(path: Path, data: bytes) -> None:
    """Whole and durable, or not there at all."""
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


class FileSecurityModule:
    """One gateway's keys in files; see the head of the file."""

    def __init__(self, directory: KeyDirectory, identity: str) -> None:
        self.identity = identity
        self._directory = directory
        self._path = directory.directory / f"{identity}.json"
        if not self._path.exists():
            self._make_keys()
        try:
            stored = json.loads(self._path.read_text())
            loaded = serialization.load_pem_private_key(stored["signature_key"].encode(), None)
            self._commitment_key = bytes.fromhex(stored["commitment_key"])
            secret = bytes.fromhex(stored["curve_secret"])
            self.curve = Keypair(bytes(PrivateKey(secret).public_key), secret)
            self._chain = tuple(bytes.fromhex(each) for each in stored["chain"])
        except (ValueError, KeyError, TypeError, CryptoError):  # whose text could quote the file
            raise StromkreisError(
                f"{self._path}: no keys of a gateway; put the file back from the backup. Without one the gateway must"
                " be enrolled again, under another id"
            ) from None
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise LocalProtocolError(f"{self._path}: the signature key is no elliptic-curve key")
        self._key = loaded

    def _make_keys(self) -> None:
        key = ec.generate_private_key(ec.BrainpoolP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._store(pem.decode(), bytes(PrivateKey.generate()), os.urandom(32), ())

    def _store(self, pem: str, curve_secret: bytes, commitment_key: bytes, chain: tuple[bytes, ...]) -> None:
        content = {
            "signature_key": pem, "curve_secret": curve_secret.hex(), "commitment_key": commitment_key.hex(),
            "chain": [each.hex() for each in chain],
        }  # fmt: skip
        _write_once(self._path, json.dumps(content).encode())

    @property
    def certificate(self) -> bytes | None:
        """Our certificate (DER), or None before enrolment."""
        return self._chain[0] if self._chain else None

    @property
    def intermediates(self) -> tuple[bytes, ...]:
        """The certificates between ours and the root, DER."""
        return self._chain[1:]

    def signing_request(self) -> bytes:
        """A PKCS#10 request for our signature key, DER."""
        return pki.build_request(self._key, self.identity)

    def install(self, certificate: bytes, intermediates: tuple[bytes, ...]) -> None:
        """Take our certificate.  Raises RemoteProtocolError where it is not for our key."""
        public = x509.load_der_x509_certificate(certificate).public_key()
        if public != self._key.public_key():
            raise RemoteProtocolError("wrong_certificate", "the certificate is for another key")
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._chain = (certificate, *intermediates)
        self._store(pem.decode(), self.curve.secret, self._commitment_key, self._chain)

    def sign(self, text: bytes) -> bytes:
        """ECDSA with SHA-256 over `text`, DER."""
        return self._key.sign(text, ec.ECDSA(hashes.SHA256()))

    def blinding(self, label: bytes) -> int:
        """The blinding of the commitment to what `label` names: the same one for a retry, and for a bill later."""
        return derive_blinding(self._directory.suite.group, self._commitment_key, label)

    def random_bits(self, count: int) -> int:
        """A uniform integer of so many bits; a hardware module has a generator of its own for it."""
        return secrets.randbits(count)

    def epoch(self, epoch: int) -> EpochSecrets:
        """
        The epoch's secrets, made the first time and the same ones after a restart.

        Raises RemoteProtocolError for an epoch whose seed is gone and that is not after every epoch that had a layout:
        what was contributed is remembered by epoch and round, and under a used number it would pass for another ring's.
        """
        seeds = self._directory.seeds
        seed = seeds.seed(self.identity, epoch)
        if seed is None:
            newest = seeds.newest_bound(self.identity)
            if newest is not None and epoch <= newest:
                raise RemoteProtocolError("past_epoch", f"epoch {epoch} is called, and epoch {newest} was before")
            seed = os.urandom(32)
            seeds.add(self.identity, epoch, seed)
        return EpochSecrets(self._directory.suite, seed)

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
