"""
Time stamps of meters in text.

DSMR ends a stamp with S or W (summer, winter), which fixes the offset from UTC.  A stamp without it is local time of
an unknown place: without a time zone from the meter profile it is a time without an offset, which may be shown and not
billed.  One in the hour that the end of summer time repeats, or that its beginning leaves out, is no time.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo

CENTRAL_EUROPE = timedelta(hours=1)  # standard time of the countries with DSMR meters

_STAMP = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)([SW]?)")
_MINUTE = re.compile(r"\d{10}")
_WRITTEN = re.compile(r"(\d{4})(-?)(\d\d)\2(\d\d)[ T](\d\d):(\d\d)(?::(\d\d))?")  # NES, Norax: date, time of day


def parse_stamp(
    text: str, *, standard_offset: timedelta = CENTRAL_EUROPE, zone: tzinfo | None = None
) -> datetime | None:
    """
    Read `YYMMDDhhmmssX`, X one of S, W or nothing, or `YYYY-MM-DD hh:mm:ss` with or without its hyphens; seconds may be
    left out.  Without X the time is in `zone`, and has no offset where that is None.  None where it is no time.

    Meters without a valid reading send 632525252525S and the like, or the start of 1970: two digits mean 1970 to 2069.
    """
    text = text.strip()
    season = ""
    if (written := _WRITTEN.fullmatch(text)) is not None:
        year, month, day, hour, minute, second = (int(written[i] or 0) for i in (1, 3, 4, 5, 6, 7))
    elif (match := _STAMP.fullmatch(f"{text}00" if _MINUTE.fullmatch(text) else text)) is not None:
        year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
        year += 2000 if year < 70 else 1900
        season = match[7]
    else:
        return None
    fixed = {
        "S": timezone(standard_offset + timedelta(hours=1)),
        "W": timezone(standard_offset),
        "": zone,
    }[season]
    try:
        when = datetime(year, month, day, hour, minute, second, tzinfo=fixed)
    except ValueError:
        return None
    return when if is_unambiguous(when) else None


def is_unambiguous(when: datetime) -> bool:
    """Whether a local time is there once: summer time's end repeats an hour, and its beginning leaves one out."""
    return when.utcoffset() == when.replace(fold=1).utcoffset()


def parse_clock(date: str, time: str, *, zone: tzinfo | None) -> datetime | None:
    """
    Join EDIS date 0.9.2 (YYMMDD) and time 0.9.1 (hhmmss), separators or not, a season digit in front or not.

    Source: VDEW-Lastenheft 2.1 table of identifiers.  Without a zone the time has no offset; None where it is none.
    """
    day, second = (re.sub(r"[^0-9]", "", part)[-6:] for part in (date, time))
    return parse_stamp(day + second, zone=zone)


def is_stamp(text: str) -> bool:
    """Whether the text has the form of a time stamp, fixed or not, valid or not."""
    return _STAMP.fullmatch(text.strip()) is not None or _WRITTEN.fullmatch(text.strip()) is not None


def is_minute(text: str) -> bool:
    """Whether the text has the form of a time stamp with or without its seconds; only for what can be no number."""
    return is_stamp(text) or _MINUTE.fullmatch(text.strip()) is not None
