"""
A firmware image: a wheel, checked by its digest, unpacked into a directory of its own, bounded in what it may take.

Its dependencies are those of the installation that it replaces; one that needs others does not come up.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path, PurePosixPath
from typing import Final

from protocol.errors import RemoteProtocolError
from protocol.profiles.firmware import FirmwareManifest

ENTRY: Final = "stromkreis/__main__.py"
FILES_MAX: Final = 20_000
UNPACKED_SIZE_MAX: Final = 256 << 20
_METADATA_SIZE_MAX: Final = 1 << 20
_MALFORMED: Final = (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, ValueError, RuntimeError)
_CHUNK: Final = 1 << 20
_STEPS: Final = re.compile(r"node/storage/migrations/(?:step|seeds)\d{3}_\w+\.py")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.  Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(directory: Path) -> str:
    """SHA-256 over all files below a directory, each with its name; what Python compiles there is left out."""
    digest = hashlib.sha256()
    files = (each for each in directory.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
    for file in sorted(files):
        name = file.relative_to(directory).as_posix().encode()
        digest.update(len(name).to_bytes(8, "big") + name + bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class WheelFacts:
    """Name and version of a wheel, and the schema of its store: how many steps lead to it."""

    product: str
    version: str
    store_version: int


def read_wheel(image: Path) -> WheelFacts:
    """
    What a wheel says of itself.

    Raises RemoteProtocolError `bad_image` for a file that is no wheel with this program in it; OSError.
    """
    try:
        with zipfile.ZipFile(image) as archive:
            names = archive.namelist()
            found = [each for each in names if each.endswith(".dist-info/METADATA") and each.count("/") == 1]
            if ENTRY not in names or len(found) != 1:
                raise RemoteProtocolError("bad_image", f"expected a wheel with {ENTRY} and one dist-info/METADATA")
            with archive.open(found[0]) as file:
                headers = BytesHeaderParser().parsebytes(file.read(_METADATA_SIZE_MAX))
    except _MALFORMED as error:
        raise RemoteProtocolError("bad_image", f"no wheel ({type(error).__name__})") from None
    steps = {each for each in names if _STEPS.fullmatch(each)}
    return WheelFacts(str(headers["Name"] or ""), str(headers["Version"] or ""), len(steps))


def check_image(image: Path, manifest: FirmwareManifest) -> None:
    """Return if a file is the manifest's.  Raises RemoteProtocolError `firmware_digest`, `bad_image`; OSError."""
    if image.stat().st_size != manifest.size or file_sha256(image) != manifest.sha256:
        raise RemoteProtocolError("firmware_digest", "the image has another size or SHA-256 than its manifest says")
    if read_wheel(image) != WheelFacts(manifest.product, manifest.version, manifest.store_version):
        raise RemoteProtocolError("bad_image", "the wheel has another name, version or store than its manifest says")


def unpack(image: Path, directory: Path) -> None:
    """
    Unpack a wheel into a directory, which is made anew; nothing of it goes anywhere else.

    Raises RemoteProtocolError `bad_image`, OSError.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    try:
        with zipfile.ZipFile(image) as archive:
            entries = [each for each in archive.infolist() if not each.is_dir()]
            _check_bounds(entries)
            for each in entries:
                target = directory.joinpath(*_parts(each))
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with archive.open(each) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)  # a full disk has readings to keep
        if not isinstance(error, FileExistsError):
            raise
        raise RemoteProtocolError("bad_image", "the wheel has two entries for one place") from None
    except _MALFORMED as error:
        raise RemoteProtocolError("bad_image", f"the wheel does not unpack ({type(error).__name__})") from None
    os.sync()  # before anybody is told that it is here


def _check_bounds(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > FILES_MAX or sum(each.file_size for each in entries) > UNPACKED_SIZE_MAX:
        detail = f"it unpacks to more than {FILES_MAX} files or {UNPACKED_SIZE_MAX} bytes"
        raise RemoteProtocolError("bad_image", detail)


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    path = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or not path.parts or kind not in {0, stat.S_IFREG}:
        raise RemoteProtocolError("bad_image", "the wheel has an entry that is no file below it")
    return path.parts
