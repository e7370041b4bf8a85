"""
Own data: CSV with a header `time,meter,W` and optional columns, one for each appliance (W), in any order of rows.

`time` is ISO 8601 (with an offset, or UTC) or seconds since 1970.  Every meter has the same slots, without a gap: a lab
that filled gaps would attack its own guesses.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np

from loadtest.lab.households import DAY_S, ON_W, Households
from protocol.errors import StromkreisError

_POWER_MAX_W = 1_000_000
_ROWS_MAX = 50_000_000
_APPLIANCES_MAX = 16
REQUIRED = ("time", "meter", "W")


def read_recordings(path: Path) -> Households:
    """
    The households of a file; presence is unknown.

    Raises StromkreisError with the line for what cannot be read, and for gaps, repetitions and negative loads.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _read(csv.DictReader(file), path.name)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StromkreisError(f"{path} cannot be read: {error}") from error


def _read(reader: csv.DictReader[str], name: str) -> Households:
    fields = list(reader.fieldnames or ())
    if missing := [each for each in REQUIRED if each not in fields]:
        raise StromkreisError(
            f"{name}: no column {', '.join(missing)}; expected the header time,meter,W and appliance columns in W"
        )
    appliances = tuple(each for each in fields if each not in REQUIRED)
    if len(appliances) > _APPLIANCES_MAX:
        raise StromkreisError(f"{name}: {len(appliances)} appliance columns; at most {_APPLIANCES_MAX}")
    found: dict[str, dict[int, tuple[float, ...]]] = {}
    for row in reader:
        where = f"{name}, line {reader.line_num}"
        if reader.line_num > _ROWS_MAX:
            raise StromkreisError(f"{name}: more than {_ROWS_MAX} lines; average the readings to a coarser resolution")
        slots = found.setdefault((row["meter"] or "").strip(), {})
        time_s = _time_s(row["time"], where)
        if time_s in slots:
            raise StromkreisError(f"{where}: a second reading of meter {row['meter']} at {row['time']}")
        slots[time_s] = tuple(_power_w(row[each], each, where) for each in ("W", *appliances))
    return _households(found, appliances, name)


def _time_s(text: str | None, where: str) -> int:
    try:
        if text and text.strip().lstrip("-").isdigit():
            return int(text)
        time = datetime.fromisoformat(text or "")
    except ValueError as error:
        raise StromkreisError(f"{where}: the time {text!r}; expected ISO 8601 or whole seconds since 1970") from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def _power_w(text: str | None, column: str, where: str) -> float:
    try:
        power_w = float(text or "")
    except ValueError as error:
        # The value itself is somebody's reading, also in a file of one's own: it is not repeated.
        raise StromkreisError(f"{where}: column {column} is no number; expected a power in W") from error
    if not 0 <= power_w <= _POWER_MAX_W:
        raise StromkreisError(f"{where}: column {column} is not in 0..{_POWER_MAX_W} W")
    return power_w


def _households(
    found: dict[str, dict[int, tuple[float, ...]]], appliances: Sequence[str], name: str
) -> Households:  # fmt: skip
    if not found:
        raise StromkreisError(f"{name}: no readings")
    names = tuple(sorted(found))
    times = sorted(found[names[0]])
    steps = {after - before for before, after in pairwise(times)}
    if len(steps) != 1:
        raise StromkreisError(
            f"{name}: meter {names[0]} has slots of {len(steps) or 'no'} different lengths; expected one, without gaps"
        )
    (slot_s,) = steps
    if DAY_S % slot_s or len(times) * slot_s < DAY_S:
        raise StromkreisError(
            f"{name}: {len(times)} slots of {slot_s} s; expected a length that divides a day, and a day or more"
        )
    for meter in names:
        if sorted(found[meter]) != times:
            raise StromkreisError(f"{name}: meter {meter} has other slots than meter {names[0]}; expected the same")
    table = np.array([[found[meter][time] for time in times] for meter in names])
    bits = np.array([1 << index for index in range(len(appliances))], np.uint16)
    on = ((table[:, :, 1:] >= ON_W) * bits).sum(axis=2).astype(np.uint16) if appliances else 0
    return Households(
        np.rint(table[:, :, 0]).astype(np.int64), np.broadcast_to(np.uint16(on), table.shape[:2]).copy(), None,
        tuple(appliances), slot_s, f"recorded, {name}", names,
    )  # fmt: skip


def write_recordings(households: Households, path: Path, start: datetime) -> None:
    """The same form, to try it and to give a sample away."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*REQUIRED, *households.appliances])
        start_s = round(start.timestamp())
        for household in range(households.count):
            meter = households.names[household] if households.names else f"meter-{household:05}"
            for slot in range(households.slots):
                bits = int(households.on[household, slot])
                # Which appliance ran is known, how much it drew is not kept: ON_W stands for "on".
                states = [round(ON_W) if bits >> index & 1 else 0 for index in range(len(households.appliances))]
                writer.writerow(
                    [start_s + slot * households.slot_s, meter, int(households.power_w[household, slot]), *states]
                )
