"""Which schema version a node's SQLite files have, and bringing them up to date (`stromkreis db status|upgrade`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.storage.cipher import Cipher
from node.storage.engine import Store
from node.storage.errors import StoreError
from node.storage.migrations import EPOCH_SEED_STEPS, STEPS
from node.storage.migrations.step004_blindings import BlindingKey


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """
    How a file's schema stands: `found` is its version, None where there is no file; `latest` that of this release.

    `pending` are the steps that an upgrade would take, each with what it does; `is_newer` says that a later release has
    written the file.
    """

    database: str
    found: str | None
    latest: str
    pending: tuple[tuple[str, str], ...]
    is_newer: bool


def status(store: Path, seeds: Path) -> list[SchemaStatus]:
    """How a node's store and its file of epoch seeds stand; changes nothing.  Raises StoreError."""
    return [_status(store, STEPS), _status(seeds, EPOCH_SEED_STEPS)]


def upgrade(store: Path, cipher: Cipher, blinding_key: BlindingKey) -> None:
    """
    Bring a stopped node's store to this release's version; does nothing where there is none.

    The file of epoch seeds comes along when the security module opens it.  Raises StoreError where the store cannot be
    written, is in use, or was written by a later release.
    """
    if store.exists():
        Store(store, cipher, blinding_key=blinding_key).close()


def _status(path: Path, steps: Sequence[Callable[..., Any]]) -> SchemaStatus:
    if not path.exists():
        return SchemaStatus(str(path), None, str(len(steps)), (), is_newer=False)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            ((found,),) = connection.execute("PRAGMA user_version")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK:
            told = "the node was killed while it wrote this file; start it once, which takes back what was half written"
        else:
            told = f"SQLite says '{error}'; expected a file of a node"
        raise StoreError(f"{path}: {told}") from error
    pending = tuple((str(number), step.__doc__ or "") for number, step in enumerate(steps[found:], found + 1))
    return SchemaStatus(str(path), str(found), str(len(steps)), pending, is_newer=found > len(steps))
