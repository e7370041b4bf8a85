"""
What the HAN API shows, as models: their JSON schemas are the declaration of our resource types.

The public text of BSI TR-03109-1 names no resource types for the home; these are ours.  Values are exact: integer
mantissas as text, the power of ten and the unit beside them.  Times are UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Resource(BaseModel):
    """Something that the HAN API shows."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Device(Resource):
    """The gateway."""

    id: str
    software_version: str
    software_sha256: str
    """Of the program's files, sorted by name: each name and content with its length."""
    time: datetime
    is_time_good: bool
    """Whether the clock is right enough for billing."""
    is_in_ring: bool
    profiles_version: int
    """Version of the administrator's profile set in force, 0 before the first."""


class Meter(Resource):
    """A meter of the consumer's."""

    id: str
    meter: str
    """What it calls itself, where the gateway's configuration has it."""
    protocol: str
    metering_points: tuple[str, ...]
    registers: tuple[str, ...]
    """Registers of which values are kept."""
    registration_period_s: int
    display_interval_s: int | None


class RegisterValue(Resource):
    """One value of a register: `value`·10^`scaler` `unit`."""

    obis: str
    value: str
    scaler: int
    unit: str | None
    measured_at: datetime
    registered_for: datetime | None
    """Registration time that it counts for, if any."""
    is_on_time: bool
    quality: Literal["valid", "unverified", "meter-error", "not-for-billing"]
    status: str | None
    """The meter's status word, hexadecimal."""


class Reading(Resource):
    """The present values of a meter."""

    meter: str
    values: tuple[RegisterValue, ...]


class ReadingExport(Resource):
    """Values at registration times, in order of register and time."""

    meter: str
    from_time: datetime
    to_time: datetime
    records: tuple[RegisterValue, ...]


class Interval(Resource):
    """Energy between two values: `energy`·10^`scaler` `unit`."""

    obis: str
    start: datetime
    end: datetime
    energy: str
    scaler: int
    unit: str | None
    is_valid: bool
    """One registration period between two valid values."""


class IntervalExport(Resource):
    """Energy by registration periods, of registers that only rise."""

    meter: str
    from_time: datetime
    to_time: datetime
    records: tuple[Interval, ...]


class ContractPart(Resource):
    """What the consumer may see by one HAN profile."""

    id: str
    metering_points: tuple[str, ...]
    valid_from: datetime | None
    valid_to: datetime | None
    is_in_force: bool


class Contract(Resource):
    """The consumer's contracts on this gateway, those in force and those that ended in the past 15 months."""

    user: str
    meters: tuple[str, ...]
    contracts: tuple[ContractPart, ...]


class Receiver(Resource):
    """Who gets something of the consumer's values, in which form."""

    participant: str
    address: str | None
    delivery: Literal["direct", "pseudonymous", "aggregated"]
    every: str
    """ISO 8601 duration between two deliveries."""
    households_min: int | None
    """Households in the smallest sum that the value leaves in; None where it leaves alone."""


class UseCase(Resource):
    """A processing profile: what becomes of a metering point's values, and who gets them."""

    id: str
    metering_point: str
    obis: str
    taf: int
    registration_period_s: int
    valid_from: datetime
    valid_to: datetime | None
    retention_days: int
    receivers: tuple[Receiver, ...]


class DerivedRegister(Resource):
    """The energy of a tariff stage in a billing period; group E of `obis`: 0 the total, 63 the error register."""

    obis: str
    value: str


class DerivedValue(Resource):
    """
    A derived value of its own time (TAF 8 to 12): `value`·10^`scaler` `unit` of the register `obis`.

    `what` says what it is: `largest`, `smallest`, `present`; of a grid state `inside`, `low`, `high`; `limited`, `off`,
    `before`, `after` of the controllable system `subject`; the standing of a credit, `paid`.
    """

    what: str
    subject: str
    obis: str
    value: str
    scaler: int
    unit: str
    at: datetime
    until: datetime
    is_valid: bool


class Period(Resource):
    """
    A billing period: `value`·10^`scaler` `unit` of each register.

    `is_running`: it is not over, and shown up to the newest registration time; it counts once it is closed.
    """

    start: datetime
    end: datetime
    is_running: bool = False
    is_complete: bool
    is_billable: bool
    scaler: int
    unit: str
    registers: tuple[DerivedRegister, ...]
    values: tuple[DerivedValue, ...] = ()


class Registers(Resource):
    """What the use case of a processing profile has derived, the newest periods last, and the running one behind."""

    profile: str
    taf: int
    periods: tuple[Period, ...]

    @property
    def closed(self) -> tuple[Period, ...]:
        """The periods that count: without the running one."""
        return tuple(each for each in self.periods if not each.is_running)


class ArFile(Resource):
    """A file after VDE AR 2418-6 (schema 1.4), which the display software of the PTB opens."""

    name: str
    """File name."""
    document: str
    """XML."""


class Aggregation(Resource):
    """How values leave in sums of a ring: the sum goes to the grid operator, no value of a household does."""

    area: str
    is_in_ring: bool
    households_min: int
    """Honest households in every sum at least."""
    interval_s: int | None
    registers: tuple[str, ...]
    is_carrying: bool
    """Whether energy of intervals that were missed is still to be added to a sum."""


class LogEntry(Resource):
    """An entry of a log."""

    number: int
    at: datetime
    level: Literal["I", "W", "E", "F"]
    type: int
    german: str
    english: str


class LogExport(Resource):
    """Entries of a log, the oldest first."""

    log: Literal["consumer", "system"]
    from_time: datetime | None
    to_time: datetime
    records: tuple[LogEntry, ...]


class Certificate(Resource):
    """A certificate of the gateway."""

    id: str
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    sha256: str
    pem: str


CheckName = Literal["clock", "store", "keys", "certificates", "meters", "calibration_log"]


class Check(Resource):
    """One check of the self-test."""

    name: CheckName
    is_passed: bool
    german: str
    english: str


class SelfTest(Resource):
    """The newest result of the self-test."""

    at: datetime | None
    is_passed: bool | None
    checks: tuple[Check, ...]


class Network(Resource):
    """Where the gateway speaks and listens."""

    coordinator: str
    link: Literal["direct", "relay"]
    han_listen: str
    time_server: str | None


class MeterStatus(Resource):
    """Whether a meter speaks; nothing of what it says."""

    id: str
    protocol: str
    last_heard: datetime | None


class Proxy(Resource):
    """A proxy profile of the controllable system that asks, and its state."""

    id: str
    participant: str
    server_name: str
    """What a CONNECT names (localServerName)."""
    address: str
    """The participant's, for a CONNECT by address."""
    initiators: tuple[Literal["cls", "participant", "gateway"], ...]
    cls_address: str | None
    """Where the gateway reaches the system's own server."""
    idle_timeout_s: int
    duration_max_s: int
    valid_from: datetime
    valid_to: datetime | None
    is_valid: bool
    """Whether it counts now."""
    open_tunnels: int


class Signed(Resource):
    """A signature over the octets of `data` as they are sent: detached CMS SignedData, base64."""

    algorithm: Literal["CMS_ECDSA_SHA256_Detached"]
    value: str


class Password(BaseModel):
    """A new password."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    password: str


class Empty(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid")
