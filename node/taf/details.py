"""From what use cases derive to what is delivered: results in the terms of protocol.cosem.delivery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from node.metering.entries import LoggedReading
from node.taf.result import Account, Result, Standing
from node.taf.series import Interval
from protocol.cosem.delivery import Detail, PeriodResult, Row
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality
from protocol.metering.units import WATT
from protocol.profiles.processing import ProcessingProfile
from protocol.profiles.use_cases import Prepaid

_POWER: Final = Obis(1, 0, 1, 7, 0, 255)
_CREDIT: Final = Obis(0, 0, 19, 10, 0, 255)  # current credit amount (DLMS UA 1000-1, account objects)
_CURRENCY: Final = 10
_PAID: Final = "paid"
_NO_UNIT: Final = 255


def make_result(profile: ProcessingProfile, derived: Result, unit: int) -> PeriodResult:
    """What a use case derived, with what a recipient must know of the profile; by `is_billable` never more than it."""
    rows = tuple(Row(each.at_s, each.value, each.is_valid, each.status) for each in derived.rows)
    return PeriodResult(
        profile.id, profile.use_case.taf, profile.metering_point, Obis.parse(profile.obis), profile.scaler, unit,
        profile.registration_period_s, derived.start_s, derived.end_s, derived.is_complete, profile.is_billable,
        derived.derivation, tuple((each.obis, each.value) for each in derived.registers), rows,
        tuple(_details(profile, derived, unit)),
    )  # fmt: skip


def reading_detail(what: str, subject: str, reading: LoggedReading) -> Detail:
    """A current value (TAF 9, 10); of one whose meter sends none the unit is 255."""
    unit = _NO_UNIT if reading.unit is None else reading.unit
    return Detail(
        what, subject, reading.obis, reading.scaler, unit, reading.measured_ms, reading.measured_ms,
        reading.value or 0, reading.quality is Quality.VALID, reading.status,
    )  # fmt: skip


def account_of(profile: ProcessingProfile, result: PeriodResult | None) -> Account | None:
    """
    The account of TAF 12 that a result ended with; None where it is of none, or counts in another unit.

    A profile with another unit of money begins a new account.
    """
    standings = {each.value: each for each in Standing}
    for each in () if result is None else result.details:
        if each.what in standings and isinstance(profile.use_case, Prepaid):
            paid = next((one.value for one in result.details if one.what == _PAID), 0) if result is not None else 0
            if each.scaler == profile.use_case.price_scaler + profile.scaler:
                return Account(each.value, paid, standings[each.what])
    return None


def _details(profile: ProcessingProfile, derived: Result, unit: int) -> Iterator[Detail]:
    obis = Obis.parse(profile.obis)

    def extreme(what: str, interval: Interval) -> Detail:
        return Detail(
            what, "", obis, profile.scaler, unit, interval.start_s * 1000, interval.end_s * 1000, interval.energy,
            True, interval.status,
        )  # fmt: skip

    yield from (extreme("largest", each) for each in derived.largest)
    yield from (extreme("smallest", each) for each in derived.smallest)
    for record in derived.controls:
        what = "off" if record.limit_w is None else "limited"
        yield Detail(
            what, record.system, _POWER, 0, WATT, record.start_s * 1000, record.end_s * 1000, record.limit_w or 0
        )  # fmt: skip
        for name, value in (("before", record.before), ("after", record.after)):
            if value is not None:
                at_ms = value.at_s * 1000
                yield Detail(
                    name, record.system, obis, profile.scaler, unit, at_ms, at_ms, value.value, True, value.status
                )
    if derived.account is not None and isinstance(profile.use_case, Prepaid):
        scaler, at_ms = profile.use_case.price_scaler + profile.scaler, derived.end_s * 1000
        for what, amount in (
            (derived.account.standing.value, derived.account.credit), (_PAID, derived.account.paid),
        ):  # fmt: skip
            yield Detail(what, "", _CREDIT, scaler, _CURRENCY, at_ms, at_ms, amount)
