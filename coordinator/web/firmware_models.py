"""What the routes of firmware take and say, as pydantic models."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from coordinator.storage.firmware import OrderState
from coordinator.web.models import ApiModel
from coordinator.web.profile_models import GatewayId
from protocol.profiles.firmware import Activation, VersionText


class FirmwareView(ApiModel):
    """A release that is kept."""

    version: VersionText
    sha256: str
    size: int
    """Bytes of the image."""
    hardware: tuple[str, ...]
    minimum_version: VersionText
    """What must run before."""
    valid_from: AwareDatetime
    valid_to: AwareDatetime | None
    created_at: AwareDatetime


class FirmwareList(ApiModel):
    """All releases, the oldest first."""

    items: list[FirmwareView]


class FirmwareOrderRequest(ApiModel):
    """Which gateways are to run a release."""

    gateways: Annotated[list[GatewayId], Field(min_length=1, max_length=400)]
    activate: Activation = "epoch"
    """now: between two rounds; epoch: at the next border of epochs; restart: when the node is next started."""


class FirmwareOrderView(ApiModel):
    """How the newest order of a gateway stands."""

    gateway: str
    version: VersionText
    state: OrderState
    """`waiting` until the gateway has answered, `staged` until it has changed over."""
    reason: str
    """Why the gateway refused it, or went back."""
    issued_at: AwareDatetime
    answered_at: AwareDatetime | None
    """By the gateway's clock."""


class FirmwareOrders(ApiModel):
    """Orders as they stand."""

    items: list[FirmwareOrderView]
    not_active: list[str]
    """Gateways that are not enrolled, or were revoked."""


class FirmwareOrderPage(ApiModel):
    """Orders by gateway."""

    items: list[FirmwareOrderView]
    next: str | None
    """`after` of the next page, null at the end."""
