"""
The rules that display software of the PTB puts on an adapter's file after VDE AR 2418-6, and the schema.

Written from a description of those rules, for files of any origin; nothing here knows what our exporter does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from lxml import etree

SCHEMAS: Final = Path(__file__).parents[2] / "../shared/reference/ar2418-6"
_NAMES: Final = {"a": "http://vde.de/AR_2418-6.xsd", "e": "http://naesb.org/espi"}
_MULTIPLIERS: Final = {-6, -3, 0, 1, 2, 3, 6, 9}
_DAYS_MAX: Final = 1096
_READINGS_MIN: Final = {1: 2, 2: 5}


class _Local(etree.Resolver):  # type: ignore[misc]
    def resolve(self, url: str, _id: str, context: Any) -> Any:
        return self.resolve_filename(str(SCHEMAS / Path(url).name), context)


@cache
def schema() -> Any:
    """AR 2418-6, version 1.4."""
    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(_Local())
    return etree.XMLSchema(etree.parse(str(SCHEMAS / "AR_2418-6.xsd"), parser))


def schema_errors(document: bytes) -> list[str]:
    """Where a document leaves the schema."""
    found = schema()
    return [] if found.validate(etree.fromstring(document)) else [str(each) for each in found.error_log]


def broken_rules(document: bytes, taf: int, *, is_closed: bool) -> list[str]:
    """Which rules a file breaks; `is_closed` is whether it is of a closed billing period."""
    root = etree.fromstring(document)
    return [problem for point in root.iterfind("a:UsagePoint", _NAMES) for problem in _point(point, taf, is_closed)]


def _point(point: Any, taf: int, is_closed: bool) -> Iterator[str]:
    for path in ("a:usagePointId", "a:tariffName", "a:InvoicingParty/a:invoicingPartyId", "a:SMGW/a:smgwId",
                 "a:SMGW/a:certId", "e:ServiceCategory/e:kind", "a:Customer/a:customerId", "a:Certificate",
                 "a:MeterReading"):  # fmt: skip
        found = point.find(path, _NAMES)
        if found is None or (not len(found) and not (found.text or "").strip()):
            yield f"{path} is missing"
    yield from _certificates(point)
    readings = point.findall("a:MeterReading", _NAMES)
    for each in readings:
        yield from _reading(each)
    for event in point.iterfind("a:LogEntry/a:LogEvent", _NAMES):
        if not 1 <= int(_text(event, "a:level") or 1) <= 5 or not 0 <= int(_text(event, "a:outcome") or 0) <= 2:
            yield "a log event's level or outcome is out of range"
    if is_closed and len(readings) < _READINGS_MIN.get(taf, 0):
        yield f"TAF-{taf}: {len(readings)} meter readings"
    derived = [each for each in readings if not _is_original(each)]
    if taf == 2:
        durations = {_text(block, "a:interval/a:duration")
                     for each in derived for block in each.iterfind("a:IntervalBlock", _NAMES)}  # fmt: skip
        if len(durations) > 1:
            yield "TAF-2: derived readings of different duration"
    if taf == 7 and derived:
        yield "TAF-7: a reading that is no list of original values"


def _certificates(point: Any) -> Iterator[str]:
    named = sorted(each.text for each in point.iterfind("a:SMGW/a:certId", _NAMES))
    there = sorted(_text(each, "a:certId") for each in point.iterfind("a:Certificate", _NAMES))
    if named != there:
        yield "the ids of the gateway's certificates are not those of the certificates"
    for each in point.iterfind("a:Certificate", _NAMES):
        if _text(each, "a:certType") not in {"1", "2", "3"}:
            yield "a certificate's type"
        try:
            x509.load_der_x509_certificate(bytes.fromhex(_text(each, "a:certContent")))
        except ValueError:
            yield "a certificate that is none"


def _reading(reading: Any) -> Iterator[str]:
    for path in ("a:meterReadingId", "a:Meter/a:meterId", "a:ReadingType/a:qualifiedLogicalName"):
        if not _text(reading, path).strip():
            yield f"{path} is missing"
    if not re.fullmatch(r"([0-9A-Fa-f]{2})+", _text(reading, "a:ReadingType/a:obisCode")):
        yield "obisCode is not hexadecimal"
    multiplier, unit = (_text(reading, f"a:ReadingType/e:{name}") for name in ("powerOfTenMultiplier", "uom"))
    if not re.fullmatch(r"-?\d+", multiplier) or int(multiplier) not in _MULTIPLIERS:
        yield "powerOfTenMultiplier"
    if not unit.isdecimal():
        yield "uom"
    spans = []
    for block in reading.iterfind("a:IntervalBlock", _NAMES):
        start, end = _interval(block.find("a:interval", _NAMES))
        if start is None or end is None:
            yield "a block's interval has no start or no duration"
            continue
        spans.append((start, end))
        if end - start > timedelta(days=_DAYS_MAX):
            yield f"a block of over {_DAYS_MAX} days"
        values = block.findall("a:IntervalReading", _NAMES)
        if not values:
            yield "a block without readings"
        for each in values:
            yield from _value(each, start, end)
    spans.sort()
    if any(end != start for (_, end), (start, _) in pairwise(spans)):
        yield "blocks with a gap or an overlap"


def _value(value: Any, start: datetime, end: datetime) -> Iterator[str]:
    moment, _ = _interval(value.find("a:timePeriod", _NAMES))
    if moment is None:
        yield "a reading's timePeriod has no start or no duration"
    elif not start <= moment <= end:
        yield "a reading outside its block"
    if not re.fullmatch(r"-?\d+", _text(value, "e:value")):
        yield "a reading without value"
    ptb, fnn = _text(value, "a:statusPTB"), _text(value, "a:statusFNN")
    if not fnn and ptb not in {"0", "1", "2", "3", "4"}:
        yield "a reading without a valid status"


def _interval(interval: Any) -> tuple[datetime | None, datetime | None]:
    duration, start = (_text(interval, f"a:{name}") for name in ("duration", "start"))
    if interval is None or not duration.isdecimal() or not start:
        return None, None
    begin = datetime.fromisoformat(start)
    return begin, begin + timedelta(seconds=int(duration))


def _is_original(reading: Any) -> bool:
    parts = _text(reading, "a:ReadingType/a:qualifiedLogicalName").split(".")
    return len(parts) == 3 and parts[1] == _text(reading, "a:Meter/a:meterId")


def _text(parent: Any, path: str) -> str:
    found = None if parent is None else parent.find(path, _NAMES)
    return "" if found is None else found.text or ""
