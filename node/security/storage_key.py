"""
The key under which a node's store is sealed, in a file of its own.

It is made once and never changed.  It is not in the files that operators back up after enrolment: a copy of those must
not open a copy of the store.  Without it the store is lost, and the gateways start anew as after the loss of a disk.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from node.security.backend import FileBackend, KeyBackend
from protocol.durable import flush_directory
from protocol.errors import StromkreisError

FILE_NAME: Final = "storage.key"
_KEY_SIZE: Final = 32
_LABEL: Final = "storage key"


class FileStorageKeys:
    """
    `StorageKeys` from a file with 32 bytes in hexadecimal, made the first time; see `node.storage.cipher`.

    Where the backend seals, the file has the sealed bytes.

    Raises StromkreisError where the file holds something else, or can be neither read nor made.
    """

    def __init__(
        self, path: Path, random_bytes: Callable[[int], bytes] = os.urandom, backend: KeyBackend | None = None
    ) -> None:
        backend = backend or FileBackend()
        try:
            if not path.exists():
                _make(path, backend.seal(_LABEL, random_bytes(_KEY_SIZE)))
            self._key = backend.unseal(_LABEL, bytes.fromhex(path.read_text()))
        except OSError as error:
            raise StromkreisError(f"{path}: the storage key can be neither read nor made ({error.strerror})") from error
        except ValueError:  # whose text could quote the file
            self._key = b""
        if len(self._key) != _KEY_SIZE:
            raise StromkreisError(
                f"{path}: expected {_KEY_SIZE} bytes in hexadecimal; put the right file back. Without it the store does"
                " not open: move both away and let the gateways start anew"
            )

    def storage_key(self, purpose: str) -> bytes:
        """The 32 bytes for one purpose, unrelated to those of any other (HKDF-SHA256, RFC 5869)."""
        return HKDFExpand(SHA256(), _KEY_SIZE, b"stromkreis storage key\0" + purpose.encode()).derive(self._key)


def _make(path: Path, key: bytes) -> None:
    """Whole, durable and never in the place of another: what is sealed under a key that is then lost is lost too."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # in a container each process has the same id
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was faster: its key it is
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)
    flush_directory(path.parent)
