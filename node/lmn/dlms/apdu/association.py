"""What the two sides of an application association agree on (IEC 62056-5-3 clause 10); its shell is in `acse`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from node.lmn.dlms.apdu.message import Apdu, message
from node.lmn.dlms.fields import BOOLEAN, BYTE, CONFORMANCE, OCTETS, optional, unsigned


@message(0x01)
@dataclass(frozen=True, slots=True)
class InitiateRequest(Apdu):
    """Proposal of an application association; `conformance` is 24 bits, bit 0 the most significant."""

    dedicated_key: Annotated[bytes | None, optional(OCTETS)]
    response_allowed: Annotated[bool | None, optional(BOOLEAN)]
    quality_of_service: Annotated[int | None, optional(BYTE)]
    dlms_version: Annotated[int, BYTE]
    conformance: Annotated[int, CONFORMANCE]
    pdu_size_max: Annotated[int, unsigned(2)]


@message(0x08)
@dataclass(frozen=True, slots=True)
class InitiateResponse(Apdu):
    """What the server agrees to."""

    quality_of_service: Annotated[int | None, optional(BYTE)]
    dlms_version: Annotated[int, BYTE]
    conformance: Annotated[int, CONFORMANCE]
    pdu_size_max: Annotated[int, unsigned(2)]
    vaa_name: Annotated[int, unsigned(2)]


@message(0x0E)
@dataclass(frozen=True, slots=True)
class ConfirmedServiceError(Apdu):
    """A refusal of an old kind of service: service, kind of error, value."""

    service: Annotated[int, BYTE]
    error: Annotated[int, BYTE]
    value: Annotated[int, BYTE]
