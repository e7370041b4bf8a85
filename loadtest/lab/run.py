"""
One run: households, cells in processes, results that survive a stop.

A finished cell is written at once; a run with the same settings and code in the same folder takes it from there.  What
a peer's missing environment prevents is listed with its reason and leaves the rest alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from loadtest.lab.experiments import Cell, cells
from loadtest.lab.experiments.coalitions import Exposure, exposures
from loadtest.lab.experiments.curves import example_day
from loadtest.lab.provenance import versions
from loadtest.lab.schemes import SCHEMES
from loadtest.lab.settings import Lab, Row, Settings
from loadtest.lab.workers import one_thread, workers
from protocol.errors import StromkreisError

ABOUT = "about.json"
Finished = tuple[str, list[dict[str, Any]], str]
"""A cell's name, its rows, and why there are none."""
Advance = Callable[[str, int, int], None]
"""Called with what is done (stage, how much of it, of how much)."""


@dataclass(frozen=True)
class Results:
    """
    Everything that a run found.

    `curves` is a day of one generated household, itself and as the EMP sees it under each scheme, W; `missing` names
    cells that could not run, with the reason.
    """

    settings: Settings
    source: str
    versions: dict[str, str]
    rows: tuple[Row, ...]
    exposures: tuple[Exposure, ...]
    curves: dict[str, list[float]]
    missing: tuple[tuple[str, str], ...]
    took_s: float

    def find(self, **wanted: Any) -> list[Row]:
        """Rows with these fields or parameters."""
        return [
            row for row in self.rows
            if all(
                getattr(row, key) == value if key in Row.__dataclass_fields__ else row.parameters.get(key) == value
                for key, value in wanted.items()
            )
        ]  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """For `lab.json`."""
        return {
            "settings": asdict(self.settings), "households": self.source, "versions": self.versions,
            "took_s": round(self.took_s, 1), "missing": [list(each) for each in self.missing],
            "rows": [row.flat() for row in self.rows],
            "coalitions": [dict(each._asdict()) for each in self.exposures],
        }  # fmt: skip


_lab: Lab | None = None


def _compute(names: tuple[str, ...], settings: Settings, folder: Path) -> list[Finished]:
    """In a worker: cells of one view, each stored when it is done; the example's curves where no name is given."""
    if _lab is None:
        raise RuntimeError("a worker without households")
    with one_thread():
        if not names:
            _write(folder / ABOUT, json.dumps({"source": _lab.area.source, "curves": example_day(_lab)}))
        return [_cell(cell, _lab, folder) for cell in cells(settings) if cell.name in names]


def _cell(cell: Cell, lab: Lab, folder: Path) -> Finished:
    try:
        rows = [row.flat() for row in cell.run(lab)]
    except StromkreisError as error:
        return cell.name, [], str(error)
    _write(folder / f"{_slug(cell.name)}.json", json.dumps(rows))
    return cell.name, rows, ""


def run(settings: Settings, out: Path, advance: Advance = lambda _stage, _done, _of: None) -> Results:
    """
    Carry out what is not yet there.

    Raises StromkreisError for settings or data that no run is possible with, and where `out` holds other settings.
    """
    global _lab  # noqa: PLW0603 - forked workers inherit the households instead of each making them again
    settings.check()
    begin_s = monotonic()
    folder = _folder(out, settings)
    wanted = cells(settings)
    if not wanted:
        raise StromkreisError("no experiment has both one of these schemes and one of these attacks")
    stored = {cell.name: found for cell in wanted if (found := _stored(folder, cell)) is not None}
    left = [cell for cell in wanted if cell.name not in stored]
    advance("experiments", len(stored), len(wanted))
    missing: list[tuple[str, str]] = []
    about_file = folder / ABOUT
    if left or not about_file.is_file():
        made = 0

        def more(count: int) -> None:
            nonlocal made
            made += count
            advance("households", made, settings.households + Lab.reference_count(settings.households))

        _lab = Lab(settings, more)
        for name, rows, reason in _carried_out(left, settings, folder):
            if reason:
                missing.append((name, reason))
            else:
                stored[name] = rows
            advance("experiments", len(stored) + len(missing), len(wanted))
        _lab = None
    about = json.loads(about_file.read_text(encoding="utf-8"))
    source, curves = about["source"], about["curves"]
    opened = [each for scheme in _schemes(settings) for each in exposures(SCHEMES[scheme])]
    results = [Row.from_flat(flat) for cell in wanted for flat in stored.get(cell.name, ())]
    kept = [
        row for row in results
        if (not settings.schemes or row.scheme in {*settings.schemes, "sum"})
        and (not settings.attacks or row.attack in settings.attacks)
    ]  # fmt: skip
    return Results(
        settings, source, versions(), tuple(kept), tuple(opened), curves, tuple(sorted(missing)),
        monotonic() - begin_s,
    )  # fmt: skip


def _schemes(settings: Settings) -> Sequence[str]:
    return settings.schemes or tuple(SCHEMES)


def _carried_out(left: list[Cell], settings: Settings, folder: Path) -> Iterator[Finished]:
    tasks = _tasks(left)
    if settings.processes <= 1:
        for names in tasks:
            yield from _compute(names, settings, folder)
        return
    with workers(settings.processes, "fork") as pool:
        for done in as_completed([pool.submit(_compute, names, settings, folder) for names in tasks]):
            yield from done.result()


def _tasks(left: list[Cell]) -> list[tuple[str, ...]]:
    """
    The cells of a view together, then the example's curves (no name).

    The long ones are begun first, so that none of them is left to the end alone.
    """
    views: dict[str, list[Cell]] = {}
    for cell in left:
        views.setdefault(cell.view or cell.name, []).append(cell)
    ordered = sorted(views.values(), key=lambda each: not any(cell.is_long for cell in each))
    return [*(tuple(cell.name for cell in each) for each in ordered), ()]


def _folder(out: Path, settings: Settings) -> Path:
    """Where the cells of these settings are kept; `cells/DIGEST`, so that other settings do not mix with them."""
    folder = out / "cells" / settings.digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StromkreisError(f"{out} cannot be written: {error.strerror}") from error
    return folder


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _stored(folder: Path, cell: Cell) -> list[dict[str, Any]] | None:
    path = folder / f"{_slug(cell.name)}.json"
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # absent, or cut off by a crash: computed again
    return found


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
