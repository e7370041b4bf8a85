"""What the routes of profile sets take and say, as pydantic models."""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import AwareDatetime, Field

from coordinator.storage.profile_sets import ProfileSetState
from coordinator.web.models import ApiModel
from protocol.errors import RemoteProtocolError
from protocol.profiles.query import PROOF_SIZE_MAX

GatewayId = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,14}$")]
Version = Annotated[int, Field(ge=0, le=2**53)]


class ProfileSetView(ApiModel):
    """How the newest profile set of a gateway stands."""

    gateway: str
    version: int
    digest: str
    """SHA-256 of the set's canonical JSON."""
    state: ProfileSetState
    """`waiting` until the gateway has asked for it and answered."""
    reason: str
    """Why the gateway refused it."""
    issued_at: AwareDatetime
    answered_at: AwareDatetime | None
    """By the gateway's clock."""


class ProfileSetPage(ApiModel):
    """Profile sets by gateway."""

    items: list[ProfileSetView]
    next: str | None
    """`after` of the next page, null at the end."""


class HeldVersion(ApiModel):
    """The version that a gateway has, 0 for none; or the one that there is for it."""

    gateway: GatewayId
    version: Version


class ProvenVersion(HeldVersion):
    """The version that a gateway has, and its word that it is this gateway."""

    proof: Annotated[str, Field(max_length=PROOF_SIZE_MAX)]
    """Unix time in ms, a point, and the gateway's signature in base64 (`protocol/profiles/query.py`)."""


class HeldVersions(ApiModel):
    """Gateways of one node with the versions that they have."""

    items: Annotated[list[ProvenVersion], Field(max_length=400)]
    wake_up_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """UDP port at which the node that asks listens for wake-up messages, where it opens tunnels on order."""
    takes_firmware: bool = False
    """Whether the node takes firmware."""


class RefusedQuery(ApiModel):
    """A gateway whose proof does not hold."""

    gateway: GatewayId
    reason: str
    detail: str


class WaitingOrder(ApiModel):
    """An order to open a tunnel (`protocol/profiles/tunnel_order.py`), or to run firmware (`firmware.py` beside it)."""

    gateway: GatewayId
    message: str
    """CMS, base64: signed by the administrator."""


class NewerVersions(ApiModel):
    """Those of them that there is a set for, and orders to open tunnels and to run firmware."""

    items: list[HeldVersion]
    refused: list[RefusedQuery]
    orders: list[WaitingOrder]
    firmware: list[WaitingOrder]
    certificate_chain: str
    """PEM: the administrator's signature certificate and those above it, by which wake-up messages are checked."""


class WakeUpRequest(ApiModel):
    """Which gateway to wake up, and where its node listens."""

    gateway: Annotated[str, Field(pattern=r"^E[A-Z]{3}[0-9A-F]{2}[0-9]{8}$")]
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
    port: Annotated[int, Field(ge=1, le=65_535)]


class ProfileMessage(ApiModel):
    """A set for one gateway."""

    message: str
    """CMS, base64: signed by the administrator, encrypted to the gateway."""
    certificate_chain: str
    """PEM: the administrator's signature certificate and those above it."""


class ReceiptRequest(ApiModel):
    """What a gateway says of a set."""

    receipt: Annotated[str, Field(max_length=16_384)]
    """CMS, base64: signed by the gateway."""

    def signed(self) -> bytes:
        """The message.  Raises RemoteProtocolError `request_malformed`."""
        try:
            return base64.b64decode(self.receipt, validate=True)
        except ValueError as error:
            raise RemoteProtocolError("request_malformed", "expected base64") from error
