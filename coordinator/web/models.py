"""
What the REST interface says, as pydantic models: the OpenAPI document is made from them.

Numbers that may be billed are integers written as text beside their scaler, since JSON readers turn numbers into
doubles; the quantity is value·10^scaler in the unit.  Times are ISO 8601 in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from coordinator.status import Member, RingStatus


def moment_of(unix_ms: int) -> datetime:
    """A moment of the database, for an answer."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC)


class ApiModel(BaseModel):
    """What all have in common."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Problem(ApiModel):
    """What went wrong (RFC 9457, application/problem+json)."""

    title: str
    status: int
    detail: str
    reason: str
    """A short code for programs, such as `token_used_up`."""
    fields: dict[str, str] = {}
    """For invalid input: what was expected, by the name of the parameter or field."""


class Round(ApiModel):
    """How one round of a ring ended."""

    epoch: int
    ring: int
    round: int
    area: str
    outcome: Literal["opened", "void"]
    attempt: int
    """0 for the first attempt."""
    head: Member
    members: int
    present: int
    missing: list[Member]
    """Members that are not in the total; all of them where the round is void."""
    verified: bool
    """Whether the total matches what the members committed to."""
    unranged: list[Member]
    """Members that owe a proof of the range of what they committed to: the total is verified, and may be polluted."""
    reason: str
    """Why the round is void."""
    interval_start: datetime
    ended_at: datetime
    latency_ms: float


class RoundPage(ApiModel):
    """Ended rounds, newest first."""

    items: list[Round]
    next: str | None
    """`cursor` of the next page, null at the end."""


class MisbehaviourReportView(ApiModel):
    """What one gateway says of another: its word alone, and nothing follows from it."""

    reporter: str
    reported: str
    misbehaviour: Literal["wrong_seed", "corrupt_sum", "bad_deal"]
    """Of a head: a seed that does not fit its share, or sums that open only without it. Of a neighbour: a bad share."""
    area: str
    epochs: int
    """In how many epochs it was said."""
    epoch: int
    """Where it was said last, with `ring` and `round`."""
    ring: int
    round: int
    first_at: datetime
    last_at: datetime


class MisbehaviourReportPage(ApiModel):
    """Reports, the last said first."""

    items: list[MisbehaviourReportView]
    next: str | None
    """`cursor` of the next page, null at the end."""


class RingPage(ApiModel):
    """Rings of the current epochs."""

    items: list[RingStatus]
    next: int | None
    """`offset` of the next page, null at the end."""


class GatewayView(ApiModel):
    """One line of the directory."""

    id: str
    area: str
    status: Literal["active", "revoked", "left"]
    """`left`: revoked by its own word, for good."""
    enrolled_at: datetime
    certificate_sha256: str
    certificate_expires_at: datetime


class GatewayPage(ApiModel):
    """Gateways by id."""

    items: list[GatewayView]
    next: str | None
    """`after` of the next page, null at the end."""


class NoiseView(ApiModel):
    """Distributed noise in a total: nobody knows it, and it hides one household."""

    epsilon: float
    """Privacy loss of one ring's total."""
    sensitivity: int
    """The most by which one household may change the total, at the scaler."""
    deviation: float | None
    """Standard deviation of the noise in this total at least, at the scaler; null where no ring opened."""


class Quantity(ApiModel):
    """One slot of a total: value·10^scaler in the unit."""

    name: str
    obis: str | None
    unit: str
    scaler: int
    kind: Literal["count", "energy", "power"]
    value: str | None
    """An exact integer; null where no ring opened."""
    noise: NoiseView | None = None
    """Null where the value is the exact sum."""


class RingCounts(ApiModel):
    """How many rings of the area there are and how the interval's round ended for them."""

    total: int
    opened: int
    void: int
    unranged: int
    """Of the opened ones those in which a member owes a proof of the range of what it committed to."""
    smallest: int
    """Members of the smallest ring: in it a household hides among the fewest."""


