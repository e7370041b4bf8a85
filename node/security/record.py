"""
What a gateway's file in the key directory has: its keys' names or sealed bytes, and its certificates.

JSON, whole and durable or not there at all.  A triple is pending from the moment its keys are made until its
certificates are installed: a request that is repeated after a crash asks for the same keys.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from protocol.durable import flush_directory
from protocol.errors import StromkreisError


@dataclass(frozen=True, slots=True)
class Triple:
    """
    Keys for signatures, encryption and TLS, and their certificates (DER, in this order; none while it is pending).

    The first two are names that the backend gave, the TLS key is sealed PEM.  `intermediates` lead to the root.
    """

    signature_key: str
    encryption_key: str
    tls_key: bytes
    certificates: tuple[bytes, ...] = ()
    intermediates: tuple[bytes, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether all three keys have a certificate; a gateway of an earlier version has one for signatures alone."""
        return len(self.certificates) == 3


@dataclass(frozen=True, slots=True)
class Record:
    """
    One gateway's: sealed secrets, and its triples as far as it has them.

    `profiles_version` is that of the newest profile set that it has taken, 0 before the first.
    """

    curve_secret: bytes
    commitment_key: bytes | None = None  # of an earlier release, until its blindings are kept with their values
    seal: Triple | None = None
    pending_seal: Triple | None = None
    current: Triple | None = None
    pending: Triple | None = None
    previous: Triple | None = None  # its encryption key still opens what was sent before the renewal
    profiles_version: int = 0

    @property
    def key_names(self) -> list[str]:
        """What the backend calls the keys of all its triples."""
        triples = (self.seal, self.pending_seal, self.current, self.pending, self.previous)
        names = [name for each in triples if each is not None for name in (each.signature_key, each.encryption_key)]
        return [name for name in names if name]

    def save(self, path: Path) -> None:
        """Durable when this returns."""
        content = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        temporary = path.with_suffix(".new")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(json.dumps(content).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        flush_directory(path.parent)

    def with_certificates(self, certificates: tuple[bytes, ...], intermediates: tuple[bytes, ...]) -> Record:
        """The record after the pending triple got its certificates."""
        if self.pending is None:
            raise StromkreisError("certificates without a request")
        fresh = replace(self.pending, certificates=certificates, intermediates=intermediates)
        return replace(self, current=fresh, pending=None, previous=self.current)


def load_record(path: Path) -> Record:
    """Raises StromkreisError, without a word of the content, for a file that is no record."""
    try:
        stored = json.loads(path.read_text())
        retired = stored.get("commitment_key")
        secrets = bytes.fromhex(stored["curve_secret"]), None if retired is None else bytes.fromhex(retired)
        if "signature_key" in stored:  # the format before there were triples
            chain = tuple(bytes.fromhex(each) for each in stored["chain"])
            old = Triple(str(stored["signature_key"]), "", b"", chain[:1], chain[1:])
            return Record(*secrets, current=old if chain else None)
        return Record(
            *secrets, seal=_triple(stored["seal"]), pending_seal=_triple(stored["pending_seal"]),
            current=_triple(stored["current"]), pending=_triple(stored["pending"]),
            previous=_triple(stored["previous"]), profiles_version=int(stored.get("profiles_version", 0)),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):  # whose text could quote the file
        raise StromkreisError(
            f"{path}: no keys of a gateway; put the file back from the backup. Without one the gateway must"
            " be enrolled again, under another id"
        ) from None


def erase_file(path: Path) -> None:
    """
    Overwrite a file that holds a key, and remove it, durably; none is no error, and one that a crash left is removed.

    It is renamed first: half overwritten it would be a damaged file of keys, with which no node starts.  A file system
    that copies on write, or a flash disk, may keep the old octets: there a token is the place for keys.
    """
    doomed = path.with_name(f"{path.name}.erased")
    if path.exists():
        path.replace(doomed)
    if not doomed.exists():
        return
    with doomed.open("r+b") as file:
        file.write(bytes(doomed.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    doomed.unlink()
    flush_directory(path.parent)


def _plain(value: bytes | Triple | int | None) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, int):
        return value
    return {
        "signature_key": value.signature_key, "encryption_key": value.encryption_key, "tls_key": value.tls_key.hex(),
        "certificates": [each.hex() for each in value.certificates],
        "intermediates": [each.hex() for each in value.intermediates],
    }  # fmt: skip


def _triple(stored: Any) -> Triple | None:
    if stored is None:
        return None
    return Triple(
        str(stored["signature_key"]), str(stored["encryption_key"]), bytes.fromhex(stored["tls_key"]),
        tuple(bytes.fromhex(each) for each in stored["certificates"]),
        tuple(bytes.fromhex(each) for each in stored["intermediates"]),
    )  # fmt: skip
