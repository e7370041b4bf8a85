"""
Signed exports of the PPC interface: an XML document inside CMS SignedData.

Clients cut the document out of the message without reading ASN.1: it is one contiguous OCTET STRING, and its prefixes
are `ns1` and `ns2` as the device writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from xml.etree.ElementTree import Comment, Element, SubElement, tostring

from node.han.consumption import code_of
from node.han.facades.facade import is_valid
from node.han.facades.ppc_pages import level, outcome
from node.han.models import LogEntry, Meter, RegisterValue
from node.han.signing import logical_name
from protocol import cms
from protocol.cms.structures import DATA
from protocol.metering.obis import Obis

_NAMESPACES: Final = {
    "xmlns:ns1": "urn:k461-dke-de:profile_generic-1", "xmlns:ns2": "urn:k461-dke-de:extension-1",
}  # fmt: skip
_CONTAINER: Final = {
    "xmlns:klc": "urn:k461-dke-de:kaf_lmn_container-1", "xmlns:adevs": "urn:k461-dke-de:abstract_device_setup-1",
    "xmlns:ems": "urn:k461-dke-de:e_meter_sensor_setup-1", "xmlns:ns2": "urn:k461-dke-de:extension-1",
}  # fmt: skip
_VALUES: Final = Obis(1, 0, 99, 1, 0, 255)
_LOG: Final = Obis(0, 0, 99, 98, 3, 255)
_DEVICE: Final = "00000000e001"
_VALID, _INVALID = "0", "4"


def signed(document: Element, key: cms.SignatureKey) -> bytes:
    """The document inside SignedData, DER."""
    text = b'<?xml version="1.0" encoding="UTF-8"?>' + tostring(document, encoding="utf-8")
    return cms.sign(text, DATA, key)


def meter_values(
    meter: str, columns: Mapping[Obis, Sequence[RegisterValue]], signatures: Mapping[int, str]
) -> Element:  # fmt: skip
    """Registered values by register; `signatures` by `id` of the value."""
    root, attributes = _object(logical_name(_VALUES, meter))
    objects = SubElement(attributes, "ns1:capture_objects", count=str(len(columns)))
    for number, obis in enumerate(columns, 1):
        captured = SubElement(objects, "ns1:capture_object", id=str(number))
        _text(captured, "ns2:logical_name", logical_name(obis, meter))
    data = SubElement(SubElement(attributes, "ns1:buffer"), "ns1:simple_data")
    for number, values in enumerate(columns.values(), 1):
        column = SubElement(data, "ns1:column", id=str(number))
        for each in values:
            _add_value(SubElement(column, "ns1:entry_gateway_signed"), each, signatures.get(id(each), ""))
    return root


def meter_profile(meter: Meter) -> Element:
    """How a meter is read."""
    root = Element("klc:container", {"id": f"{_DEVICE[:-1]}0.{meter.id}.sm", **_CONTAINER})
    device = SubElement(root, "klc:e_meter_device_object", id=f"{_DEVICE}.{meter.id}.sm")
    attributes = SubElement(device, "ems:attributes")
    _text(attributes, "ns2:logical_name", f"{_DEVICE}.{meter.id}.sm")
    _text(attributes, "adevs:device_identifier", meter.id)
    _text(attributes, "adevs:active", "1")
    _text(attributes, "adevs:samplerate", str(meter.registration_period_s))
    values = SubElement(attributes, "ems:values", count=str(len(meter.registers)))
    for number, obis in enumerate(meter.registers, 1):
        _text(values, "ems:value", Obis.parse(obis).to_bytes().hex(), id=str(number))
    return root


def log_data(gateway: str, entries: Sequence[LogEntry]) -> Element:
    """The consumer's log."""
    root, attributes = _object(logical_name(_LOG, gateway))
    logbook = SubElement(SubElement(attributes, "ns1:buffer"), "ns1:logbook")
    for each in entries:
        entry = SubElement(logbook, "ns1:entry")
        _text(entry, "ns2:record_number", str(each.number))
        event = SubElement(entry, "ns2:event")
        _text(event, "ns2:timestamp", _time(each.at))
        _text(event, "ns2:level", level(each))
        _text(SubElement(event, "ns2:type"), "ns2:event_id", str(each.type))
        _text(event, "ns2:outcome", outcome(each))
        extensions = SubElement(event, "ns2:message_extensions", count="1")
        extensions.append(Comment("[Text]"))  # a template with places, then what goes there
        _text(extensions, "ns2:message_extension", each.german, id="1")
    return root


def _object(name: str) -> tuple[Element, Element]:
    root = Element("ns1:object", {**_NAMESPACES, "id": name})
    attributes = SubElement(root, "ns1:attributes")
    _text(attributes, "ns2:logical_name", name)
    return root, attributes


def _add_value(entry: Element, value: RegisterValue, signature: str) -> None:
    _text(SubElement(entry, "ns2:value"), "ns2:long64", value.value)
    _text(entry, "ns2:scaler", str(value.scaler))
    _text(entry, "ns2:unit", str(code_of(value.unit)))
    _text(entry, "ns2:capture_time", _time(value.registered_for or value.measured_at))
    _text(SubElement(entry, "ns2:status"), "ns2:unsigned", _VALID if is_valid(value) else _INVALID)
    _text(entry, "ns2:smgw_signature", signature)


def _text(parent: Element, name: str, text: str, **attributes: str) -> None:
    SubElement(parent, name, attributes).text = text


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
