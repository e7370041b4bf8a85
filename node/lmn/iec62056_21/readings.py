"""
From a readout to readings: which device, which time, number or text.

Intuition: one line is one reading.  Exceptions, each seen on real meters:
- a line with a time and a value (DSMR 24.2.1) is a reading of another device behind this meter, at its own time;
- a profile `(time)(status)(minutes)(n)(code)(unit)...(values)` (DSMR 2 and 3: 24.3.0, EDIS P.01) is one reading per
  value;
- an event log `(count)(code)(time)(value)...` (DSMR 99.97.0) is one reading per event;
- a history of peaks `(count)(code)(code)(closed)(time)(value)...` (Belgian 98.1.0) is one reading per month;
- a peak with its time behind it (EDIS `1.6.1(value)(time)`) was measured then;
- everything else with several values keeps them all in `record["values"]`.

Heat meters have codes of their own (`heat`).

Without a unit only what OBIS calls a quantity becomes a number: identifiers are digits too, and their zeros count.
Source: DSMR P1 companion standard 5.0.2 clause 6.12, IEC 62056-21 clause 6.5, VDEW-Lastenheft 2.1 (F.F, 0.9.1, P.01).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from node.lmn.iec62056_21 import heat
from node.lmn.iec62056_21.datasets import DataSet, data_sets, parse_address
from node.lmn.iec62056_21.framing import Readout, ReadoutReader, TelegramReader
from node.lmn.iec62056_21.quantities import quantity
from node.lmn.iec62056_21.times import CENTRAL_EUROPE, is_minute, is_stamp, parse_clock, parse_stamp
from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.metering.reading import Quality, Reading

_DIN_43849 = re.compile(r"[0-9A-F][A-Z]{3}[0-9A-F]{2}\d{8}")
# (C, D) of device identifiers and the values of E that are one: the maker's 96.1.0 and 96.1.1 (255 where E is left
# open; the others name parameter sets, programs and check sums), the utility's 0.0.E.
_SERIAL_NUMBERS = {(96, 1): frozenset({0, 1, 255}), (0, 0): frozenset(range(10))}
_MEDIA = {2: "electricity", 3: "gas", 4: "heat", 6: "warm water", 7: "water", 12: "heat", 10: "cooling", 11: "cooling"}
_PROFILE_VALUES_MAX = 4096
_HISTORIES = {(99, 97): 1, (98, 1): 2}  # (C, D): how many codes follow the count; so many texts go before each value


@dataclass(frozen=True, slots=True)
class Interpretation:
    """
    What the readout itself does not say: a device id that overrides the meter's, the medium of addresses without one
    (OBIS group A), the time zone of stamps without S or W, the standard time of those with it.

    `local_times` gives stamps of an unknown zone as times without an offset, for eyes; a gateway leaves them out, since
    an hour's error bills wrongly.
    """

    device: str = ""
    medium: int = 1
    zone: tzinfo | None = None
    standard_offset: timedelta = CENTRAL_EUROPE
    local_times: bool = False

    def stamp(self, text: str) -> datetime | None:
        """The time of a stamp, if it is one that may be given."""
        return self._given(parse_stamp(text, standard_offset=self.standard_offset, zone=self.zone))

    def clock(self, date: str, time: str) -> datetime | None:
        """The same for EDIS' date 0.9.2 and time 0.9.1."""
        return self._given(parse_clock(date, time, zone=self.zone))

    def _given(self, when: datetime | None) -> datetime | None:
        return when if when is None or when.tzinfo is not None or self.local_times else None


def readings_of(
    readout: Readout, interpretation: Interpretation | None = None, *, received_at: datetime | None = None
) -> list[Reading | RemoteProtocolError]:
    """
    All readings of one readout, in its order.

    A malformed line under a verified check sum costs only itself; without a check sum it condemns the whole readout,
    since nothing then vouches for the other lines.
    """
    how = interpretation or Interpretation()
    sets: list[DataSet] = []
    faults: list[Reading | RemoteProtocolError] = []
    for item in data_sets(readout.body, medium=how.medium):
        if isinstance(item, RemoteProtocolError):
            faults.append(RemoteProtocolError(item.reason, item.detail, offset=readout.offset))
        else:
            sets.append(item)
    if faults and not readout.verified:
        return faults[:1]
    if heat.is_heat_meter(sets):
        how = replace(how, medium=heat.MEDIUM_HEAT)
        sets = [replace(item, obis=_code(item.address, how), is_heat=heat.is_heat_code(item.address)) for item in sets]
    return [*_Telegram.of(readout, sets, how, received_at).readings(sets), *faults]


