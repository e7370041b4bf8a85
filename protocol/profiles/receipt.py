"""
What a gateway says of a profile set that it was sent: taken or refused, signed by its own key.

The administrator believes a receipt by its signature alone (CMS SignedData), whoever brought it.  A refusal names what
did not fit, never a value of the set.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from protocol import cms
from protocol.cms.structures import DATA
from protocol.errors import RemoteProtocolError
from protocol.profiles.base import Fingerprint, Identifier, Profile, canonical_json, read_json

RECEIPT_SIZE_MAX = 4_096
DETAIL_SIZE_MAX = 400


class Receipt(Profile):
    """The answer to one version at `at_ms` (Unix, ms); `digest` is that of the set (`digest_of`)."""

    kind: Literal["profile-set-receipt"] = "profile-set-receipt"  # so that no other document passes for one
    gateway: Identifier
    version: Annotated[int, Field(ge=1, le=2**53)]
    digest: Fingerprint
    is_taken: bool
    at_ms: Annotated[int, Field(ge=0, le=2**53)]
    reason: Annotated[str, StringConstraints(max_length=64)] = ""
    detail: Annotated[str, StringConstraints(max_length=DETAIL_SIZE_MAX)] = ""

    def sign(self, key: cms.SignatureKey) -> bytes:
        """The receipt as ContentInfo of SignedData, DER."""
        return cms.sign(canonical_json(self), DATA, key)

    @classmethod
    def refused(cls, gateway: str, version: int, digest: str, at_ms: int, error: RemoteProtocolError) -> Self:
        """That of a set which does not fit."""
        return cls(
            gateway=gateway, version=version, digest=digest, is_taken=False, at_ms=at_ms,
            reason=error.reason[:64], detail=error.detail[:DETAIL_SIZE_MAX],
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what was signed.  Raises RemoteProtocolError `bad_profile`."""
        return read_json(cls, content, RECEIPT_SIZE_MAX)


def digest_of(document: bytes) -> str:
    """SHA-256 over a set's canonical JSON, hexadecimal."""
    return hashlib.sha256(document).hexdigest()
