"""
One billing period of a processing profile, evaluated: the profile says which use case, the values are the log's.

A use case is a function of profile, values and events alone.  Nothing is kept between two evaluations but the log, so
a restart loses nothing, a value that came late is in the next evaluation, and anybody who has the same values can
compute the same result.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.taf import taf01, taf02, taf03, taf04, taf05, taf06, taf07, taf08, taf11, taf12, taf13
from node.taf.result import Account, Period, Result
from node.taf.series import Exchange, RegisterValue, join_meters
from protocol.errors import LocalProtocolError
from protocol.metering.obis import Obis
from protocol.profiles.processing import ProcessingProfile
from protocol.profiles.use_cases import (
    ConsumptionVariable,
    ControlEvents,
    DataSparing,
    EventVariable,
    ExtremeValues,
    LoadProfile,
    LoadVariable,
    OnDemand,
    Prepaid,
    TimeVariable,
    Visualisation,
)


def evaluate(profile: ProcessingProfile, meters: Sequence[Sequence[RegisterValue]], index: int) -> Result:
    """Billing period `index` of a profile; otherwise as `evaluate_span`."""
    billing = profile.billing_period
    return evaluate_span(profile, meters, billing.start_s(index), billing.start_s(index + 1))


def evaluate_span(
    profile: ProcessingProfile, meters: Sequence[Sequence[RegisterValue]], start_s: int, end_s: int,
    opening: Account | None = None,
) -> Result:  # fmt: skip
    """
    What a profile's use case derives for [`start_s`, `end_s`) from the values of each of its meters.

    `meters` are in the profile's order; values before the period belong to it, so that a gap over its beginning is
    seen.  `opening` is the account of TAF 12 before.  Raises LocalProtocolError for a use case of current values (TAF
    9, 10, 14: node.taf.current_values), or where there are not as many meters as the profile names.
    """
    if len(meters) != len(profile.meters):
        raise LocalProtocolError(f"values of {len(meters)} meters, profile {profile.id} names {len(profile.meters)}")
    exchanges = [
        Exchange(int(each.exchange.at.timestamp()), each.exchange.final, each.exchange.initial)
        for each in profile.meters
        if each.exchange is not None
    ]
    series = join_meters(meters, exchanges, profile.registration_period_s)
    return _by_use_case(profile, Period(Obis.parse(profile.obis), profile.scaler, start_s, end_s, series), opening)


def _by_use_case(profile: ProcessingProfile, period: Period, opening: Account | None) -> Result:
    match profile.use_case:
        case DataSparing() as parameters:
            return taf01.evaluate(parameters, period)
        case TimeVariable() as parameters:
            return taf02.evaluate(parameters, period)
        case LoadVariable() as parameters:
            return taf03.evaluate(parameters, period)
        case ConsumptionVariable() as parameters:
            return taf04.evaluate(parameters, period)
        case EventVariable() as parameters:
            return taf05.evaluate(parameters, period)
        case OnDemand() as parameters:
            return taf06.evaluate(parameters, period)
        case LoadProfile() as parameters:
            return taf07.evaluate(parameters, period)
        case ExtremeValues() as parameters:
            return taf08.evaluate(parameters, period)
        case ControlEvents() as parameters:
            return taf11.evaluate(parameters, period)
        case Prepaid() as parameters:
            return taf12.evaluate(parameters, period, opening)
        case Visualisation() as parameters:
            return taf13.evaluate(parameters, period)
        case other:
            raise LocalProtocolError(f"TAF {other.taf} does not go by registration times")
