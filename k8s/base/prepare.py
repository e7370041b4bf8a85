"""
Put the cluster's SM-PKI and its enrolment token where the coordinator reads them, before it starts.

Runs in the coordinator's init container, of the image's packages.  Files of the Secret that are on the volume already
stay as they are there, since the coordinator renews some of them, but for the root's revocation list.  The token is
declared once, by its digest; one that was revoked or is used up stays so.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from pathlib import Path

from coordinator.config import CoordinatorConfig
from coordinator.storage.gateways import TokenRecord
from coordinator.storage.store import Store
from stromkreis.config import load

_DAY_MS = 86_400_000
_USES, _DAYS = 100_000, 3_650


def copy_pki(source: Path, target: Path) -> None:
    """Copy what is not there yet; keys get mode 0600."""
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in sorted(source.glob("*.*")):
        copy = target / path.name
        if not copy.exists() or path.name == "root-crl.pem":
            fresh = copy.with_suffix(".new")
            shutil.copyfile(path, fresh)
            fresh.chmod(0o600 if path.suffix == ".key" else 0o644)
            fresh.replace(copy)


def declare_token(config: CoordinatorConfig, token: str, now_ms: int) -> None:
    """Let gateways enrol with this token."""
    digest = hashlib.sha256(token.encode()).digest()
    store = Store(config.database_url)
    try:
        if not store.gateways.has_token(digest):
            store.gateways.add_token(
                TokenRecord(digest, "cluster", None, _USES, _USES, now_ms, now_ms + _DAYS * _DAY_MS)
            )
    finally:
        store.close()


if __name__ == "__main__":
    file, pki, token_file = map(Path, sys.argv[1:])
    settings = load(CoordinatorConfig, "coordinator", file)
    copy_pki(pki, settings.pki_path)
    declare_token(settings, token_file.read_text(encoding="ascii").strip(), round(time.time() * 1000))
