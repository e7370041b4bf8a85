"""
A processing profile's values as a file after VDE AR 2418-6, from what the consumer's view shows.

By use case: registers of the newest closed billing period and the meter's values behind them (TAF 1 to 5 and 8); values
at midnight (TAF 6); the registered values (TAF 7); the present value, since nothing else is stored (TAF 9 to 14).  A
meter itself can be exported too: its registered values, which nobody but the consumer gets.  Our reading where the
schema leaves it open: a derived register's logical name has the profile in its middle, an original one the meter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from node.han.accounts import Account
from node.han.ar2418.content import (
    CertificateType,
    FileCertificate,
    FileValue,
    Status,
    UsagePointFile,
    ValueList,
)
from node.han.ar2418.document import document
from node.han.consumption import at_scaler, code_of, moment
from node.han.models import ArFile, Meter, Period, RegisterValue, UseCase
from node.han.query import Query
from node.han.signing import SIGNED_MAX, logical_name, text_of_register, text_of_value
from node.han.view import NotThere, View
from protocol.errors import RemoteProtocolError
from protocol.metering.interval import DAY_S
from protocol.metering.obis import Obis, is_cumulative
from protocol.profiles.calendar import LEGAL_TIME

_DERIVED: Final = frozenset({1, 2, 3, 4, 5, 8})
_DATA_SPARING, _ON_DEMAND, _LOAD_PROFILE, _GRID_STATE = 1, 6, 7, 10
_ON_DEMAND_DAYS: Final = 60
_INSTANTANEOUS: Final = 7
_BEHIND_MAX: Final = 3_000
"""Values behind derived registers: a month of quarter hours, and room for the registers below what is signed."""
_LOG_ENTRIES: Final = 1_000
_VALUE_MAX: Final = 2**47 - 1
_OWN: Final = "eigene Werte"
_NOBODY: Final = "-"
_SIGNATURE, _SUB_CA, _HAN = 1, 2, 3
_NO_DOTS: Final = str.maketrans(".:", "--")
_ANY: Final = Query()
_STATUS: Final = {
    "valid": Status.NO_ERROR, "unverified": Status.REPLACEABLE, "not-for-billing": Status.REPLACEABLE,
    "meter-error": Status.UNUSABLE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Span:
    """From and to (Unix, s), both included."""

    from_s: int
    to_s: int

    def query(self, obis: Obis) -> Query:
        return Query(self.from_s, self.to_s + 1, obis=obis)


def file_ids(view: View, account: Account) -> list[str]:
    """What can be exported: the account's profiles, and its meters."""
    return [*view.profile_ids(account), *view.meter_ids(account)]


def ar_file(view: View, account: Account, name: str, query: Query) -> ArFile:
    """
    The file of a profile or a meter.

    The query's times say which billing period, or which values; without them the newest.  Raises RemoteProtocolError
    `no_period` and `bad_query`, NotThere, StoreError, SealError.
    """
    meters = [view.meter(account, each, _ANY) for each in view.meter_ids(account)]
    if name in view.profile_ids(account):
        profile = view.use_case(account, name, _ANY)
        own = [each for each in meters if profile.metering_point in each.metering_points]
        lists, span = _of_profile(view, account, profile, own, query)
        party = next((each.participant for each in profile.receivers), _NOBODY)
        point, tariff = profile.metering_point, profile.id
    else:
        meter = next((each for each in meters if each.id == name), None)
        if meter is None:
            raise NotThere
        span = _asked(view, query, DAY_S)
        registers = [obis for obis in map(Obis.parse, meter.registers) if is_cumulative(obis)]
        lists = [each for obis in registers for each in _original(view, account, meter, obis, span)]
        point, tariff, party = next(iter(meter.metering_points), meter.id), _OWN, _NOBODY
    log = view.consumer_log(account, account.user, Query(span.from_s, span.to_s + 1, count=_LOG_ENTRIES)).records
    made = document(
        UsagePointFile(
            point, account.user, party, tariff, view.facts.identity, _certificates(view), _signed(view, lists), log
        )
    )
    day = datetime.fromtimestamp(span.to_s, LEGAL_TIME).date()
    return ArFile(name=f"{point}_{tariff.replace(' ', '-')}_{day}.xml", document=made.decode())


def _of_profile(
    view: View, account: Account, profile: UseCase, meters: Sequence[Meter], query: Query
) -> tuple[list[ValueList], _Span]:
    obis = Obis.parse(profile.obis)
    periods = view.registers(account, profile.id, _ANY).closed
    if profile.taf in _DERIVED:
        period = _newest(periods, query)
        span = _Span(int(period.start.timestamp()), int(period.end.timestamp()))
        lists = _derived(profile, period, meters)
        for each in meters:
            lists += _behind(view, account, profile, each, span)
        return lists, span
    if profile.taf == _ON_DEMAND:
        span = _asked(view, query, _ON_DEMAND_DAYS * DAY_S)
        return [part for each in meters for part in _original(view, account, each, obis, span, _is_midnight)], span
    if profile.taf == _LOAD_PROFILE:
        is_open = query.from_s is not None or query.to_s is not None or not periods
        span = _asked(view, query, DAY_S) if is_open else _Span(
            int(periods[-1].start.timestamp()), int(periods[-1].end.timestamp())
        )  # fmt: skip
        return [part for each in meters for part in _original(view, account, each, obis, span)], span
    now_s = int(view.facts.clock())
    span = _Span(now_s, now_s)
    found = [
        (each, value)
        for each in meters
        for value in view.reading(account, each.id, _ANY).values
        if value.obis == profile.obis or (profile.taf == _GRID_STATE and Obis.parse(value.obis).d == _INSTANTANEOUS)
    ]
    lists = [part for each, value in found for part in _lists(each, Obis.parse(value.obis), [value], span)]
    return lists, _Span(now_s - DAY_S, now_s)


