"""
Query parameters of the HAN API (detailed specification 2.0, section 6.8, table 6.5; REQ.HTTP.QueryParameter.10).

The grammar is checked as it stands: no blank, no empty query, `+` is a plus.  A date alone is midnight of German legal
time, a date-time has an offset.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import unquote

from protocol.errors import RemoteProtocolError
from protocol.metering.obis import Obis
from protocol.profiles.calendar import LEGAL_TIME

DETACHED: Final = "CMS_ECDSA_SHA256_Detached"
NAMES: Final = ("q.fromtime", "q.totime", "q.type", "q.count", "q.obis", "q.level", "q.signed")
_QCHAR: Final = r"(?:[A-Za-z0-9\-._~/?:@!$'()*+,;]|%[0-9A-Fa-f]{2})"
_PARAMETER: Final = re.compile(rf"({_QCHAR}{{1,50}})=({_QCHAR}{{0,255}})")
_OBIS: Final = re.compile(r"\d{1,3}-\d{1,3}:\d{1,3}\.\d{1,3}\.\d{1,3}(\*\d{1,3})?")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d([Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d))?")
_QUERY_SIZE_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for; times are Unix seconds, None where they are not limited, `count` 0 for all."""

    from_s: int | None = None
    to_s: int | None = None
    type: str | None = None
    count: int = 0
    obis: Obis | None = None
    level: str | None = None
    is_signed: bool = False


def parse_query(text: str | None, allowed: Collection[str]) -> Query:
    """
    Read a query string, None where the target has no `?`.

    Raises RemoteProtocolError `bad_query`, which names the parameter: for grammar, a value that does not fit, a name
    that is unknown, comes twice or is none of `allowed`.
    """
    if text is None:
        return Query()
    if len(text) > _QUERY_SIZE_MAX:
        raise RemoteProtocolError("bad_query", f"{len(text)} characters, expected at most {_QUERY_SIZE_MAX}")
    found: dict[str, str] = {}
    for part in text.split("&"):
        match = _PARAMETER.fullmatch(part)
        if match is None:
            raise RemoteProtocolError(
                "bad_query", "expected name=value, 1 to 50 and 0 to 255 characters of section 6.8"
            )
        name = unquote(match[1])
        if name not in allowed:
            raise RemoteProtocolError("bad_query", f"expected one of {', '.join(allowed) or 'no parameters'}")
        if name in found:
            raise RemoteProtocolError("bad_query", f"{name} appears twice")
        found[name] = unquote(match[2])
    return Query(
        from_s=_time("q.fromtime", found), to_s=_time("q.totime", found), type=found.get("q.type"),
        count=_count(found.get("q.count", "0")), obis=_obis(found.get("q.obis")), level=_level(found.get("q.level")),
        is_signed=_is_signed(found.get("q.signed")),
    )  # fmt: skip


def _time(name: str, found: dict[str, str]) -> int | None:
    text = found.get(name)
    if text is None:
        return None
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=LEGAL_TIME)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        raise RemoteProtocolError("bad_query", f"{name}: expected a date or a date-time with its offset") from None
    return -int(-seconds // 1)  # up: what is stamped by whole seconds is inside from the next one on


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise RemoteProtocolError("bad_query", "q.count: expected a number")
    return int(text)


def _obis(text: str | None) -> Obis | None:
    if text is None:
        return None
    try:
        if not _OBIS.fullmatch(text):
            raise ValueError
        return Obis.parse(text)
    except ValueError:
        raise RemoteProtocolError("bad_query", "q.obis: expected the form A-B:C.D.E or A-B:C.D.E*F") from None


def _level(text: str | None) -> str | None:
    if text is not None and text not in {"I", "W", "E", "F"}:
        raise RemoteProtocolError("bad_query", "q.level: expected I, W, E or F")
    return text


def _is_signed(text: str | None) -> bool:
    if text is not None and text != DETACHED:
        raise RemoteProtocolError("bad_query", f"q.signed: expected {DETACHED}")
    return text is not None
