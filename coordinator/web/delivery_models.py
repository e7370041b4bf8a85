"""What the routes of deliveries say, as pydantic models."""

from __future__ import annotations

from pydantic import AwareDatetime

from coordinator.storage.deliveries import DeliveryState
from coordinator.web.models import ApiModel


class DeliveryView(ApiModel):
    """One delivery, without its values."""

    delivery: str
    gateway: str | None
    """Whose signature it bore; null for one that came through the administrator."""
    state: DeliveryState
    reason: str
    """Why it is refused."""
    sender: str | None
    """The gateway's canonical name, or a pseudonym."""
    profile: str | None
    taf: int | None
    start: AwareDatetime | None
    end: AwareDatetime | None
    is_complete: bool | None
    missing: int | None
    """Registration times of a load profile without a valid value."""
    received_at: AwareDatetime


class DeliveryPage(ApiModel):
    """Deliveries by id."""

    items: list[DeliveryView]
    next: str | None
    """`after` of the next page, null at the end."""


class MissingPeriodView(ApiModel):
    """A hole between two deliveries of a gateway's profile."""

    gateway: str
    profile: str
    start: AwareDatetime
    end: AwareDatetime


class MissingPage(ApiModel):
    """What is not there."""

    periods: list[MissingPeriodView]
    incomplete: list[DeliveryView]
    """Delivered periods in which values are missing, the newest first."""
