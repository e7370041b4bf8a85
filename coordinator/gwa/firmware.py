"""
Roll-out of firmware: releases that are kept, and an order for each gateway, signed by the administrator.

An order is a row for each gateway and nothing in memory: whoever asks for it again goes on where it stood, and a
gateway that refused a release, or went back from it, is told to try again by an order of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from coordinator.gwa.gateway_word import gateway_word
from coordinator.gwa.profiles import ProfileRollout
from coordinator.storage.firmware import UNFINISHED, FirmwareRepository, ImageRecord, OrderRecord, OrderState
from coordinator.storage.gateways import GatewayStatus
from protocol import cms
from protocol.errors import RemoteProtocolError
from protocol.profiles.firmware import (
    RECEIPT_SIZE_MAX,
    Activation,
    FirmwareManifest,
    FirmwareOrder,
    FirmwareReceipt,
    unpack,
)

IMAGES_MAX: Final = 16
PART_SIZE: Final = 256 << 10
_OFFERED_MAX: Final = 64  # orders of one answer, some 2 KB each
_RECEIPT_LIMITS: Final = cms.Limits(message_size=4 * RECEIPT_SIZE_MAX, content_size=RECEIPT_SIZE_MAX)


class FirmwareRollout:
    """Signs orders as `profiles` does for the same gateways, and keeps what they say of them."""

    def __init__(self, firmware: FirmwareRepository, profiles: ProfileRollout) -> None:
        self.firmware = firmware
        self._profiles = profiles

    def keep(self, document: bytes, now: datetime) -> ImageRecord:
        """
        Keep the release of a firmware file; the same one again is no error.

        Raises RemoteProtocolError: what `unpack` raises, `firmware_version` where another one has its version,
        `too_many_images`.
        """
        manifest, image = unpack(document)
        record = ImageRecord(manifest.version, manifest.sha256, manifest.to_bytes(), _ms(now))
        known = self.firmware.images()
        if manifest.version not in {each.version for each in known}:
            if len(known) >= IMAGES_MAX:
                detail = f"{IMAGES_MAX} releases are kept: remove one (stromkreis gwa firmware remove)"
                raise RemoteProtocolError("too_many_images", detail)
            self.firmware.add_image(record, image)
        stored = self._image(manifest.version)
        if stored.manifest != record.manifest:
            detail = f"another release of version {manifest.version} is kept: give a changed one a higher version"
            raise RemoteProtocolError("firmware_version", detail)
        return stored

    def remove(self, version: str) -> None:
        """Delete a release that no order names.  Raises RemoteProtocolError `firmware_unknown`, `firmware_in_use`."""
        self._image(version)
        if not self.firmware.remove_image(version):
            raise RemoteProtocolError("firmware_in_use", f"the newest order of a gateway names version {version}")

    def order(
        self, version: str, gateways: Sequence[str], activate: Activation, now: datetime
    ) -> tuple[list[OrderRecord], list[str]]:
        """
        Order gateways to run a release; the orders as they stand, and the gateways that cannot be told.

        An order for the release that waits, is staged, or whose release runs stays as it is; any other is made anew.
        Raises RemoteProtocolError `firmware_unknown`.
        """
        manifest = FirmwareManifest.from_bytes(self._image(version).manifest)
        active = {
            name for name, each in self._profiles.gateways.some(gateways).items() if each.status is GatewayStatus.ACTIVE
        }  # fmt: skip
        known, made = self.firmware.orders(active), []
        for name in sorted(active):
            before = known.get(name)
            if before is None or before.version != version or before.state not in UNFINISHED | {OrderState.RUNNING}:
                issued_ms = max(_ms(now), 0 if before is None else before.issued_ms + 1)
                made.append(self._signed(name, manifest, activate, issued_ms))
        self.firmware.put_orders(made)
        found = self.firmware.orders(active)
        return [found[name] for name in sorted(found)], sorted(set(gateways) - active)

    def waiting(self, gateways: Sequence[str]) -> list[tuple[str, bytes]]:
        """The messages of orders of these gateways that have not ended, as many as an answer has room for."""
        found = [each for each in self.firmware.orders(gateways).values() if each.state in UNFINISHED]
        found.sort(key=lambda each: (each.state is not OrderState.WAITING, each.gateway_id))
        return [(each.gateway_id, each.message) for each in found[:_OFFERED_MAX]]

    def part(self, gateway_id: str, version: str, offset: int) -> bytes:
        """A part of the image that a gateway is to run.  Raises RemoteProtocolError `firmware_unknown`."""
        order = self.firmware.orders([gateway_id]).get(gateway_id)
        if order is None or order.version != version:
            raise RemoteProtocolError("firmware_unknown", f"the gateway has no order for version {version}")
        return self.firmware.part(version, offset, PART_SIZE)

    def receive(self, gateway_id: str, signed: bytes) -> OrderRecord:
        """
        Believe a receipt that the gateway's key signed; one for an earlier order changes nothing.

        Raises RemoteProtocolError: `gateway_unknown`, `firmware_unknown`, `bad_receipt`, what `cms.verify` raises.
        """
        profiles = self._profiles
        content = gateway_word(profiles.gateways, profiles.certificates, gateway_id, signed, _RECEIPT_LIMITS)
        receipt = FirmwareReceipt.from_bytes(content)
        if receipt.gateway != gateway_id:
            raise RemoteProtocolError("bad_receipt", "the receipt is another gateway's")
        order = self.firmware.orders([gateway_id]).get(gateway_id)
        if order is None:
            raise RemoteProtocolError("firmware_unknown", "the gateway has no order")
        is_newer = order.answered_ms is None or receipt.at_ms >= order.answered_ms
        if receipt.issued_ms == order.issued_ms and is_newer:
            reason = ": ".join(each for each in (receipt.reason, receipt.detail) if each)
            self.firmware.answer(order, OrderState(receipt.state.value), reason, signed, receipt.at_ms)
        return self.firmware.orders([gateway_id])[gateway_id]

    def _signed(self, gateway: str, manifest: FirmwareManifest, activate: Activation, issued_ms: int) -> OrderRecord:
        order = FirmwareOrder(gateway=gateway, issued_ms=issued_ms, activate=activate, manifest=manifest)
        return OrderRecord(
            gateway, manifest.version, self._profiles.sign_order(order), OrderState.WAITING, "", None, issued_ms, None
        )  # fmt: skip

    def _image(self, version: str) -> ImageRecord:
        found = self.firmware.image(version)
        if found is None:
            raise RemoteProtocolError("firmware_unknown", f"no release of version {version} is kept here")
        return found


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
