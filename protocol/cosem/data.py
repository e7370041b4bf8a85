"""
The COSEM data types as XML elements, and date-time.

Names and ranges are those of the schema urn:k461-dke-de:cod-1 (annex II to BSI TR-03109-1, section 8.3); a date-time
has the twelve octets of DLMS UA 1000-1 (Blue Book, section 4.1.6.1), always in UTC here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement

from protocol.errors import RemoteProtocolError

OBJECTS: Final = "urn:k461-dke-de:cor-1"
TYPES: Final = "urn:k461-dke-de:cod-1"
_BITS: Final = {
    "integer": (8, True), "long": (16, True), "double-long": (32, True), "long64": (64, True),
    "unsigned": (8, False), "long-unsigned": (16, False), "double-long-unsigned": (32, False),
    "long64-unsigned": (64, False), "enum": (8, False),
}  # fmt: skip
_DATE_TIME_SIZE: Final = 12


def bad_document(detail: str) -> RemoteProtocolError:
    """The error for a document that does not fit; it names elements and never what they hold."""
    return RemoteProtocolError("bad_cosem", detail)


def add_number(parent: Element, kind: str, value: int) -> None:
    """Append an integer type.  Raises OverflowError for a value that the type does not hold."""
    bits, signed = _BITS[kind]
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    if not low <= value < high:
        raise OverflowError(f"a number does not fit {kind}")
    SubElement(parent, f"{{{TYPES}}}{kind}").text = str(value)


def add_text(parent: Element, value: str) -> None:
    """Append a visible-string."""
    SubElement(parent, f"{{{TYPES}}}visible-string").text = value


def add_octets(parent: Element, value: bytes) -> None:
    """Append an octet-string."""
    SubElement(parent, f"{{{TYPES}}}octet-string").text = value.hex()


def add_boolean(parent: Element, value: bool) -> None:
    """Append a boolean."""
    SubElement(parent, f"{{{TYPES}}}boolean").text = "true" if value else "false"


def add_time(parent: Element, moment_s: int) -> None:
    """Append a date_time (Unix, s)."""
    SubElement(parent, f"{{{TYPES}}}date_time").text = date_time(moment_s).hex()


def add_null(parent: Element) -> None:
    """Append null-data."""
    SubElement(parent, f"{{{TYPES}}}null-data")


def add_list(parent: Element, kind: str) -> Element:
    """Append an array or a structure, and return it."""
    return SubElement(parent, f"{{{TYPES}}}{kind}")


def date_time(moment_s: int) -> bytes:
    """Twelve octets of a moment (Unix, s) in UTC: deviation 0, hundredths not specified, no status."""
    moment = datetime.fromtimestamp(moment_s, UTC)
    head = moment.year.to_bytes(2, "big")
    return head + bytes(
        (moment.month, moment.day, moment.isoweekday(), moment.hour, moment.minute, moment.second, 0xFF, 0, 0, 0)
    )


def moment_of(octets: bytes) -> int:
    """Inverse of `date_time`.  Raises RemoteProtocolError `bad_cosem` for any other form."""
    if len(octets) != _DATE_TIME_SIZE or octets[9:11] != b"\0\0":
        raise bad_document("date_time: expected twelve octets in UTC")
    year, (month, day, _, hour, minute, second) = int.from_bytes(octets[:2], "big"), octets[2:8]
    try:
        return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError:
        raise bad_document("date_time: no such moment") from None


def value_of(element: Element) -> Any:
    """
    What an element of the data types holds: int, bool, str, bytes, None, or a list; a date_time is its octets.

    Raises RemoteProtocolError `bad_cosem`.
    """
    kind = element.tag.removeprefix(f"{{{TYPES}}}")
    text = element.text or ""
    if kind in {"array", "structure"}:
        return [value_of(each) for each in element]
    if len(element):
        raise bad_document(f"{kind[:40]}: an element inside a value")
    try:
        match kind:
            case "octet-string" | "date_time":
                return bytes.fromhex(text)
            case "visible-string":
                return text
            case "boolean":
                return {"true": True, "1": True, "false": False, "0": False}[text]
            case "null-data":
                return None
            case _:
                bits, signed = _BITS[kind]
                value = int(text)
                value.to_bytes(bits // 8, "big", signed=signed)
                return value
    except (ValueError, KeyError, OverflowError):
        raise bad_document(f"{kind[:40]}: expected a data type of annex II, section 8.3, and a value of it") from None
