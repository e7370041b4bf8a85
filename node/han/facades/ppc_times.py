"""Times in forms of the PPC interface: German legal time, `YYYY-MM-DD` or `YYYY-MM-DD HH:MM:SS`, both ends included."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from protocol.errors import RemoteProtocolError
from protocol.profiles.calendar import LEGAL_TIME


def span_of(form: Mapping[str, str]) -> tuple[int | None, int | None]:
    """
    From `from` up to and without a second after `to` (Unix, s); None where they are missing.

    A date alone as `to` is the whole day.  Raises RemoteProtocolError `bad_time`.
    """
    begin, end = _local(form.get("from")), _local(form.get("to"), is_end=True)
    # Of an hour that comes twice the first one begins a span and the second one ends it.
    from_s = None if begin is None else int(begin.replace(tzinfo=LEGAL_TIME, fold=0).timestamp())
    to_s = None if end is None else int(end.replace(tzinfo=LEGAL_TIME, fold=1).timestamp()) + 1
    return from_s, to_s


def _local(text: str | None, *, is_end: bool = False) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text.replace("T", " "))
    except ValueError:
        found = None
    if found is None or found.tzinfo is not None or not 1970 < found.year < 2200:
        raise RemoteProtocolError("bad_time", "from, to: expected 2026-11-30 or 2026-11-30 12:00:00")
    return found + timedelta(hours=23, minutes=59, seconds=59) if is_end and len(text) == 10 else found