class GatewayCounts(ApiModel):
    """How many gateways the total could have, and has."""

    enrolled: int | None
    """Active ones in the directory when the interval's first ring ended; null where that was not known."""
    members: int
    """Those in the area's rings: who enrolled or came after an epoch was called is in none until the next."""
    present: int
    """Those in the total."""


class Mark(StrEnum):
    """What a reader of a total must know before reading more into it."""

    INCOMPLETE = "incomplete"
    """Enrolled gateways are not in it: they were away, a round was void, or they are in no ring yet."""
    CARRIED = "carried"
    """Somebody is back who was away in one of the 16 intervals before: a part of the energy is of earlier intervals."""
    NOISE = "noise"
    """A value has noise."""
    TIME_LAPSE = "time_lapse"
    """Metering time runs faster than real time: readings of seconds are hidden less than those of a quarter hour."""
    SMALL_RINGS = "small_rings"
    """A ring has fewer than 46 members: its total may hide a household among fewer than 30 honest ones."""


class Total(ApiModel):
    """The exact total of an area (of all areas together where none is named) over one metering interval."""

    interval_start: datetime
    interval_s: int
    area: str | None
    final: bool
    """Every ring has ended this round, opened or void: the total will not grow."""
    complete: bool
    """Every ring has opened this round."""
    verified: bool
    """Every ring's total matches what its members committed to."""
    rings: RingCounts
    gateways: GatewayCounts
    marks: list[Mark]
    values: list[Quantity]


class TotalPage(ApiModel):
    """Totals, oldest first."""

    items: list[Total]
    next: datetime | None
    """`from` of the next page, null at the end."""


class EnrolRequest(ApiModel):
    """A gateway asks to be admitted."""

    token: Annotated[str, Field(min_length=8, max_length=128)]
    gateway: Annotated[str, Field(pattern=r"^E[A-Z]{3}[0-9A-F]{2}[0-9]{8}$")]
    """DIN 43863-5 device id."""
    area: Annotated[str, Field(min_length=1, max_length=64)]
    request_package: Annotated[str, Field(max_length=16_384)]
    """Base64 of a DER SEQUENCE of three PKCS#10 requests (signature, encryption, TLS), common name `<gateway>.SMGW`."""
    endorsement: Annotated[str, Field(max_length=8192)] | None = None
    """Base64 of a detached CMS signature over the package by the key of the quality seal; None without one."""
    seal_chain: Annotated[str, Field(max_length=16_384)] | None = None
    """PEM: the quality seal's signature certificate, then those above it; the root is not in it."""
    curve_public_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """CURVE public key, 32 bytes in hexadecimal."""


class TripleAnswer(ApiModel):
    """A gateway's certificates."""

    certificate_chain: str
    """PEM, the gateway's signature certificate first; the root is not in it."""
    encryption_certificate: str
    """PEM."""
    tls_certificate: str
    """PEM."""


class RenewRequest(ApiModel):
    """A gateway asks for its next triple of certificates."""

    gateway: Annotated[str, Field(pattern=r"^E[A-Z]{3}[0-9A-F]{2}[0-9]{8}$")]
    request_package: Annotated[str, Field(max_length=16_384)]
    """As in an enrolment, for three new keys."""
    endorsement: Annotated[str, Field(max_length=8192)]
    """Base64 of a detached CMS signature over the package by the gateway's present signature key."""


class LeaveRequest(ApiModel):
    """A gateway leaves for good."""

    gateway: Annotated[str, Field(pattern=r"^E[A-Z]{3}[0-9A-F]{2}[0-9]{8}$")]
    endorsement: Annotated[str, Field(max_length=8192)]
    """Base64 of a detached CMS signature over `stromkreis: this gateway leaves for good`, a zero octet and the id."""


class LeaveAnswer(ApiModel):
    """It has left."""

    left_at: datetime