def decode_stream(
    chunks: Iterable[bytes], interpretation: Interpretation | None = None, *, reader: TelegramReader | None = None
) -> Iterator[Reading | RemoteProtocolError]:
    """The readings and faults of a byte stream that comes in any pieces; `reader` where it is not plain text."""
    reader = reader or ReadoutReader()
    for chunk in chunks:
        for item in reader.receive(chunk):
            yield from _of(item, interpretation)
    for item in reader.end():
        yield from _of(item, interpretation)


def _of(
    item: Readout | RemoteProtocolError, interpretation: Interpretation | None
) -> list[Reading | RemoteProtocolError]:
    return [item] if isinstance(item, RemoteProtocolError) else readings_of(item, interpretation)


def device_id(text: str) -> str:
    """
    An identifier as people write it: DSMR sends the characters of its 96.1.E in hexadecimal.

    Only what decodes to printable letters and digits is decoded; a number such as 0272031312565 stays as it is.
    """
    if len(text) >= 12 and len(text) % 2 == 0 and re.fullmatch(r"(?:[3][0-9]|[4-7][0-9A-Fa-f]|20)+", text):
        return bytes.fromhex(text).decode("latin-1").strip()
    return text.strip()


@dataclass(slots=True)
class _Telegram:
    """What all lines of one telegram share."""

    how: Interpretation
    device: str
    quality: Quality
    measured_at: datetime | None
    received_at: datetime | None
    channels: dict[int, str] = field(default_factory=dict)
    media: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, readout: Readout, sets: list[DataSet], how: Interpretation, received_at: datetime | None) -> _Telegram:
        first = {s.obis: s.values[0][0] for s in reversed(sets) if s.obis is not None and not s.is_heat}
        quality = Quality.VALID if readout.verified else Quality.UNVERIFIED
        error = first.get(Obis(how.medium, 0, 97, 97, 0, 255), "")
        if error.strip("0"):
            quality = Quality.METER_ERROR
        stamp = first.get(Obis(0, 0, 1, 0, 0, 255))
        clock = [first.get(Obis(how.medium, 0, 0, 9, e, 255), "") for e in (2, 1)]
        measured_at = how.stamp(stamp) if stamp is not None else how.clock(*clock)
        if (written := heat.clock_of(sets)) is not None:
            measured_at = how.stamp(written)
        device = how.device or _device_of(sets) or readout.identification
        telegram = cls(how, device, quality, measured_at, received_at)
        for obis, text in first.items():
            if obis.a == 0 and obis.b > 0 and (obis.c, obis.d) == (24, 1) and text.isdecimal():
                telegram.media[obis.b] = _MEDIA.get(int(text), "")
            if obis.a == 0 and obis.b > 0 and (obis.c, obis.d) == (96, 1) and text.strip():
                telegram.channels[obis.b] = device_id(text)
        return telegram

    def readings(self, sets: list[DataSet]) -> Iterator[Reading]:
        for item in sets:
            if item.is_heat:
                yield from self._heat(item)
            elif (rows := _profile(item, self.how)) is not None:
                yield from (self._reading(item, obis, value, at, extra) for obis, value, at, extra in rows)
            elif (events := _event_log(item, self.how)) is not None:
                yield self._reading(item, item.obis, item.values[0], self.measured_at, {})
                yield from (self._reading(item, obis, value, at, extra) for obis, value, at, extra in events)
            elif len(item.values) == 2 and item.values[0][1] is not None and is_minute(item.values[1][0]):
                text = item.values[1][0]
                at = self.how.stamp(text)
                yield self._reading(item, item.obis, item.values[0], at, {} if at else {"stamp": text})
            elif len(item.values) == 2 and is_stamp(item.values[0][0]):
                text = item.values[0][0]
                at = self.how.stamp(text)
                yield self._reading(item, item.obis, item.values[1], at, {} if at else {"stamp": text})
            else:
                extra = {} if len(item.values) == 1 else {"values": [_joined(value) for value in item.values]}
                yield self._reading(item, item.obis, item.values[0], self._time_of(item.obis), extra)

    def _heat(self, item: DataSet) -> Iterator[Reading]:
        for index, value in enumerate(heat.values_of(item)):
            obis, record = heat.name_of(item.address, index)
            at = self.measured_at if "storage" not in record else None
            yield self._reading(item, obis, value, at, record)

    def _time_of(self, obis: Obis | None) -> datetime | None:
        # The meter's clock says nothing about values of other devices, nor about registers closed in the past.
        if obis is None or (obis.a == 0 and obis.b > 0) or obis.f != 255:
            return None
        return self.measured_at

    def _reading(
        self,
        item: DataSet,
        obis: Obis | None,
        text: tuple[str, str | None],
        at: datetime | None,
        extra: dict[str, Any],
    ) -> Reading:
        record = dict(extra)
        device = self.device
        if obis is None:
            record.setdefault("address", item.address)
        elif obis.a == 0 and obis.b > 0:
            device = self.channels.get(obis.b, f"{self.device}/{obis.b}")
            record["channel"] = obis.b
            if self.media.get(obis.b):
                record["medium"] = self.media[obis.b]
        if item.manual_reset:
            record["reset"] = "manual"
        value: int | str | None = text[0] or None
        scaler, unit = 0, None
        number = quantity(*text) if text[1] is not None or _is_quantity(obis) else None
        if number is not None:
            value, scaler, unit = number.value, number.scaler, number.unit
            if number.unit_text is not None:
                record["unit"] = number.unit_text
        elif text[1] is not None:
            record["unit"] = text[1]
        return Reading(
            device, obis, value, scaler, unit,
            measured_at=at, received_at=self.received_at, quality=self.quality, record=record,
        )  # fmt: skip


