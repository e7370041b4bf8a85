"""
The meter list: which simulated meter is where, and what a gateway must know to read it.

It is written when all of them listen, under another name first: who finds it can use all of it.  It holds the meters'
keys, so it is its owner's to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from loadtest.meters.clock import SimulatedClock
from protocol.errors import StromkreisError


@dataclass(frozen=True, slots=True)
class MeterEntry:
    """
    One meter of the meter_list; `protocol` is what it speaks, as `stromkreis meters` names it.

    `annual_wh` is None for a recording; `keys` are hexadecimal, by purpose.
    """

    id: str
    protocol: str
    url: str
    profile: str
    annual_wh: int | None
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)


def write_meter_list(path: Path, clock: SimulatedClock, meter_list: Sequence[MeterEntry]) -> None:
    """The meter_list as JSON, with the clock of the meters.  Raises StromkreisError."""
    content = {**asdict(clock), "meters": [asdict(entry) for entry in meter_list]}
    write_private(path, json.dumps(content, indent=1) + "\n")


def write_private(path: Path, text: str) -> None:
    """A file for its owner's eyes, whole or not at all.  Raises StromkreisError."""
    unfinished = path.with_suffix(".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise StromkreisError(f"{path}: cannot be written ({error.strerror})") from None


def read_meter_list(path: Path) -> list[MeterEntry]:
    """The meters of a meter_list, in order.  Raises StromkreisError where there is none."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["meters"]
        return [MeterEntry(**row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StromkreisError(f"{path}: no meter list ({type(error).__name__})") from None
