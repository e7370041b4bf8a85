"""
What use cases have derived, as the HAN API shows it: closed periods from the store, the running one as it would close.

The running period is evaluated when somebody looks, by the profile in force and from the same values: what a consumer
sees on the last day of a month is what is delivered the day after.
"""

from __future__ import annotations

from node.han import models
from node.han.consumption import moment
from node.storage.repositories.use_cases import UseCaseRepository
from node.taf.details import account_of, make_result
from node.taf.evaluate import evaluate_span
from node.taf.period_values import Registered, period_values
from node.taf.spans import span_from
from node.taf.use_cases import BY_REGISTRATION
from protocol.cosem.delivery import Detail, PeriodResult
from protocol.errors import LocalProtocolError
from protocol.metering.units import unit_symbol
from protocol.profiles.processing import ProcessingProfile


def running_period(
    use_cases: UseCaseRepository, registered: Registered, gateway: str, profile: ProcessingProfile,
    devices: list[str | None], now_s: int,
) -> PeriodResult | None:  # fmt: skip
    """
    A profile's period that has begun and is not closed, up to the registration time `now_s` (metering time, Unix, s).

    None before the first begins, and for current values (TAF 9, 10, 14), which have no period that runs.  Raises
    StoreError, SealError.
    """
    next_start_s = use_cases.next_starts(gateway).get(profile.id)
    if next_start_s is None or profile.use_case.taf not in BY_REGISTRATION:
        return None
    start_s, end_s = span_from(profile, next_start_s)
    end_s = min(end_s, now_s)
    if end_s <= start_s or not profile.is_valid_at(moment(start_s)):
        return None
    values, unit = period_values(registered, profile, devices, start_s, end_s)
    opening = account_of(profile, use_cases.newest(gateway, profile.id))
    try:
        return make_result(profile, evaluate_span(profile, values, start_s, end_s, opening), unit)
    except LocalProtocolError:  # it does not close either: the gateway's log says why
        return None


def shown_period(result: PeriodResult, *, is_running: bool = False) -> models.Period:
    """A period as the API shows it."""
    registers = tuple(models.DerivedRegister(obis=str(obis), value=str(value)) for obis, value in result.registers)
    return models.Period(
        start=moment(result.start_s), end=moment(result.end_s), is_running=is_running, is_complete=result.is_complete,
        is_billable=result.is_billable, scaler=result.scaler, unit=unit_symbol(result.unit), registers=registers,
        values=tuple(map(_value, result.details)),
    )  # fmt: skip


def _value(detail: Detail) -> models.DerivedValue:
    return models.DerivedValue(
        what=detail.what, subject=detail.subject, obis=str(detail.obis), value=str(detail.value), scaler=detail.scaler,
        unit=unit_symbol(detail.unit), at=moment(detail.at_ms / 1000), until=moment(detail.until_ms / 1000),
        is_valid=detail.is_valid,
    )  # fmt: skip
