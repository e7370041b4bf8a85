"""
Processing profile ("Auswertungsprofil", PP-0073): what becomes of a metering point's values, and who gets them.

The signed processing profile alone decides what leaves the gateway.  `delivery` says in which form: `direct` under the
gateway's name, `pseudonymous` through the administrator, `aggregated` as part of a ring's total, in which no single
value leaves at all.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from protocol.profiles.base import AreaName, Identifier, MeteringPoint, ObisText, Profile, Timed
from protocol.profiles.calendar import LEGAL_TIME
from protocol.profiles.meter import BILLABLE_PERIOD_MIN_S, RegistrationPeriod
from protocol.profiles.use_cases import GridState, Prepaid, TimeVariable, UseCase, Visualisation

AGGREGATED_PERIOD_MIN_S = 900
"""A total of shorter intervals tells too much of a household (docs/explanation/protocol.md)."""


class Delivery(StrEnum):
    """In which form values leave."""

    DIRECT = "direct"
    PSEUDONYMOUS = "pseudonymous"
    AGGREGATED = "aggregated"


class Recipient(Profile):
    """
    A market participant (EMP) that gets the results, under a communication profile.

    `area` binds an aggregated one to the totals of one grid area: a gateway that stands in another contributes nothing.
    """

    participant: Identifier
    communication: Identifier
    delivery: Delivery
    area: AreaName | None = None

    @model_validator(mode="after")
    def _area_of_totals(self) -> Self:
        if self.area is not None and self.delivery is not Delivery.AGGREGATED:
            raise ValueError("area: only aggregated delivery is of a grid area")
        return self

    @model_serializer(mode="wrap")
    def _without_no_area(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A recipient of no area has the canonical form that it had before there were areas."""
        values: dict[str, Any] = serialize(self)
        return values if values["area"] is not None else {k: v for k, v in values.items() if k != "area"}


class MeterExchange(Profile):
    """
    The mantissas of a register when a meter was taken out and its successor put in, as the fitter noted them.

    Both at the scaler of the processing profile's register.
    """

    at: AwareDatetime
    final: Annotated[int, Field(ge=0)]
    initial: Annotated[int, Field(ge=0)]


class MeterAssignment(Profile):
    """The meter that measures, until it is exchanged; the last one has no `exchange`."""

    meter: Identifier
    exchange: MeterExchange | None = None


class BillingPeriod(Profile):
    """
    Billing periods of `months` calendar months or `days` days, the first from `begins` on, by legal time.

    Months begin at 00:00 on the day of the month that `begins` names, 1 to 28.
    """

    begins: AwareDatetime
    months: Literal[1, 2, 3, 6, 12] | None = None
    days: Annotated[int, Field(ge=1, le=366)] | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.months is None) == (self.days is None):
            raise ValueError("expected months or days, not both")
        local = self.begins.astimezone(LEGAL_TIME)
        if (local.hour, local.minute, local.second, local.microsecond) != (0, 0, 0, 0):
            raise ValueError("begins: expected 00:00 of German legal time")
        if self.months is not None and local.day > 28:
            raise ValueError("begins: expected a day of the month up to 28")
        return self

    def start_s(self, index: int) -> int:
        """When billing period `index` begins (Unix, s); it ends where the next one begins."""
        local = self.begins.astimezone(LEGAL_TIME)
        if self.days is not None:
            day = (local.replace(tzinfo=None) + timedelta(days=self.days * index)).replace(tzinfo=LEGAL_TIME)
        else:
            months = local.year * 12 + local.month - 1 + (self.months or 0) * index
            day = datetime(months // 12, months % 12 + 1, local.day, tzinfo=LEGAL_TIME)
        return int(day.timestamp())

    def index_at(self, moment_s: int) -> int:
        """The billing period that a moment lies in; negative before the first."""
        length_s = 86_400 * (self.days or 31 * (self.months or 1))
        index = (moment_s - self.start_s(0)) // length_s  # never too large for moments after the first start
        while self.start_s(index + 1) <= moment_s:
            index += 1
        while self.start_s(index) > moment_s:
            index -= 1
        return index


class ProcessingProfile(Timed):
    """One use case for one register of a metering point."""

    id: Identifier
    metering_point: MeteringPoint
    obis: ObisText
    scaler: Annotated[int, Field(ge=-9, le=9)] = 0
    meters: Annotated[tuple[MeterAssignment, ...], Field(min_length=1, max_length=16)]
    use_case: UseCase
    registration_period_s: RegistrationPeriod = 900
    billing_period: BillingPeriod
    recipients: Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=8)]
    retention_days: Annotated[int, Field(ge=1, le=1_096)] = 460

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_meters()
        self._check_delivery()
        if isinstance(self.use_case, TimeVariable | Prepaid):
            self.use_case.calendar.check_grid(self.registration_period_s)
        if isinstance(self.use_case, Visualisation) and self.use_case.period_s % self.registration_period_s:
            raise ValueError("use_case: period_s: expected a multiple of the registration period")
        participants = [each.participant for each in self.recipients]
        if len(set(participants)) != len(participants):
            raise ValueError("recipients: a participant appears twice")
        return self

    def _check_meters(self) -> None:
        exchanges = [each.exchange for each in self.meters]
        if exchanges[-1] is not None or None in exchanges[:-1]:
            raise ValueError("meters: expected an exchange for every meter but the last")
        times = [each.at for each in exchanges if each is not None]
        if sorted(set(times)) != times:
            raise ValueError("meters: expected exchanges in the order of time")

    def _check_delivery(self) -> None:
        aggregated = any(each.delivery is Delivery.AGGREGATED for each in self.recipients)
        if aggregated and (self.use_case.taf == 14 or self.registration_period_s < AGGREGATED_PERIOD_MIN_S):
            raise ValueError(
                f"recipients: aggregated delivery needs {AGGREGATED_PERIOD_MIN_S} s or more, and no TAF 14"
            )

    @property
    def is_billable(self) -> bool:
        """Whether results may be billed; shorter periods and TAF 14 are shown only (PTB-A 50.8)."""
        return self.registration_period_s >= BILLABLE_PERIOD_MIN_S and self.use_case.taf != 14


def registers_of(profile: ProcessingProfile) -> tuple[str, ...]:
    """The registers that a profile is about, its own first."""
    if not isinstance(profile.use_case, GridState):
        return (profile.obis,)
    limited = (each.obis for each in profile.use_case.limits)
    return tuple(dict.fromkeys((profile.obis, *profile.use_case.registers, *limited)))
