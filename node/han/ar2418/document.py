"""
The XML document of a file after VDE AR 2418-6, schema 1.4: elements in the order that the schema wants.

`powerOfTenMultiplier` knows no tenths, so it stays 0 and `scaler` says where the point is.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from node.han.ar2418.content import FileCertificate, FileValue, UsagePointFile, ValueList
from node.han.models import LogEntry
from protocol.metering.units import AMPERE, CUBIC_METRE, JOULE, VAR, VAR_HOUR, VOLT, WATT, WATT_HOUR

_AR: Final = "http://vde.de/AR_2418-6.xsd"
_ESPI: Final = "http://naesb.org/espi"
_UNITS: Final = {
    WATT_HOUR: 72, VAR_HOUR: 73, 31: 71, WATT: 38, VAR: 63, 28: 61, VOLT: 29, AMPERE: 5, 44: 33, CUBIC_METRE: 42,
    JOULE: 31,
}  # fmt: skip
"""From DLMS codes to those of ESPI (`UnitSymbolKind`); 0 is without unit."""
_LEVELS: Final = {"I": 1, "W": 2, "E": 3, "F": 4}
_SUCCESS, _FAILURE = 0, 1
_TEXT_SIZE_MAX: Final = 16_384
_SERVICES: Final = {1: 0, 5: 4, 6: 4, 7: 1, 8: 2, 9: 2}
"""From group A of OBIS codes to `ServiceKind`: electricity 0, gas 1, water 2, heat 4."""


def document(file: UsagePointFile) -> bytes:
    """The document, UTF-8."""
    root = Element("UsagePoints", {"xmlns": _AR, "xmlns:espi": _ESPI})
    point = SubElement(root, "UsagePoint")
    service = _SERVICES.get(file.lists[0].obis.a, 0) if file.lists else 0
    _add(SubElement(point, "espi:ServiceCategory"), "espi:kind", service)
    _add(point, "usagePointId", file.usage_point)
    _add(SubElement(point, "Customer"), "customerId", file.customer)
    _add(SubElement(point, "InvoicingParty"), "invoicingPartyId", file.invoicing_party)
    gateway = SubElement(point, "SMGW")
    for each in file.certificates:
        _add(gateway, "certId", each.id)
    _add(gateway, "smgwId", file.gateway)
    for each in file.certificates:
        _add_certificate(point, each)
    _add(point, "tariffName", file.tariff)
    for entry in file.log:
        _add_entry(point, entry)
    for values in file.lists:
        _add_list(point, values, file.certificates[0].id if file.certificates else None)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + bytes(tostring(root, encoding="utf-8"))


def _add_certificate(point: Element, certificate: FileCertificate) -> None:
    made = SubElement(point, "Certificate")
    _add(made, "certId", certificate.id)
    _add(made, "certType", int(certificate.type))
    if certificate.parent is not None:
        _add(made, "parentCertId", certificate.parent)
    _add(made, "certContent", certificate.der.hex())


def _add_entry(point: Element, entry: LogEntry) -> None:
    made = SubElement(point, "LogEntry")
    _add(made, "recordNumber", entry.number)
    event = SubElement(made, "LogEvent")
    _add(event, "level", _LEVELS[entry.level])
    _add(event, "text", entry.german[:_TEXT_SIZE_MAX])
    _add(event, "outcome", _SUCCESS if entry.level == "I" else _FAILURE)
    _add(event, "timestamp", _time(entry.at))


def _add_list(point: Element, values: ValueList, signer: int | None) -> None:
    reading = SubElement(point, "MeterReading")
    _add(SubElement(reading, "Meter"), "meterId", values.meter)
    _add(reading, "meterReadingId", values.id)
    kind = SubElement(reading, "ReadingType")
    _add(kind, "espi:powerOfTenMultiplier", 0)
    _add(kind, "espi:uom", _UNITS.get(values.unit, 0))
    _add(kind, "scaler", values.scaler)
    _add(kind, "obisCode", values.obis.to_bytes().hex())
    _add(kind, "qualifiedLogicalName", values.name)
    if values.period_s is not None:
        _add(kind, "measurementPeriod", values.period_s)
    if not values.values:
        return
    block = SubElement(reading, "IntervalBlock")
    # A value that was measured a moment after the end it counts for lies inside, too.
    start = min(values.start, *(each.start for each in values.values)).replace(microsecond=0)
    end = max(values.end, *(each.start + timedelta(seconds=each.duration_s) for each in values.values))
    _add_interval(SubElement(block, "interval"), start, ceil((end - start).total_seconds()))
    for each in values.values:
        _add_value(SubElement(block, "IntervalReading"), each, signer)


def _add_value(reading: Element, value: FileValue, signer: int | None) -> None:
    _add(reading, "espi:value", value.value)
    _add_interval(SubElement(reading, "timePeriod"), value.start, value.duration_s)
    if value.target is not None:
        _add(reading, "targetTime", _time(value.target))
    if value.signature:
        if signer is not None:
            _add(reading, "certId", signer)
        _add(reading, "signature", value.signature.hex())
    _add(reading, "statusPTB", int(value.status))
    if value.status_words:
        _add(reading, "statusVendor", value.status_words)


def _add_interval(interval: Element, start: datetime, duration_s: int) -> None:
    _add(interval, "duration", duration_s)
    _add(interval, "start", _time(start))


def _add(parent: Element, name: str, content: str | int) -> None:
    SubElement(parent, name).text = str(content)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
