"""
The administrator's order to open a tunnel for a market participant (BSI TR-03109-1, scenario HKS4).

The gateway believes it by the administrator's signature alone (CMS SignedData), and opens what its own proxy profile
admits.  An order is good for a minute and once: its id is remembered for as long.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints

from protocol import cms
from protocol.cms.structures import DATA
from protocol.profiles.base import Identifier, Profile, canonical_json, read_json

ORDER_SIZE_MAX: Final = 1_024
ORDER_VALID_S: Final = 60
"""Longer than the 50 s in which a tunnel must be there."""

OrderId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Outcome = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]
"""`connected`, or why not, in one word."""


class TunnelOrder(Profile):
    """An order of `issued_ms` (Unix, ms) for `proxy` of `gateway`; the tunnel ends after `duration_s`."""

    kind: Literal["tunnel-order"] = "tunnel-order"  # so that no other document passes for one
    id: OrderId
    gateway: Identifier
    proxy: Identifier
    duration_s: Annotated[int, Field(ge=10, le=172_800)]
    issued_ms: Annotated[int, Field(ge=0, le=2**53)]

    def is_good_at(self, now_ms: int) -> bool:
        """Whether it may be carried out; the two clocks differ by no more than it is good for."""
        return abs(now_ms - self.issued_ms) <= ORDER_VALID_S * 1000

    def sign(self, key: cms.SignatureKey) -> bytes:
        """The order as ContentInfo of SignedData, DER."""
        return cms.sign(canonical_json(self), DATA, key)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what was signed.  Raises RemoteProtocolError `bad_profile`."""
        return read_json(cls, content, ORDER_SIZE_MAX)
