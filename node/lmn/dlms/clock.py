"""
COSEM's date_time: twelve bytes of which any may say "not specified" (DLMS UA 1000-1, 4.1.4.1).

The deviation is what has to be added to local time to get UTC, in minutes: Berlin in winter says -60.  A time with
it becomes an aware datetime, one without a naive one (the meter's local time, wherever that is): guessing a zone
would shift a bill by an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from protocol.errors import RemoteProtocolError

NOT_SPECIFIED: Final = 0xFF
DEVIATION_NOT_SPECIFIED: Final = -0x8000
YEAR_NOT_SPECIFIED: Final = 0xFFFF
STATUS_INVALID: Final = 0x01
STATUS_DAYLIGHT_SAVING: Final = 0x80


@dataclass(frozen=True, slots=True)
class CosemDateTime:
    """
    The fields as they are sent; 0xFF (year 0xFFFF, deviation -0x8000 minutes) means not specified.

    Month and day have special values too: 0xFD and 0xFE are ends of daylight saving, the last days of the month.
    """

    year: int
    month: int
    day: int
    weekday: int
    hour: int
    minute: int
    second: int
    hundredths: int = NOT_SPECIFIED
    deviation_min: int = DEVIATION_NOT_SPECIFIED
    status: int = NOT_SPECIFIED

    @classmethod
    def from_bytes(cls, data: bytes) -> CosemDateTime:
        """Twelve bytes.  Raises RemoteProtocolError for another length; every content is a date_time."""
        if len(data) != 12:
            raise RemoteProtocolError("dlms_date_time", f"a date_time has 12 bytes, not {len(data)}")
        deviation_min = int.from_bytes(data[9:11], "big", signed=True)
        month, day, weekday, hour, minute, second, hundredths = data[2:9]
        year = int.from_bytes(data[:2], "big")
        return cls(year, month, day, weekday, hour, minute, second, hundredths, deviation_min, data[11])

    def to_bytes(self) -> bytes:
        """Twelve bytes."""
        fields = (self.month, self.day, self.weekday, self.hour, self.minute, self.second, self.hundredths)
        deviation = self.deviation_min.to_bytes(2, "big", signed=True)
        return self.year.to_bytes(2, "big") + bytes(fields) + deviation + bytes((self.status,))

    @classmethod
    def from_datetime(cls, when: datetime) -> CosemDateTime:
        """From an aware datetime with its offset and daylight saving, or a naive one without."""
        offset = when.utcoffset()
        deviation = DEVIATION_NOT_SPECIFIED if offset is None else -int(offset.total_seconds()) // 60
        status = STATUS_DAYLIGHT_SAVING if when.dst() else 0
        return cls(
            when.year, when.month, when.day, when.isoweekday(), when.hour, when.minute, when.second,
            when.microsecond // 10_000, deviation, status,
        )  # fmt: skip

    @property
    def is_valid(self) -> bool:
        """Whether the meter vouches for it: no status, or one whose bit `invalid` is clear."""
        return self.status == NOT_SPECIFIED or not self.status & STATUS_INVALID

    def to_datetime(self) -> datetime | None:
        """
        The moment, if it is one: None while year, month, day, hour or minute are open or impossible, or the meter says
        that its time is invalid.

        Seconds and hundredths that are not specified count as zero.
        """
        if not self.is_valid:
            return None
        second = 0 if self.second == NOT_SPECIFIED else self.second
        microsecond = 0 if self.hundredths == NOT_SPECIFIED else self.hundredths * 10_000
        zone = None
        if self.deviation_min != DEVIATION_NOT_SPECIFIED:
            if abs(self.deviation_min) > 720:
                return None
            zone = timezone(timedelta(minutes=-self.deviation_min)) if self.deviation_min else UTC
        try:
            return datetime(self.year, self.month, self.day, self.hour, self.minute, second, microsecond, tzinfo=zone)
        except ValueError:
            return None
