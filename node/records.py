"""
What a gateway keeps on disk: small frozen records, and the tables that hold them.

A record is what to write; writing one that has the same key as a stored one replaces it, except in the settled log,
which is written once.  Integers stay exact: SQLite's INTEGER ends at 2^63 - 1, so a meter's unsigned 64-bit value
beyond that is kept as decimal TEXT in a column that converts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

SCHEMA_VERSION = 1
INT64_MAX = (1 << 63) - 1

SCHEMA = """
CREATE TABLE registers (
    gateway TEXT NOT NULL, device TEXT NOT NULL, obis TEXT NOT NULL, measured_at_ms INTEGER NOT NULL,
    value NOT NULL, scaler INTEGER NOT NULL, unit TEXT NOT NULL, status, received_at_ms INTEGER NOT NULL,
    PRIMARY KEY (gateway, device, obis, measured_at_ms)) WITHOUT ROWID;
CREATE INDEX registers_by_age ON registers (measured_at_ms);
CREATE TABLE baseline (
    gateway TEXT NOT NULL, slot INTEGER NOT NULL, value NOT NULL, PRIMARY KEY (gateway, slot)) WITHOUT ROWID;
CREATE TABLE contribution (
    gateway TEXT NOT NULL, epoch INTEGER NOT NULL, ring NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    interval INTEGER NOT NULL, vector BLOB NOT NULL, registers BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('shared', 'served', 'opened', 'void')),
    PRIMARY KEY (gateway, epoch, ring, round, attempt));
CREATE INDEX contribution_by_age ON contribution (interval);
CREATE TABLE epoch (
    gateway TEXT NOT NULL, epoch INTEGER NOT NULL, ring NOT NULL, position INTEGER NOT NULL, state BLOB NOT NULL,
    PRIMARY KEY (gateway, epoch, ring));
CREATE TABLE settled (
    gateway TEXT NOT NULL, epoch INTEGER NOT NULL, ring NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    interval INTEGER NOT NULL, opened INTEGER NOT NULL, vector BLOB NOT NULL, registers BLOB NOT NULL,
    settled_at_ms INTEGER NOT NULL, PRIMARY KEY (gateway, epoch, ring, round));
CREATE INDEX settled_by_age ON settled (settled_at_ms);
"""

RingId = int | str
Statement = tuple[str, tuple[Any, ...]]


class ContributionState(Enum):
    """How far a contribution went: its share left, its self mask was served, its round ended."""

    SHARED = "shared"
    SERVED = "served"
    OPENED = "opened"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """One reading of one meter register: `value` times ten to the `scaler`, in `unit`; -2^63 <= value < 2^64."""

    gateway: str
    device: str
    obis: str
    value: int
    scaler: int
    unit: str
    status: int | None
    measured_at_ms: int
    received_at_ms: int

    def statement(self) -> Statement:
        """Replace the reading of the same register and time."""
        return (
            "INSERT OR REPLACE INTO registers (gateway, device, obis, value, scaler, unit, status, measured_at_ms,"
            " received_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.gateway, self.device, self.obis, to_column(self.value), self.scaler, self.unit,
             None if self.status is None else to_column(self.status), self.measured_at_ms, self.received_at_ms),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The register value that slot `slot` had when its energy was last opened: where the next difference starts."""

    gateway: str
    slot: int
    value: int

    def statement(self) -> Statement:
        """Replace the slot's value."""
        return (
            "INSERT OR REPLACE INTO baseline (gateway, slot, value) VALUES (?, ?, ?)",
            (self.gateway, self.slot, to_column(self.value)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a gateway put into one attempt of a round; `vector` is int64, little-endian, one word a slot."""

    gateway: str
    epoch: int
    ring: RingId
    round: int
    attempt: int
    interval: int
    vector: bytes
    registers: bytes
    state: ContributionState

    def statement(self) -> Statement:
        """Replace what is known of this attempt."""
        return (
            "INSERT OR REPLACE INTO contribution (gateway, epoch, ring, round, attempt, interval, vector, registers,"
            " state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.gateway, self.epoch, self.ring, self.round, self.attempt, self.interval, self.vector, self.registers,
             self.state.value),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochState:
    """A gateway's membership of a ring for an epoch, secrets included; opaque to the store."""

    gateway: str
    epoch: int
    ring: RingId
    position: int
    state: bytes

    def statement(self) -> Statement:
        """Replace the membership's state."""
        return (
            "INSERT OR REPLACE INTO epoch (gateway, epoch, ring, position, state) VALUES (?, ?, ?, ?, ?)",
            (self.gateway, self.epoch, self.ring, self.position, self.state),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnd:
    """Forget the gateway's epochs up to and including `epoch`; their secrets are gone from the files afterwards."""

    gateway: str
    epoch: int

    def statement(self) -> Statement:
        """Delete; the store then wipes the write-ahead log as well."""
        return "DELETE FROM epoch WHERE gateway = ? AND epoch <= ?", (self.gateway, self.epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """
    How a round ended for a gateway, once.  Conservation: the sum of the opened vectors equals last registers - first.

    `registers` is what the vector leads up to, int64 little-endian like `vector`.
    """

    gateway: str
    epoch: int
    ring: RingId
    round: int
    attempt: int
    interval: int
    opened: bool
    vector: bytes
    registers: bytes
    settled_at_ms: int

    def statement(self) -> Statement:
        """Append; a second ending of the same round is refused."""
        return (
            "INSERT INTO settled (gateway, epoch, ring, round, attempt, interval, opened, vector, registers,"
            " settled_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.gateway, self.epoch, self.ring, self.round, self.attempt, self.interval, int(self.opened),
             self.vector, self.registers, self.settled_at_ms),
        )  # fmt: skip


Record = Register | Baseline | Contribution | EpochState | EpochEnd | Settled


def to_column(value: int) -> int | str:
    """Return `value` as SQLite keeps it exactly.  Raises `OverflowError` outside -2^63 <= value < 2^64."""
    if not -INT64_MAX - 1 <= value < 1 << 64:
        raise OverflowError("a register value has at most 64 bits")
    return value if value <= INT64_MAX else str(value)
