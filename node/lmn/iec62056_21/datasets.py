"""
The lines of a readout: `address(value*unit)(value)...`, and what EDIS and OBIS make of the address.

Heat meters put several sets on one line, DSMR 2 puts a profile's values on a line of their own, old EDIS addresses
leave out A, B and E and name C (and for the error register D) by letter.  `&` before F says that a person, not the
meter's clock, closed the billing period.  Source: IEC 62056-21 clause 6.5, DLMS UA 1000-1 clause 7 (reduced codes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis

_SET = re.compile(r"(?P<address>[^()\r\n]*)(?P<values>(?:\([^()\r\n]*\))+)")
_VALUE = re.compile(r"\(([^()]*)\)")
_ADDRESS = re.compile(
    r"(?:(?P<a>\d{1,3})-(?P<b>\d{1,3}):)?(?P<c>\d{1,3}|[CFLP])\.(?P<d>\d{1,3}|F)"
    r"(?:\.(?P<e>\d{1,3}))?(?:(?P<mark>[*&.])(?P<f>\d{1,3}))?"
)
_LETTERS = {"C": 96, "F": 97, "L": 98, "P": 99}
DATA_SETS_MAX = 4096


@dataclass(slots=True)
class DataSet:
    """
    One address and its values as they were sent: text and the unit's text, if there was a `*`.

    `is_heat` says that the address is a heat meter's code, which means nothing as an OBIS code.
    """

    address: str
    values: list[tuple[str, str | None]]
    obis: Obis | None
    manual_reset: bool
    is_heat: bool = False


def parse_address(text: str, *, medium: int = 1) -> tuple[Obis | None, bool]:
    """The OBIS code of an address (None if it is none) and whether `&` marks a manual reset."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        return None, False
    c = _LETTERS.get(match["c"]) or int(match["c"])
    d = _LETTERS.get(match["d"]) or int(match["d"])
    code = (int(match["a"] or medium), int(match["b"] or 0), c, d, int(match["e"] or 0), int(match["f"] or 255))
    return (Obis(*code) if max(code) <= 255 else None), match["mark"] == "&"


def data_sets(body: str, *, medium: int = 1) -> Iterator[DataSet | RemoteProtocolError]:
    """
    The data sets of a readout's body, in order; a line that is none gives an error with its offset in the body.

    A line of values without an address continues the set before it.
    """
    last: DataSet | None = None
    offset = count = 0
    for line in body.split("\n"):
        at, text = 0, line.rstrip("\r")
        while text[at:].strip():
            match = _SET.match(text, at)
            count += 1
            if match is None or count > DATA_SETS_MAX or (not match["address"].strip() and last is None):
                yield RemoteProtocolError("malformed_line", "expected address(value)", offset=offset + at)
                break
            at = match.end()
            values = [_split(value) for value in _VALUE.findall(match["values"])]
            address = match["address"].strip()
            if not address and last is not None:
                last.values += values
                continue
            if last is not None:
                yield last
            last = DataSet(address, values, *parse_address(address, medium=medium))
        offset += len(line) + 1
    if last is not None:
        yield last


def _split(value: str) -> tuple[str, str | None]:
    number, star, unit = value.partition("*")
    return (number, unit) if star else (value, None)
