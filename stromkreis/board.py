"""What `stromkreis sniff` shows on a terminal: the latest reading of each register, and the faults by reason."""

from __future__ import annotations

import json

from rich.table import Table

from protocol.errors import RemoteProtocolError
from protocol.metering.reading import Reading
from protocol.metering.units import unit_symbol

ROWS_MAX = 500


class Board:
    """The latest reading of each register, how often it came, and the faults by reason; at most ROWS_MAX registers."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[Reading, int]] = {}
        self._faults: dict[str, int] = {}
        self.reading_count = 0

    def add(self, item: Reading | RemoteProtocolError) -> None:
        """Take what the codec gave."""
        if isinstance(item, RemoteProtocolError):
            self._faults[item.reason] = self._faults.get(item.reason, 0) + 1
            return
        self.reading_count += 1
        name = str(item.obis) if item.obis is not None else json.dumps(dict(item.record), default=str)
        row = (item.device, name)
        if row in self._rows or len(self._rows) < ROWS_MAX:
            self._rows[row] = (item, self._rows[row][1] + 1 if row in self._rows else 1)

    def table(self) -> Table:
        """The board as a table."""
        faults = ", ".join(f"{reason} {count}" for reason, count in sorted(self._faults.items()))
        table = Table(title="Ctrl-C ends", caption=f"faults: {faults or 'none'}")
        for column in ("device", "register", "value", "unit", "meter's time", "quality", "count"):
            table.add_column(column, justify="right" if column in {"value", "count"} else "left")
        for (device, name), (reading, count) in self._rows.items():
            unit = str(reading.record.get("unit", "")) if reading.unit is None else unit_symbol(reading.unit)
            when = reading.measured_at if reading.measured_at is not None else reading.meter_seconds
            moment = "" if when is None else str(when)
            table.add_row(device, name, _value(reading), unit, moment, reading.quality.value, str(count))
        return table


def _value(reading: Reading) -> str:
    if isinstance(reading.value, int):
        return f"{reading.decimal():f}"
    return reading.value.hex() if isinstance(reading.value, bytes) else str(reading.value or "")
