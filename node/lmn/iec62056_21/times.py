"""
Time stamps of meters in text.

DSMR ends a stamp with S or W (summer, winter), which fixes the offset from UTC.  A stamp without it is local time of
an unknown place: without a time zone from the meter profile it stays text, because an hour's error bills wrongly; so
does one in the hour that the end of summer time repeats, or that its beginning leaves out.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo

CENTRAL_EUROPE = timedelta(hours=1)  # standard time of the countries with DSMR meters

_STAMP = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)([SW]?)")
_MINUTE = re.compile(r"\d{10}")


def parse_stamp(
    text: str, *, standard_offset: timedelta = CENTRAL_EUROPE, zone: tzinfo | None = None
) -> datetime | None:
    """
    Read `YYMMDDhhmmssX`, X one of S, W; without X it needs `zone`, and seconds may be left out.  None where it is no
    time or an unfixed one.

    Meters without a valid reading send 632525252525S and the like, or the start of 1970: two digits mean 1970 to 2069.
    """
    text = text.strip()
    match = _STAMP.fullmatch(f"{text}00" if _MINUTE.fullmatch(text) else text)
    if match is None:
        return None
    fixed = {
        "S": timezone(standard_offset + timedelta(hours=1)),
        "W": timezone(standard_offset),
        "": zone,
    }[match[7]]
    if fixed is None:
        return None
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    try:
        when = datetime(year + (2000 if year < 70 else 1900), month, day, hour, minute, second, tzinfo=fixed)
    except ValueError:
        return None
    return when if when.utcoffset() == when.replace(fold=1).utcoffset() else None


def parse_clock(date: str, time: str, *, zone: tzinfo | None) -> datetime | None:
    """
    Join EDIS date 0.9.2 (YYMMDD) and time 0.9.1 (hhmmss), separators or not, a season digit in front or not.

    Source: VDEW-Lastenheft 2.1 table of identifiers.  None without a zone or where it is no time.
    """
    day, second = (re.sub(r"[^0-9]", "", part)[-6:] for part in (date, time))
    return parse_stamp(day + second, zone=zone)


def is_stamp(text: str) -> bool:
    """Whether the text has the form of a time stamp, fixed or not, valid or not."""
    return _STAMP.fullmatch(text.strip()) is not None


def is_minute(text: str) -> bool:
    """Whether the text has the form of a time stamp with or without its seconds; only for what can be no number."""
    return is_stamp(text) or _MINUTE.fullmatch(text.strip()) is not None
