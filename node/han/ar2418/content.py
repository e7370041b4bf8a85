"""
What a file after VDE AR 2418-6 says, before it is written: a usage point with lists of values, certificates, a log.

A list holds either values as a meter gave them, by their measuring time, or registers that a use case has derived, by
their billing period.  Values are signed one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from node.han.models import LogEntry
from protocol.metering.obis import Obis


class Status(IntEnum):
    """`statusPTB` of the schema."""

    NO_ERROR = 0
    WARNING = 1
    REPLACEABLE = 2
    """Not valid; the number may serve as a substitute."""
    UNUSABLE = 3
    FATAL = 4


class CertificateType(IntEnum):
    """`certType` of the schema."""

    SIGNATURE = 1
    SUB_CA = 2
    HAN = 3


@dataclass(frozen=True, slots=True)
class FileValue:
    """A mantissa at the list's scaler, for the time from `start` on for `duration_s`, 0 for a moment."""

    start: datetime
    value: int = field(repr=False)
    duration_s: int = 0
    target: datetime | None = None
    """Registration time that it counts for."""
    status: Status = Status.NO_ERROR
    status_words: str = ""
    """What the signature covers beyond the other fields."""
    text: str = field(default="", repr=False)
    """What is signed (node.han.signing)."""
    signature: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ValueList:
    """Values of one register; `unit` is a DLMS code, `name` its logical name, `meter` what measured it."""

    id: str
    meter: str
    obis: Obis
    name: str
    scaler: int
    unit: int
    start: datetime
    end: datetime
    values: Sequence[FileValue]
    period_s: int | None = None


@dataclass(frozen=True, slots=True)
class FileCertificate:
    """A certificate (DER), its number in the file and that of the one above it."""

    id: int
    type: CertificateType
    der: bytes
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class UsagePointFile:
    """One usage point: contract, gateway, lists, log."""

    usage_point: str
    customer: str
    invoicing_party: str
    tariff: str
    gateway: str
    certificates: Sequence[FileCertificate]
    lists: Sequence[ValueList]
    log: Sequence[LogEntry] = ()
