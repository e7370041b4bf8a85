"""What results depend on besides the settings: the code that computes them and the packages that it uses."""

from __future__ import annotations

import hashlib
import importlib.metadata
from functools import lru_cache
from pathlib import Path

import protocol.dcnet

PACKAGES = ("stromkreis", "antgen", "numpy", "scipy", "scikit-learn", "phe")
_PRESENTATION = frozenset({"acceptance.py", "claims.py", "figures.py", "output.py", "report.py"})
"""Modules of the lab that take finished results: a change of theirs makes no stored result wrong."""


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Of the packages that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@lru_cache(maxsize=1)
def code_digest() -> str:
    """A digest of the lab and of the ring that it plays; what only presents results is left out."""
    return digest_of(Path(__file__).parent, *map(Path, protocol.dcnet.__path__))


def digest_of(*folders: Path) -> str:
    """A digest of the Python files of these folders, names included."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            if path.name not in _PRESENTATION:
                digest.update(f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
