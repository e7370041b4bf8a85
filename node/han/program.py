"""The digest of the program that runs, for the consumer to compare with what the manufacturer has published."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("node", "protocol", "stromkreis")


@cache
def program_sha256() -> str:
    """SHA-256 over the program's files, sorted by name: each name and content, with its length before it."""
    digest = hashlib.sha256()
    files = (file for package in _PACKAGES for file in (_ROOT / package).rglob("*") if "__pycache__" not in file.parts)
    for file in sorted(each for each in files if each.is_file()):
        for octets in (file.relative_to(_ROOT).as_posix().encode(), file.read_bytes()):
            digest.update(len(octets).to_bytes(8, "big") + octets)
    return digest.hexdigest()