def _device_of(sets: list[DataSet]) -> str:
    """The meter's own id: one in the form of DIN 43849 before any other, then 96.1.E before 0.0.E, lowest E first."""
    candidates: list[tuple[bool, bool, int, str]] = []
    for item in sets:
        obis, text = item.obis, item.values[0][0]
        if obis is None or item.is_heat or (obis.a == 0 and obis.b > 0) or not text.strip():
            continue
        name = device_id(text)
        other_form = _DIN_43849.fullmatch(name) is None  # what has that form is a device's number, whatever E says
        places = _SERIAL_NUMBERS.get((obis.c, obis.d), frozenset())
        if obis.e in places or (places and not other_form):
            candidates.append((other_form, obis.c != 96, obis.e, name))
    return min(candidates)[3] if candidates else ""


def _is_quantity(obis: Obis | None) -> bool:
    """Whether digits without a unit are a number: counts of failures and measured values, not identifiers."""
    if obis is None:
        return False
    if (obis.c, obis.d) == (96, 7):
        return True
    return obis.c == 24 if obis.a == 0 else 1 <= obis.c <= 93


def _joined(value: tuple[str, str | None]) -> str:
    return value[0] if value[1] is None else f"{value[0]}*{value[1]}"


_Row = tuple[Obis | None, tuple[str, str | None], datetime | None, dict[str, Any]]


def _profile(item: DataSet, how: Interpretation) -> list[_Row] | None:
    """`(time)(status)(minutes)(n)` then n times `(code)(unit)` then the values, period by period; None if it is not."""
    plain = [value for value, unit in item.values if unit is None]
    if len(plain) < 7 or len(plain) != len(item.values) or not is_stamp(plain[0]):
        return None
    status, minutes, width = plain[1:4]
    if not (minutes.isdecimal() and width.isdecimal() and re.fullmatch(r"[0-9A-Fa-f]{1,8}", status)):
        return None
    count = int(width) if len(width) < 3 else 0
    values = plain[4 + 2 * count :]
    if count < 1 or not values or len(values) % count or len(values) > _PROFILE_VALUES_MAX or len(minutes) > 5:
        return None
    codes, units = plain[4 : 4 + 2 * count : 2], plain[5 : 5 + 2 * count : 2]
    start = how.stamp(plain[0])
    rows: list[_Row] = []
    for index, value in enumerate(values):
        period, column = divmod(index, count)
        at = None if start is None else _later(start, period * timedelta(minutes=int(minutes)))
        extra: dict[str, Any] = {"profile": item.address, "profile_status": status, "period": period}
        if at is None:
            extra["stamp"] = plain[0]
        rows.append((_code(codes[column], how), (value, units[column]), at, extra))
    return rows


def _later(start: datetime, by: timedelta) -> datetime | None:
    """Counted in UTC: on the wall clock a period is an hour longer or shorter where summer time begins and ends."""
    try:
        return start + by if start.tzinfo is None else (start.astimezone(UTC) + by).astimezone(start.tzinfo)
    except OverflowError:
        return None


def _event_log(item: DataSet, how: Interpretation) -> list[_Row] | None:
    """`(count)(code)` then `(time)(value)` per event, or two codes and `(closed)(time)(value)`; None if it is not."""
    codes = None if item.obis is None else _HISTORIES.get((item.obis.c, item.obis.d))
    if codes is None or len(item.values) <= codes or (len(item.values) - 1 - codes) % (codes + 1):
        return None
    if any(_code(text, how) is None for text, _ in item.values[1 : 1 + codes]):
        return None
    code = _code(item.values[codes][0], how)
    rows: list[_Row] = []
    for index in range(1 + codes, len(item.values), codes + 1):
        *stamps, value = item.values[index : index + codes + 1]
        at = how.stamp(stamps[-1][0])
        extra: dict[str, Any] = {"log": item.address}
        if at is None:
            extra["stamp"] = stamps[-1][0]
        if codes > 1:
            extra |= {"closed": stamps[0][0], "period": len(rows) + 1}
        rows.append((code, value, at, extra))
    return rows


def _code(text: str, how: Interpretation) -> Obis | None:
    return parse_address(text, medium=how.medium)[0]
