"""Wheels of releases for tests: of a few files, or of this very program under another version."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.firmware.checking import STORE_VERSION
from protocol.profiles.firmware import FirmwareManifest, FirmwareOrder

ROOT = Path(__file__).parents[2]
PUBLISHER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLISHERS = (PUBLISHER.public_key().public_bytes_raw(),)
GATEWAY = "ESTK0100000001"
STEPS = {f"node/storage/migrations/step{number:03}_x.py": b"" for number in range(STORE_VERSION)}
_PACKAGES = ("node", "protocol", "stromkreis")


def wheel(path: Path, version: str, files: Mapping[str, bytes]) -> Path:
    """A wheel of these files, written to `path`."""
    metadata = f"Metadata-Version: 2.1\nName: stromkreis\nVersion: {version}\n".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, f"stromkreis-{version}.dist-info/METADATA": metadata}.items():
            archive.writestr(name, content)
    return path


def small_wheel(path: Path, version: str, program: str = "", **more: bytes) -> Path:
    """One whose program is a text."""
    files = {"stromkreis/__main__.py": program.encode(), "stromkreis/__init__.py": b"", **STEPS, **more}
    return wheel(path, version, files)


def own_wheel(path: Path, version: str, changed: Mapping[str, bytes] | None = None) -> Path:
    """This program, under another version and with some files changed."""
    files = {
        each.relative_to(ROOT).as_posix(): each.read_bytes()
        for package in _PACKAGES
        for each in sorted((ROOT / package).rglob("*"))
        if each.is_file() and "__pycache__" not in each.parts
    }
    return wheel(path, version, {**files, **(changed or {})})


def manifest_of(image: Path, version: str, **changed: Any) -> FirmwareManifest:
    """The manifest of a wheel, published by PUBLISHER."""
    document: dict[str, Any] = {
        "product": "stromkreis", "hardware": ("generic",), "version": version, "store_version": STORE_VERSION,
        "valid_from": "2026-01-01T00:00:00Z", "sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
        "size": image.stat().st_size,
    } | changed  # fmt: skip
    return FirmwareManifest.model_validate(document, strict=False).signed_by(PUBLISHER)


def order_of(image: Path, version: str, issued_ms: int = 1, **changed: Any) -> FirmwareOrder:
    """An order for it."""
    manifest = manifest_of(image, version, **changed)
    return FirmwareOrder(gateway=GATEWAY, issued_ms=issued_ms, activate="now", manifest=manifest)