def _newest(periods: Sequence[Period], query: Query) -> Period:
    """The newest closed period inside the span that is asked for."""
    for each in reversed(periods):
        start_s, end_s = each.start.timestamp(), each.end.timestamp()
        if (query.from_s is None or start_s >= query.from_s) and (query.to_s is None or end_s <= query.to_s):
            return each
    raise RemoteProtocolError("no_period", "no billing period that is closed lies in the span")


def _asked(view: View, query: Query, before_s: int) -> _Span:
    """The span that is asked for; without a start from `before_s` before its end on."""
    now_s = int(view.facts.clock())
    to_s = now_s if query.to_s is None else min(query.to_s - 1, now_s)
    return _Span(to_s - before_s if query.from_s is None else min(query.from_s, to_s), to_s)


def _derived(profile: UseCase, period: Period, meters: Sequence[Meter]) -> list[ValueList]:
    """What the use case says of a period: a list of one value for each register."""
    meter = meters[0].id if meters else profile.metering_point
    duration_s = int((period.end - period.start).total_seconds())
    status = Status.NO_ERROR if period.is_complete and period.is_billable else Status.REPLACEABLE
    found = []
    for each in period.registers:
        obis = Obis.parse(each.obis)
        name = logical_name(obis, f"taf{profile.taf}-{profile.id}".translate(_NO_DOTS))
        words = "complete" if period.is_complete else "incomplete"
        text = text_of_register(name, period, each.value)
        value = FileValue(period.start, int(each.value), duration_s, None, status, words, text)
        found.append(
            ValueList(
                name, meter, obis, name, period.scaler, code_of(period.unit), period.start, period.end, (value,)
            )
        )  # fmt: skip
    return found


def _behind(view: View, account: Account, profile: UseCase, meter: Meter, span: _Span) -> list[ValueList]:
    """The meter's values that a period was derived from: those at its ends, and all where that is not too much."""
    obis = Obis.parse(profile.obis)
    if profile.taf != _DATA_SPARING and (span.to_s - span.from_s) // profile.registration_period_s < _BEHIND_MAX:
        return _original(view, account, meter, obis, span)
    return _original(view, account, meter, obis, span, lambda at_s: at_s in (span.from_s, span.to_s))


def _original(
    view: View, account: Account, meter: Meter, obis: Obis, span: _Span, is_wanted: Callable[[int], bool] = bool
) -> list[ValueList]:
    """Values at registration times, both ends included."""
    values = view.readings(account, meter.id, span.query(obis)).records
    kept = [each for each in values if each.registered_for and is_wanted(int(each.registered_for.timestamp()))]
    return _lists(meter, obis, kept, span, meter.registration_period_s)


def _lists(
    meter: Meter, obis: Obis, values: Sequence[RegisterValue], span: _Span, period_s: int | None = None
) -> list[ValueList]:  # fmt: skip
    """One for each unit, which is one, but for a meter that has changed it."""
    name = logical_name(obis, meter.id)
    start, end = moment(span.from_s), moment(span.to_s)
    found: list[ValueList] = []
    for unit in dict.fromkeys(each.unit for each in values) or {None: None}:
        mine = [each for each in values if each.unit == unit]
        scaler = min((each.scaler for each in mine), default=0)
        shown = [_value(meter, at_scaler(each, scaler)) for each in mine]
        number = f"{name}-{len(found)}" if found else name
        found.append(ValueList(number, meter.id, obis, name, scaler, code_of(unit), start, end, shown, period_s))
    return found


def _value(meter: Meter, value: RegisterValue) -> FileValue:
    status = _STATUS[value.quality] if value.is_on_time else Status.REPLACEABLE
    words = f"{value.quality if value.is_on_time else 'late'};{value.status or ''}"
    text = text_of_value(meter.id, value)
    return FileValue(value.measured_at, int(value.value), 0, value.registered_for, status, words, text)


def _signed(view: View, lists: Sequence[ValueList]) -> list[ValueList]:
    """With a signature for each value; without any before the gateway is enrolled."""
    values = [each for part in lists for each in part.values]
    if len(values) > SIGNED_MAX:
        raise RemoteProtocolError("bad_query", f"{len(values)} values, expected a span with at most {SIGNED_MAX}")
    if any(abs(each.value) > _VALUE_MAX for each in values):
        raise RemoteProtocolError("bad_query", "a value is larger than the schema has room for (48 bits)")
    if view.facts.module.certificate is None:
        return list(lists)
    return [
        replace(
            part, values=[replace(each, signature=view.signer.sign_text(each.text)) for each in part.values]
        )
        for part in lists
    ]  # fmt: skip


def _certificates(view: View) -> list[FileCertificate]:
    ders = view.certificates
    parent = _SUB_CA if "sub-ca" in ders else None
    kinds = (
        (_SIGNATURE, "signature", CertificateType.SIGNATURE, parent), (_SUB_CA, "sub-ca", CertificateType.SUB_CA, None),
        (_HAN, "han", CertificateType.HAN, None),
    )  # fmt: skip
    return [FileCertificate(number, kind, ders[name], above) for number, name, kind, above in kinds if name in ders]


def _is_midnight(at_s: int) -> bool:
    local = datetime.fromtimestamp(at_s, LEGAL_TIME)
    return not (local.hour or local.minute or local.second)
