"""
What firmware must be before this node takes it: by a publisher that it knows, for its product and hardware, valid now,
newer, able to go back from.

A release whose store has a newer schema is refused: once it has brought the store up to date, the release before it
does not open that any more, and going back would leave a gateway that does not start.  Such releases are installed by
hand (docs/howto/firmware.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from node.storage.migrations import EPOCH_SEED_STEPS, STEPS
from protocol.errors import RemoteProtocolError
from protocol.profiles.firmware import FirmwareManifest, version_numbers

PRODUCT: Final = "stromkreis"
STORE_VERSION: Final = len(STEPS) + len(EPOCH_SEED_STEPS)
"""Schemas of the store and of the file of epoch seeds: each step, of either, makes it one more."""


@dataclass(frozen=True, slots=True)
class Installed:
    """
    What is here: the version that runs, the newest that was ever confirmed ("" for none), and the hardware.

    `publishers` are the Ed25519 public keys whose releases are taken.
    """

    version: str
    newest: str
    hardware: str
    publishers: tuple[bytes, ...]


def check_manifest(manifest: FirmwareManifest, installed: Installed, now: datetime) -> None:
    """
    Return if the release may be installed now.

    Raises RemoteProtocolError: `unknown_publisher`, `wrong_product`, `wrong_hardware`, `firmware_not_valid`,
    `firmware_downgrade`, `minimum_version`, `store_version`.
    """
    if not manifest.is_signed_by(installed.publishers):
        raise RemoteProtocolError("unknown_publisher", "it is signed by none of [node.firmware] publishers")
    if manifest.product != PRODUCT:
        raise RemoteProtocolError("wrong_product", f"it is for {manifest.product}, this is {PRODUCT}")
    if installed.hardware not in manifest.hardware:
        detail = f"it is for {', '.join(manifest.hardware)}, this is {installed.hardware} ([node.firmware] hardware)"
        raise RemoteProtocolError("wrong_hardware", detail[:300])
    if not manifest.is_valid_at(now):
        end = "without end" if manifest.valid_to is None else f"to {manifest.valid_to:%Y-%m-%d %H:%M} UTC"
        detail = f"it may be installed from {manifest.valid_from:%Y-%m-%d %H:%M} UTC {end}"
        raise RemoteProtocolError("firmware_not_valid", detail)
    wanted, running = version_numbers(manifest.version), version_numbers(installed.version)
    if wanted <= running:
        raise RemoteProtocolError("firmware_downgrade", f"{installed.version} runs, expected a higher version")
    if installed.newest and wanted < version_numbers(installed.newest):
        raise RemoteProtocolError("firmware_downgrade", f"{installed.newest} was in force here, expected no lower one")
    if running < version_numbers(manifest.minimum_version):
        detail = f"{installed.version} runs, it needs {manifest.minimum_version} at least: install that first"
        raise RemoteProtocolError("minimum_version", detail)
    if manifest.store_version != STORE_VERSION:
        detail = f"its store has schema {manifest.store_version}, this one {STORE_VERSION}: install it by hand"
        raise RemoteProtocolError("store_version", detail)
