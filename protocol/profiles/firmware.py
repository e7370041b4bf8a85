"""
Firmware of gateways: what a release is, the administrator's order to run it, and what the gateway says of that.

BSI TR-03109-1 leaves the update of a gateway's firmware to its administrator.  How it goes is in parts that are not at
hand (the main part, the protection profile BSI-CC-PP-0073); of those that are, REQ.Webservice.HttpServer.20 alone names
firmware files.  So this is our reading: an order is signed as tunnel orders are (CMS SignedData of the administrator),
it is for one gateway, and it names the image by its digest; who carries image and order does not matter.

The administrator orders, but does not decide what a gateway runs: a release is signed by its publisher, whose key the
node's own configuration names.  Otherwise whoever administers gateways could replace the program that keeps readings
from them (docs/explanation/protocol.md: the coordinator is an adversary).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, StringConstraints

from protocol import cms
from protocol.cms.structures import DATA
from protocol.errors import RemoteProtocolError
from protocol.profiles.base import Fingerprint, Identifier, Profile, Timed, canonical_json, read_json

IMAGE_SIZE_MAX: Final = 32 << 20
ORDER_SIZE_MAX: Final = 4_096
RECEIPT_SIZE_MAX: Final = 4_096
DETAIL_SIZE_MAX: Final = 400
FILE_SIZE_MAX: Final = IMAGE_SIZE_MAX + ORDER_SIZE_MAX
"""Of a firmware file (`pack`)."""
_DOMAIN: Final = b"stromkreis firmware manifest 1\0"
_VERSION: Final = re.compile(r"(0|[1-9]\d{0,4})\.(0|[1-9]\d{0,4})\.(0|[1-9]\d{0,4})")

VersionText = Annotated[str, StringConstraints(pattern=rf"^{_VERSION.pattern}$")]
"""A release such as 1.20.3; each number counts by its value."""

Moment = Annotated[int, Field(ge=0, le=2**53)]
"""Unix time in ms."""

Activation = Literal["now", "epoch", "restart"]
"""When a gateway changes over: between two rounds, at the next border of epochs, or when its node is next started."""


class FirmwareManifest(Timed):
    """
    A release: a wheel of `size` bytes whose SHA-256 is `sha256`.

    It may be installed from `valid_from` up to and without `valid_to`, on the `hardware` named, over a release of
    `minimum_version` at least.  `store_version` is the schema of its store: a gateway could not go back to a release
    that does not know it.  `publisher_signature` is Ed25519's, hexadecimal, over everything else.
    """

    kind: Literal["firmware-manifest"] = "firmware-manifest"
    product: Identifier
    hardware: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=16)]
    version: VersionText
    minimum_version: VersionText = "0.0.0"
    store_version: Annotated[int, Field(ge=1, le=100_000)]
    sha256: Fingerprint
    size: Annotated[int, Field(ge=1, le=IMAGE_SIZE_MAX)]
    publisher_signature: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{128})?$")] = ""

    def signed_by(self, key: Ed25519PrivateKey) -> Self:
        """The same with the publisher's signature."""
        return self.model_copy(update={"publisher_signature": key.sign(self._signed_part()).hex()})

    def is_signed_by(self, publishers: Iterable[bytes]) -> bool:
        """Whether one of these published it (Ed25519 public keys of 32 bytes)."""
        signature = bytes.fromhex(self.publisher_signature)
        return any(_holds(key, signature, self._signed_part()) for key in publishers)

    def _signed_part(self) -> bytes:
        return _DOMAIN + canonical_json(self.model_copy(update={"publisher_signature": ""}))

    def to_bytes(self) -> bytes:
        """The canonical JSON, one line."""
        return canonical_json(self)

    @classmethod
    def from_bytes(cls, document: bytes) -> Self:
        """Read a manifest.  Raises RemoteProtocolError `bad_profile`."""
        return read_json(cls, document, ORDER_SIZE_MAX)


class FirmwareOrder(Profile):
    """The administrator's word of `issued_ms` that `gateway` is to run a release."""

    kind: Literal["firmware-order"] = "firmware-order"  # so that no other document passes for one
    gateway: Identifier
    issued_ms: Moment
    activate: Activation
    manifest: FirmwareManifest

    def sign(self, key: cms.SignatureKey) -> bytes:
        """The order as ContentInfo of SignedData, DER, without the certificate, which comes beside it."""
        return cms.sign(canonical_json(self), DATA, key, with_certificate=False)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what was signed.  Raises RemoteProtocolError `bad_profile`."""
        return read_json(cls, content, ORDER_SIZE_MAX)


class FirmwareState(StrEnum):
    """What a gateway says of an order."""

    STAGED = "staged"
    """The image is here, whole and unpacked; it is not started yet."""
    RUNNING = "running"
    """It was started and has confirmed itself."""
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"
    """It was started and did not come up; the release before it runs again."""


class FirmwareReceipt(Profile):
    """The answer of `at_ms` to the order of `issued_ms`."""

    kind: Literal["firmware-receipt"] = "firmware-receipt"
    gateway: Identifier
    version: VersionText
    sha256: Fingerprint
    issued_ms: Moment
    state: FirmwareState
    at_ms: Moment
    reason: Annotated[str, StringConstraints(max_length=64)] = ""
    detail: Annotated[str, StringConstraints(max_length=DETAIL_SIZE_MAX)] = ""

    @classmethod
    def of(cls, order: FirmwareOrder, state: FirmwareState, at_ms: int, reason: str = "", detail: str = "") -> Self:
        """That of an order."""
        return cls(
            gateway=order.gateway, version=order.manifest.version, sha256=order.manifest.sha256,
            issued_ms=order.issued_ms, state=state, at_ms=at_ms, reason=reason[:64], detail=detail[:DETAIL_SIZE_MAX],
        )  # fmt: skip

    def sign(self, key: cms.SignatureKey) -> bytes:
        """The receipt as ContentInfo of SignedData, DER."""
        return cms.sign(canonical_json(self), DATA, key)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what was signed.  Raises RemoteProtocolError `bad_profile`."""
        return read_json(cls, content, RECEIPT_SIZE_MAX)


def _holds(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def version_numbers(text: str) -> tuple[int, int, int]:
    """A version to compare by.  Raises RemoteProtocolError `bad_version` for a text that is none."""
    match = _VERSION.fullmatch(text)
    if match is None:
        raise RemoteProtocolError("bad_version", f"{text[:32]!r}: expected three numbers such as 1.20.3")
    return int(match[1]), int(match[2]), int(match[3])


def pack(manifest: FirmwareManifest, image: bytes) -> bytes:
    """The firmware file of a release: the manifest as one line of JSON, and behind it the image."""
    return manifest.to_bytes() + b"\n" + image


def unpack(document: bytes) -> tuple[FirmwareManifest, bytes]:
    """Manifest and image of a firmware file.  Raises RemoteProtocolError `bad_profile`, `firmware_digest`."""
    line = document[:ORDER_SIZE_MAX].partition(b"\n")[0]
    manifest, image = FirmwareManifest.from_bytes(line), document[len(line) + 1 :]
    if (len(image), hashlib.sha256(image).hexdigest()) != (manifest.size, manifest.sha256):
        raise RemoteProtocolError("firmware_digest", "the image has another size or SHA-256 than its manifest says")
    return manifest, image
