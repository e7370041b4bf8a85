"""
Recorded meters: real telegrams served byte for byte, and what another decoder says their registers are.

A recording is the run of valid frames (transport CRC) of one meter that name its import register.  Quarter hour q shows
frame min(max(q, 0), last), so a recording has exact registers for every q like a simulated household.  The numbers come
from the recording's `expected` (libsml's decoding), never from our own decoder: a fault of ours shows as a wrong total.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.households import Registers
from protocol.errors import StromkreisError

_IMPORT, _EXPORT, _POWER = "0100010800ff", "0100020800ff", "0100100700ff"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded meter: its frames in order, and the registers of each."""

    meter_id: str
    frames: tuple[bytes, ...]
    shown: tuple[Registers, ...]

    def index(self, q: int) -> int:
        """Which frame quarter hour `q` shows."""
        return min(max(q, 0), len(self.frames) - 1)

    def registers(self, q: int) -> Registers:
        """What the meter shows during quarter hour `q`."""
        return self.shown[self.index(q)]

    def frame(self, q: int) -> bytes:
        """The telegram of quarter hour `q`."""
        return self.frames[self.index(q)]


def recordings(directory: Path, *, count_max: int) -> list[Recording]:
    """
    The usable recordings of `directory`/frames.jsonl in the file's order, at most `count_max`.

    Raises StromkreisError where the file cannot be read or is no such table.
    """
    path = directory / "frames.jsonl"
    meters: dict[str, list[tuple[bytes, Registers]]] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                shown = _registers(row)
                if shown is not None:
                    meters.setdefault(row["id"].rpartition("#")[0], []).append((bytes.fromhex(row["hex"]), shown))
    except OSError as error:
        raise StromkreisError(f"{path}: cannot be read ({error.strerror}); expected recorded SML frames") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StromkreisError(f"{path}: no table of recorded SML frames ({type(error).__name__})") from None
    made = [
        Recording(meter_id, tuple(frame for frame, _ in rows), tuple(shown for _, shown in rows))
        for meter_id, rows in meters.items()
    ]
    return made[:count_max]


def _registers(row: Mapping[str, Any]) -> Registers | None:
    if not row["transport_crc_x25_ok"]:
        return None
    entries = [entry for message in row["expected"]["libsml"] or () for entry in message.get("val_list") or ()]
    imported = _mantissa(entries, _IMPORT, -1)
    if imported is None:
        return None
    return Registers(imported, _mantissa(entries, _EXPORT, -1) or 0, _mantissa(entries, _POWER, 0) or 0)


def _mantissa(entries: Iterable[Mapping[str, Any]], name: str, scaler: int) -> int | None:
    """The value at 10^scaler, floored as a gateway floors it; None where the telegram does not tell it."""
    for entry in entries:
        value = (entry["value"] or {}).get("v")
        if entry["obj_name"] == name and isinstance(value, int):
            shift = (entry["scaler"] or 0) - scaler
            return int(value * 10**shift) if shift >= 0 else value // 10**-shift
    return None
