"""
What all profiles share: strict, immutable, and one canonical form of JSON.

A profile is signed and compared by its octets, so its JSON has one form: keys sorted, no spaces, UTF-8, no numbers with
a fraction.  Unknown keys are refused: a gateway must not take a profile of which it understands a part.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis

Model = TypeVar("Model", bound=BaseModel)
_REASONS_MAX = 8

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
"""Name of a profile, a meter or a market participant inside one profile set."""

AreaName = Annotated[str, StringConstraints(pattern=r"^[^\s](.{0,62}[^\s])?$")]
"""A grid area, as the coordinator names it."""

MeteringPoint = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}[0-9A-Z]{31}$")]
"""Designation of a metering point: 33 characters, country first (VDE-AR-N 4400)."""

ObisText = Annotated[str, StringConstraints(pattern=r"^\d{1,3}-\d{1,3}:\d{1,3}\.\d{1,3}\.\d{1,3}\*\d{1,3}$")]
"""An OBIS code written out, such as 1-0:1.8.0*255."""

DeviceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/-]{1,80}$")]
"""A meter by its own device id, or by its place in the gateway's configuration (`ESTK0100000001/0`)."""

CertificateText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=5_464)]
"""A certificate: DER in base64, without line breaks."""

Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a DER certificate in hexadecimal."""


class Profile(BaseModel):
    """A part of a profile set."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_timedelta="iso8601")


class Timed(Profile):
    """A profile that is valid from `valid_from` up to and without `valid_to`; without end where that is missing."""

    valid_from: AwareDatetime
    valid_to: AwareDatetime | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            raise ValueError("valid_to: expected a time after valid_from")
        return self

    def is_valid_at(self, moment: datetime) -> bool:
        """Whether it counts at a moment."""
        return self.valid_from <= moment and (self.valid_to is None or moment < self.valid_to)


def canonical_json(profile: BaseModel) -> bytes:
    """The octets that are signed and compared."""
    document = profile.model_dump(mode="json")
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_json(kind: type[Model], data: bytes, size_max: int) -> Model:
    """
    A profile from its JSON.

    Raises RemoteProtocolError `bad_profile`, which names every field that does not fit and none of its values.
    """
    if len(data) > size_max:
        raise RemoteProtocolError("bad_profile", f"{len(data)} bytes, expected at most {size_max}")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise RemoteProtocolError("bad_profile", "; ".join(map(_reason, error.errors()[:_REASONS_MAX]))) from None


def _reason(error: Any) -> str:
    where = ".".join(map(str, error["loc"])) or "document"
    return f"{where}: {error['msg']}"


def obis_of(text: str) -> Obis:
    """The OBIS code of a text that `ObisText` has let through.  Raises ValueError for a number over 255."""
    return Obis.parse(text)
