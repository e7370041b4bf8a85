"""
What a use case derived in a billing period, as COSEM objects in one container.

The container (annex II to BSI TR-03109-1, section 8.2.16) has the delivery's id; in it is one logical device: the
gateway, or a pseudonym.  Its objects are registers (class 3), a load profile (class 7, version 1) for values with
times, and one Data object (class 1) that says which period of which profile it is.  The schemas in [XSD-COR] and the
object lists of use cases are not public: elements follow the text of the annex, and the Data object with its logical
name 0-0:96.200.0*255 (group D 200: manufacturer specific) is our reading, as is 0-0:96.201.0*255 beside it: an array of
what has a time, a unit or a meaning of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, register_namespace, tostring

from protocol.cosem.data import (
    OBJECTS,
    TYPES,
    add_boolean,
    add_list,
    add_null,
    add_number,
    add_octets,
    add_text,
    add_time,
    bad_document,
    moment_of,
    value_of,
)
from protocol.metering.obis import Obis

CONTENT_TYPE: Final = "application/vnd.de-dke-k461-cosem+xml;encap=cms-tr03109"
"""Of a message with such a document (annex II, section 7.3.1.1)."""
EVENT: Final = "event"
"""Subject of a value of TAF 10 that has passed a limit."""
DELIVERY_ID: Final = re.compile(r"[0-9a-f]{32}")
DOCUMENT_SIZE_MAX: Final = 16 << 20
_ROWS_MAX: Final = 200_000
_PERIOD: Final = Obis(0, 0, 96, 200, 0, 255)
_DETAILS: Final = Obis(0, 0, 96, 201, 0, 255)
_CLOCK: Final = Obis(0, 0, 1, 0, 0, 255)
_DATA, _REGISTER, _PROFILE_GENERIC, _CLOCK_CLASS = 1, 3, 7, 8
_CONTENT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Row:
    """A register at a registration time (Unix, s): mantissa, whether fit for billing, the meter's status word."""

    at_s: int
    value: int = field(repr=False)
    is_valid: bool = True
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Detail:
    """
    A value that is neither a derived register nor a value at a registration time.

    `value`·10^`scaler` `unit` of the register `obis`, measured at `at_ms` (Unix, ms), or over [`at_ms`, `until_ms`);
    what it says of `subject` stands in `what`: of TAF 8 `largest` or `smallest`; of TAF 9 `present`; of TAF 10
    `present`, or where the value lies (`inside`, `low`, `high`), with the subject `event` where it has just come there;
    of TAF 11 `limited` and `off`, then `before` and `after`, with the system as subject; of TAF 12 the standing
    (`enough`, `low`, `used-up`) with the credit, and `paid`.
    """

    what: str
    subject: str
    obis: Obis
    scaler: int
    unit: int
    at_ms: int
    until_ms: int
    value: int = field(repr=False)
    is_valid: bool = True
    status: int | None = None