class RingServiceAnswer(ApiModel):
    """How gateways reach the ring service, and the keys that they know it by."""

    coordinator_curve_key: str
    """CURVE public key, 32 bytes in hexadecimal."""
    coordinator_list_key: str
    """Ed25519 public key by which each epoch's list of members is signed, 32 bytes in hexadecimal."""
    coordinator_log_key: str
    """Ed25519 public key by which tree heads of the enrolment log are signed, 32 bytes in hexadecimal."""
    endpoint: str
    """Where the coordinator's ZeroMQ socket listens."""


class EnrolAnswer(TripleAnswer, RingServiceAnswer):
    """A gateway is admitted."""


class TariffDocument(ApiModel):
    """A tariff as published: price i, a whole number of 10^price_scaler currency a unit, is that of interval i."""

    name: str
    obis: str
    """OBIS code of the register, for example `1-0:1.8.0*255`."""
    unit: str
    """The register's unit, for example `Wh`."""
    currency: str
    """What amounts are in, for example `ct`."""
    price_scaler: Annotated[int, Field(strict=True)]
    start: str
    """Start of the first interval, such as `2026-11-01T00:00:00Z`."""
    interval_s: Annotated[int, Field(strict=True)]
    prices: list[Annotated[int, Field(strict=True)]]
    """May be negative; a positive amount is the customer's to pay."""
    tiers: list[tuple[int | None, int]] | None = None
    """Tariff use case 4: pairs of a limit in the unit, null in the last, and what a unit of the bill's energy up to it
    costs beside the intervals' prices."""
    use_case: int | None = None
    """Tariff use case of BSI TR-03109-1: 1, 2 or 4."""


class TariffView(ApiModel):
    """A published tariff without its prices."""

    digest: str
    """SHA-256 over the canonical document with its domain; what bills and gateways name the tariff by."""
    name: str
    obis: str
    unit: str
    currency: str
    price_scaler: int
    start: datetime
    interval_s: int
    intervals: int
    signature: str
    """ECDSA with SHA-256 over the digest, DER in hexadecimal."""
    certificate: str
    """PEM of the market participant's signature certificate."""
    published_at: datetime


class TariffPage(ApiModel):
    """PublishedTariff tariffs, newest first."""

    items: list[TariffView]


class BillsRequest(ApiModel):
    """Which bills to ask for."""

    model_config = ConfigDict(populate_by_name=True)

    area: Annotated[str, Field(min_length=1, max_length=64)]
    from_: Annotated[AwareDatetime, Field(alias="from")]
    """First interval start, inclusive."""
    to: AwareDatetime
    """Last interval start, exclusive; it must have ended."""
    tariff: Annotated[str, Field(max_length=64)]
    """Digest of a published tariff."""


class BillsAnswer(ApiModel):
    """What is asked for."""

    bills: int
    intervals: int
    """Of all these bills together."""
    nothing_left: int
    """Gateways whose verified intervals of the period are all in bills already."""
    unranged: int
    """Gateways that are not asked: they owe a proof of the range of what they committed to in the period."""


class Excused(ApiModel):
    """What is not waited for any more."""

    proofs: int


class BillView(ApiModel):
    """One gateway's bill."""

    gateway: str
    request: str
    area: str
    tariff: str
    obis: str
    first_interval: datetime
    last_interval: datetime
    intervals: int
    """How many intervals the bill is over; others of the period were not in a verified total."""
    status: Literal["asked", "verified", "refused", "declined"]
    amount: str | None
    """An exact decimal in the currency; null where the bill is not verified."""
    rounded_to: str | None
    """The amount is rounded down to a multiple of this, as tariffs of more than 20 prices are; null: not rounded."""
    energy: str | None
    """Sum of the intervals in the register's unit: hold it against the register at both ends."""
    averaged: int
    """How many intervals have the mean price of a block around a spike, which alone would single them out."""
    currency: str
    reason: str
    asked_at: datetime
    ended_at: datetime | None


class BillPage(ApiModel):
    """Bills by gateway."""

    items: list[BillView]
    next: str | None
    """`cursor` of the next page, null at the end."""
