"""What `stromkreis sniff` shows on a terminal: the latest reading of each register, and the faults by reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading
from protocol.metering.units import unit_symbol

ROWS_MAX = 500
_ROOM = {"register": 14, "value": 12}
_PRESENT = {"function": "instantaneous", "storage": 0, "tariff": 0, "subunit": 0}  # what goes without saying


class ReadingTable:
    """
    The latest reading of each register, how often it came, and the faults by reason; at most ROWS_MAX registers.

    `advice` says what to try for a reason; that for the latest fault stands below the table.
    """

    def __init__(self, advice: Callable[[str], str] = lambda _reason: "") -> None:
        self._advice = advice
        self._latest = ""
        self._rows: dict[tuple[str, str], tuple[Reading, int]] = {}
        self._faults: dict[str, int] = {}
        self._left_out = 0
        self.reading_count = 0

    def add(self, item: Reading | RemoteProtocolError) -> None:
        """Take what the codec gave."""
        if isinstance(item, RemoteProtocolError):
            self._faults[item.reason] = self._faults.get(item.reason, 0) + 1
            self._latest = f"{item}"
            if tried := self._advice(item.reason):
                self._latest += f"\n{tried}"
            return
        self.reading_count += 1
        name = _named(item.record) if item.obis is None else str(item.obis).removesuffix("*255")
        row = (item.device, name)
        if row in self._rows or len(self._rows) < ROWS_MAX:
            self._rows[row] = (item, self._rows[row][1] + 1 if row in self._rows else 1)
        else:
            self._left_out += 1

    def table(self) -> Table:
        """The table as a table."""
        faults = ", ".join(f"{reason} {count}" for reason, count in sorted(self._faults.items()))
        left_out = f"; {self._left_out} readings beyond {ROWS_MAX} registers are not shown" if self._left_out else ""
        latest = escape(f"\nlatest: {self._latest}") if self._latest else ""
        table = Table(
            title="Ctrl-C ends", caption=f"faults: {faults or 'none'}{left_out}{latest}", box=box.SIMPLE, pad_edge=False
        )
        for column in ("device", "register", "value", "unit", "at", "quality", "n"):
            justify: Literal["left", "right"] = "right" if column in {"value", "n"} else "left"
            room = _ROOM.get(column)  # long texts fold; nothing is cut
            table.add_column(column, justify=justify, no_wrap=room is None, min_width=room, overflow="fold")
        for (device, name), (reading, count) in self._rows.items():
            unit = str(reading.record.get("unit", "")) if reading.unit is None else unit_symbol(reading.unit)
            when = reading.measured_at if reading.measured_at is not None else reading.meter_seconds
            table.add_row(device, name, _value(reading), unit, _moment(when), reading.quality.value, str(count))
        return table


def _named(record: Mapping[str, Any]) -> str:
    """A record without OBIS code in a few words; what changes from telegram to telegram is no part of its name."""
    if "quantity" not in record:
        return json.dumps(dict(record), default=str)
    told = [str(record["quantity"]), *map(str, record.get("modifiers", ()))]
    for part, usual in _PRESENT.items():
        value = record.get(part, usual)
        if value != usual:
            told.append(str(value) if part == "function" else f"{part} {value}")
    if "month" in record:
        told.append(str(record["month"]))
    return ", ".join(told)


def _moment(when: datetime | int | None) -> str:
    """The meter's time of today, the date of another day, or its seconds."""
    if not isinstance(when, datetime):
        return "" if when is None else str(when)
    return f"{when:%H:%M:%S}" if when.date() == datetime.now(when.tzinfo).date() else f"{when:%Y-%m-%d}"


def _value(reading: Reading) -> str:
    if isinstance(reading.value, int):
        return f"{reading.decimal():f}"
    return reading.value.hex() if isinstance(reading.value, bytes) else str(reading.value or "")