@dataclass(frozen=True, slots=True)
class PeriodResult:
    """
    Billing period [`start_s`, `end_s`] (Unix, s) of a processing profile.

    `registers` are derived energies by OBIS code, mantissas at `scaler` in `unit` (DLMS code); `rows` values of the
    register `obis` itself.  `metering_point` is empty in a pseudonymous delivery.  `derivation` is a set of bits
    (node.taf.series).
    """

    profile: str
    taf: int
    metering_point: str
    obis: Obis
    scaler: int
    unit: int
    period_s: int
    start_s: int
    end_s: int
    is_complete: bool
    is_billable: bool
    derivation: int = 0
    registers: tuple[tuple[Obis, int], ...] = field(default=(), repr=False)
    rows: tuple[Row, ...] = field(default=(), repr=False)
    details: tuple[Detail, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A result under way: `id` has 32 hexadecimal digits, `sender` is `canonical_name` of a gateway, or a pseudonym."""

    id: str
    sender: str
    result: PeriodResult

    def to_xml(self) -> bytes:
        """The document, UTF-8."""
        register_namespace("", OBJECTS)
        register_namespace("cod", TYPES)
        container = Element(_tag("container"), id=self.id)
        devices = SubElement(container, _tag("ldevs"), count="1")
        device = SubElement(devices, _tag("ldev"), id=self.sender.encode().hex())
        result = self.result
        objects = SubElement(device, _tag("objects"), count=str(_object_count(result)))
        _add_period(objects, result)
        for obis, value in result.registers:
            attributes = _add_object(objects, _REGISTER, 0, obis, 3)
            add_number(_attribute(attributes, 2), "long64", value)
            _add_unit(_attribute(attributes, 3), result)
        if result.rows:
            _add_rows(objects, result)
        if result.details:
            _add_details(objects, result)
        return b'<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(container)

    @classmethod
    def from_xml(cls, document: bytes) -> Delivery:
        """
        Read a document.

        Raises RemoteProtocolError `bad_cosem`, which names what does not fit and no value.
        """
        if len(document) > DOCUMENT_SIZE_MAX:
            raise bad_document(f"{len(document)} octets, expected at most {DOCUMENT_SIZE_MAX}")
        if b"<!" in document:  # entities could make a small document a large one
            raise bad_document("a document type declaration or a comment")
        try:
            container = fromstring(document)  # noqa: S314 - no declarations, and of bounded size
            devices = container.findall(f"{_tag('ldevs')}/{_tag('ldev')}")
            if container.tag != _tag("container") or len(devices) != 1:
                raise bad_document("expected one container with one logical device")
            name, sender = container.get("id", ""), bytes.fromhex(devices[0].get("id", "")).decode("ascii")
            found = [_Object(each) for each in devices[0].iterfind(f"{_tag('objects')}/{_tag('object')}")]
            if DELIVERY_ID.fullmatch(name) is None or not re.fullmatch(r"[a-z0-9-]{1,63}(\.sm)?", sender):
                raise bad_document("container, ldev: expected the ids of a delivery and of a device")
            return cls(name, sender, _result(found))
        except (ParseError, ValueError, TypeError, IndexError, KeyError, StopIteration, RecursionError):
            raise bad_document("not a container of a delivery (annex II, section 8.2)") from None


def canonical_name(gateway: str) -> str:
    """A gateway's id as a logical device: DIN 43863-5 in small letters (annex II, section 6.1, table 3)."""
    return f"{gateway.lower()}.sm"


def _object_count(result: PeriodResult) -> int:
    return 1 + len(result.registers) + bool(result.rows) + bool(result.details)


def _tag(name: str) -> str:
    return f"{{{OBJECTS}}}{name}"


def _add_object(objects: Element, class_id: int, version: int, obis: Obis, count: int) -> Element:
    made = SubElement(
        objects, _tag("object"), {"class-id": str(class_id), "version": str(version), "id": obis.to_bytes().hex()}
    )
    attributes = SubElement(made, _tag("attributes"), count=str(count))
    add_octets(_attribute(attributes, 1), obis.to_bytes())
    return attributes


def _attribute(attributes: Element, index: int) -> Element:
    return SubElement(attributes, _tag("attribute"), id=str(index))


def _add_unit(attribute: Element, result: PeriodResult) -> None:
    unit = add_list(attribute, "structure")
    add_number(unit, "integer", result.scaler)
    add_number(unit, "enum", result.unit)


def _add_period(objects: Element, result: PeriodResult) -> None:
    period = add_list(_attribute(_add_object(objects, _DATA, 0, _PERIOD, 2), 2), "structure")
    add_number(period, "unsigned", _CONTENT_VERSION)
    add_text(period, result.profile)
    add_number(period, "unsigned", result.taf)
    add_text(period, result.metering_point)
    add_octets(period, result.obis.to_bytes())
    add_number(period, "integer", result.scaler)
    add_number(period, "enum", result.unit)
    add_number(period, "double-long-unsigned", result.period_s)
    add_time(period, result.start_s)
    add_time(period, result.end_s)
    add_boolean(period, result.is_complete)
    add_boolean(period, result.is_billable)
    add_number(period, "double-long-unsigned", result.derivation)


def _add_rows(objects: Element, result: PeriodResult) -> None:
    attributes = _add_object(objects, _PROFILE_GENERIC, 1, result.obis, 4)
    buffer = add_list(_attribute(attributes, 2), "array")
    for each in result.rows:
        row = add_list(buffer, "structure")
        add_time(row, each.at_s)
        add_number(row, "long64", each.value)
        add_boolean(row, each.is_valid)
        if each.status is None:
            add_null(row)
        else:
            add_number(row, "long64-unsigned", each.status)
    columns = add_list(_attribute(attributes, 3), "array")
    for class_id, obis, attribute in ((_CLOCK_CLASS, _CLOCK, 2), (_REGISTER, result.obis, 2)):
        column = add_list(columns, "structure")
        add_number(column, "long-unsigned", class_id)
        add_octets(column, obis.to_bytes())
        add_number(column, "integer", attribute)
        add_number(column, "long-unsigned", 0)
    add_number(_attribute(attributes, 4), "double-long-unsigned", result.period_s)


def _add_details(objects: Element, result: PeriodResult) -> None:
    array = add_list(_attribute(_add_object(objects, _DATA, 0, _DETAILS, 2), 2), "array")
    for each in result.details:
        detail = add_list(array, "structure")
        add_text(detail, each.what)
        add_text(detail, each.subject)
        add_octets(detail, each.obis.to_bytes())
        add_number(detail, "integer", each.scaler)
        add_number(detail, "enum", each.unit)
        add_number(detail, "long64-unsigned", each.at_ms)
        add_number(detail, "long64-unsigned", each.until_ms)
        add_number(detail, "long64", each.value)
        add_boolean(detail, each.is_valid)
        if each.status is None:
            add_null(detail)
        else:
            add_number(detail, "long64-unsigned", each.status)


class _Object:
    """One object of a document: class, logical name, attributes by index, read where they are asked for."""

    def __init__(self, element: Element) -> None:
        self.class_id = int(element.get("class-id", ""))
        self.obis = Obis.from_bytes(bytes.fromhex(element.get("id", "")))
        self._attributes = {
            int(each.get("id", "")): each for each in element.iterfind(f"{_tag('attributes')}/{_tag('attribute')}")
        }

    def value(self, index: int) -> Any:
        (element,) = self._attributes[index]
        return value_of(element)


def _result(objects: list[_Object]) -> PeriodResult:
    period = next(each for each in objects if (each.class_id, each.obis) == (_DATA, _PERIOD))
    version, profile, taf, point, obis, scaler, unit, period_s, start, end, complete, billable, derivation = (
        period.value(2)
    )
    if version != _CONTENT_VERSION:
        raise bad_document(f"period: content version {version}, expected {_CONTENT_VERSION}")
    rows: list[Row] = []
    for each in objects:
        if each.class_id == _PROFILE_GENERIC:
            buffer = each.value(2)
            if len(buffer) > _ROWS_MAX:
                raise bad_document(f"a load profile of over {_ROWS_MAX} values")
            rows += [Row(moment_of(at), value, valid, status) for at, value, valid, status in buffer]
    registers = tuple((each.obis, each.value(2)) for each in objects if each.class_id == _REGISTER)
    details = _details(objects)
    numbers = [taf, scaler, unit, period_s, derivation, *(value for _, value in registers)]
    for row in rows:
        numbers += [row.value, 0 if row.status is None else row.status]
    for detail in details:
        numbers += [detail.scaler, detail.unit, detail.at_ms, detail.until_ms, detail.value, detail.status or 0]
    flags = [complete, billable, *(each.is_valid for each in rows), *(each.is_valid for each in details)]
    texts = [profile, point, *(text for each in details for text in (each.what, each.subject))]
    if not (
        all(type(each) is int for each in numbers)
        and all(type(each) is bool for each in flags)
        and all(type(each) is str for each in texts)
    ):
        raise bad_document("a value has another data type than it should")
    return PeriodResult(
        profile, taf, point, Obis.from_bytes(obis), scaler, unit, period_s, moment_of(start), moment_of(end),
        is_complete=complete, is_billable=billable, derivation=derivation, registers=registers, rows=tuple(rows),
        details=details,
    )  # fmt: skip


def _details(objects: list[_Object]) -> tuple[Detail, ...]:
    found = [each.value(2) for each in objects if (each.class_id, each.obis) == (_DATA, _DETAILS)]
    if sum(map(len, found)) > _ROWS_MAX:
        raise bad_document(f"over {_ROWS_MAX} details")
    return tuple(
        Detail(what, subject, Obis.from_bytes(obis), *numbers)
        for rows in found
        for what, subject, obis, *numbers in rows
    )  # fmt: skip
