"""Which backend a node's keys have, by its configuration."""

from __future__ import annotations

from pathlib import Path

from node.security.backend import FileBackend, KeyBackend
from node.security.storage_key import FILE_NAME
from protocol.errors import StromkreisError


def open_backend(directory: Path, library: Path | None, label: str, pin: str | None) -> KeyBackend:
    """
    Files where no library is named, else the token.

    The token's store key is made for an empty `directory` only.

    Raises StromkreisError for a token that cannot be used.
    """
    if library is None:
        return FileBackend()
    try:
        from node.security.token import TokenBackend  # noqa: PLC0415 - an extra, for those who have a token
    except ImportError as error:
        raise StromkreisError(
            "node.security.library wants a token, and python-pkcs11 is not installed: pip install stromkreis[pkcs11]"
        ) from error
    sealed = any(directory.glob("*.json")) or (directory / FILE_NAME).exists()
    return TokenBackend(library, label, pin or "", may_make_store_key=not sealed)
